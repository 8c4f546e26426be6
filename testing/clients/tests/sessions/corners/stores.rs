//! Stores that panic, are slow, or are busy.

use std::{convert::Infallible, time::Duration};

use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tokio_test::{assert_pending, task};
use tower::{Layer, ServiceExt, service_fn};

use super::{MINUTE, Trouble, Troubled, name_of};
use testing::{
    Gate,
    sessions::{Body, Browser, Place, World, full, settle, signed_in},
};

/// A store that panics at a session's first read takes the request's task with it, instead of 503.
#[tokio::test(start_paused = true)]
async fn panic_a_store_that_panics_is_an_outage() {
    let stores = Troubled::default();
    let world = World { place: Place::at(stores.clone()), ..World::new() };
    let browser = signed_in(&world.replica(), "alice").await;
    stores.trouble(name_of(&browser), Trouble::Panics);
    let there = world.replica();
    let answer = std::panic::AssertUnwindSafe(browser.get(&there, "/")).catch_unwind().await;
    let status = answer.map(|answer| answer.status).map_err(|_| "it panicked");
    assert_eq!(status, Ok(StatusCode::SERVICE_UNAVAILABLE));
}

/// While the store is asked for one session, the readied service below is held: behind a limit of
/// concurrency a slow look stops requests that need no look (design, 12; S19).
#[tokio::test(start_paused = true)]
async fn s19_a_slow_look_holds_no_place_in_the_service_below() {
    let (stores, gate) = (Troubled::default(), Gate::new());
    let world = World { place: Place::at(stores.clone()), ..World::new() };
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    gate.close();
    stores.trouble(name_of(&browser), Trouble::ReadsWait(gate.clone()));
    let handler = service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(full(""))));
    let limited = tower::limit::ConcurrencyLimit::new(handler, 1);
    let app = replica.sessions.layer().layer(limited);
    let request = browser.request(Method::GET, "/").body(full("")).unwrap();
    let mut slow = task::spawn(app.clone().oneshot(request));
    assert_pending!(slow.poll());
    let anonymous = Browser::new().request(Method::GET, "/").body(full("")).unwrap();
    let answer = timeout(MINUTE, app.oneshot(anonymous)).await;
    assert!(answer.is_ok(), "it waits for the other one's look");
}

/// `watch_every` takes any duration, and a long one ("never") panics in the body of every stream.
async fn panic_a_stream_that_is_never_looked_after(world: World) {
    let replica = world.replica_with(|it| it.watch_every(Duration::MAX));
    let browser = signed_in(&replica, "alice").await;
    let stream = browser.begin(&replica, browser.request(Method::GET, "/events")).await;
    let ended = tokio::spawn(stream.into_body().collect());
    settle().await;
    assert!(!ended.is_finished(), "it has panicked: {:?}", ended.await.map(drop));
}

in_both_modes! {
    panic_a_stream_that_is_never_looked_after,
}
