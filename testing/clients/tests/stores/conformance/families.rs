//! The suite for families of stores, run against [`MemoryStores`], and against families with
//! one flaw each and the check that has to notice it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use futures_util::FutureExt;
use tower_refresh::{
    BoxFuture, Generation,
    store::{
        Deleted, Leased, MemoryStore, MemoryStores, Record, SaveError, StoreError, Stores,
        TokenStore,
        conformance::{self, FamilySubject, Subject},
    },
};

use super::assert_noticed;

#[derive(Default)]
struct Memory(MemoryStores);

impl Subject for Memory {
    type Store = MemoryStore;

    fn open(&self, name: &str) -> BoxFuture<'_, MemoryStore> {
        let store = self.0.store(name);
        Box::pin(async { store })
    }

    fn broken(&self) -> Result<Self::Store, &'static str> {
        Err("memory is always there")
    }

    fn expire(&self, _: &str) -> BoxFuture<'_, Result<(), &'static str>> {
        Box::pin(async { Err("a mutex cannot be taken from its holder") })
    }

    fn lease_time(&self) -> Result<Duration, &'static str> {
        Err("a mutex has no time limit")
    }
}

impl FamilySubject for Memory {
    type Stores = MemoryStores;

    fn family(&self) -> BoxFuture<'_, MemoryStores> {
        Box::pin(async { self.0.clone() })
    }

    fn count(&self) -> BoxFuture<'_, Result<usize, &'static str>> {
        Box::pin(async { Ok(self.0.len()) })
    }
}

tower_refresh::stores_conformance!(Memory::default());

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    Sound,
    /// Each handle is a store of its own.
    Strangers,
    /// The leases of two handles are two.
    OwnLease,
    /// A name is cut to what fits.
    Cuts,
    /// Spaces around a name do not count.
    Trims,
    /// A long name takes a save and loses it.
    Swallows,
    /// The empty name is a bug.
    Panics,
    /// A name is refused without a reason, and can be loaded all the same.
    HalfRefuses,
    /// A lookup makes an entry.
    Eager,
    /// A load writes.
    WritesOnLoad,
    /// A lease makes an entry that stays.
    KeepsLease,
    /// A name is kept by its handles only.
    Weakly,
    /// A lease, and what was left open, goes with the handle.
    LeaseOfHandle,
    /// A sign-out takes the name away from under its handles.
    ForgetsEnded,
}
use Flaw::*;

/// The place: names and their stores, and an entry in `touched` for each that was created.
struct Place {
    flaw: Flaw,
    names: Mutex<HashMap<String, Name>>,
}

#[derive(Clone, Default)]
struct Name {
    kept: Option<Arc<MemoryStore>>,
    known: Weak<MemoryStore>,
    created: bool,
}

#[derive(Clone)]
struct Family(Arc<Place>);

impl Family {
    fn new(flaw: Flaw) -> Self {
        Self(Arc::new(Place { flaw, names: Mutex::default() }))
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut Name)) {
        change(self.0.names.lock().unwrap().entry(name.to_owned()).or_default());
    }
}

struct Handle {
    family: Family,
    name: String,
    memory: Arc<MemoryStore>,
}

impl Stores for Family {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        let flaw = self.0.flaw;
        assert!(!(flaw == Panics && name.is_empty()), "this panic is the flaw");
        let name = match flaw {
            Cuts => name.chars().take(255).collect(),
            Trims => name.trim_matches(' ').to_owned(),
            _ => name.to_owned(),
        };
        let mut memory = Arc::new(MemoryStore::new());
        if flaw != Strangers {
            self.change(&name, |entry| {
                memory = entry.kept.clone().or(entry.known.upgrade()).unwrap_or(memory.clone());
                entry.known = Arc::downgrade(&memory);
                entry.kept = (flaw != Weakly).then(|| memory.clone());
                entry.created |= flaw == Eager;
            });
        }
        Arc::new(Handle { family: self.clone(), name, memory })
    }
}

impl Handle {
    fn flaw(&self) -> Flaw {
        self.family.0.flaw
    }

    fn is_refused(&self) -> bool {
        self.flaw() == HalfRefuses && self.name.len() > 500
    }
}

impl TokenStore for Handle {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        if self.flaw() == WritesOnLoad {
            self.family.change(&self.name, |entry| entry.created = true);
        }
        self.memory.load()
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        if self.is_refused() {
            return Box::pin(async { Err(StoreError::new("too long").into()) });
        }
        if self.flaw() == Swallows && self.name.len() > 500 {
            return Box::pin(async { Ok(()) });
        }
        self.family.change(&self.name, |entry| entry.created = true);
        self.memory.save(expected, record)
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        if self.flaw() == ForgetsEnded {
            self.family.change(&self.name, |entry| *entry = Name::default());
        }
        self.memory.delete()
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        match self.flaw() {
            KeepsLease => {
                self.family.change(&self.name, |entry| entry.created = true);
                self.memory.lease(known)
            }
            OwnLease => Box::pin(async move { MemoryStore::new().lease(known).await }),
            _ => self.memory.lease(known),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.flaw() == LeaseOfHandle {
            let copy = MemoryStore::new();
            let record = self.memory.load().now_or_never().unwrap().unwrap();
            copy.save(Generation::ZERO, record).now_or_never().unwrap().unwrap();
            self.family.change(&self.name, |entry| entry.kept = Some(Arc::new(copy)));
        }
    }
}

impl Subject for Family {
    type Store = Arc<dyn TokenStore>;

    fn open(&self, name: &str) -> BoxFuture<'_, Self::Store> {
        let store = self.store(name);
        Box::pin(async { store })
    }

    fn broken(&self) -> Result<Self::Store, &'static str> {
        Err("memory is always there")
    }

    fn expire(&self, _: &str) -> BoxFuture<'_, Result<(), &'static str>> {
        Box::pin(async { Err("a mutex cannot be taken from its holder") })
    }

    fn lease_time(&self) -> Result<Duration, &'static str> {
        Err("a mutex has no time limit")
    }
}

impl FamilySubject for Family {
    type Stores = Self;

    fn family(&self) -> BoxFuture<'_, Self> {
        Box::pin(async { self.clone() })
    }

    fn count(&self) -> BoxFuture<'_, Result<usize, &'static str>> {
        let names = self.0.names.lock().unwrap();
        let count = names.values().filter(|name| name.created).count();
        Box::pin(async move { Ok(count) })
    }
}

/// What the flawed ones are made of passes, so that it is the flaw which is noticed.
mod sound {
    tower_refresh::stores_conformance!(super::Family::new(super::Sound));
}

macro_rules! noticed {
    ($($flaw:ident by $check:ident)*) => {
        $(
            let check = async { conformance::$check(&Family::new($flaw)).await };
            assert_noticed($flaw, tokio::spawn(check).await);
        )*
    };
}

#[tokio::test(start_paused = true)]
async fn every_flaw_is_noticed() {
    noticed! {
        Strangers by handles_of_one_name_are_one_store
        Strangers by what_is_saved_needs_no_handle
        Strangers by a_lease_outlives_its_handle
        Strangers by an_ended_name_keeps_its_generation
        OwnLease by handles_of_one_name_are_one_store
        OwnLease by a_lease_outlives_its_handle
        Cuts by a_name_may_be_any_text
        Trims by a_family_keeps_names_apart
        Swallows by a_name_may_be_any_text
        Panics by a_name_may_be_any_text
        HalfRefuses by a_name_may_be_any_text
        Eager by nothing_is_created_before_a_save
        WritesOnLoad by nothing_is_created_before_a_save
        KeepsLease by a_look_leaves_nothing_behind
        Weakly by what_is_saved_needs_no_handle
        LeaseOfHandle by a_lease_outlives_its_handle
        LeaseOfHandle by an_open_redeem_outlives_its_handles
        ForgetsEnded by an_ended_name_keeps_its_generation
    }
}
