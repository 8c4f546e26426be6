//! What the log says that a flight has done.

use testing::{Auth, Fault, Logs, Op, Store, idle, kind, secs, stored, tokens};
use tokio::time::sleep;
use tokio_test::{assert_pending, task};
use tower_refresh::FailureKind;

/// What a flight has done is said as it was, and `renewed` only of a redeem.
#[tokio::test(start_paused = true)]
async fn a_flight_is_said_to_have_renewed_only_if_it_has_redeemed() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = stored(&auth, &store).build();
    let landed = async |expected: &str| {
        let (logs, guard) = Logs::capture();
        let _ = state.refresh().await;
        idle().await;
        drop(guard);
        let said = format!("outcome=\"{expected}\"");
        assert_eq!(logs.count(&["flight landed", &said]), 1, "{expected}\n{}", logs.text());
    };
    {
        let (logs, _guard) = Logs::capture();
        state.token().await.unwrap();
        logs.assert_told(&["flight landed", "outcome=\"read\""]);
    }
    landed("renewed").await;
    store.overwrite(Some(tokens(20))).await;
    landed("adopted").await;
    assert_eq!(auth.count(), 1);

    // A sign-in comes before.
    let (logs, _guard) = Logs::capture();
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(2).await;
    state.set(tokens(30)).await.unwrap();
    auth.gate.open();
    refresh.await.unwrap();
    idle().await;
    logs.assert_told(&["flight landed", "outcome=\"superseded\""]);
    assert_eq!(logs.count(&["outcome=\"renewed\""]), 0);
}

/// A save that fails at first is a failure, and in the end a refresh.
#[tokio::test(start_paused = true)]
async fn a_flight_that_has_saved_in_the_end_has_renewed() {
    let (logs, _guard) = Logs::capture();
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = stored(&auth, &store).build();
    state.token().await.unwrap();
    store.fault(Op::Save, Fault::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Unsaved);
    logs.assert_told(&["WARN", "refresh failed", "kind=\"unsaved\""]);
    sleep(secs(60)).await;
    logs.assert_told(&["flight landed", "outcome=\"renewed\""]);
}
