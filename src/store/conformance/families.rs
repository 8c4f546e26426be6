//! Families: one place, many names.

use std::error::Error;

use super::{
    FamilySubject, MOMENT, conflicts, done, holds, lease, not_yet, record, signed_in, skipped,
    soon, tokens,
};
use crate::{
    store::{Record, SaveError, Stores, TokenStore},
    tokens::Generation,
};

/// Two handles on one name share the record and the lease, and so does one of another handle
/// on the family.
pub async fn handles_of_one_name_are_one_store<S: FamilySubject>(subject: &S) {
    let (family, other) = (subject.family().await, subject.family().await);
    let handles = [family.store("one"), family.store("one"), other.store("one")];
    for (number, writer) in (0..).zip(&handles) {
        let expected = Generation::new(number);
        done("save", writer.save(expected, record(number + 1, "one"))).await;
        for reader in &handles {
            let wrong = "a handle does not see what another one of its name has saved";
            holds(reader, &record(number + 1, "one"), wrong).await;
        }
        let held = lease(writer).await;
        for waiter in &handles {
            let known = Generation::new(number + 1);
            let wrong = "two handles of one name have the lease at once";
            not_yet(wrong, waiter.lease(known), MOMENT).await;
        }
        soon("release", held.release(None)).await;
    }
    let wrong = "`Subject::open` gives another store than the family";
    holds(&subject.open("one").await, &record(3, "one"), wrong).await;
}

/// However alike two names are, they have two records and two leases, through one handle on
/// the family.
pub async fn a_family_keeps_names_apart<S: FamilySubject>(subject: &S) {
    let names =
        ["a", "A", "aa", "a ", " a", "a/a", "a%2fa", "a.json", "a:lease", "\u{e4}", "a\u{308}"];
    let family = subject.family().await;
    let mut leases = Vec::new();
    for (name, number) in names.iter().zip(1..) {
        let store = family.store(name);
        let wrong = format!("{name:?} has the record of another name");
        holds(&store, &Record::default(), &wrong).await;
        done("save", store.save(Generation::ZERO, record(number, name))).await;
        leases.push(lease(&store).await);
    }
    for (name, number) in names.iter().zip(1..) {
        let wrong = format!("{name:?} has not its own record");
        holds(&family.store(name), &record(number, name), &wrong).await;
    }
    for lease in leases {
        soon("release", lease.release(None)).await;
    }
}

/// A name that the place can keep is kept whole. One that it cannot keep is refused by every
/// operation, with a source that says why, and is neither cut nor changed into another.
pub async fn a_name_may_be_any_text<S: FamilySubject>(subject: &S) {
    let long = |length, last: &str| "x".repeat(length) + last;
    let mut names =
        ["", "\0", "\n", ".", "..", "/", "\u{1f511}", "{}", "a\0b"].map(String::from).to_vec();
    for length in [60, 250, 1_000, 70_000] {
        names.extend([long(length, ""), long(length, "a"), long(length, "b")]);
    }
    let mut kept = Vec::new();
    for name in &names {
        let shown: String = name.chars().take(20).collect();
        let store = subject.family().await.store(name);
        match soon("save", store.save(Generation::ZERO, record(1, name))).await {
            Ok(()) => kept.push(name),
            Err(SaveError::Failed(error)) => {
                has_source("save", &error);
                has_source("load", &refusal("load", soon("load", store.load()).await, &shown));
                let deleted = soon("delete", store.delete()).await;
                has_source("delete", &refusal("delete", deleted, &shown));
                let leased = soon("lease", store.lease(Generation::ZERO)).await;
                has_source("lease", &refusal("lease", leased, &shown));
            }
            Err(error) => panic!("the first save of {shown:?} came to {error:?}"),
        }
    }
    for name in kept {
        let loaded = done("load", subject.family().await.store(name).load()).await;
        let shown: String = name.chars().take(20).collect();
        assert!(loaded.tokens == Some(tokens(name)), "{shown:?} was lost: {loaded:?}");
    }
}

fn refusal<T, E>(what: &str, outcome: Result<T, E>, name: &str) -> E {
    match outcome {
        Err(error) => error,
        Ok(_) => panic!("{name:?} cannot be saved, and yet there is a {what}"),
    }
}

fn has_source(what: &str, error: &dyn Error) {
    assert!(error.source().is_some(), "the error of a {what} has no source that says why: {error}");
}

/// A name that is looked up and loaded leaves nothing behind: it may be made up.
pub async fn nothing_is_created_before_a_save<S: FamilySubject>(subject: &S) {
    let family = subject.family().await;
    let before = subject.count().await;
    for name in ["made up", "and another", "and a third"] {
        let store = family.store(name);
        holds(&store, &Record::default(), "a name that was never saved has a record").await;
    }
    let left = subject.count().await;
    assert_eq!(left, before, "names that were loaded and not saved have left something");
    signed_in(&family.store("real")).await;
    match (before, subject.count().await) {
        (Ok(before), Ok(after)) => {
            assert!(after > before, "what is saved is not counted: the check means nothing");
        }
        (Err(reason), _) | (_, Err(reason)) => {
            skipped::<S>("nothing_is_created_before_a_save", reason)
        }
    }
}

/// A name whose lease was taken and given back leaves nothing behind, as by a request whose session is unknown.
pub async fn a_look_leaves_nothing_behind<S: FamilySubject>(subject: &S) {
    let family = subject.family().await;
    let before = subject.count().await;
    for name in ["made up", "and another", "and a third"] {
        let store = family.store(name);
        let held = lease(&store).await;
        holds(&store, &Record::default(), "a name that was never saved has a record").await;
        soon("release", held.release(None)).await;
    }
    match (before, subject.count().await) {
        (Ok(before), Ok(left)) => {
            assert_eq!(left, before, "names whose lease was taken have left something");
        }
        (Err(reason), _) | (_, Err(reason)) => skipped::<S>("a_look_leaves_nothing_behind", reason),
    }
}

/// Tokens that were saved are there when neither a store nor the family has had a handle.
pub async fn what_is_saved_needs_no_handle<S: FamilySubject>(subject: &S) {
    signed_in(&subject.family().await.store("kept")).await;
    let family = subject.family().await;
    let wrong = "what was saved went with the handles";
    holds(&family.store("kept"), &record(1, "1"), wrong).await;
    let store = family.store("kept");
    drop(family);
    done("save", store.save(Generation::new(1), record(2, "2"))).await;
    drop(store);
    holds(&subject.family().await.store("kept"), &record(2, "2"), wrong).await;
}

/// A lease is held when the handle that it was taken through is gone, on a name that was saved
/// and on one that was not.
pub async fn a_lease_outlives_its_handle<S: FamilySubject>(subject: &S) {
    let family = subject.family().await;
    signed_in(&family.store("saved")).await;
    for (name, known) in [("saved", 1), ("never saved", 0)] {
        let held = lease(&family.store(name)).await;
        let other = family.store(name);
        let wrong = "a lease went with the handle that it was taken through";
        not_yet(wrong, other.lease(Generation::new(known)), MOMENT).await;
        soon("release", held.release(None)).await;
        soon("release", lease(&family.store(name)).await.release(None)).await;
    }
}

/// What a holder has left open is found when no handle was left meanwhile.
pub async fn an_open_redeem_outlives_its_handles<S: FamilySubject>(subject: &S) {
    signed_in(&subject.family().await.store("open")).await;
    let mut held = lease(&subject.family().await.store("open")).await;
    done("intend", held.intend(Generation::new(1))).await;
    drop(held);
    let held = lease(&subject.family().await.store("open")).await;
    let open = held.open_redeem().map(|open| open.generation);
    assert_eq!(open, Some(Generation::new(1)), "the open redeem went with the handles");
    soon("release", held.release(None)).await;
}

/// A name that is signed out keeps its generation while a handle on it is left, so that a late
/// save of the session that has ended meets a conflict, through whichever handle.
pub async fn an_ended_name_keeps_its_generation<S: FamilySubject>(subject: &S) {
    let family = subject.family().await;
    let late = family.store("ended");
    signed_in(&late).await;
    let deleted = done("delete", family.store("ended").delete()).await;
    let expected = (Generation::new(2), Some(tokens("1")));
    assert_eq!((deleted.generation, deleted.tokens), expected, "a sign-out tells other things");
    let out = Record::new(Generation::new(2), None);
    holds(&family.store("ended"), &out, "a name that was signed out has lost its number").await;
    for (handle, expected) in [(&late, 1), (&family.store("ended"), 0), (&family.store("ended"), 1)]
    {
        let save = handle.save(Generation::new(expected), record(expected + 1, "late"));
        let outcome = soon("a late save", save).await;
        conflicts("a save of a session that has ended", outcome);
    }
    done("sign-in", family.store("ended").save(Generation::new(2), record(3, "3"))).await;
    holds(&late, &record(3, "3"), "a handle from before the sign-out misses the sign-in").await;
}
