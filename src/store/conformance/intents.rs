//! Intents: what the next holder of the lease is told.

use super::{Subject, done, lease, record, signed_in, soon};
use crate::{
    store::{OpenCause, OpenRedeem},
    tokens::Generation,
};

async fn found<S: Subject>(subject: &S, name: &str) -> Option<OpenRedeem> {
    let held = lease(&subject.open(name).await).await;
    let found = held.open_redeem();
    soon("release", held.release(found)).await;
    found
}

/// Whoever is gone after `intend` has left word.
pub async fn an_intent_outlives_its_holder<S: Subject>(subject: &S) {
    let store = subject.open("outlived").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    assert_eq!(held.open_redeem(), None);
    done("intend", held.intend(Generation::new(1))).await;
    assert_eq!(held.open_redeem(), None, "its own intent is no interruption");
    drop(held);
    let told = found(subject, "outlived").await;
    let Some(told) = told else { panic!("the intent is forgotten") };
    assert_eq!(told.generation, Generation::new(1));
    assert!(
        matches!(told.cause, OpenCause::HolderEnded | OpenCause::HolderSilent),
        "{:?}",
        told.cause
    );
    // It stays for whoever does not do better.
    assert_eq!(found(subject, "outlived").await, Some(told));
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    assert_eq!(held.open_redeem(), Some(told));
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    soon("release", held.release(None)).await;
    assert_eq!(found(subject, "outlived").await, None);
}

/// A holder that was gone before it meant to spend anything is nobody's concern.
pub async fn without_an_intent_nothing_is_left<S: Subject>(subject: &S) {
    let store = subject.open("harmless").await;
    signed_in(&store).await;
    drop(lease(&store).await);
    assert_eq!(found(subject, "harmless").await, None);
}

/// With the save the intent is over, even if the holder is gone before it gives the lease
/// back.
pub async fn a_save_ends_the_intent<S: Subject>(subject: &S) {
    let store = subject.open("ended").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    drop(held);
    assert_eq!(found(subject, "ended").await, None);
}

/// What a holder leaves is what the next one finds, whether or not it had an intent.
pub async fn what_is_left_is_found<S: Subject>(subject: &S) {
    let store = subject.open("left").await;
    signed_in(&store).await;
    for cause in [OpenCause::AnswerLost, OpenCause::HolderEnded, OpenCause::HolderSilent] {
        let left = OpenRedeem::new(Generation::new(1), cause);
        let mut held = lease(&store).await;
        done("intend", held.intend(Generation::new(1))).await;
        soon("release", held.release(Some(left))).await;
        assert_eq!(found(subject, "left").await, Some(left));
    }
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    soon("release", held.release(None)).await;
    assert_eq!(found(subject, "left").await, None);
}
