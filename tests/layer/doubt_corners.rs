//! Orders of events that are easily got wrong: each was once.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};

use testing::{Auth, Play, answer, builder, get, idle, mock, next, post, secs, token_of};
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{
    FailureKind, RefreshFailure, RefreshLayer, RefreshState, Tokens, body::ReplayBody,
};

use crate::{
    good_and_bad::{Body, Server, to},
    serve,
};

/// A name without a digit, so that its path is a route of its own.
fn slug(number: u32) -> String {
    number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
}

/// "at most 12 refreshes in the first minute"; invariant 16: a doubt may start a
/// refresh, "ever more rarely while refreshes do not help". Each bad request is for a path of its
/// own (`/items/br`), and the good route answers every two seconds, or takes that long: nothing
/// was accepted for a second, so each such refusal is a fact, which no pause and no brake holds
/// back, and which closes the gate.
async fn redeems_in_the_first_minute(
    good_takes: Duration,
    good_pauses: Duration,
) -> (usize, usize) {
    let server = Server::new(false, good_takes);
    let [state] = server.states();
    let client = server.client(RefreshLayer::new(state));
    client.clone().oneshot(to("/good")).await.unwrap();
    let good = tokio::spawn({
        let client = client.clone();
        async move {
            loop {
                client.clone().oneshot(to("/good")).await.unwrap();
                sleep(good_pauses).await;
            }
        }
    });
    for tick in 0..300 {
        tokio::spawn(client.clone().oneshot(to(&format!("/items/{}", slug(tick)))));
        sleep(Duration::from_millis(200)).await;
    }
    good.abort();
    (server.redeems(), server.good_answers())
}

#[tokio::test(start_paused = true)]
async fn refusals_of_ever_new_routes_beside_a_rare_good_one_become_rare() {
    let (redeems, _) = redeems_in_the_first_minute(Duration::from_millis(1), secs(2)).await;
    assert!(redeems <= 12, "{redeems} refreshes in the first minute");
}

#[tokio::test(start_paused = true)]
async fn refusals_of_ever_new_routes_beside_a_slow_good_one_become_rare() {
    let (redeems, _) = redeems_in_the_first_minute(secs(2), Duration::ZERO).await;
    assert!(redeems <= 12, "{redeems} refreshes in the first minute");
}

/// Invariant 9 and ("if the bad caller comes first after a refresh, the brake
/// engages"): eight callers, whose answers take two seconds, and one bad route. Every token is
/// accepted; the brake counts them as refused without ever having been.
#[tokio::test(start_paused = true)]
async fn a_bad_route_beside_a_slow_good_one_does_not_engage_the_brake() {
    let server = Server::new(false, secs(2));
    let [state] = server.states();
    let client = server.client(RefreshLayer::new(Arc::clone(&state)));
    client.clone().oneshot(to("/good")).await.unwrap();
    for caller in 0..8 {
        let client = client.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(250 * caller)).await;
            loop {
                client.clone().oneshot(to("/good")).await.unwrap();
            }
        });
    }
    sleep(secs(3)).await;
    for _ in 0..300 {
        tokio::spawn(client.clone().oneshot(to("/bad")));
        sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(server.good_refusals(), 0, "every token was accepted");
    assert_eq!(state.status().counts.failures(FailureKind::Braked), 0);
}

/// pauses grow while refreshes do not help. Two processes over one store, a server
/// that ends the old access token with a redeem, and each has a good and a bad route: what the
/// one redeems for its bad route ends the token of the other's good requests. These are helped
/// by a replay, which lifts the other's pause; and so on.
#[tokio::test(start_paused = true)]
async fn two_processes_do_not_lift_each_others_pauses() {
    let server = Server::new(true, Duration::from_millis(1));
    let states = server.states::<2>();
    let clients = states.map(|state| server.client(RefreshLayer::new(state)));
    for tick in 0..600 {
        let client = &clients[tick / 3 % 2];
        // Good, bad, good; and then the other process.
        let path = if tick % 3 == 1 { "/bad" } else { "/good" };
        let response = client.clone().oneshot(to(path)).await.unwrap();
        assert_eq!(response.status() == 200, path == "/good");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(server.redeems() <= 12, "{} refreshes in the first minute", server.redeems());
}

/// "A token that is really revoked while such a pause runs is replaced [...] also with
/// little traffic: [...] when a route that used to accept it refuses it". Not if its requests may
/// not be replayed: then the route is not known.
#[tokio::test(start_paused = true)]
async fn a_route_that_refuses_what_it_has_accepted_is_believed_though_nothing_is_replayed() {
    let server = Server::new(false, Duration::from_millis(1));
    let [state] = server.states();
    let client = server.client(RefreshLayer::new(state).replay_if(|_| false));
    client.clone().oneshot(to("/good")).await.unwrap();
    for _ in 0..8 {
        client.clone().oneshot(to("/bad")).await.unwrap();
        client.clone().oneshot(to("/good")).await.unwrap();
        sleep(secs(60)).await;
    }
    client.clone().oneshot(to("/bad")).await.unwrap();
    // The flight of that has landed.
    sleep(secs(1)).await;
    client.clone().oneshot(to("/good")).await.unwrap();
    let redeems = server.redeems();
    server.revoke();
    client.clone().oneshot(to("/good")).await.unwrap();
    sleep(secs(1)).await;
    assert_eq!(server.redeems(), redeems + 1);
}

/// Invariant 16. The first token of all is refused; the next one is accepted by one request and
/// refuses the replay of another. From then on it counts as never accepted, and the next refusal
/// holds everyone.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_accepted_stays_so_when_a_replay_is_refused() {
    let auth = Auth::new();
    let state = builder(&auth).build();
    let (service, mut handle) = mock(&RefreshLayer::new(Arc::clone(&state)));
    let bad = tokio::spawn(service.clone().oneshot(get("/bad")));
    let (_, respond) = next(&mut handle).await;
    respond.send_response(answer(401));
    let (replay, respond) = next(&mut handle).await;
    assert_eq!(token_of(&replay), Some("access-2"));
    // Meanwhile another request has its answer.
    let good = tokio::spawn(service.clone().oneshot(get("/good")));
    let seen = serve(&mut handle, &[200]).await;
    assert_eq!(token_of(&seen[0]), Some("access-2"));
    assert_eq!(good.await.unwrap().unwrap().status(), 200);
    respond.send_response(answer(401));
    assert_eq!(bad.await.unwrap().unwrap().status(), 401);
    sleep(secs(2)).await;

    auth.gate.close();
    let _bad = tokio::spawn(service.clone().oneshot(get("/bad")));
    serve(&mut handle, &[401]).await;
    idle().await;
    let _good = tokio::spawn(service.clone().oneshot(get("/good")));
    let sent = timeout(secs(1), handle.next_request()).await;
    auth.gate.open();
    assert!(sent.is_ok(), "a request is held whose token others accept");
}

/// Invariant 11: "If the refresh fails, the caller gets the original response, with the reason in
/// its extensions." Begun with a refresh token alone, the reason is hidden by another one.
#[tokio::test(start_paused = true)]
async fn why_a_refresh_token_alone_brought_no_token_is_told() {
    for (play, expected) in
        [(Play::Fail, FailureKind::Transient), (Play::Reject, FailureKind::Rejected)]
    {
        let auth = Auth::new();
        auth.next(play);
        let alone = Tokens::new("").with_refresh_token("refresh-1");
        let state = RefreshState::builder(auth.refresher()).tokens(alone).build();
        let (service, mut handle) = mock(&RefreshLayer::new(state));
        let call = tokio::spawn(service.oneshot(post("hello")));
        serve(&mut handle, &[401]).await;
        let response = call.await.unwrap().unwrap();
        let told = response.extensions().get::<RefreshFailure>().map(RefreshFailure::kind);
        assert_eq!(told, Some(expected));
    }
}

/// The same with a deadline: a request that has waited at the gate for as long as it may waits
/// once more when it is refused.
#[tokio::test(start_paused = true)]
async fn a_request_with_a_refresh_token_alone_waits_for_one_deadline() {
    let auth = Auth::new();
    auth.gate.close();
    let alone = Tokens::new("").with_refresh_token("refresh-1");
    let state = RefreshState::builder(auth.refresher()).tokens(alone).deadline(secs(10)).build();
    let (service, mut handle) = mock(&RefreshLayer::new(state));
    let begun = tokio::time::Instant::now();
    let call = tokio::spawn(service.oneshot(post("hello")));
    serve(&mut handle, &[401]).await;
    call.await.unwrap().unwrap();
    auth.gate.open();
    assert_eq!(begun.elapsed(), secs(10));
}

/// "A token that is really revoked while such a pause runs is replaced within a second
/// or two, also with little traffic: when nothing has been accepted with it since". Every request is
/// for a path of its own: two bad ones a second, and a good one a minute. Then the token is revoked.
/// Returns how long good requests, two a second, are not helped.
async fn unhelped_after(minutes: u64) -> Duration {
    let server = Server::new(false, Duration::from_millis(1));
    let [state] = server.states();
    let client = server.client(RefreshLayer::new(state));
    client.clone().oneshot(to("/good")).await.unwrap();
    for tick in 0..minutes * 120 {
        client.clone().oneshot(to(&format!("/items/{tick}"))).await.unwrap();
        if tick % 120 == 119 {
            client.clone().oneshot(to(&format!("/good/{tick}"))).await.unwrap();
        }
        sleep(Duration::from_millis(500)).await;
    }
    server.revoke();
    let begun = Instant::now();
    for tick in 0..2000 {
        let response = client.clone().oneshot(to(&format!("/good/late/{tick}"))).await.unwrap();
        if response.status() == 200 {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_replaced_soon_whatever_silence_was_believed_before() {
    let mut late = Vec::new();
    for minutes in [0, 1, 5, 20] {
        let unhelped = unhelped_after(minutes).await;
        if unhelped > secs(3) {
            late.push((minutes, unhelped));
        }
    }
    assert!(late.is_empty(), "after so many minutes of bad requests, not helped for: {late:?}");
}

/// Two processes over one store, a server that ends the old access token with a redeem, and bad
/// requests that are not replayed (uploads that are too long to be kept). A refresh that a doubt
/// has had is presumed not to have helped, as no replay answers it; as soon as another process's
/// token is adopted, on account of a good request, it counts as void, and the pause is gone.
#[tokio::test(start_paused = true)]
async fn two_processes_do_not_lift_each_others_pauses_where_nothing_is_replayed() {
    let server = Server::new(true, Duration::from_millis(1));
    let clients = server.states::<2>().map(|state| {
        let layer = RefreshLayer::new(state).replay_if(|head| head.uri.path() != "/bad");
        server.client(layer)
    });
    for tick in 0..600 {
        // Good, bad, good; and then the other process.
        let path = if tick % 3 == 1 { "/bad" } else { "/good" };
        clients[tick / 3 % 2].clone().oneshot(to(path)).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(server.redeems() <= 12, "{} refreshes in half a minute", server.redeems());
}

/// Invariant 16, and "at most 12 refreshes in the first minute": a resource that refuses whatever it
/// is sent, among others of its kind that accept. `/tenants/1/...` is good, `/tenants/2/...` answers
/// 401. They are one route, so that a refusal of the one counts as one by "a route that used to
/// accept it": a fact, which no pause and no brake holds back. `refusal_takes` longer than a good
/// answer: the route has accepted the new token before the replay is refused, so that it is never
/// found to be unreliable.
async fn redeems_in_a_minute(good: &'static str, bad: &'static str) -> (usize, usize) {
    let redeems = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&redeems);
    let state = RefreshState::builder(move |_: Tokens| {
        let name = counted.fetch_add(1, Relaxed) + 1;
        async move {
            sleep(Duration::from_millis(50)).await;
            Ok(Tokens::new(name.to_string()).with_refresh_token("r"))
        }
    })
    .tokens(Tokens::new("0").with_refresh_token("r"))
    .build();
    let answers = Arc::new(AtomicUsize::new(0));
    let answered = Arc::clone(&answers);
    let client =
        RefreshLayer::new(state).layer(service_fn(move |request: Request<ReplayBody<Body>>| {
            let accepts = request.uri().path_and_query().unwrap() == good;
            let answered = Arc::clone(&answered);
            async move {
                sleep(Duration::from_millis(if accepts { 5 } else { 20 })).await;
                let mut response = Response::new(Body::new());
                match accepts {
                    true => drop(answered.fetch_add(1, Relaxed)),
                    false => *response.status_mut() = StatusCode::UNAUTHORIZED,
                }
                Ok::<_, Infallible>(response)
            }
        }));
    client.clone().oneshot(to(good)).await.unwrap();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                loop {
                    client.clone().oneshot(to(good)).await.unwrap();
                }
            })
        })
        .collect();
    let caller = tokio::spawn(async move {
        loop {
            client.clone().oneshot(to(bad)).await.unwrap();
        }
    });
    sleep(secs(60)).await;
    caller.abort();
    callers.into_iter().for_each(|caller| caller.abort());
    (redeems.load(Relaxed), answers.load(Relaxed))
}

#[tokio::test(start_paused = true)]
async fn a_resource_that_refuses_among_others_that_accept_does_not_refresh_for_ever() {
    let (redeems, good) = redeems_in_a_minute("/tenants/1/items", "/tenants/2/items").await;
    let (_, undisturbed) = redeems_in_a_minute("/tenants/one/items", "/tenants/two/items").await;
    assert!(redeems <= 12, "{redeems} refreshes; {good} good answers instead of {undisturbed}");
}

/// The same with versions of an API, and with services that have a digit in their name.
#[tokio::test(start_paused = true)]
async fn versions_of_an_api_are_not_the_names_of_things() {
    let (redeems, good) = redeems_in_a_minute("/v1/items", "/v2/items").await;
    assert!(redeems <= 12, "{redeems} refreshes; {good} good answers");
}

/// The same with one path, as of GraphQL and JSON-RPC, or of a key in the query: some requests are
/// accepted there, and some are refused whatever token they bring.
#[tokio::test(start_paused = true)]
async fn a_route_that_accepts_some_requests_and_refuses_others_does_not_refresh_for_ever() {
    let (redeems, good) = redeems_in_a_minute("/graphql?op=one", "/graphql?op=two").await;
    assert!(redeems <= 12, "{redeems} refreshes; {good} good answers");
}
