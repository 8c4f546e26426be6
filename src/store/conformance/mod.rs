//! The tests that every [`TokenStore`] has to pass (feature `test-util`). The stores of
//! this crate pass them, and so should yours.
//!
//! Say in a [`Subject`] how handles on your store are opened, and let the macro
//! [`store_conformance!`](crate::store_conformance) write a test for each check (it uses
//! `tokio::test`):
//!
//! ```
//! use std::collections::HashMap;
//! use std::sync::{Arc, Mutex};
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
//! If yours is a family of stores, implement [`FamilySubject`] as well, and let
//! [`stores_conformance!`](crate::stores_conformance) write the tests: those of a store, and
//! those of [`Stores`].

mod families;
mod intents;
mod leases;
mod records;

use std::{future::Future, time::Duration};

use tokio::time::timeout;

pub use self::{families::*, intents::*, leases::*, records::*};
use super::{Lease, Leased, Record, Stores, TokenStore};
use crate::{
    error::BoxError,
    refresher::BoxFuture,
    tokens::{Generation, Tokens},
};

/// What is put to the test, seen from outside.
pub trait Subject: Send + Sync + 'static {
    /// The store.
    type Store: TokenStore;

    /// A handle on the record of this name, which is as good as another process's: it
    /// shares nothing with the handles before it but the place where the record is.
    fn open(&self, name: &str) -> BoxFuture<'_, Self::Store>;

    /// A handle on a place that cannot be reached. `None`: there is no such thing.
    fn broken(&self) -> Option<Self::Store> {
        None
    }

    /// Takes the lock away from its holder, as if the holder had stalled until its time, and
    /// that of its intent, was over. `false`: a lock ends with its holder only, which is what
    /// the checks then assume.
    fn expire(&self, name: &str) -> BoxFuture<'_, bool> {
        let _ = name;
        Box::pin(async { false })
    }

    /// After how long a lock that is not renewed is gone. `None`: it has no time limit.
    fn lease_time(&self) -> Option<Duration> {
        None
    }
}

/// What is put to the test as a family of stores. What [`Subject::open`] gives has to be the
/// store that this family has for the name.
pub trait FamilySubject: Subject {
    /// The family.
    type Stores: Stores;

    /// A handle on the family, which is as good as another process's: it shares nothing with
    /// the handles before it but the place where the records are.
    fn family(&self) -> BoxFuture<'_, Self::Stores>;

    /// How many things there are at the place: files, keys, rows or entries. `None`: they
    /// cannot be counted, and the checks do without.
    fn count(&self) -> BoxFuture<'_, Option<usize>> {
        Box::pin(async { None })
    }
}

/// Writes a `#[tokio::test]` for each check of
/// [`conformance`](crate::store::conformance), for the
/// [`Subject`](crate::store::conformance::Subject) that the expression makes.
#[macro_export]
macro_rules! store_conformance {
    ($subject:expr) => {
        $crate::store_conformance! {
            $subject;
            a_store_begins_empty
            what_is_saved_is_loaded
            a_save_takes_the_expected_generation_only
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

/// Gives what must not come a moment to come.
async fn not_yet<T>(what: &str, work: impl Future<Output = T>, moment: Duration) {
    assert!(timeout(moment, work).await.is_err(), "{what}");
}

const MOMENT: Duration = Duration::from_millis(100);

/// The lease, from a store whose record is known.
async fn lease<S: TokenStore>(store: &S) -> Box<dyn Lease> {
    let known = done("load", store.load()).await.generation;
    match done("lease", store.lease(known)).await {
        Leased::Lease(lease) => lease,
        Leased::Newer(record) => panic!("generation {} is newer than {known}", record.generation),
    }
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
