//! Waiting for a lease: woken by a message, and without one by looking.

use tokio::task::JoinSet;
use tower_refresh::{
    Generation,
    store::{Leased, TokenStore},
};

use super::{HOUR, NAME, Place, access, lease, millis, record, shared, sign_in, soon, until};

#[tokio::test]
async fn a_save_wakes_all_who_wait() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.patient();
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    let mut waiters = JoinSet::new();
    for _ in 0..8 {
        let store = place.patient();
        waiters.spawn(async move { store.lease(Generation::new(1)).await.unwrap() });
    }
    sight.listening(8).await;
    holder.save(Generation::new(1), record(2)).await.unwrap();
    for leased in soon(waiters.join_all()).await {
        match leased {
            Leased::Newer(record) => assert_eq!(access(&record.tokens), Some("access-2")),
            _ => panic!("two leases at once"),
        }
    }
}

#[tokio::test]
async fn a_release_a_sign_in_and_a_sign_out_wake_too() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.patient();
    sign_in(&store).await;
    let holder = lease(&store, 1).await;
    let waiting = place.patient();
    let wait = |seen| {
        let store = waiting.clone();
        tokio::spawn(async move { store.lease(Generation::new(seen)).await.unwrap() })
    };
    let awaited = async || sight.until("awaited", |row| row.is_some_and(|row| row.awaited)).await;
    let waiter = wait(1);
    awaited().await;
    place.open().save(Generation::new(1), record(2)).await.unwrap();
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Newer(_)));
    let waiter = wait(2);
    awaited().await;
    place.open().delete().await.unwrap();
    match soon(waiter).await.unwrap() {
        Leased::Newer(record) => assert_eq!(record.tokens, None),
        _ => panic!("two leases at once"),
    }
    let waiter = wait(3);
    awaited().await;
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

/// One after the other has it, and each release is heard by those who still wait.
#[tokio::test]
async fn waiters_take_turns_without_looking() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let holder = lease(&place.patient(), 0).await;
    let mut waiters = JoinSet::new();
    for process in 0..4 {
        let store = place.patient();
        for _ in 0..3 {
            let store = store.clone();
            waiters.spawn(async move {
                match store.lease(Generation::ZERO).await.unwrap() {
                    Leased::Lease(lease) => lease.release(None).await,
                    leased => panic!("{leased:?} in {process}"),
                }
            });
        }
    }
    sight.listening(4).await;
    holder.release(None).await;
    soon(waiters.join_all()).await;
    assert_eq!(sight.count().await, 0);
}

/// A caller looks while the holder's release, or another's sign-out, is under way. That it waits is not
/// in the row, so that it is told nothing.
#[tokio::test]
async fn who_looks_at_the_moment_of_a_change_looks_again() {
    for change in [
        "DELETE FROM records",
        "UPDATE records SET generation = 2, document = NULL, fence = fence + 1",
        "UPDATE records SET owner = NULL, lease_until = NULL, fence = fence + 1",
    ] {
        let place = Place::new().await;
        let (holder, sight) = (place.sight().await, place.sight().await);
        let store = place.patient();
        sign_in(&store).await;
        let _lease = lease(&store, 1).await;
        let waiter = tokio::spawn({
            let store = place.patient();
            async move { store.lease(Generation::new(1)).await }
        });
        sight.until("awaited", |row| row.is_some_and(|row| row.awaited)).await;
        sight.listening(1).await;
        let channel = place.table().replace("records", "wake");
        // The message that this name has been written.
        let message = format!("SELECT pg_notify('{channel}', '508b2abb65a03907')");
        let blocked = "SELECT count(*) FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND query LIKE '%records%'";
        until("it is held up", async || {
            // In a transaction of its own each.
            for statement in ["ROLLBACK", "UPDATE records SET awaited = false", "BEGIN", change] {
                holder.run(statement).await;
            }
            sight.client.batch_execute(&message).await.unwrap();
            for _ in 0..20 {
                if sight.number(blocked).await > 0 {
                    return true;
                }
            }
            false
        })
        .await;
        holder.run("COMMIT").await;
        soon(waiter).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn many_names_share_one_connection() {
    const NAMES: usize = 30;
    let place = Place::new().await;
    let sight = place.sight().await;
    let holders = place.builder().lease(HOUR).build().unwrap();
    let stores = place.builder().lease(HOUR).poll(HOUR).build().unwrap();
    let (mut held, mut waiters) = (Vec::new(), JoinSet::new());
    for name in 0..NAMES {
        held.push(lease(&holders.store(name.to_string()), 0).await);
    }
    for name in 0..NAMES {
        // Two for each.
        for _ in 0..2 {
            let store = stores.clone().store(name.to_string());
            waiters.spawn(async move {
                match store.lease(Generation::ZERO).await.unwrap() {
                    Leased::Lease(lease) => lease.release(None).await,
                    leased => panic!("{leased:?}"),
                }
            });
        }
    }
    until("all are awaited", async || {
        sight.number("SELECT count(*) FROM records WHERE awaited").await == NAMES as i64
    })
    .await;
    let listening = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"{}_wake\"'",
        place.prefix
    );
    sight.listening(1).await;
    assert_eq!(sight.number(&listening).await, 1);
    for lease in held {
        lease.release(None).await;
    }
    soon(waiters.join_all()).await;
    // It goes with the last handle.
    drop(stores);
    until("hung up", async || sight.number(&listening).await == 0).await;
}

/// As behind a pooler, or where the server gives no connection more.
#[tokio::test]
async fn without_messages_looking_from_time_to_time_does_it() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let user = format!("user_{}", place.prefix);
    sight
        .run(&format!(
            "CREATE ROLE {user} LOGIN CONNECTION LIMIT 1;
            GRANT SELECT, INSERT, UPDATE, DELETE ON records TO {user}"
        ))
        .await;
    let store = place.open();
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    let url = shared().url_of(&user);
    let waiting = place.builder_at(&url).max_connections(1).poll(millis(50)).build().unwrap();
    let mut waiters = JoinSet::new();
    for _ in 0..4 {
        let store = waiting.store(NAME);
        waiters.spawn(async move { store.lease(Generation::new(1)).await.unwrap() });
    }
    sight.until("awaited", |row| row.is_some_and(|row| row.awaited)).await;
    tokio::time::sleep(millis(300)).await;
    holder.save(Generation::new(1), record(2)).await.unwrap();
    for leased in soon(waiters.join_all()).await {
        assert!(matches!(leased, Leased::Newer(_)));
    }
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_and_what_was_missed_is_made_up_for() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let store = place.patient();
    let holder = lease(&place.patient(), 0).await;
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    for _ in 0..3 {
        let hang_up = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query = 'LISTEN \"{}_wake\"'",
            place.prefix
        );
        // One that has hung up is in the list for a moment yet.
        until("one that listens", async || sight.number(&hang_up).await > 0).await;
    }
    // Heard by nobody, perhaps.
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn the_end_of_a_dead_holder_s_time_is_not_slept_through() {
    let place = Place::new().await;
    drop(lease(&place.brief(), 0).await);
    let store = place.builder().poll(HOUR).build().unwrap().store(NAME);
    assert!(matches!(soon(store.lease(Generation::ZERO)).await.unwrap(), Leased::Lease(_)));
}

/// Commits that notify wait for each other in the whole server, so nobody is told for nothing.
#[tokio::test]
async fn nothing_is_said_where_nobody_waits() {
    let place = Place::new().await;
    let (client, mut connection) =
        tokio_postgres::connect(&place.url, tokio_postgres::NoTls).await.unwrap();
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if let tokio_postgres::AsyncMessage::Notification(said) = message {
                heard.send(said.payload().to_owned()).unwrap();
            }
        }
    });
    client.batch_execute(&format!("LISTEN \"{}_wake\"", place.prefix)).await.unwrap();
    let store = place.open();
    sign_in(&store).await;
    lease(&store, 1).await.save(Generation::new(1), record(2)).await.unwrap();
    lease(&store, 2).await.release(None).await;
    store.delete().await.unwrap();
    let holder = lease(&store, 3).await;
    let waiting = place.patient();
    let waiter = tokio::spawn(async move { waiting.lease(Generation::new(3)).await.unwrap() });
    place.sight().await.until("awaited", |row| row.is_some_and(|row| row.awaited)).await;
    holder.release(None).await;
    soon(waiter).await.unwrap();
    let said = soon(hears.recv()).await.unwrap();
    assert!(!said.contains(NAME) && said.len() == 16, "{said}");
    client.batch_execute("").await.unwrap();
    assert!(hears.try_recv().is_err());
}

/// A runtime that ends takes the connections' tasks with it.
#[test]
fn the_next_runtime_begins_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = runtime().block_on(Place::new());
    let store = place.patient();
    for _ in 0..2 {
        runtime().block_on(async {
            let holder = lease(&place.open(), 0).await;
            let store = store.clone();
            let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
            place.sight().await.until("awaited", |row| row.is_some_and(|row| row.awaited)).await;
            holder.release(None).await;
            match soon(waiter).await.unwrap() {
                Leased::Lease(lease) => lease.release(None).await,
                leased => panic!("{leased:?}"),
            }
        });
    }
}
