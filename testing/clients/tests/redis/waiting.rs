//! Waiting for a lease: woken by a message, and without one by looking.

use std::time::Duration;

use redis::Commands;
use tokio::task::JoinSet;
use tower_refresh::{
    Generation,
    store::{Leased, RedisStore, TokenStore},
};

use super::{
    LEASE, NAME, RedisServer, access, brief, builder, lease, listeners, listening, looked, looks,
    millis, open, record, sign_in, soon, until,
};

/// Never, as far as a test is concerned.
const HOUR: Duration = Duration::from_secs(3600);

/// A store that looks when it is told to.
fn patient(server: &RedisServer) -> RedisStore {
    builder(server).lease(HOUR).poll(HOUR).build().unwrap().store(NAME)
}

fn subscribers(connection: &mut redis::Connection) -> usize {
    let mut command = redis::cmd("CLIENT");
    let list: String = command.arg("LIST").arg("TYPE").arg("pubsub").query(connection).unwrap();
    list.lines().count()
}

fn user(connection: &mut redis::Connection, rule: &str) {
    let mut command = redis::cmd("ACL");
    command.arg("SETUSER").arg("default").arg(rule).exec(connection).unwrap();
}

/// Ends all connections that messages come on.
fn hang_up(connection: &mut redis::Connection) {
    let mut command = redis::cmd("CLIENT");
    command.arg("KILL").arg("TYPE").arg("pubsub").exec(connection).unwrap();
}

#[tokio::test]
async fn a_save_wakes_all_who_wait() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = patient(&server);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    let before = looks(&mut connection);
    let mut waiters = JoinSet::new();
    for _ in 0..8 {
        let store = patient(&server);
        waiters.spawn(async move { store.lease(Generation::new(1)).await.unwrap() });
    }
    listening(&mut connection, 8).await;
    looked(&mut connection, before + 16).await;
    holder.save(Generation::new(1), record(2)).await.unwrap();
    // Each could have the lease: what is newer is all they need.
    for leased in soon(waiters.join_all()).await {
        match leased {
            Leased::Newer(record) => assert_eq!(access(&record.tokens), Some("access-2")),
            _ => panic!("two leases at once"),
        }
    }
    assert!(!holder.is_held());
    until("nobody listens", || listeners(&mut connection) == 0).await;
}

#[tokio::test]
async fn a_release_a_sign_in_and_a_sign_out_wake_too() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = patient(&server);
    sign_in(&store).await;
    let holder = lease(&store, 1).await;
    let wait = |seen| {
        let store = patient(&server);
        tokio::spawn(async move { store.lease(Generation::new(seen)).await.unwrap() })
    };

    let before = looks(&mut connection);
    let waiter = wait(1);
    listening(&mut connection, 1).await;
    looked(&mut connection, before + 2).await;
    open(&server).save(Generation::new(1), record(2)).await.unwrap();
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Newer(_)));
    let before = looks(&mut connection);
    let waiter = wait(2);
    listening(&mut connection, 1).await;
    looked(&mut connection, before + 2).await;
    open(&server).delete().await.unwrap();
    match soon(waiter).await.unwrap() {
        Leased::Newer(record) => assert_eq!(record.tokens, None),
        _ => panic!("two leases at once"),
    }
    let before = looks(&mut connection);
    let waiter = wait(3);
    listening(&mut connection, 1).await;
    looked(&mut connection, before + 2).await;
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn many_names_share_one_connection() {
    const NAMES: usize = 50;
    let server = RedisServer::start();
    let mut connection = server.connection();
    let holders = builder(&server).lease(HOUR).build().unwrap();
    let stores = builder(&server).lease(HOUR).poll(HOUR).build().unwrap();
    let (mut held, mut waiters) = (Vec::new(), JoinSet::new());
    for name in 0..NAMES {
        held.push(lease(&holders.store(name.to_string()), 0).await);
    }
    let before = looks(&mut connection);
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
    until("all are heard", || {
        let mut command = redis::cmd("PUBSUB");
        let heard: Vec<String> = command.arg("CHANNELS").query(&mut connection).unwrap();
        heard.len() == NAMES
    })
    .await;
    looked(&mut connection, before + 4 * NAMES).await;
    assert_eq!(subscribers(&mut connection), 1);
    for lease in held {
        lease.release(None).await;
    }
    soon(waiters.join_all()).await;
    // It goes with the last handle.
    drop(stores);
    until("hung up", || subscribers(&mut connection) == 0).await;
}

#[tokio::test]
async fn without_messages_looking_from_time_to_time_does_it() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    user(&mut connection, "-@pubsub");
    let mut holder = lease(&store, 1).await;
    let mut waiters = JoinSet::new();
    for _ in 0..4 {
        let store = builder(&server).poll(millis(50)).build().unwrap().store(NAME);
        waiters.spawn(async move { store.lease(Generation::new(1)).await.unwrap() });
    }
    until("they try to listen", || {
        let mut command = redis::cmd("ACL");
        let log: redis::Value = command.arg("LOG").query(&mut connection).unwrap();
        format!("{log:?}").contains("subscribe")
    })
    .await;
    // Who may not publish saves all the same.
    holder.save(Generation::new(1), record(2)).await.unwrap();
    for leased in soon(waiters.join_all()).await {
        assert!(matches!(leased, Leased::Newer(_)));
    }
    assert_eq!(subscribers(&mut connection), 0);
}

#[tokio::test]
async fn what_was_said_while_nobody_could_hear_is_made_up_for() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let holder = lease(&patient(&server), 0).await;
    let before = looks(&mut connection);
    let store = patient(&server);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    listening(&mut connection, 1).await;
    looked(&mut connection, before + 2).await;
    user(&mut connection, "-subscribe");
    hang_up(&mut connection);
    until("hung up", || listeners(&mut connection) == 0).await;
    holder.release(None).await;
    assert!(!waiter.is_finished());
    user(&mut connection, "+subscribe");
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn a_lost_subscription_is_made_anew() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = patient(&server);
    let holder = lease(&patient(&server), 0).await;
    let before = looks(&mut connection);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    for _ in 0..3 {
        listening(&mut connection, 1).await;
        hang_up(&mut connection);
        until("hung up", || listeners(&mut connection) == 0).await;
    }
    listening(&mut connection, 1).await;
    // Once, and after each time that it was heard.
    looked(&mut connection, before + 5).await;
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn the_end_of_a_dead_holder_s_time_is_not_slept_through() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    drop(lease(&brief(&server).build().unwrap().store(NAME), 0).await);
    let store = builder(&server).poll(HOUR).build().unwrap().store(NAME);
    assert!(matches!(soon(store.lease(Generation::ZERO)).await.unwrap(), Leased::Lease(_)));
    assert!(connection.exists::<_, bool>(LEASE).unwrap());
}

/// A runtime that ends takes the connections' tasks with it.
#[test]
fn the_next_runtime_begins_anew() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = RedisServer::start();
    let store = patient(&server);
    for _ in 0..2 {
        let mut connection = server.connection();
        runtime().block_on(async {
            let holder = lease(&open(&server), 0).await;
            let store = store.clone();
            let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
            listening(&mut connection, 1).await;
            holder.release(None).await;
            match soon(waiter).await.unwrap() {
                Leased::Lease(lease) => lease.release(None).await,
                leased => panic!("{leased:?}"),
            }
        });
    }
}
