//! `rediss://`.

use tower_refresh::{
    Generation,
    store::{Keyring, Leased, RedisStore, RedisStores, TokenStore},
};

use super::{KEY, NAME, RedisServer, access, lease, millis, sign_in, soon};

fn open(server: &RedisServer) -> RedisStore {
    RedisStores::builder(server.url(), Keyring::new(KEY))
        .root_certificates(server.certificate())
        .timeout(millis(5000))
        .build()
        .unwrap()
        .store(NAME)
}

/// Commands and messages.
#[tokio::test]
async fn a_store_works_over_tls() {
    let server = RedisServer::start_tls();
    assert!(server.url().starts_with("rediss://"));
    let store = open(&server);
    sign_in(&store).await;
    assert_eq!(access(&store.load().await.unwrap().tokens), Some("access-1"));
    let holder = lease(&store, 1).await;
    let other = open(&server);
    let waiter = tokio::spawn(async move { other.lease(Generation::new(1)).await.unwrap() });
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_told_nothing() {
    let server = RedisServer::start_tls();
    let store = RedisStores::builder(server.url(), Keyring::new(KEY)).build().unwrap().store(NAME);
    assert!(soon(store.load()).await.is_err());
    let plain = server.url().replace("rediss", "redis");
    let store = RedisStores::builder(plain, Keyring::new(KEY)).build().unwrap().store(NAME);
    assert!(soon(store.load()).await.is_err());
}

#[test]
fn certificates_that_cannot_be_read_are_refused() {
    let stores = RedisStores::builder("rediss://localhost/", Keyring::new(KEY));
    let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(stores.root_certificates(pem).build().is_err());
}
