//! The suite for stores, run against [`MemoryStore`], and against stores that it must not let
//! pass.

mod families;
mod fenced;

use std::{
    collections::HashMap,
    env, fmt,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinError;
use tower_refresh::{
    BoxFuture,
    store::{MemoryStore, conformance::Subject},
};

#[derive(Default)]
struct Memory(Mutex<HashMap<String, Arc<MemoryStore>>>);

impl Subject for Memory {
    type Store = Arc<MemoryStore>;

    fn open(&self, name: &str) -> BoxFuture<'_, Self::Store> {
        let store = self.0.lock().unwrap().entry(name.to_owned()).or_default().clone();
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

/// The flaw was noticed, and the check says what is wrong, not only which values differ.
fn assert_noticed(flaw: impl fmt::Debug, end: Result<(), JoinError>) {
    let Err(end) = end else { panic!("{flaw:?} is not noticed") };
    let panic = end.into_panic();
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    let first = said.lines().next().unwrap_or_default();
    let says_nothing = first.starts_with("assertion failed") || first.ends_with("` failed");
    assert!(
        !says_nothing && first.contains(' '),
        "of {flaw:?} the check says no more than {said:?}"
    );
}

/// What the subject does not have is shown although the checks pass.
#[test]
fn what_was_not_asked_shows_as_skipped() {
    let skipped = [
        ("errors_keep_their_source", "memory is always there"),
        ("a_lost_lease_cannot_write", "a mutex cannot be taken from its holder"),
        ("a_lost_lease_leaves_intents_alone", "a mutex cannot be taken from its holder"),
        ("a_living_holder_keeps_its_lease (its renewal)", "a mutex has no time limit"),
    ];
    let names = skipped.map(|(check, _)| check.split(' ').next().unwrap());
    let run = Command::new(env::current_exe().unwrap())
        .arg("--exact")
        .args(names.map(|name| format!("conformance::{name}")))
        .output()
        .unwrap();
    let said = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{said}");
    for (check, reason) in skipped {
        let line = format!("SKIPPED {check} of stores::conformance::Memory: {reason}");
        assert!(said.lines().any(|said| said == line), "{line:?} is not in {said:?}");
    }
    assert_eq!(said.lines().count(), skipped.len(), "{said}");
}

tower_refresh::store_conformance!(Memory::default());

/// Stores with one flaw each, and the check that has to notice it.
mod flawed {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use tower_refresh::{
        BoxFuture, Generation, Tokens,
        store::{
            Deleted, Lease, Leased, MemoryStore, OpenRedeem, Record, SaveError, StoreError,
            TokenStore,
            conformance::{self, Subject},
        },
    };

    use super::{Memory, assert_noticed};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Flaw {
        /// It is not empty to begin with.
        Full,
        /// It loses what the server sent besides.
        LosesExtras,
        /// A save looks, and then writes: two steps.
        Overwrites,
        /// A save of the same number is a conflict.
        NeedsLater,
        /// Only a holder's save does not look.
        HolderOverwrites,
        /// A sign-out begins anew.
        ForgetsGeneration,
        /// Names are compared without regard to case.
        OneName,
        /// Its errors have no source.
        NoSource,
        /// The lease is no lock.
        NoLock,
        /// A look does not see that the record is gone.
        SeesOnlyLater,
        /// A waiter is given what it knows already.
        OldNews,
        /// A waiter is given what was there when it began to wait.
        Stale,
        /// A sign-in waits for the lease.
        SlowSignIn,
        /// The lease is not freed when it is dropped.
        Leaks,
        /// Nothing is told.
        Forgets,
        /// A lease without an intent counts as one.
        Imagines,
        /// A save leaves the intent.
        KeepsIntent,
        /// What is left is not kept.
        DropsWord,
    }
    use Flaw::*;

    struct Flawed(Flaw, Memory);

    impl Subject for Flawed {
        type Store = FlawedStore;

        fn open(&self, name: &str) -> BoxFuture<'_, Self::Store> {
            let name = if self.0 == OneName { name.to_lowercase() } else { name.to_owned() };
            Box::pin(async move {
                let memory = self.1.open(&name).await;
                FlawedStore { flaw: self.0, memory }
            })
        }

        fn broken(&self) -> Result<Self::Store, &'static str> {
            Ok(FlawedStore { flaw: NoSource, memory: Arc::default() })
        }

        fn expire(&self, name: &str) -> BoxFuture<'_, Result<(), &'static str>> {
            self.1.expire(name)
        }

        fn lease_time(&self) -> Result<Duration, &'static str> {
            self.1.lease_time()
        }
    }

    #[derive(Clone)]
    struct FlawedStore {
        flaw: Flaw,
        memory: Arc<MemoryStore>,
    }

    impl FlawedStore {
        async fn swap(&self, expected: Generation, record: Record) -> Result<(), SaveError> {
            let held = self.memory.load().await?.generation;
            if held != expected {
                return Err(SaveError::Conflict);
            }
            tokio::task::yield_now().await;
            self.overwrite(record).await
        }

        async fn overwrite(&self, record: Record) -> Result<(), SaveError> {
            let held = self.memory.load().await?.generation;
            self.memory.save(held, record).await
        }
    }

    impl TokenStore for FlawedStore {
        fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
            Box::pin(async {
                let record = self.memory.load().await?;
                Ok(match (self.flaw, &record.tokens) {
                    (Full, None) => Record::new(record.generation, Tokens::new("full")),
                    (LosesExtras, Some(tokens)) => {
                        let bare = Tokens::new(tokens.access_token());
                        let bare = tokens
                            .refresh_token()
                            .map_or(bare.clone(), |token| bare.with_refresh_token(token));
                        let bare = match tokens.expires_at() {
                            Some(at) => bare.with_expires_at(at),
                            None => bare,
                        };
                        Record::new(record.generation, bare)
                    }
                    _ => record,
                })
            })
        }

        fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
            Box::pin(async move {
                let found = self.memory.changed(known).await?;
                let is_later = |record: &Record| record.generation > known;
                Ok(found.filter(|record| self.flaw != SeesOnlyLater || is_later(record)))
            })
        }

        fn save(
            &self,
            expected: Generation,
            record: Record,
        ) -> BoxFuture<'_, Result<(), SaveError>> {
            Box::pin(async move {
                match self.flaw {
                    Overwrites => self.swap(expected, record).await,
                    NeedsLater if record.generation <= expected => Err(SaveError::Conflict),
                    SlowSignIn => {
                        let _held = self.memory.lease(expected).await?;
                        self.memory.save(expected, record).await
                    }
                    _ => self.memory.save(expected, record).await,
                }
            })
        }

        fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
            Box::pin(async {
                let deleted = self.memory.delete().await?;
                if self.flaw == ForgetsGeneration {
                    let _ = self.overwrite(Record::default()).await;
                }
                Ok(deleted)
            })
        }

        fn lease(&self, seen: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
            Box::pin(async move {
                let before = self.memory.load().await?;
                if self.flaw == OldNews && before.generation > Generation::ZERO {
                    return Ok(Leased::Newer(before));
                }
                let lease = match self.flaw {
                    NoLock => MemoryStore::new().lease(seen).await?,
                    _ => self.memory.lease(seen).await?,
                };
                if self.flaw == Stale && self.memory.load().await? != before {
                    return Ok(Leased::Newer(before));
                }
                let Leased::Lease(mut lease) = lease else { panic!("a lease of memory") };
                if self.flaw == Imagines {
                    lease.intend(seen).await?;
                }
                let lease = FlawedLease { store: self.clone(), lease: Some(lease) };
                Ok(Leased::Lease(Box::new(lease)))
            })
        }
    }

    struct FlawedLease {
        store: FlawedStore,
        lease: Option<Box<dyn Lease>>,
    }

    impl FlawedLease {
        fn lease(&mut self) -> &mut dyn Lease {
            &mut **self.lease.as_mut().unwrap()
        }
    }

    impl Drop for FlawedLease {
        fn drop(&mut self) {
            static LEAKED: Mutex<Vec<Box<dyn Lease>>> = Mutex::new(Vec::new());
            if self.store.flaw == Leaks {
                LEAKED.lock().unwrap().extend(self.lease.take());
            }
        }
    }

    impl Lease for FlawedLease {
        fn open_redeem(&self) -> Option<OpenRedeem> {
            match self.store.flaw {
                Forgets => None,
                _ => self.lease.as_ref().unwrap().open_redeem(),
            }
        }

        fn intend(&mut self, generation: Generation) -> BoxFuture<'_, Result<(), StoreError>> {
            self.lease().intend(generation)
        }

        fn save(
            &mut self,
            expected: Generation,
            record: Record,
        ) -> BoxFuture<'_, Result<(), SaveError>> {
            Box::pin(async move {
                match self.store.flaw {
                    HolderOverwrites => self.store.overwrite(record).await,
                    KeepsIntent => self.store.memory.save(expected, record).await,
                    _ => self.lease().save(expected, record).await,
                }
            })
        }

        fn release(mut self: Box<Self>, left: Option<OpenRedeem>) -> BoxFuture<'static, ()> {
            let left = left.filter(|_| self.store.flaw != DropsWord);
            self.lease.take().unwrap().release(left)
        }
    }

    macro_rules! noticed {
        ($($flaw:ident by $check:ident)*) => {
            $(
                let check = async {
                    conformance::$check(&Flawed($flaw, Memory::default())).await;
                };
                assert_noticed($flaw, tokio::spawn(check).await);
            )*
        };
    }

    /// What is never given back is waited for in vain: not for a real minute.
    #[tokio::test(start_paused = true)]
    async fn every_flaw_is_noticed() {
        noticed! {
            Full by a_store_begins_empty
            LosesExtras by what_is_saved_is_loaded
            SeesOnlyLater by a_look_tells_what_has_changed
            NeedsLater by a_save_may_keep_its_number
            Overwrites by of_racing_saves_one_wins
            HolderOverwrites by a_save_takes_the_expected_generation_only
            HolderOverwrites by a_sign_in_needs_no_lease
            ForgetsGeneration by a_sign_out_leaves_its_generation
            OneName by names_are_apart
            NoSource by errors_keep_their_source
            NoLock by one_holder_at_a_time
            NoLock by a_waiter_gets_the_lease_or_what_is_newer
            NoLock by a_dropped_waiter_takes_nothing
            NoLock by a_living_holder_keeps_its_lease
            NoLock by a_lost_lease_cannot_write
            OldNews by a_lease_needs_no_news
            Stale by a_waiter_gets_the_lease_or_what_is_newer
            SlowSignIn by a_sign_in_needs_no_lease
            Leaks by a_dropped_lease_is_free
            Forgets by an_intent_outlives_its_holder
            Imagines by without_an_intent_nothing_is_left
            KeepsIntent by a_save_ends_the_intent
            DropsWord by what_is_left_is_found
        }
    }
}
