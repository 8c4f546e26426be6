//! Redis is killed, started again or stopped, at each point where it is needed.

use std::{sync::Arc, time::Duration};

use testing::{Auth, kind};
use tower_refresh::{
    FailureKind, Generation, RefreshState,
    store::{Leased, RedisStore, SaveError, TokenStore},
};

use super::{
    NAME, RedisServer, access, builder, lease, listeners, listening, looked, millis, open, record,
    sign_in, soon, until,
};

/// A state with a token, whose store answers or gives up fast.
async fn signed_in(server: &RedisServer, auth: &Auth) -> Arc<RefreshState> {
    let store = quick(server);
    sign_in(&store).await;
    let state = RefreshState::builder(auth.refresher())
        .store(store)
        .cool_down(millis(10), millis(50))
        .build();
    state.token().await.unwrap();
    state
}

/// Gives up after half a second.
fn quick(server: &RedisServer) -> RedisStore {
    builder(server).timeout(millis(500)).build().unwrap().store(NAME)
}

/// A refresh that is at the token endpoint.
async fn redeeming(state: &Arc<RefreshState>, auth: &Auth) {
    auth.gate.close();
    let refreshing = Arc::clone(state);
    tokio::spawn(async move { refreshing.refresh().await });
    auth.gate.arrived(1).await;
}

/// The pair that was minted arrives in Redis, after one redeem.
async fn is_saved(server: &RedisServer, state: &Arc<RefreshState>, auth: &Auth) {
    let mut current = state.subscribe();
    let published = current.wait_for(|now| now.access_token() == Some("access-2"));
    soon(published).await.unwrap();
    soon(state.drain()).await;
    auth.assert_sound();
    assert_eq!(auth.count(), 1);
    let store = open(server);
    let saved = store.load().await.unwrap();
    assert_eq!(saved.generation, Generation::new(2));
    assert_eq!(access(&saved.tokens), Some("access-2"));
    // What may still be noted is of a token that nobody will spend any more.
    let left = lease(&store, 2).await.open_redeem();
    assert!(left.is_none_or(|left| left.generation < saved.generation), "{left:?}");
}

#[tokio::test]
async fn a_load_fails_while_redis_is_gone_and_works_at_once_when_it_is_back() {
    let mut server = RedisServer::start();
    let store = quick(&server);
    sign_in(&store).await;
    for _ in 0..2 {
        server.kill();
        soon(store.load()).await.unwrap_err();
        soon(store.load()).await.unwrap_err();
        server.start_again();
        assert_eq!(access(&soon(store.load()).await.unwrap().tokens), Some("access-1"));
        server.pause();
        soon(store.load()).await.unwrap_err();
        server.resume();
        assert_eq!(access(&soon(store.load()).await.unwrap().tokens), Some("access-1"));
    }
}

/// The connection that was there is of no use; no caller notices.
#[tokio::test]
async fn a_restart_between_two_commands_is_not_noticed() {
    let mut server = RedisServer::start();
    let store = quick(&server);
    sign_in(&store).await;
    server.start_again();
    store.save(Generation::new(1), record(2)).await.unwrap();
    server.start_again();
    let mut holder = lease(&store, 2).await;
    server.start_again();
    holder.intend(Generation::new(2)).await.unwrap();
    server.start_again();
    holder.save(Generation::new(2), record(3)).await.unwrap();
    server.start_again();
    assert_eq!(access(&store.delete().await.unwrap().tokens), Some("access-3"));
}

#[tokio::test]
async fn without_redis_nothing_is_redeemed_and_a_valid_token_goes_on() {
    let mut server = RedisServer::start();
    let auth = Auth::new();
    let state = signed_in(&server, &auth).await;
    for gone in [false, true] {
        match gone {
            true => server.kill(),
            false => server.pause(),
        }
        assert_eq!(kind(soon(state.refresh()).await), FailureKind::Store);
        assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
        assert_eq!(auth.count(), 0, "there was no lease");
        match gone {
            true => server.start_again(),
            false => server.resume(),
        }
    }
    soon(async {
        while state.refresh().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    is_saved(&server, &state, &auth).await;
}

#[tokio::test]
async fn a_pair_minted_while_redis_is_gone_is_saved_when_it_is_back() {
    let mut server = RedisServer::start();
    let auth = Auth::new();
    let state = signed_in(&server, &auth).await;
    redeeming(&state, &auth).await;
    server.kill();
    auth.gate.open();
    assert_eq!(kind(soon(state.refresh()).await), FailureKind::Unsaved);
    assert_eq!(state.current().access_token(), Some("access-1"));
    server.start_again();
    is_saved(&server, &state, &auth).await;
}

#[tokio::test]
async fn a_restart_during_the_redeem_is_not_noticed() {
    let mut server = RedisServer::start();
    let auth = Auth::new();
    let state = signed_in(&server, &auth).await;
    redeeming(&state, &auth).await;
    server.start_again();
    auth.gate.open();
    is_saved(&server, &state, &auth).await;
    assert!(state.status().last_failure.is_none(), "{:?}", state.status());
}

/// The write happens when its caller has stopped waiting for the answer.
#[tokio::test]
async fn a_save_whose_answer_never_came_is_recognised() {
    let server = RedisServer::start();
    let auth = Auth::new();
    let state = signed_in(&server, &auth).await;
    redeeming(&state, &auth).await;
    server.pause();
    auth.gate.open();
    assert_eq!(kind(soon(state.refresh()).await), FailureKind::Unsaved);
    server.resume();
    is_saved(&server, &state, &auth).await;
}

#[tokio::test]
async fn a_save_without_an_answer_is_a_failure_and_not_a_conflict() {
    let server = RedisServer::start();
    let store = quick(&server);
    sign_in(&store).await;
    let mut holder = lease(&store, 1).await;
    server.pause();
    let saved = soon(holder.save(Generation::new(1), record(2))).await;
    assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
    server.resume();
}

/// A paused server ends the wait, a killed one too, and neither hangs or panics.
#[tokio::test]
async fn who_waits_is_told_that_redis_is_gone() {
    let mut server = RedisServer::start();
    let mut connection = server.connection();
    let store = quick(&server);
    sign_in(&store).await;
    let holder = lease(&open(&server), 1).await;
    for kill in [false, true] {
        let waiting = store.clone();
        let waiter = tokio::spawn(async move { waiting.lease(Generation::new(1)).await });
        listening(&mut connection, 1).await;
        match kill {
            true => server.kill(),
            false => server.pause(),
        }
        soon(waiter).await.unwrap().unwrap_err();
        if !kill {
            server.resume();
            until("nobody listens", || listeners(&mut connection) == 0).await;
        }
    }
    server.start_again();
    holder.release(None).await;
    assert!(matches!(soon(store.lease(Generation::new(1))).await.unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn who_waits_hears_again_after_a_restart() {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut server = RedisServer::start();
    let mut connection = server.connection();
    // It does not look, and so does not notice anything but the messages.
    let holders = builder(&server).lease(HOUR).build().unwrap().store(NAME);
    let holder = lease(&holders, 0).await;
    let store = builder(&server).poll(HOUR).build().unwrap().store(NAME);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await });
    listening(&mut connection, 1).await;
    server.start_again();
    let mut connection = server.connection();
    listening(&mut connection, 1).await;
    // The script has to be loaded first.
    looked(&mut connection, 2).await;
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap().unwrap(), Leased::Lease(_)));
}

#[tokio::test]
async fn a_release_that_does_not_arrive_hangs_nobody() {
    let mut server = RedisServer::start();
    let store = quick(&server);
    let holder = lease(&store, 0).await;
    server.kill();
    soon(holder.release(None)).await;
    let holder = soon(store.lease(Generation::ZERO)).await;
    holder.unwrap_err();
}
