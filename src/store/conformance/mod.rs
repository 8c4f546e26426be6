//! The tests that every [`TokenStore`] has to pass (feature `test-util`). The stores of
//! this crate pass them, and so should yours.
//!
//! Say in a [`Subject`] how handles on your store are opened, and let the macro
//! [`store_conformance!`](crate::store_conformance) write a test for each check (it uses
//! `tokio::test`):
//!
//! ```
//! use std::{collections::HashMap, sync::{Arc, Mutex}, time::Duration};
//! use tower_refresh::{BoxFuture, store::{MemoryStore, conformance::Subject}};
//!
//! /// Memory is shared by name: a database would be connected to anew.
//! #[derive(Default)]
//! struct Memory(Mutex<HashMap<String, Arc<MemoryStore>>>);
//!
//! impl Subject for Memory {
//!     type Store = Arc<MemoryStore>;
//!
//!     fn open(&self, name: &str) -> BoxFuture<'_, Self::Store> {
//!         let store = self.0.lock().unwrap().entry(name.to_owned()).or_default().clone();
//!         Box::pin(async { store })
//!     }
//!
//!     fn broken(&self) -> Result<Self::Store, &'static str> {
//!         Err("memory is always there")
//!     }
//!
//!     fn expire(&self, _: &str) -> BoxFuture<'_, Result<(), &'static str>> {
//!         Box::pin(async { Err("a mutex cannot be taken from its holder") })
//!     }
//!
//!     fn lease_time(&self) -> Result<Duration, &'static str> {
//!         Err("a mutex has no time limit")
//!     }
//! }
//!
//! mod memory {
//!     use super::Memory;
//!     tower_refresh::store_conformance!(Memory::default());
//! }
//! # fn main() {
//! #     use tower_refresh::store::conformance::one_holder_at_a_time;
//! #     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
//! #     runtime.unwrap().block_on(one_holder_at_a_time(&Memory::default()));
//! # }
//! ```
//!
//! Each check begins with a subject of its own, so the expression is evaluated for each
//! test; it may `.await`. What is not as it has to be is a panic that says so. A check
//! that waits in vain gives up after a minute: what a store has in time limits, for a lease
//! or an intent, should be some seconds in these tests.
//!
//! What your store does not have, the subject says with a reason, as above. The checks that
//! needed it write a line like `SKIPPED a_lost_lease_cannot_write of tests::Memory: a mutex
//! cannot be taken from its holder` to the standard error, where `cargo test` shows it although
//! they pass.
//!
//! If yours is a family of stores, implement [`FamilySubject`] as well, and let
//! [`stores_conformance!`](crate::stores_conformance) write the tests: those of a store, and
//! those of [`Stores`].

mod families;
mod intents;
mod leases;
mod records;

use std::{
    any::type_name,
    future::Future,
    io::{Write, stderr},
    time::Duration,
};

use tokio::time::timeout;

pub use self::{families::*, intents::*, leases::*, records::*};
use super::{Lease, Leased, Record, SaveError, Stores, TokenStore};
use crate::{
    error::BoxError,
    refresher::BoxFuture,
    tokens::{Generation, Tokens},
};

/// A store that is tested, as the tests see it. The [module](self) has an example.
pub trait Subject: Send + Sync + 'static {
    /// The store.
    type Store: TokenStore;

    /// A handle on the record of this name, which is as good as another process's: it
    /// shares nothing with the handles before it but the place where the record is.
    fn open(&self, name: &str) -> BoxFuture<'_, Self::Store>;

    /// A handle on a place that cannot be reached.
    ///
    /// # Errors
    ///
    /// There is no such thing, for this reason.
    fn broken(&self) -> Result<Self::Store, &'static str>;

    /// Takes the lock away from its holder, as if the holder had stalled until its time, and
    /// that of its intent, was over.
    ///
    /// # Errors
    ///
    /// A lock ends with its holder only, for this reason, which is what the checks then assume.
    /// A lock with a [time limit](Self::lease_time) does not.
    fn expire(&self, name: &str) -> BoxFuture<'_, Result<(), &'static str>>;

    /// After how long a lock that is not renewed is gone.
    ///
    /// # Errors
    ///
    /// It has no time limit, for this reason.
    fn lease_time(&self) -> Result<Duration, &'static str>;
}

/// A family of stores that is tested. [`Subject::open`] has to return the store that this family has
/// for the name.
pub trait FamilySubject: Subject {
    /// The family.
    type Stores: Stores;

    /// A handle on the family, which is as good as another process's: it shares nothing with
    /// the handles before it but the place where the records are.
    fn family(&self) -> BoxFuture<'_, Self::Stores>;

    /// How many things there are at the place: files, keys, rows or entries.
    ///
    /// # Errors
    ///
    /// They cannot be counted, for this reason.
    fn count(&self) -> BoxFuture<'_, Result<usize, &'static str>>;
}

/// Writes a `#[tokio::test]` for each check of
/// [`conformance`](crate::store::conformance), for the
/// [`Subject`](crate::store::conformance::Subject) that the expression makes. That module has an
/// example.
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[macro_export]
macro_rules! store_conformance {
    ($subject:expr) => {
        $crate::store_conformance! {
            $subject;
            a_store_begins_empty
            what_is_saved_is_loaded
            a_look_tells_what_has_changed
            a_record_ends_when_it_is_told_to
            a_save_takes_the_expected_generation_only
            a_save_may_keep_its_number
            of_racing_saves_one_wins
            a_sign_out_leaves_its_generation
            names_are_apart
            errors_keep_their_source
            one_holder_at_a_time
            a_lease_needs_no_news
            a_waiter_gets_the_lease_or_what_is_newer
            a_sign_in_needs_no_lease
            a_dropped_lease_is_free
            a_dropped_waiter_takes_nothing
            a_living_holder_keeps_its_lease
            a_lost_lease_cannot_write
            a_lost_lease_leaves_intents_alone
            a_lease_is_for_several_intents
            a_save_may_end_the_lease
            an_intent_outlives_its_holder
            without_an_intent_nothing_is_left
            a_save_ends_the_intent
            what_is_left_is_found
        }
    };
    ($subject:expr; $($check:ident)*) => {
        $(
            #[::tokio::test]
            async fn $check() {
                $crate::store::conformance::$check(&$subject).await;
            }
        )*
    };
}

/// Writes a `#[tokio::test]` for each check of a store and of a family of stores, for the
/// [`FamilySubject`](crate::store::conformance::FamilySubject) that the expression makes.
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
#[macro_export]
macro_rules! stores_conformance {
    ($subject:expr) => {
        $crate::store_conformance!($subject);
        $crate::store_conformance! {
            $subject;
            handles_of_one_name_are_one_store
            a_family_keeps_names_apart
            a_name_may_be_any_text
            nothing_is_created_before_a_save
            a_look_leaves_nothing_behind
            what_is_saved_needs_no_handle
            a_lease_outlives_its_handle
            an_open_redeem_outlives_its_handles
            an_ended_name_keeps_its_generation
        }
    };
}

/// Waits for what has to come.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match timeout(Duration::from_secs(60), work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: nothing came within a minute"),
    }
}

/// Does what has to work.
async fn done<T, E: Into<BoxError>>(what: &str, work: impl Future<Output = Result<T, E>>) -> T {
    match soon(what, work).await {
        Ok(done) => done,
        Err(error) => {
            let error = error.into();
            let reason = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            panic!("{what}: {error}{reason}")
        }
    }
}

/// Gives what must not come a moment to come. The text says what is wrong if it does.
async fn not_yet<T>(wrong: &str, work: impl Future<Output = T>, moment: Duration) {
    assert!(timeout(moment, work).await.is_err(), "{wrong}");
}

/// Shows that a check, or a part of it, was not made. Not by `eprintln`, which the test harness
/// shows for checks that fail only.
fn skipped<S>(check: &str, reason: &str) {
    let line = format!("SKIPPED {check} of {}: {reason}\n", type_name::<S>());
    // At once, or the lines of tests that run side by side would be mixed.
    let _ = stderr().write_all(line.as_bytes());
}

const MOMENT: Duration = Duration::from_millis(100);

/// The lease, from a store whose record is known.
async fn lease<S: TokenStore>(store: &S) -> Box<dyn Lease> {
    let known = done("load", store.load()).await.generation;
    match done("lease", store.lease(known)).await {
        Leased::Lease(lease) => lease,
        Leased::Newer(record) => panic!(
            "instead of the lease there is generation {}, for a caller that knows {known}",
            record.generation
        ),
    }
}

/// The store holds this record. The text says what is wrong if it does not.
async fn holds<S: TokenStore + ?Sized>(store: &S, expected: &Record, wrong: &str) {
    let found = done("load", store.load()).await;
    assert!(found.is_same(expected), "{wrong}: found {found:?} instead of {expected:?}");
}

/// A save that has come too late.
fn conflicts(save: &str, outcome: Result<(), SaveError>) {
    assert!(matches!(outcome, Err(SaveError::Conflict)), "{save} is no conflict: {outcome:?}");
}

fn tokens(name: &str) -> Tokens {
    Tokens::new(format!("access-{name}")).with_refresh_token(format!("refresh-{name}"))
}

fn record(generation: u64, name: &str) -> Record {
    Record::new(Generation::new(generation), tokens(name))
}

/// Signs in with the first generation.
async fn signed_in<S: TokenStore>(store: &S) {
    done("the first save", store.save(Generation::ZERO, record(1, "1"))).await;
}
