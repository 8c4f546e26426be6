//! Intents: the open redeem that the next holder of the lease finds.

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

/// A holder that is gone after `intend` has left an open redeem.
pub async fn an_intent_outlives_its_holder<S: Subject>(subject: &S) {
    let store = subject.open("outlived").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    assert_eq!(held.open_redeem(), None, "a redeem that no holder has begun");
    done("intend", held.intend(Generation::new(1))).await;
    assert_eq!(held.open_redeem(), None, "its own intent is no open redeem of an earlier holder");
    drop(held);
    let open = found(subject, "outlived").await;
    let Some(open) = open else { panic!("the intent is forgotten") };
    assert_eq!(open.generation, Generation::new(1), "the intent is of another generation");
    assert!(
        matches!(open.cause, OpenCause::HolderEnded | OpenCause::HolderSilent),
        "of a holder that is gone without a word it says {:?}",
        open.cause
    );
    // That holder has released it as it was, and so the next one finds the same.
    let again = found(subject, "outlived").await;
    assert_eq!(again, Some(open), "what a holder has found and left is not what is there");
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    assert_eq!(held.open_redeem(), Some(open), "its own intent has replaced what it has found");
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    soon("release", held.release(None)).await;
    let left = found(subject, "outlived").await;
    assert_eq!(left, None, "a redeem that was saved is still open");
}

/// A holder that is gone without an intent has spent nothing, and leaves nothing open.
pub async fn without_an_intent_nothing_is_left<S: Subject>(subject: &S) {
    let store = subject.open("harmless").await;
    signed_in(&store).await;
    drop(lease(&store).await);
    let left = found(subject, "harmless").await;
    assert_eq!(left, None, "a holder that has noted nothing has left a redeem open");
}

/// A save ends the intent, even if the holder is gone before it releases the lease.
pub async fn a_save_ends_the_intent<S: Subject>(subject: &S) {
    let store = subject.open("ended").await;
    signed_in(&store).await;
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    done("save", held.save(Generation::new(1), record(2, "2"))).await;
    drop(held);
    assert_eq!(found(subject, "ended").await, None, "a redeem that was saved is still open");
}

/// The open redeem that a holder releases the lease with is what the next one finds; `None`
/// ends its intent.
pub async fn what_is_left_is_found<S: Subject>(subject: &S) {
    let store = subject.open("left").await;
    signed_in(&store).await;
    for cause in [
        OpenCause::AnswerLost,
        OpenCause::HolderEnded,
        OpenCause::HolderSilent,
        OpenCause::ServerFailed,
    ] {
        let open = OpenRedeem::new(Generation::new(1), cause);
        let mut held = lease(&store).await;
        done("intend", held.intend(Generation::new(1))).await;
        soon("release", held.release(Some(open))).await;
        let left = found(subject, "left").await;
        assert_eq!(left, Some(open), "what the holder has left open is not what is there");
    }
    let mut held = lease(&store).await;
    done("intend", held.intend(Generation::new(1))).await;
    soon("release", held.release(None)).await;
    let left = found(subject, "left").await;
    assert_eq!(left, None, "a release that leaves nothing open has left something");
}
