//! A cluster, if of one node: names are spread over slots, and scripts go where they belong.

use tokio::task::yield_now;
use tower_refresh::{
    Generation,
    store::{Keyring, Leased, RedisStore, RedisStores, StoreError, TokenStore},
};

use super::{
    KEY, LEASE, NAME, RECORD, RedisServer, access, lease, listening, millis, record, sign_in, soon,
};

fn open(server: &RedisServer) -> RedisStores {
    // One of them is not there.
    let urls = ["redis://127.0.0.1:1/".to_owned(), server.url()];
    RedisStores::cluster(urls, Keyring::new(KEY)).timeout(millis(5000)).build().unwrap()
}

fn slot(connection: &mut redis::Connection, key: &str) -> u16 {
    redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query(connection).unwrap()
}

#[tokio::test]
async fn records_and_leases_work_in_a_cluster() {
    let server = RedisServer::start_cluster();
    let mut connection = server.connection();
    assert_eq!(slot(&mut connection, RECORD), slot(&mut connection, LEASE));
    let stores = open(&server);
    for name in ["alice", "", "{", "a}b", "{}"] {
        let store = stores.store(name);
        sign_in(&store).await;
        let mut holder = lease(&store, 1).await;
        holder.intend(Generation::new(1)).await.unwrap();
        holder.save(Generation::new(1), record(2)).await.unwrap();
        holder.release(None).await;
        assert_eq!(access(&store.load().await.unwrap().tokens), Some("access-2"));
        assert_eq!(access(&store.delete().await.unwrap().tokens), Some("access-2"));
    }
    assert_eq!(redis::cmd("DBSIZE").query::<usize>(&mut connection).unwrap(), 5);
}

#[tokio::test]
async fn messages_go_through_a_cluster() {
    let server = RedisServer::start_cluster();
    let mut connection = server.connection();
    let holder = lease(&open(&server).store(NAME), 0).await;
    let hour = std::time::Duration::from_secs(3600);
    let urls = [server.url()];
    let stores = RedisStores::cluster(urls, Keyring::new(KEY)).lease(hour).poll(hour);
    let store: RedisStore = stores.timeout(millis(5000)).build().unwrap().store(NAME);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    listening(&mut connection, 1).await;
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn a_cluster_that_was_gone_is_found_again() {
    let mut server = RedisServer::start_cluster();
    let store = open(&server).store(NAME);
    sign_in(&store).await;
    server.kill();
    let gone: StoreError = soon(store.load()).await.unwrap_err();
    assert!(std::error::Error::source(&gone).is_some());
    server.start_again();
    soon(async {
        // It takes its time to be sure that it is whole.
        while store.load().await.is_err() {
            yield_now().await;
        }
    })
    .await;
    assert_eq!(access(&store.load().await.unwrap().tokens), Some("access-1"));
}

#[test]
fn a_cluster_has_a_node() {
    let none: [String; 0] = [];
    assert!(RedisStores::cluster(none, Keyring::new(KEY)).build().is_err());
}
