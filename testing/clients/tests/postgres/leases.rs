//! The lease: which store holds it, for how long, and what is left behind.

use tokio_postgres::types::{ToSql, Type};
use tower_refresh::{
    Generation,
    store::{OpenCause, OpenRedeem, SaveError, TokenStore},
};

use super::{NAME, Place, lease, millis, record, sign_in, until};

#[tokio::test]
async fn a_holder_that_ends_after_its_intent_is_told_to_be_silent() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.brief();
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    let row = sight.row().await.unwrap();
    assert_eq!(row.redeem.as_deref(), Some("1 open"));
    assert!(row.left > 1000, "an intent has a longer time");
    drop(holder);
    assert!(sight.is_leased().await, "others have to wait");
    let next = lease(&place.brief(), 1).await;
    let silent = OpenRedeem::new(Generation::new(1), OpenCause::HolderSilent);
    assert_eq!(next.open_redeem(), Some(silent));
}

#[tokio::test]
async fn what_is_left_open_is_written_as_told() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.open();
    sign_in(&store).await;
    let lost = OpenRedeem::new(Generation::new(1), OpenCause::AnswerLost);
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    holder.release(Some(lost)).await;
    let row = sight.row().await.unwrap();
    assert_eq!(row.redeem.as_deref(), Some("1 unanswered"));
    assert!(!row.is_leased());

    // Even where the lock has run out already.
    let mut holder = lease(&store, 1).await;
    assert_eq!(holder.open_redeem(), Some(lost));
    holder.intend(Generation::new(1)).await.unwrap();
    sight.run("UPDATE records SET lease_until = now()").await;
    holder.release(None).await;
    assert_eq!(sight.redeem().await, None);
}

#[tokio::test]
async fn a_living_holder_renews_its_lease_and_its_intent() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.brief();
    let mut holder = lease(&store, 0).await;
    for longest in [1000, 2000] {
        let (mut renewals, mut before) = (0, sight.row().await.unwrap().left);
        while renewals < 3 {
            let now = sight.row().await.unwrap().left;
            assert!((1..=longest).contains(&now), "{now} ms are left of {longest}");
            renewals += usize::from(now > before);
            before = now;
        }
        assert!(holder.is_held());
        if longest == 1000 {
            holder.intend(Generation::ZERO).await.unwrap();
            assert!(sight.row().await.unwrap().left > 1000);
        }
    }
    holder.release(None).await;
    assert_eq!(sight.count().await, 0);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_taken_back_if_nobody_came_between() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let holder = lease(&place.brief(), 0).await;
    let owner = sight.row().await.unwrap().owner;
    sight.run("UPDATE records SET lease_until = now()").await;
    sight.until("taken back", |row| row.is_some_and(super::Row::is_leased)).await;
    assert_eq!(sight.row().await.unwrap().owner, owner);
    assert!(holder.is_held());

    // With a number between, another holder came.
    sight.run("UPDATE records SET fence = fence + 1, lease_until = now()").await;
    until("lost", async || !holder.is_held()).await;
    assert!(!sight.is_leased().await);
}

#[tokio::test]
async fn a_lost_lease_touches_nothing() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.brief();
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    sight.run("UPDATE records SET fence = fence + 1, owner = 'another', lease_until = now() + interval '1 hour'").await;
    until("lost", async || !holder.is_held()).await;
    assert!(holder.intend(Generation::new(1)).await.is_err());
    let saved = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(saved, Err(SaveError::LeaseLost)), "{saved:?}");
    holder.release(Some(OpenRedeem::new(Generation::new(1), OpenCause::AnswerLost))).await;
    let row = sight.row().await.unwrap();
    assert_eq!((row.owner.as_deref(), row.redeem), (Some("another"), None));
    assert!(row.left > 3_000_000);
}

/// However long, up to all that there is.
#[tokio::test]
async fn a_time_may_be_of_any_length() {
    let place = Place::new().await;
    let long = std::time::Duration::MAX;
    let stores = place.builder().lease(long).intent(long).tombstone_ttl(long);
    let stores = stores.poll(long).timeout(long).build().unwrap();
    let store = stores.store(NAME);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    assert!(holder.is_held());
    holder.save(Generation::new(1), record(2)).await.unwrap();
    store.delete().await.unwrap();
    assert_eq!(stores.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn each_lease_has_a_greater_number_even_after_its_row_was_deleted() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.open();
    let mut last = 0;
    for _ in 0..3 {
        let holder = lease(&store, 0).await;
        let fence = sight.row().await.unwrap().fence;
        assert!(fence > last, "{fence} follows {last}");
        last = fence;
        holder.release(None).await;
        assert_eq!(sight.count().await, 0);
    }
    let mut lost = lease(&store, 0).await;
    sight.run("DELETE FROM records").await;
    let next = lease(&store, 0).await;
    let late = lost.save(Generation::ZERO, record(1)).await;
    assert!(matches!(late, Err(SaveError::LeaseLost)), "{late:?}");
    assert_eq!(store.load().await.unwrap().generation, Generation::ZERO);
    next.release(None).await;
}

#[tokio::test]
async fn an_intent_is_never_shorter_than_the_lease() {
    let place = Place::new().await;
    let stores = place.builder().lease(millis(60_000)).intent(millis(1)).build().unwrap();
    let mut holder = lease(&stores.store(NAME), 0).await;
    holder.intend(Generation::ZERO).await.unwrap();
    assert!(place.sight().await.row().await.unwrap().left > 1000);
    assert!(holder.is_held());
}

/// It was on its way when the connection was given up for another.
#[tokio::test]
async fn a_renewal_that_comes_late_brings_no_lease_back() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.patient();
    sign_in(&store).await;
    for saves in [true, false] {
        let known = store.load().await.unwrap().generation;
        let mut holder = lease(&store, known.get()).await;
        let row = sight.row().await.unwrap();
        if saves {
            holder.save(known, record(known.next().get())).await.unwrap();
        } else {
            holder.release(None).await;
        }
        let renew = include_str!("../../../../src/store/postgres/renew.sql");
        let renew = renew.replace("tower_refresh_records", &place.table());
        let values: [(&(dyn ToSql + Sync), Type); 4] = [
            (&NAME, Type::TEXT),
            (&row.fence, Type::INT8),
            (&row.owner, Type::TEXT),
            (&60_000_i64, Type::INT8),
        ];
        let renewed = sight.client.query_typed(&renew, &values).await.unwrap();
        assert!(renewed.is_empty());
        assert!(!sight.is_leased().await);
    }
}
