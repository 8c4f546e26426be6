//! Sign-ins while something is under way, here and elsewhere.

use std::sync::Arc;

use testing::{Auth, Logs, Op, Store, builder, idle, living, opened, secs, stored, tokens};
use tokio::time::sleep;
use tower_refresh::{RefreshState, Tokens};

const LIFE: u64 = 1000;

/// "Begin with this refresh token."
fn alone(number: u64) -> Tokens {
    Tokens::new("").with_refresh_token(format!("refresh-{number}"))
}

/// `Tokens::new`: an empty one "has run out: a credential that is signed in with it begins with its
/// refresh token, which is redeemed before the first request is sent." Two processes begin with
/// the same refresh token and an empty store, and do `refresh()` at once: also the one whose save
/// comes second is given an access token.
#[tokio::test(start_paused = true)]
async fn first_refreshes_of_two_processes_with_a_refresh_token_alone_bring_tokens() {
    let (auth, store) = (Auth::new(), Store::empty());
    // Within one millisecond equal records have equal numbers, and count as the same save. These
    // differ by an access token, which has run out.
    let [a, b] = [living(1, 0), alone(1)].map(|seed| stored(&auth, &store).tokens(seed).build());
    // Both have read the empty store before the first one writes, and the second one has the lease
    // before the first one has it again.
    store.gate(Op::Lease).close();
    store.gate(Op::Save).close();
    let both = tokio::spawn(async move { tokio::join!(a.refresh(), b.refresh()) });
    idle().await;
    store.gate(Op::Lease).open();
    idle().await;
    store.gate(Op::Lease).close();
    store.gate(Op::Save).open();
    idle().await;
    store.gate(Op::Lease).open();
    let (a, b) = both.await.unwrap();
    auth.assert_sound();
    let tokens = [a, b].map(|got| got.unwrap().access_token().map(str::to_owned));
    assert_eq!(tokens, [Some("access-2".to_owned()), Some("access-2".to_owned())]);
}

/// `token`: "The token to use now. Waits while there is none that works". A redeem is under way;
/// another process signs in with a refresh token alone. The waiter is not given that, but what it
/// is redeemed for.
#[tokio::test(start_paused = true)]
async fn a_waiter_does_not_get_what_another_process_has_signed_in_with_and_has_run_out() {
    let (auth, store) = (Auth::new(), Store::with(living(1, LIFE)));
    let (a, b) = (opened(&auth, &store).await, opened(&auth, &store).await);
    sleep(secs(LIFE + 1)).await;
    auth.gate.close();
    let waits = tokio::spawn(async move { a.token().await });
    idle().await;
    assert_eq!(auth.count(), 1);
    b.set(alone(9)).await.unwrap();
    auth.gate.open();
    let token = waits.await.unwrap().map(|token| token.access_token().map(str::to_owned));
    assert!(matches!(token, Ok(Some(_))), "{token:?}");
}

/// The same within one process.
#[tokio::test(start_paused = true)]
async fn a_waiter_does_not_get_a_sign_in_that_has_run_out() {
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(living(1, LIFE)).build();
    sleep(secs(LIFE + 1)).await;
    auth.gate.close();
    let waits = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.token().await }
    });
    idle().await;
    assert_eq!(auth.count(), 1);
    state.set(alone(9)).await.unwrap();
    auth.gate.open();
    let token = waits.await.unwrap().map(|token| token.access_token().map(str::to_owned));
    assert!(matches!(token, Ok(Some(_))), "{token:?}");
}

/// Invariants 1 and 6. A redeem is slow; the user signs in, and a request with that token is
/// refused and waits; the user signs in again. The token of the second sign-in was never refused,
/// and is not refreshed.
#[tokio::test(start_paused = true)]
async fn a_second_sign_in_is_not_refreshed_for_a_refusal_of_the_first() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let slow = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    let first = state.set(tokens(50)).await.unwrap();
    let refused = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.challenged(first).await }
    });
    idle().await;
    state.set(tokens(60)).await.unwrap();
    assert_eq!(refused.await.unwrap().unwrap().access_token(), Some("access-60"));
    auth.gate.open();
    slow.await.unwrap().unwrap();
    sleep(secs(1)).await;
    assert_eq!(auth.asked(), ["refresh-1"], "nobody has refused access-60");
    assert_eq!(state.current().access_token(), Some("access-60"));
}

/// The docs of the log: `superseded` is a flight that "came too late: there was a sign-in or a
/// sign-out", and `signed_out` one that "has failed".
#[tokio::test(start_paused = true)]
async fn a_flight_that_a_sign_out_has_superseded_is_said_to_be_that() {
    let (logs, _guard) = Logs::capture();
    let auth = Auth::new();
    let state = builder(&auth).build();
    auth.gate.close();
    let slow = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    state.clear().await.unwrap();
    auth.gate.open();
    let _ = slow.await.unwrap();
    state.drain().await;
    logs.assert_told(&["flight landed", "outcome=\"superseded\""]);
}

/// "A refresh token is never spent twice and never lost". A redeem of refresh-1 is under way; a program
/// signs in with refresh-1 once more (it is in its configuration, which is read again). The pair
/// that the redeem brings is that session's: it takes the place of the token that it was minted
/// from, which is spent.
#[tokio::test(start_paused = true)]
async fn a_sign_in_with_the_token_that_is_being_spent_does_not_have_it_spent_again() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    auth.gate.close();
    let slow = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.refresh().await }
    });
    idle().await;
    state.set(tokens(1)).await.unwrap();
    auth.gate.open();
    let _ = slow.await.unwrap();
    idle().await;
    let _ = state.refresh().await;
    assert_eq!(auth.asked(), ["refresh-1", "refresh-2"]);
    auth.assert_sound();
}
