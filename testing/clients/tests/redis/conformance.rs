//! What every store has to pass.

use std::time::Duration;

use tower_refresh::{
    BoxFuture,
    store::{
        Keyring, RedisStore, RedisStores,
        conformance::{FamilySubject, Subject},
    },
};

use super::{KEY, RedisServer, millis, rights};

/// Connections of their own, as another process has, and no right that is not needed.
fn stores(server: &RedisServer) -> RedisStores {
    let stores = RedisStores::builder(rights::url(server, rights::ENOUGH), Keyring::new(KEY));
    let stores = stores.timeout(millis(10_000)).poll(millis(50));
    stores.lease(millis(1000)).intent(millis(1000)).build().unwrap()
}

/// A server of its own.
struct Server(RedisServer);

impl Subject for Server {
    type Store = RedisStore;

    fn open(&self, name: &str) -> BoxFuture<'_, RedisStore> {
        let store = stores(&self.0).store(name);
        Box::pin(async { store })
    }

    fn broken(&self) -> Result<RedisStore, &'static str> {
        // No server listens there.
        let stores = RedisStores::builder("redis://127.0.0.1:1/", Keyring::new(KEY));
        Ok(stores.build().unwrap().store("broken"))
    }

    fn expire(&self, name: &str) -> BoxFuture<'_, Result<(), &'static str>> {
        let record = format!("tower-refresh:{{{name}}}");
        let mut pipeline = redis::pipe();
        // As if another one had had it, and had died: it is not just set again.
        pipeline.atomic().hincr(&record, "f", 1).ignore().del(format!("{record}:lease")).ignore();
        pipeline.exec(&mut self.0.connection()).unwrap();
        Box::pin(async { Ok(()) })
    }

    fn lease_time(&self) -> Result<Duration, &'static str> {
        Ok(millis(1000))
    }
}

impl FamilySubject for Server {
    type Stores = RedisStores;

    fn family(&self) -> BoxFuture<'_, RedisStores> {
        Box::pin(async { stores(&self.0) })
    }

    fn count(&self) -> BoxFuture<'_, Result<usize, &'static str>> {
        let keys: usize = redis::cmd("DBSIZE").query(&mut self.0.connection()).unwrap();
        Box::pin(async move { Ok(keys) })
    }
}

tower_refresh::stores_conformance!(Server(RedisServer::start()));
