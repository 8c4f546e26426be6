//! A store that fails, lies or is lost (I4; its promise is in `invariants::saving`).

use std::sync::Arc;

use testing::{Auth, Fault, Op, Play, Store, idle, kind, opened, secs, stored, tokens};
use tokio::time::{Instant, sleep, timeout};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, Tokens,
    state::WhileUnsaved,
    store::{Record, TokenStore},
};

#[tokio::test(start_paused = true)]
async fn refuse_lets_the_old_token_go_on_and_ends_waits_at_once() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    for _ in 0..4 {
        store.fault(Op::Save, Fault::Fail);
    }
    let begun = Instant::now();
    let failure = state.refresh().await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unsaved);
    let store_error = std::error::Error::source(&failure).expect("what the store said");
    assert_eq!(store_error.source().unwrap().to_string(), "disk full");
    // Known to fail: later callers hear at once, and the gate is open again.
    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(begun.elapsed(), secs(0));
    assert!(state.status().in_flight.is_some(), "saving goes on");

    sleep(secs(60)).await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(state.status().in_flight, None);
    assert_eq!(auth.count(), 1);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-3"));
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn serve_gives_the_new_token_out_and_the_next_challenge_does_not_redeem_it_unsaved() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = stored(&auth, &store).while_unsaved(WhileUnsaved::Serve).build();
    let first = state.token().await.unwrap().generation();
    for _ in 0..3 {
        store.fault(Op::Save, Fault::Fail);
    }
    let second = state.challenged(first).await.unwrap();
    assert_eq!(second.access_token(), Some("access-2"));
    // Its refresh token is in no store yet: nothing can be redeemed.
    assert_eq!(kind(state.challenged(second.generation()).await), FailureKind::Unsaved);
    assert_eq!(auth.count(), 1);

    sleep(secs(60)).await;
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
    assert_eq!(
        state.challenged(second.generation()).await.unwrap().access_token(),
        Some("access-3")
    );
    assert_eq!(auth.asked(), ["refresh-1", "refresh-2"]);
}

#[tokio::test(start_paused = true)]
async fn retries_of_the_save_are_paced() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    for _ in 0..10_000 {
        store.fault(Op::Save, Fault::Fail);
    }
    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    sleep(secs(3600)).await;
    // 30 seconds apart on average once the pauses are at their longest.
    assert!((60..300).contains(&store.count(Op::Save)), "{}", store.count(Op::Save));
    assert_eq!(auth.count(), 1);
}

/// The write had happened; the second try meets its own record.
#[tokio::test(start_paused = true)]
async fn a_save_reported_as_failed_that_had_worked_is_recognised() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let discarded = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = Arc::clone(&discarded);
    let state = stored(&auth, &store)
        .on_discard(move |_| {
            seen.store(true, std::sync::atomic::Ordering::SeqCst);
            async {}
        })
        .build();
    state.token().await.unwrap();
    store.fault(Op::Save, Fault::FailAfter);

    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    sleep(secs(2)).await;

    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(state.status().counts.refreshes, 1);
    assert!(!discarded.load(std::sync::atomic::Ordering::SeqCst), "the store has it");
    assert_eq!(auth.count(), 1);
}

/// The save had worked unheard, and before it is tried again another process has redeemed what it has
/// written. To revoke the first one's pair now would end the session: a server ends all that came of a
/// refresh token that is revoked (RFC 7009, section 2.1).
#[tokio::test(start_paused = true)]
async fn a_pair_that_another_process_may_have_redeemed_is_not_revoked() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let discarded = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&discarded);
    let here = stored(&auth, &store)
        .on_discard(async move |tokens: Tokens| seen.lock().unwrap().push(tokens))
        .build();
    here.token().await.unwrap();
    store.fault(Op::Save, Fault::FailAfter);
    assert_eq!(kind(here.refresh().await), FailureKind::Unsaved);
    // What has come of what was written unheard.
    let written = store.load().await.unwrap().generation;
    let next = Record::new(written.next(), tokens(3));
    store.save(written, next).await.unwrap();
    sleep(secs(5)).await;
    assert_eq!(here.token().await.unwrap().access_token(), Some("access-3"));
    assert_eq!(*discarded.lock().unwrap(), [], "its session would end");
    assert_eq!(auth.count(), 1);
}

/// A store that went back (a failover, a restored backup) takes the minted pair.
#[tokio::test(start_paused = true)]
async fn a_store_that_lost_data_is_given_the_newer_record() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    state.refresh().await.unwrap();
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(2).await;
    store.rewind(tokens(1)).await;
    store.gate(Op::Save).open();
    assert_eq!(kind(refresh.await), FailureKind::Unsaved);
    sleep(secs(5)).await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-3"));
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-3"));
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_conflict_with_another_writer_adopts_theirs_and_discards_ours() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let list = Arc::new(std::sync::Mutex::new(Vec::new()));
    let discarded = Arc::clone(&list);
    let state = stored(&auth, &store)
        .on_discard(move |tokens| {
            discarded.lock().unwrap().push(tokens);
            async {}
        })
        .build();
    state.token().await.unwrap();
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    store.overwrite(Some(tokens(70))).await;
    store.gate(Op::Save).open();

    assert_eq!(refresh.await.unwrap().access_token(), Some("access-70"));
    idle().await;
    assert_eq!(*list.lock().unwrap(), [tokens(2)]);
    assert_eq!(state.status().counts.refreshes, 0);
}

#[tokio::test(start_paused = true)]
async fn another_process_that_signed_out_meanwhile_is_believed() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.gate(Op::Save).close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    store.gate(Op::Save).arrived(1).await;
    store.overwrite(None).await;
    store.gate(Op::Save).open();
    assert_eq!(kind(refresh.await), FailureKind::SignedOut);
    assert_eq!(store.refresh_token().await, None);
    assert_eq!(kind(state.token().await), FailureKind::SignedOut);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_locked_or_read_redeems_nothing_and_cools_down() {
    for op in [Op::Lease, Op::Load] {
        let (auth, store) = (Auth::new(), Store::with(tokens(1)));
        let state = opened(&auth, &store).await;
        store.fault(op, Fault::Fail);
        let failure = state.refresh().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Store, "{op:?}");
        assert_eq!(auth.count(), 0);
        tokio::time::sleep_until(failure.retry_at().unwrap()).await;
        idle().await;
        assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"), "{op:?}");
    }
}

/// The initial tokens could not be saved: they are not given up.
#[tokio::test(start_paused = true)]
async fn initial_tokens_are_saved_again_too() {
    let (auth, store) = (Auth::new(), Store::empty());
    store.fault(Op::Save, Fault::Fail);
    let state = stored(&auth, &store).tokens(tokens(1)).build();
    assert_eq!(kind(state.token().await), FailureKind::Unsaved);
    sleep(secs(2)).await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(auth.count(), 0);
}

/// Draining takes as long as the saving.
#[tokio::test(start_paused = true)]
async fn drain_waits_for_the_retried_save() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    for _ in 0..5 {
        store.fault(Op::Save, Fault::Fail);
    }
    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    timeout(secs(120), state.drain()).await.unwrap();
    assert_eq!(store.refresh_token().await.as_deref(), Some("refresh-2"));
}

/// Rejected in one process because another has rotated: the store has the answer.
#[tokio::test(start_paused = true)]
async fn rejected_then_adopted_from_the_store_later() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    auth.next(Play::Reject);
    let state = opened(&auth, &store).await;
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    store.overwrite(Some(tokens(44))).await;
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-44"));
    assert_eq!(auth.count(), 1);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1", "refresh-44"]);
}
