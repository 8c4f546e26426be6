//! The server is killed, started again or stopped, at each point where it is needed.

use std::sync::Arc;

use testing::{Auth, PostgresServer};
use tower_refresh::{
    Generation, RefreshState,
    store::{Leased, PostgresStore, TokenStore},
};

use super::{NAME, Place, access, lease, millis, record, sign_in, soon};

/// Gives up after a second.
fn quick(place: &Place) -> PostgresStore {
    place.builder().timeout(millis(1000)).build().unwrap().store(NAME)
}

#[tokio::test]
async fn a_load_fails_while_the_server_is_gone_and_works_at_once_when_it_is_back() {
    let mut server = PostgresServer::start();
    let place = Place::at(server.url()).await;
    let store = quick(&place);
    sign_in(&store).await;
    for _ in 0..2 {
        server.kill();
        soon(store.load()).await.unwrap_err();
        server.start_again();
        assert_eq!(access(&soon(store.load()).await.unwrap().tokens), Some("access-1"));
        server.pause();
        soon(store.load()).await.unwrap_err();
        server.resume();
        assert_eq!(access(&soon(store.load()).await.unwrap().tokens), Some("access-1"));
    }
}

/// The connections that were there are of no use; no caller notices.
#[tokio::test]
async fn a_restart_between_two_statements_is_not_noticed() {
    let mut server = PostgresServer::start();
    let place = Place::at(server.url()).await;
    let store = place.open();
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

/// What was minted while the server was away is saved when it is back, after one redeem.
#[tokio::test]
async fn a_server_that_is_away_during_a_redeem_gets_the_tokens_later() {
    let mut server = PostgresServer::start();
    let place = Place::at(server.url()).await;
    let auth = Auth::new();
    let store = quick(&place);
    sign_in(&store).await;
    let state = RefreshState::builder(auth.refresher())
        .store(store)
        .cool_down(millis(10), millis(50))
        .build();
    state.token().await.unwrap();
    auth.gate.close();
    let refreshing = Arc::clone(&state);
    tokio::spawn(async move { refreshing.refresh().await });
    auth.gate.arrived(1).await;
    server.kill();
    auth.gate.open();
    tokio::time::sleep(millis(500)).await;
    server.start_again();
    let mut current = state.subscribe();
    soon(current.wait_for(|now| now.access_token() == Some("access-2"))).await.unwrap();
    soon(state.drain()).await;
    auth.assert_sound();
    assert_eq!(auth.count(), 1);
    assert_eq!(access(&place.open().load().await.unwrap().tokens), Some("access-2"));
}

#[tokio::test]
async fn a_waiter_is_told_that_the_server_is_gone_or_gets_the_lease() {
    let mut server = PostgresServer::start();
    let place = Place::at(server.url()).await;
    let holder = lease(&place.patient(), 0).await;
    let waiting = place.builder().timeout(millis(1000)).poll(millis(50)).build().unwrap();
    let store = waiting.store(NAME);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.map(drop) });
    tokio::time::sleep(millis(300)).await;
    server.kill();
    soon(waiter).await.unwrap().unwrap_err();
    server.start_again();
    // The lease is older than the crash, and still held.
    let store = waiting.store(NAME);
    let waiter = tokio::spawn(async move { store.lease(Generation::ZERO).await.unwrap() });
    tokio::time::sleep(millis(300)).await;
    assert!(!waiter.is_finished());
    holder.release(None).await;
    assert!(matches!(soon(waiter).await.unwrap(), Leased::Lease(_)));
}
