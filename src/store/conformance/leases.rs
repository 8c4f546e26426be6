//! Leases: exclusion, waiting, renewal, loss.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::{JoinSet, yield_now},
    time::timeout,
};

use super::{
    MOMENT, Subject, conflicts, done, holds, lease, not_yet, record, signed_in, skipped, soon,
};
use crate::{
    store::{Leased, SaveError, TokenStore},
    tokens::Generation,
};

/// Sixteen handles take the lease in turns, and no two have it at once.
pub async fn one_holder_at_a_time<S: Subject>(subject: &S) {
    let inside = Arc::new(AtomicUsize::new(0));
    let mut takers = JoinSet::new();
    for _ in 0..16 {
        let (store, inside) = (subject.open("turns").await, Arc::clone(&inside));
        takers.spawn(async move {
            for _ in 0..4 {
                let held = lease(&store).await;
                assert_eq!(
                    inside.fetch_add(1, Ordering::SeqCst),
                    0,
                    "two handles have the lease at once"
                );
                for _ in 0..20 {
                    yield_now().await;
                }
                assert!(held.is_held(), "a holder is told that it does not hold the lease");
                inside.fetch_sub(1, Ordering::SeqCst);
                soon("release", held.release(None)).await;
            }
        });
    }
    while let Some(taker) = soon("a turn", takers.join_next()).await {
        assert!(taker.is_ok(), "a taker has failed: {taker:?}");
    }
    let held = lease(&subject.open("turns").await).await;
    let other = subject.open("turns").await;
    not_yet("two handles have the lease at once", other.lease(Generation::ZERO), MOMENT).await;
    soon("release", held.release(None)).await;
}

/// A record that the caller knows is no reason to go without the lease.
pub async fn a_lease_needs_no_news<S: Subject>(subject: &S) {
    let store = subject.open("known").await;
    signed_in(&store).await;
    for known in [1, 2, 17] {
        match done("lease", store.lease(Generation::new(known))).await {
            Leased::Lease(held) => soon("release", held.release(None)).await,
            Leased::Newer(record) => {
                panic!("a caller that knows generation {known} is given {record:?} as newer")
            }
        }
    }
    done("delete", store.delete()).await;
    match done("lease", store.lease(Generation::new(2))).await {
        Leased::Lease(held) => soon("release", held.release(None)).await,
        Leased::Newer(record) => {
            panic!("a caller that knows generation 2 is given {record:?} as newer")
        }
    }
}

/// Sixteen callers wait while the holder saves. Each gets what it has saved, or the lease, and
/// reads it.
pub async fn a_waiter_gets_the_lease_or_what_is_newer<S: Subject>(subject: &S) {
    let store = subject.open("waiters").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    let mut waiters = JoinSet::new();
    for _ in 0..16 {
        let store = subject.open("waiters").await;
        waiters.spawn(async move {
            match done("lease", store.lease(Generation::new(1))).await {
                Leased::Newer(record) => record,
                Leased::Lease(held) => {
                    let record = done("load", store.load()).await;
                    soon("release", held.release(None)).await;
                    record
                }
            }
        });
    }
    let wrong = "a waiter is done while another handle has the lease and nothing is newer";
    not_yet(wrong, waiters.join_next(), MOMENT).await;
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    soon("release", held.release(None)).await;
    let mut woken = 0;
    while let Some(waiter) = soon("a waiter", waiters.join_next()).await {
        match waiter {
            Ok(found) => assert!(
                found.is_same(&record(2, "2")),
                "a waiter has found {found:?}, and not what was saved"
            ),
            Err(error) => panic!("a waiter has failed: {error}"),
        }
        woken += 1;
    }
    assert_eq!(woken, 16, "not all waiters were woken");
}

/// Sign-in and sign-out do not wait for a refresh, and win over it.
pub async fn a_sign_in_needs_no_lease<S: Subject>(subject: &S) {
    let store = subject.open("sign-in").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    let other = subject.open("sign-in").await;
    done("sign-in", other.save(Generation::new(1), record(2, "2"))).await;
    let late = soon("a late save", held.save(Generation::new(1), record(2, "late"))).await;
    conflicts("a holder's save from before a sign-in", late);
    done("sign-out", other.delete()).await;
    let late = soon("a late save", held.save(Generation::new(2), record(3, "late"))).await;
    conflicts("a holder's save from before a sign-out", late);
    let found = done("load", store.load()).await;
    assert_eq!(found.tokens, None, "a late save has brought tokens back");
    soon("release", held.release(None)).await;
}

/// A lease that is dropped, and not released, is free sooner or later.
pub async fn a_dropped_lease_is_free<S: Subject>(subject: &S) {
    let store = subject.open("dropped").await;
    signed_in(&store).await;
    drop(lease(&store).await);
    let mut held = lease(&subject.open("dropped").await).await;
    done("intend", held.intend(Generation::new(1))).await;
    drop(held);
    let held = lease(&subject.open("dropped").await).await;
    soon("release", held.release(None)).await;
}

/// A caller that gives up waiting has taken nothing.
pub async fn a_dropped_waiter_takes_nothing<S: Subject>(subject: &S) {
    let held = lease(&subject.open("impatient").await).await;
    for moment in [Duration::ZERO, MOMENT / 10, MOMENT] {
        let store = subject.open("impatient").await;
        let wrong = "two handles have the lease at once";
        not_yet(wrong, store.lease(Generation::ZERO), moment).await;
    }
    soon("release", held.release(None)).await;
    soon("release", lease(&subject.open("impatient").await).await.release(None)).await;
}

/// A lease with a time limit is renewed for as long as its holder lives, before the
/// intent and after it.
pub async fn a_living_holder_keeps_its_lease<S: Subject>(subject: &S) {
    let wait = match subject.lease_time() {
        Ok(time) => time * 5 / 2,
        Err(reason) => {
            skipped::<S>("a_living_holder_keeps_its_lease (its renewal)", reason);
            MOMENT
        }
    };
    let store = subject.open("renewed").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    let other = subject.open("renewed").await;
    let wrong = "the lease of a living holder was not renewed";
    not_yet(wrong, other.lease(Generation::new(1)), wait).await;
    assert!(held.is_held(), "a holder is told that it does not hold the lease");
    done("intend", held.intend(Generation::new(1))).await;
    let wrong = "the lease of a living holder was not renewed after its intent";
    not_yet(wrong, other.lease(Generation::new(1)), wait).await;
    assert!(held.is_held(), "a holder is told after its intent that it does not hold the lease");
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    soon("release", held.release(None)).await;
}

/// Takes the lease away. `false`: it cannot be taken away, and that is shown.
async fn expire<S: Subject>(subject: &S, name: &str, check: &str) -> bool {
    match (subject.expire(name).await, subject.lease_time()) {
        (Ok(()), _) => true,
        (Err(reason), Err(_)) => {
            skipped::<S>(check, reason);
            false
        }
        (Err(reason), Ok(_)) => panic!(
            "a lease with a time limit can be lost: `Subject::expire` has to take it away, and says that it cannot ({reason})"
        ),
    }
}

fn lost_to_another(what: &str, outcome: &impl fmt::Debug, refused: bool) {
    assert!(refused, "the {what} of a holder that has lost the lease came to {outcome:?}");
}

/// Once another holder has the lease, the one before it can neither write nor note an intent,
/// and its release does not free the other's lease.
pub async fn a_lost_lease_cannot_write<S: Subject>(subject: &S) {
    let store = subject.open("lost").await;
    signed_in(&store).await;
    let mut lost = lease(&store).await;
    done("intend", lost.intend(Generation::new(1))).await;
    let other = subject.open("lost").await;
    if !expire(subject, "lost", "a_lost_lease_cannot_write").await {
        let wrong = "the lease of a living holder is given to another";
        not_yet(wrong, other.lease(Generation::new(1)), MOMENT).await;
        return;
    }
    let mut held = lease(&other).await;
    let late = soon("a late save", lost.save(Generation::new(1), record(2, "late"))).await;
    lost_to_another("save", &late, matches!(late, Err(SaveError::LeaseLost)));
    let late = soon("intend", lost.intend(Generation::new(1))).await;
    lost_to_another("intent", &late, late.is_err());
    holds(&store, &record(1, "1"), "a save under a lease that was lost is there").await;
    soon("release", lost.release(None)).await;
    let third = subject.open("lost").await;
    let wrong = "a holder that has lost the lease has given away the next holder's";
    not_yet(wrong, third.lease(Generation::new(1)), MOMENT).await;
    assert!(held.is_held(), "a holder is told that it does not hold the lease");
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    soon("release", held.release(None)).await;
    holds(&store, &record(2, "2"), "the next holder's save is not there").await;
}

/// A holder that has lost the lease leaves its intent to the next holder, and whatever it still
/// does, the next holder's intent stays as it was noted.
pub async fn a_lost_lease_leaves_intents_alone<S: Subject>(subject: &S) {
    let store = subject.open("noted").await;
    signed_in(&store).await;
    let mut lost = lease(&store).await;
    done("intend", lost.intend(Generation::new(1))).await;
    if !expire(subject, "noted", "a_lost_lease_leaves_intents_alone").await {
        return;
    }
    let mut held = lease(&subject.open("noted").await).await;
    let open = held.open_redeem().map(|open| open.generation);
    assert_eq!(open, Some(Generation::new(1)), "the intent is forgotten with the lease");
    done("intend", held.intend(Generation::new(1))).await;
    let late = soon("a late save", lost.save(Generation::new(1), record(2, "late"))).await;
    lost_to_another("save", &late, matches!(late, Err(SaveError::LeaseLost)));
    let late = soon("intend", lost.intend(Generation::new(7))).await;
    lost_to_another("intent", &late, late.is_err());
    soon("release", lost.release(None)).await;
    drop(held);
    let held = lease(&store).await;
    let open = held.open_redeem().map(|open| open.generation);
    assert_eq!(open, Some(Generation::new(1)), "the holder's intent is not as it was noted");
    soon("release", held.release(None)).await;
}

/// Each intent under one lease is noted, of whichever generation.
pub async fn a_lease_is_for_several_intents<S: Subject>(subject: &S) {
    let store = subject.open("several").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    for generation in 1..4 {
        done("intend", held.intend(Generation::new(generation))).await;
        let next = record(generation + 1, "next");
        done("sign-in", store.save(Generation::new(generation), next)).await;
        assert!(held.is_held(), "it ends with a sign-in");
        let other = subject.open("several").await;
        let known = Generation::new(generation + 1);
        not_yet("a lease that was used", other.lease(known), MOMENT).await;
    }
    done("intend", held.intend(Generation::new(4))).await;
    drop(held);
    let held = lease(&store).await;
    let open = held.open_redeem().map(|open| open.generation);
    assert_eq!(open, Some(Generation::new(4)), "the last intent is not told");
    soon("release", held.release(None)).await;
}

/// Whether the lock is given back by a save or by the release after it: that release takes it
/// from no other holder, and says nothing of that holder's intent.
pub async fn a_save_may_end_the_lease<S: Subject>(subject: &S) {
    let store = subject.open("saved").await;
    signed_in(&store).await;
    for generation in 1..4 {
        let known = Generation::new(generation + 1);
        let mut held = lease(&store).await;
        done("intend", held.intend(Generation::new(generation))).await;
        done("save", held.save(Generation::new(generation), record(generation + 1, "next"))).await;
        let other = subject.open("saved").await;
        let early = match timeout(MOMENT, other.lease(known)).await {
            Ok(Ok(Leased::Lease(mut early))) => {
                assert_eq!(early.open_redeem(), None, "the save has not ended the intent");
                done("intend", early.intend(known)).await;
                Some(early)
            }
            Ok(early) => panic!("the lease after a save came to {early:?}"),
            Err(_) => None,
        };
        soon("release", held.release(None)).await;
        let third = subject.open("saved").await;
        if let Some(early) = early {
            not_yet("a lease given away by another holder", third.lease(known), MOMENT).await;
            assert!(early.is_held());
            drop(early);
            let next = lease(&third).await;
            let open = next.open_redeem().map(|open| open.generation);
            assert_eq!(open, Some(known), "another holder has ended the intent");
            soon("release", next.release(None)).await;
        }
        soon("release", lease(&third).await.release(None)).await;
    }
}
