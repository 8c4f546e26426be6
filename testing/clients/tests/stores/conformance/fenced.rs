//! Stores whose lease can be lost, with one flaw each, and the check that has to notice it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;
use tower_refresh::{
    BoxFuture, Generation,
    store::{
        Deleted, Lease, Leased, OpenCause, OpenRedeem, Record, SaveError, StoreError, TokenStore,
        conformance::{self, Subject},
    },
};

use super::assert_noticed;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    Sound,
    /// A save asks for nothing but the generation.
    LateSave,
    /// An intent is noted, of an old lease holder, too.
    LateIntent,
    /// An old lease holder that gives its lease back frees the new one, and ends its intent.
    LateRelease,
    /// Only the intent is ended.
    LateWord,
    /// A late save ends the intent, and fails.
    LateEnd,
    /// What runs out is forgotten.
    Forgets,
    /// A lease is for one intent.
    OneIntent,
    /// No flaw: a save gives the lock back.
    EndsWithSave,
    /// So it does, and the release after it gives it back once more.
    EndsTwice,
    /// A lease has a time limit, and nothing renews it.
    Unrenewed,
    /// No flaw of the store: its subject does not show what a lost lease does.
    Untried,
}
use Flaw::{
    EndsTwice, EndsWithSave, Forgets, LateEnd, LateIntent, LateRelease, LateSave, LateWord,
    OneIntent, Sound, Unrenewed, Untried,
};

const LEASE_TIME: Duration = Duration::from_millis(40);

#[derive(Default)]
struct Place {
    record: Record,
    fence: u64,
    held: bool,
    since: Option<Instant>,
    left: Option<OpenRedeem>,
}

impl Place {
    fn is_taken(&self, flaw: Flaw) -> bool {
        let is_over = self.since.is_some_and(|since| since.elapsed() >= LEASE_TIME);
        self.held && !(flaw == Unrenewed && is_over)
    }

    fn swap(&mut self, expected: Generation, record: Record) -> Result<(), SaveError> {
        if self.record.generation != expected {
            return Err(SaveError::Conflict);
        }
        self.record = record;
        Ok(())
    }
}

#[derive(Clone)]
struct Fenced(Flaw, Arc<Mutex<Place>>);

impl Fenced {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.1.lock().unwrap()
    }
}

impl TokenStore for Fenced {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async { Ok(self.place().record.clone()) })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move { self.place().swap(expected, record) })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        Box::pin(async {
            let mut place = self.place();
            let out = Record::new(place.record.generation.next(), None);
            let deleted = std::mem::replace(&mut place.record, out.clone());
            Ok(Deleted::new(out.generation, deleted.tokens))
        })
    }

    fn lease(&self, _: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        Box::pin(async {
            while self.place().is_taken(self.0) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut place = self.place();
            (place.held, place.since) = (true, Some(Instant::now()));
            place.fence += 1;
            let (fence, open_redeem) = (place.fence, place.left);
            let lease = Held { store: self.clone(), fence, open_redeem, has_intended: false };
            Ok(Leased::Lease(Box::new(lease)))
        })
    }
}

struct Held {
    store: Fenced,
    fence: u64,
    open_redeem: Option<OpenRedeem>,
    has_intended: bool,
}

impl Held {
    fn is_mine(&self) -> bool {
        let place = self.store.place();
        place.held && place.fence == self.fence
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_mine() {
            self.store.place().held = false;
        }
    }
}

impl Lease for Held {
    fn open_redeem(&self) -> Option<OpenRedeem> {
        self.open_redeem
    }

    fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let (flaw, mine) = (self.store.0, self.is_mine());
            let again = std::mem::replace(&mut self.has_intended, true);
            if (mine && !(flaw == OneIntent && again)) || flaw == LateIntent {
                let left = OpenRedeem::new(generation, OpenCause::HolderSilent);
                self.store.place().left = Some(left);
            }
            if mine { Ok(()) } else { Err(StoreError::new("lost")) }
        })
    }

    fn save(
        &mut self,
        expected: Generation,
        record: Record,
    ) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            let (flaw, mine) = (self.store.0, self.is_mine());
            let mut place = self.store.place();
            if !mine && flaw == LateEnd {
                place.left = None;
            }
            if !mine && flaw != LateSave {
                return Err(SaveError::LeaseLost);
            }
            place.swap(expected, record)?;
            place.left = None;
            if flaw == EndsWithSave || flaw == EndsTwice {
                place.held = false;
            }
            Ok(())
        })
    }

    fn release(self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
        let (flaw, mine) = (self.store.0, self.is_mine());
        {
            let mut place = self.store.place();
            if mine || flaw == LateRelease || flaw == LateWord {
                place.left = left;
            }
            if flaw == LateRelease || flaw == EndsTwice {
                place.held = false;
            }
        }
        Box::pin(async { drop(self) })
    }
}

struct Places(Flaw, Mutex<HashMap<String, Fenced>>);

impl Places {
    fn new(flaw: Flaw) -> Self {
        Self(flaw, Mutex::default())
    }

    fn at(&self, name: &str) -> Fenced {
        let mut places = self.1.lock().unwrap();
        places.entry(name.to_owned()).or_insert_with(|| Fenced(self.0, Arc::default())).clone()
    }
}

impl Subject for Places {
    type Store = Fenced;

    fn open(&self, name: &str) -> BoxFuture<'_, Fenced> {
        let store = self.at(name);
        Box::pin(async { store })
    }

    fn broken(&self) -> Result<Fenced, &'static str> {
        Err("memory is always there")
    }

    fn lease_time(&self) -> Result<Duration, &'static str> {
        Ok(LEASE_TIME)
    }

    fn expire(&self, name: &str) -> BoxFuture<'_, Result<(), &'static str>> {
        if self.0 == Untried {
            return Box::pin(async { Err("not tried") });
        }
        let store = self.at(name);
        let mut place = store.place();
        place.held = false;
        if self.0 == Forgets {
            place.left = None;
        }
        drop(place);
        Box::pin(async { Ok(()) })
    }
}

tower_refresh::store_conformance!(Places::new(Sound));

mod a_save_that_ends_the_lease {
    tower_refresh::store_conformance!(super::Places::new(super::EndsWithSave));
}

macro_rules! noticed {
    ($($flaw:ident by $check:ident)*) => {
        $(
            let check = async { conformance::$check(&Places::new($flaw)).await };
            assert_noticed($flaw, tokio::spawn(check).await);
        )*
    };
}

#[tokio::test(start_paused = true)]
async fn every_flaw_is_noticed() {
    noticed! {
        LateSave by a_lost_lease_cannot_write
        LateSave by a_lost_lease_leaves_intents_alone
        LateRelease by a_lost_lease_cannot_write
        LateIntent by a_lost_lease_leaves_intents_alone
        LateWord by a_lost_lease_leaves_intents_alone
        LateEnd by a_lost_lease_leaves_intents_alone
        Forgets by a_lost_lease_leaves_intents_alone
        OneIntent by a_lease_is_for_several_intents
        EndsTwice by a_save_may_end_the_lease
        Unrenewed by a_living_holder_keeps_its_lease
        Untried by a_lost_lease_cannot_write
        Untried by a_lost_lease_leaves_intents_alone
    }
}
