//! A credential that is rejected or signed out looks into its store, since another process may
//! have signed in: what comes of that if something goes wrong.

use std::error::Error;

use testing::{Auth, Fault, Op, Play, Store, kind, opened, secs, tokens};
use tokio::time::sleep;
use tokio_test::{assert_pending, task};
use tower_refresh::{FailureKind, state::Health, store::OpenCause};

/// Another process has signed in, and its access token has run out by now: that it could
/// not be redeemed at once is no sign-out.
#[tokio::test(start_paused = true)]
async fn a_sign_in_elsewhere_is_redeemed_until_that_works() {
    for (play, told) in [(Play::Fail, FailureKind::Transient), (Play::Panic, FailureKind::Panicked)]
    {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        store.overwrite(None).await;
        assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
        store.overwrite(Some(tokens(7).with_expires_in(secs(0)))).await;
        auth.next(play);
        let nothing = state.current().generation();
        assert_eq!(kind(state.challenged(nothing).await), told);
        sleep(secs(60)).await;
        assert_eq!(state.challenged(nothing).await.unwrap().access_token(), Some("access-2"));
        assert_eq!(auth.asked(), ["refresh-7", "refresh-7"]);
    }
}

/// The server has said when to come again.
#[tokio::test(start_paused = true)]
async fn a_sign_in_elsewhere_is_not_redeemed_before_the_cool_down_is_over() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.overwrite(None).await;
    assert_eq!(kind(state.refresh().await), FailureKind::SignedOut);
    store.overwrite(Some(tokens(7).with_expires_in(secs(0)))).await;
    auth.next(Play::RetryAfter(secs(600)));
    let nothing = state.current().generation();
    assert_eq!(kind(state.challenged(nothing).await), FailureKind::Transient);
    sleep(secs(599)).await;
    assert_eq!(kind(state.challenged(nothing).await), FailureKind::Transient);
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    assert_eq!(auth.count(), 1);
    sleep(secs(2)).await;
    assert_eq!(state.challenged(nothing).await.unwrap().access_token(), Some("access-2"));
}

/// Why it is dead is known yet when the store could not be read for a while. As an answer was lost
/// before, a first rejection is in doubt, and is tried once more then.
#[tokio::test(start_paused = true)]
async fn a_look_that_fails_does_not_make_the_reason_forgotten() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    auth.next(Play::Fail).next(Play::Reject).next(Play::Reject);
    let state = opened(&auth, &store).await;
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    sleep(secs(60)).await;
    let refused = state.current().generation();
    // The first time while the record is read once more.
    auth.gate.close();
    let mut challenged = task::spawn(state.challenged(refused));
    assert_pending!(challenged.poll());
    auth.gate.arrived(2).await;
    store.fault(Op::Load, Fault::Fail);
    auth.gate.open();
    assert_eq!(kind(challenged.await), FailureKind::Store);
    store.fault(Op::Load, Fault::Fail);
    sleep(secs(60)).await;
    assert_eq!(kind(state.challenged(refused).await), FailureKind::Store);
    for _ in 0..2 {
        sleep(secs(60)).await;
        let failure = state.challenged(refused).await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Rejected);
        assert_eq!(failure.open_redeem(), Some(OpenCause::AnswerLost));
        assert!(failure.source().is_some(), "the server's own words");
        // Nor by a look that fails afterwards.
        sleep(secs(60)).await;
        store.fault(Op::Load, Fault::Fail);
        assert_eq!(kind(state.challenged(refused).await), FailureKind::Store);
    }
    assert_eq!(auth.count(), 3);
}

/// What a look has found was redeemed and cannot be saved: no caller waits for that.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_save_that_keeps_failing() {
    for rejected in [true, false] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        if rejected {
            auth.next(Play::Reject);
        } else {
            store.overwrite(None).await;
        }
        state.refresh().await.unwrap_err();
        store.overwrite(Some(tokens(7).with_expires_in(secs(0)))).await;
        for _ in 0..8 {
            store.fault(Op::Save, Fault::Fail);
        }
        sleep(secs(60)).await;
        let refused = state.current().generation();
        assert_eq!(kind(state.challenged(refused).await), FailureKind::Unsaved);
        let mut late = task::spawn(state.challenged(refused));
        assert!(late.poll().is_ready(), "it waits");
        drop(late);
        assert_eq!(kind(state.challenged(refused).await), FailureKind::Unsaved);
        state.drain().await;
        assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    }
}

/// Without a request, and without a refusal.
#[tokio::test(start_paused = true)]
async fn a_look_finds_what_another_process_has_written() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let (here, elsewhere) = (opened(&auth, &store).await, opened(&auth, &store).await);
    assert_eq!(here.look().await.unwrap().access_token(), Some("access-1"));
    elsewhere.refresh().await.unwrap();
    assert_eq!(here.look().await.unwrap().access_token(), Some("access-2"));
    elsewhere.clear().await.unwrap();
    assert_eq!(here.look().await.unwrap().access_token(), None);
    assert_eq!(here.health(), Health::SignedOut);
    elsewhere.set(tokens(30)).await.unwrap();
    assert_eq!(here.look().await.unwrap().access_token(), Some("access-30"));
    assert_eq!(auth.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_looked_at_says_so_and_ends_nothing() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    for fault in [Fault::Fail, Fault::Panic] {
        store.fault(Op::Load, fault);
        assert!(state.look().await.is_err());
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    }
    assert_eq!(state.look().await.unwrap().access_token(), Some("access-1"));
}
