//! Rows that come and go: ends of records, marks of sign-outs, names that were made up.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tower_refresh::{
    Generation,
    store::{KeptUntil, OpenCause, OpenRedeem, Record, SaveError, TokenStore},
};

use super::{HOUR, NAME, Place, Row, lease, millis, record, sign_in};

#[tokio::test]
async fn a_record_ends_by_the_servers_clock() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.open();
    sign_in(&store).await;
    assert_eq!(store.keep_until(SystemTime::now() + HOUR).await.unwrap(), KeptUntil::Kept);
    assert_eq!(store.load().await.unwrap().generation, Generation::new(1));
    sight.run("UPDATE records SET ends_at = now() + interval '200 ms'").await;
    assert_eq!(store.changed(Generation::new(1)).await.unwrap(), None);
    sleep(millis(250)).await;
    assert_eq!(store.changed(Generation::new(1)).await.unwrap(), Some(Record::default()));
    assert_eq!(store.changed(Generation::ZERO).await.unwrap(), None);
    assert_eq!(sight.count().await, 1, "nobody has swept");
    // A lease takes it for a name that was never written.
    let holder = lease(&store, 0).await;
    holder.release(None).await;
    assert_eq!(sight.count().await, 0);
}

/// The end comes while a holder redeems: what it brings is of a session that is over.
#[tokio::test]
async fn a_holder_of_a_record_that_has_ended_saves_nothing() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.open();
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    sight.run("UPDATE records SET ends_at = now()").await;
    assert!(holder.intend(Generation::new(1)).await.is_err(), "a token would be spent for nothing");
    let saved = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(saved, Err(SaveError::Conflict)), "{saved:?}");
    holder.release(None).await;
    assert_eq!(sight.count().await, 0);
    // Deleted, it begins with the clock: a late save meets a conflict.
    sign_in(&store).await;
    sight.run("UPDATE records SET ends_at = now()").await;
    let deleted = store.delete().await.unwrap();
    assert!(deleted.generation > Generation::new(1_700_000_000_000) && deleted.tokens.is_none());
}

#[tokio::test]
async fn an_end_may_be_as_far_away_as_can_be_said() {
    let place = Place::new().await;
    let store = place.open();
    sign_in(&store).await;
    let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert_eq!(store.keep_until(far).await.unwrap(), KeptUntil::Kept);
    assert_eq!(store.load().await.unwrap().generation, Generation::new(1));
}

#[tokio::test]
async fn a_sweep_takes_what_counts_as_absent_and_nothing_else() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let stores = place.builder().lease(millis(100)).build().unwrap();
    let name = |name: &str| stores.store(name);
    for kept in ["kept", "kept until later", "ended", "ended, with a holder"] {
        sign_in(&name(kept)).await;
    }
    name("kept until later").keep_until(SystemTime::now() + HOUR).await.unwrap();
    name("signed out").delete().await.unwrap();
    name("signed out long ago").delete().await.unwrap();
    drop(lease(&name("holder died"), 0).await);
    drop(lease(&name("holder died long ago"), 0).await);
    let living = lease(&name("holder lives"), 0).await;
    let busy = lease(&name("ended, with a holder"), 1).await;
    sight
        .run(
            "UPDATE records SET ends_at = now() WHERE name LIKE 'ended%';
            UPDATE records SET written_at = now() - interval '25 hours',
                lease_until = lease_until - interval '25 hours'
                WHERE name LIKE '%long ago' ",
        )
        .await;
    sight
        .run("UPDATE records SET written_at = now() - interval '25 hours' WHERE name LIKE 'kept%' OR name = 'holder lives'")
        .await;
    assert_eq!(stores.sweep().await.unwrap(), 3);
    let left = sight
        .client
        .query(&format!("SELECT name FROM {} ORDER BY name", place.table()), &[])
        .await
        .unwrap();
    let left: Vec<String> = left.iter().map(|row| row.get(0)).collect();
    let expected = [
        "ended, with a holder",
        "holder died",
        "holder lives",
        "kept",
        "kept until later",
        "signed out",
    ];
    assert_eq!(left, expected);
    busy.release(None).await;
    living.release(None).await;
}

#[tokio::test]
async fn a_sweep_takes_any_number() {
    let place = Place::new().await;
    let sight = place.sight().await;
    sight
        .run("INSERT INTO records (name, generation, ends_at) SELECT n::text, 1, now() FROM generate_series(1, 2500) AS n")
        .await;
    // Rows that another one is working on are left to the next time.
    sight.run("BEGIN; SELECT FROM records WHERE name = '7' FOR UPDATE").await;
    let stores = place.builder().build().unwrap();
    assert_eq!(stores.sweep().await.unwrap(), 2499);
    sight.run("COMMIT").await;
    assert_eq!(stores.sweep().await.unwrap(), 1);
}

/// As long as it lives, what tells it from other holders is kept; and what it has left open, too.
#[tokio::test]
async fn an_open_redeem_of_a_name_that_was_never_written_is_kept() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.open();
    let mut holder = lease(&store, 0).await;
    holder.intend(Generation::ZERO).await.unwrap();
    let left = OpenRedeem::new(Generation::ZERO, OpenCause::AnswerLost);
    holder.release(Some(left)).await;
    assert_eq!(sight.redeem().await.as_deref(), Some("0 unanswered"));
    let next = lease(&store, 0).await;
    assert_eq!(next.open_redeem(), Some(left));
    next.release(None).await;
    assert_eq!(sight.count().await, 0);
}

/// And of one that has waiters: none of them is forgotten.
#[tokio::test]
async fn a_made_up_name_that_many_ask_for_leaves_nothing() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let store = place.patient();
        all.spawn(async move {
            for _ in 0..4 {
                lease(&store, 0).await.release(None).await;
            }
        });
    }
    super::soon(all.join_all()).await;
    assert_eq!(sight.count().await, 0);
}

/// A name that the table cannot keep is refused, and none is cut.
#[tokio::test]
async fn the_longest_name_is_kept_whole() {
    let place = Place::new().await;
    let stores = place.builder().build().unwrap();
    // Which no index can make shorter.
    let mut random = String::new();
    while random.len() < 2000 {
        random.push(fastrand::alphanumeric());
    }
    sign_in(&stores.store(&random)).await;
    assert_eq!(stores.store(&random).load().await.unwrap(), record(1));
    assert_eq!(stores.store(&random[1..]).load().await.unwrap(), Record::default());
    stores.store(random + "x").load().await.unwrap_err();
}

/// A deletion, and a sign-in, change nothing of a lease.
#[tokio::test]
async fn a_sign_out_leaves_the_lease() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.open();
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    place.open().delete().await.unwrap();
    let row = sight.row().await.unwrap();
    assert!(row.is_leased() && row.redeem.is_none());
    assert!(sight.row().await.as_ref().is_some_and(Row::is_leased));
    assert!(holder.is_held());
    let late = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(late, Err(SaveError::Conflict)), "{late:?}");
    holder.release(None).await;
    assert_eq!(store.load().await.unwrap(), Record::new(Generation::new(2), None));
    assert_eq!(
        sight.number(&format!("SELECT count(*) FROM records WHERE name = '{NAME}'")).await,
        1
    );
}
