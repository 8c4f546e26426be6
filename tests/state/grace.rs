//! A server with a grace period refuses a refresh token while it serves another redeem of it: a
//! rejection in doubt is not the end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use testing::{Auth, Fault, Op, Play, Store, idle, kind, opened, secs, tokens};
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, Generation, RefreshError, RefreshState, Refresher, Tokens,
    store::{Leased, OpenCause, Record, TokenStore},
};

/// A server with a grace period that refuses a refresh token while it serves another redeem of
/// it, and has the same pair for both when that is done.
#[derive(Clone, Default)]
struct Busy {
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Busy {
    /// Takes so long for the first.
    fn refresher(&self, serves: Duration) -> impl Refresher + use<> {
        let asked = Arc::clone(&self.asked);
        move |_: Tokens| {
            let begun = {
                let mut asked = asked.lock().unwrap();
                asked.push(Instant::now());
                asked[0]
            };
            async move {
                match begun.elapsed() {
                    // The connection is gone, and the server goes on.
                    Duration::ZERO => Err(RefreshError::transient("reset by peer")),
                    since if since < serves => Err(RefreshError::rejected("invalid_grant")),
                    _ => Ok(tokens(2)),
                }
            }
        }
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// The second of two holders is rejected while the first one's redeem is being served: it tries
/// once more, a second later, and the session goes on.
#[tokio::test(start_paused = true)]
async fn a_rejection_while_another_redeem_is_served_is_tried_once_more() {
    for (serves, lives) in [(1500, true), (2500, false)] {
        let (busy, store) = (Busy::default(), Store::with(tokens(1)));
        let state = || {
            let refresher = busy.refresher(Duration::from_millis(serves));
            RefreshState::builder(refresher).store(store.clone()).build()
        };
        let (one, other) = (state(), state());
        one.token().await.unwrap();
        assert_eq!(kind(one.refresh().await), FailureKind::Transient);
        sleep(secs(1)).await;
        other.token().await.unwrap();
        let refreshed = other.refresh().await;
        assert_eq!(busy.count(), 3);
        match lives {
            true => assert_eq!(refreshed.unwrap().access_token(), Some("access-2")),
            false => {
                assert_eq!(kind(refreshed), FailureKind::Rejected);
                assert_eq!(kind(other.refresh().await), FailureKind::Rejected);
                assert_eq!(busy.count(), 3, "never more than one more try");
            }
        }
    }
}

/// One holder's answer was lost, so that its redeem is left open, and another has come.
async fn after_a_lost_answer() -> (Auth, Store, Arc<RefreshState>) {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let holder = opened(&auth, &store).await;
    auth.next(Play::Fail);
    assert_eq!(kind(holder.refresh().await), FailureKind::Transient);
    let other = opened(&auth, &store).await;
    (auth, store, other)
}

/// The holder whose lease ran out has the new pair, and needs the lease to save it: it is not
/// kept waiting for the second try, and its pair is adopted.
#[tokio::test(start_paused = true)]
async fn the_lease_is_free_before_the_second_try() {
    let (auth, store, other) = after_a_lost_answer().await;
    auth.next(Play::Reject);
    let mut refresh = task::spawn(other.refresh());
    assert_pending!(refresh.poll());
    while auth.count() < 2 {
        idle().await;
    }
    idle().await;
    let Leased::Lease(mut lease) = store.lease(Generation::new(1)).await.unwrap() else {
        panic!("there is nothing newer");
    };
    assert_eq!(lease.open_redeem().map(|open| open.cause), Some(OpenCause::AnswerLost));
    lease.save(Generation::new(1), Record::new(Generation::new(2), tokens(7))).await.unwrap();
    lease.release(None).await;
    assert_eq!(refresh.await.unwrap().access_token(), Some("access-7"));
    assert_eq!(auth.count(), 2);
}

/// A session that is simply over is told so at once.
#[tokio::test(start_paused = true)]
async fn a_rejection_that_nothing_speaks_against_is_not_waited_for() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    auth.next(Play::Reject);
    let begun = Instant::now();
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    assert_eq!((auth.count(), begun.elapsed()), (1, Duration::ZERO));
}

/// I6, and `Course::rejected`: "what may be redeemed elsewhere now is looked at and tried once more",
/// before the credential is ended.
///
/// Order: one holder's answer is lost, and the server (with a grace period) goes on serving it. The
/// other is rejected meanwhile, yields its lease, and tries once more a second later. That try does
/// not get through: a transient failure, "cool down, then try again". When the cool-down is over the
/// server has the pair for it, and is asked, since the first rejection was in doubt.
#[tokio::test(start_paused = true)]
async fn i6_a_second_try_that_does_not_get_through_is_no_rejection() {
    let (auth, _, other) = after_a_lost_answer().await;
    auth.next(Play::Reject).next(Play::Fail);
    assert_eq!(kind(other.refresh().await), FailureKind::Transient);
    assert_eq!(auth.count(), 3);
    sleep(secs(300)).await;
    assert_eq!(other.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 4);
}

/// The same, with a store that cannot be reached for a moment when the second try wants the lease
/// that it has given back: nobody has asked the server a second time.
#[tokio::test(start_paused = true)]
async fn i6_a_lease_that_is_not_had_back_ends_no_credential() {
    let (auth, store, other) = after_a_lost_answer().await;
    auth.next(Play::Reject);
    let refresh = tokio::spawn(async move { (other.refresh().await.map(drop), other) });
    while auth.count() < 2 {
        idle().await;
    }
    store.fault(Op::Lease, Fault::Fail);
    let (refreshed, other) = refresh.await.unwrap();
    assert_eq!(kind(refreshed), FailureKind::Store);
    assert_eq!(auth.count(), 2, "there was no second try");
    sleep(secs(300)).await;
    assert_eq!(other.refresh().await.unwrap().access_token(), Some("access-2"));
}

/// The same, with a runtime that ends between the two tries (I7: shutdown is no rejection).
#[test]
fn i6_a_runtime_that_ends_between_the_tries_ends_no_credential() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(true).build().unwrap()
    };
    let first = runtime();
    let other = first.block_on(async {
        let (auth, _, other) = after_a_lost_answer().await;
        auth.next(Play::Reject);
        let refresh = other.clone();
        tokio::spawn(async move { refresh.refresh().await.map(drop) });
        while auth.count() < 2 {
            idle().await;
        }
        idle().await;
        other
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(other.refresh().await.unwrap().access_token(), Some("access-2"));
    });
}
