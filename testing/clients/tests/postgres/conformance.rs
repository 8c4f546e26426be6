//! What every store has to pass.

use std::time::Duration;

use tower_refresh::{
    BoxFuture,
    store::{
        Keyring, PostgresStore, PostgresStores,
        conformance::{FamilySubject, Subject},
    },
};

use super::{KEY, Place, millis};

/// Connections of their own, as another process has.
fn stores(place: &Place) -> PostgresStores {
    let stores = place.builder().poll(millis(50));
    stores.lease(millis(1000)).intent(millis(1000)).build().unwrap()
}

impl Subject for Place {
    type Store = PostgresStore;

    fn open(&self, name: &str) -> BoxFuture<'_, PostgresStore> {
        let store = stores(self).store(name);
        Box::pin(async { store })
    }

    fn broken(&self) -> Result<PostgresStore, &'static str> {
        // No server listens there.
        let stores = PostgresStores::builder("postgres://app@127.0.0.1:1/", Keyring::new(KEY));
        Ok(stores.build().unwrap().store("broken"))
    }

    fn expire(&self, name: &str) -> BoxFuture<'_, Result<(), &'static str>> {
        // As if another one had had it, and had died.
        let statement = format!(
            "UPDATE {} SET fence = fence + 1, owner = NULL, lease_until = NULL WHERE name = $1",
            self.table()
        );
        let name = name.to_owned();
        Box::pin(async move {
            self.sight().await.client.execute(&statement, &[&name]).await.unwrap();
            Ok(())
        })
    }

    fn lease_time(&self) -> Result<Duration, &'static str> {
        Ok(millis(1000))
    }
}

impl FamilySubject for Place {
    type Stores = PostgresStores;

    fn family(&self) -> BoxFuture<'_, PostgresStores> {
        Box::pin(async { stores(self) })
    }

    fn count(&self) -> BoxFuture<'_, Result<usize, &'static str>> {
        Box::pin(async { Ok(self.sight().await.count().await.try_into().unwrap()) })
    }
}

tower_refresh::stores_conformance!(Place::new().await);
