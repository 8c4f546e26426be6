//! Stores that can go away, and that count.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use tower_refresh::{
    BoxFuture, Generation,
    store::{
        Deleted, KeptUntil, Leased, MemoryStores, Record, SaveError, StoreError, Stores, TokenStore,
    },
};

use crate::Gate;

/// Stores that can go away, and that count. Clones are one place.
#[derive(Clone)]
pub struct Place {
    memory: MemoryStores,
    stores: Arc<dyn Stores>,
    control: Arc<Control>,
}

impl Default for Place {
    fn default() -> Self {
        let memory = MemoryStores::new();
        Self { memory: memory.clone(), stores: Arc::new(memory), control: Arc::default() }
    }
}

/// What happens to a place, and has happened.
#[derive(Default)]
pub struct Control {
    /// Nothing works.
    pub is_away: AtomicBool,
    /// Writes fail, reads do not.
    pub is_read_only: AtomicBool,
    /// Loads, and looks for changes.
    pub looks: AtomicUsize,
    /// Ends that were put off.
    pub touches: AtomicUsize,
    /// Every save passes here.
    pub saves: Gate,
    /// Every name that was asked for.
    pub names: Mutex<HashSet<String>>,
}

impl Place {
    /// Of other stores.
    pub fn at(stores: impl Stores) -> Self {
        Self { stores: Arc::new(stores), ..Self::default() }
    }

    /// What happens to it.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// How many records there are in memory.
    pub fn records(&self) -> usize {
        self.memory.len()
    }

    /// How often it was looked at.
    pub fn looks(&self) -> usize {
        self.control.looks.load(Ordering::Relaxed)
    }

    /// It fails from now on, or does again what it does.
    pub fn go_away(&self, is_away: bool) {
        self.control.is_away.store(is_away, Ordering::Relaxed);
    }
}

impl Stores for Place {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        self.control.names.lock().unwrap().insert(name.to_owned());
        Arc::new(OneStore { store: self.stores.store(name), control: self.control.clone() })
    }
}

struct OneStore {
    store: Arc<dyn TokenStore>,
    control: Arc<Control>,
}

impl OneStore {
    fn check(&self, writes: bool) -> Result<(), StoreError> {
        let is_read_only = self.control.is_read_only.load(Ordering::Relaxed);
        let is_away = self.control.is_away.load(Ordering::Relaxed);
        if is_away || (writes && is_read_only) {
            return Err(StoreError::new("away: access-secret"));
        }
        Ok(())
    }
}

impl TokenStore for OneStore {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        self.control.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {
            self.check(false)?;
            self.store.load().await
        })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        self.control.looks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.check(false)?;
            self.store.changed(known).await
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.control.saves.pass().await;
            self.check(true)?;
            self.store.save(expected, record).await
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            self.check(true)?;
            self.store.delete().await
        })
    }

    fn keep_until(&self, end: SystemTime) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        self.control.touches.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            self.check(true)?;
            self.store.keep_until(end).await
        })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async move {
            self.check(true)?;
            self.store.lease(known).await
        })
    }
}
