//! From when on the life of an access token counts.

use std::sync::Arc;

use testing::{Auth, Op, Store, idle, living, secs, stored, tokens};
use tokio::time::sleep;
use tower_refresh::RefreshState;

/// "From now, for tokens that the program brings": a program that has been idle for 90 seconds, and
/// one that was for longer than they live. Other processes read the same end in the store.
#[tokio::test(start_paused = true)]
async fn the_life_of_tokens_to_begin_with_counts_from_the_beginning() {
    for with_store in [false, true] {
        for idle in [90, 110] {
            let (auth, store) = (Auth::new(), Store::empty());
            let begun = match with_store {
                true => stored(&auth, &store),
                false => RefreshState::builder(auth.refresher()),
            };
            let state = begun.tokens(living(1, 100)).early_refresh(secs(0)).build();
            sleep(secs(idle)).await;
            let first = state.token().await.unwrap();
            let expected = if idle < 100 { "access-1" } else { "access-2" };
            assert_eq!(first.access_token(), Some(expected), "with a store: {with_store}");
            sleep(secs(20)).await;
            let token = state.token().await.unwrap();
            assert_eq!(token.access_token(), Some("access-2"), "with a store: {with_store}");
            auth.assert_sound();
        }
    }
}

/// And not from the moment its turn has come, for which it waits while the store is slow with the
/// one before.
#[tokio::test(start_paused = true)]
async fn the_life_of_a_sign_in_counts_from_the_call() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = stored(&auth, &store).early_refresh(secs(0)).build();
    state.token().await.unwrap();
    store.gate(Op::Save).close();
    let slow = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.set(tokens(40)).await }
    });
    idle().await;
    let waits = tokio::spawn({
        let state = Arc::clone(&state);
        async move { state.set(living(50, 100)).await }
    });
    sleep(secs(90)).await;
    store.gate(Op::Save).open();
    slow.await.unwrap().unwrap();
    waits.await.unwrap().unwrap();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-50"));
    sleep(secs(20)).await;
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-2"), "after 110 s");
}
