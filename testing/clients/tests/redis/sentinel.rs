//! A Sentinel cannot be asked: the error of a user who gives its address says what to give
//! instead.

use std::error::Error;

use tower_refresh::{
    Generation,
    store::{Keyring, RedisStores, TokenStore},
};

use super::{KEY, NAME, RedisServer, builder, soon};

#[test]
fn a_url_of_another_topology_is_refused_in_its_own_words() {
    for (scheme, words) in [
        ("redis+sentinel", ["Sentinel", "primary"]),
        ("redis-sentinel", ["Sentinel", "primary"]),
        ("rediss+sentinel", ["Sentinel", "primary"]),
        ("REDISS-SENTINEL", ["Sentinel", "primary"]),
        ("valkey+sentinel", ["Sentinel", "primary"]),
        ("sentinel", ["Sentinel", "primary"]),
        ("redis+cluster", ["cluster", "RedisStores::cluster"]),
        ("redis-cluster", ["cluster", "RedisStores::cluster"]),
    ] {
        let url = format!("{scheme}://:SECRET@127.0.0.1:26379,127.0.0.2:26379/primary");
        let error = RedisStores::builder(&*url, Keyring::new(KEY)).build().unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(words.iter().all(|word| said.contains(word)), "{scheme}: {said}");
        assert!(!said.contains("SECRET") && error.source().is_none(), "{said}");
    }
    // A host may be called as it likes.
    for url in ["redis://sentinel/", "redis://127.0.0.1/?", "redis://cluster:6379/1"] {
        assert!(RedisStores::builder(url, Keyring::new(KEY)).build().is_ok(), "{url}");
    }
}

/// Its address, as if it were a Redis.
#[tokio::test]
async fn a_sentinel_that_is_taken_for_a_redis_is_told_apart() {
    let server = RedisServer::start_sentinel();
    let store = builder(&server).build().unwrap().store(NAME);
    let load = soon(store.load()).await.unwrap_err();
    let delete = soon(store.delete()).await.unwrap_err();
    let lease = soon(store.lease(Generation::ZERO)).await.unwrap_err();
    for error in [load, delete, lease] {
        let said = error.source().unwrap().to_string();
        assert!(said.contains("Sentinel") && said.contains("URL"), "{said}");
    }
}
