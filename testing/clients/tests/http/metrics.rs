//! What is counted, in the text that a real exporter for Prometheus writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::future::join_all;
use testing::{
    Api, Auth, Fault, Meter, Op, Play, Store, builder, get, idle, kind, mock, next, opened, post,
    secs, stored, tokens,
};
use tokio::time::sleep;
use tower::{Layer, ServiceExt};
use tower_refresh::{FailureKind, RefreshLayer, RefreshState, body::NotReplayable};

#[tokio::test(start_paused = true)]
async fn a_herd_is_one_refresh_its_waiters_and_their_replays() {
    let meter = Meter::new();
    let (auth, api) = (Auth::new(), Api::accepting("access-2"));
    auth.gate.close();
    let service = RefreshLayer::new(builder(&auth).build()).layer(api.clone());
    api.gate().close();
    let calls: Vec<_> =
        (0..5).map(|_| tokio::spawn(service.clone().oneshot(post("hello")))).collect();
    api.gate().arrived(5).await;
    api.gate().open();
    auth.gate.arrived(1).await;
    sleep(Duration::from_millis(500)).await;
    auth.gate.open();
    for response in join_all(calls).await {
        assert_eq!(response.unwrap().unwrap().status(), 200);
    }
    idle().await;
    let refresh = r#"refreshes_total{trigger="challenge",outcome="renewed"} 1"#;
    assert_eq!(meter.counters(), [refresh, "replays_total 5"]);
    for line in [
        "# TYPE tower_refresh_refreshes_total counter",
        "# TYPE tower_refresh_refresh_duration_seconds histogram",
        r#"tower_refresh_refresh_duration_seconds_bucket{outcome="renewed",le="0.1"} 0"#,
        r#"tower_refresh_refresh_duration_seconds_bucket{outcome="renewed",le="1"} 1"#,
        r#"tower_refresh_refresh_duration_seconds_count{outcome="renewed"} 1"#,
        "tower_refresh_waiters_sum 5",
        "tower_refresh_waiters_count 1",
    ] {
        meter.assert_has(line);
    }
}

/// The flight, which is woken with them while it waits for its lease, is none of them.
#[tokio::test(start_paused = true)]
async fn waiters_are_counted_and_nothing_else() {
    let meter = Meter::new();
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    store.gate(Op::Lease).close();
    let waiters: Vec<_> = (0..2)
        .map(|_| {
            let state = Arc::clone(&state);
            tokio::spawn(async move { state.refresh().await })
        })
        .collect();
    store.gate(Op::Lease).arrived(2).await;
    // They hear of it, and the flight is woken to look.
    state.clear().await.unwrap();
    store.gate(Op::Lease).open();
    for waiter in join_all(waiters).await {
        assert_eq!(kind(waiter.unwrap()), FailureKind::SignedOut);
    }
    idle().await;
    meter.assert_has("tower_refresh_waiters_sum 3");
    meter.assert_has("tower_refresh_waiters_count 2");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_at_the_gate_are_counted() {
    let meter = Meter::new();
    let auth = Auth::new();
    let expired = tokens(1).with_expires_in(secs(0));
    let state = RefreshState::builder(auth.refresher()).tokens(expired).build();
    let service = RefreshLayer::new(state).layer(Api::accepting("access-2"));
    for _ in 0..2 {
        assert_eq!(service.clone().oneshot(get("/")).await.unwrap().status(), 200);
    }
    idle().await;
    let refresh = r#"refreshes_total{trigger="expired",outcome="renewed"} 1"#;
    assert_eq!(meter.counters(), ["gate_waits_total 1", refresh]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_replayed_is_counted_by_reason() {
    let meter = Meter::new();
    let auth = Auth::new();
    let layer = RefreshLayer::new(builder(&auth).build()).replay_cap(1);
    let service = layer.layer(Api::accepting("access-2"));
    assert_eq!(service.oneshot(post("hello")).await.unwrap().status(), 401);
    idle().await;

    auth.next(Play::Reject);
    let service = RefreshLayer::new(builder(&auth).build()).layer(Api::accepting("nothing"));
    assert_eq!(service.oneshot(post("hello")).await.unwrap().status(), 401);
    idle().await;
    assert_eq!(
        meter.counters(),
        [
            r#"failures_total{kind="rejected"} 1"#,
            r#"not_replayed_total{reason="rejected"} 1"#,
            r#"not_replayed_total{reason="too_large"} 1"#,
            r#"refreshes_total{trigger="challenge",outcome="rejected"} 1"#,
            r#"refreshes_total{trigger="challenge",outcome="renewed"} 1"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_stores_failures_are_counted_by_operation() {
    let meter = Meter::new();
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    for (op, failure) in [
        (Op::Lease, FailureKind::Store),
        (Op::Load, FailureKind::Store),
        (Op::Intend, FailureKind::Store),
        (Op::Save, FailureKind::Unsaved),
    ] {
        store.fault(op, Fault::Fail);
        assert_eq!(kind(state.refresh().await), failure);
        sleep(secs(60)).await;
    }
    store.fault(Op::Delete, Fault::Fail);
    state.clear().await.unwrap_err();
    store.fault(Op::Save, Fault::Fail);
    state.set(tokens(9)).await.unwrap_err();
    assert_eq!(
        meter.counters(),
        [
            r#"failures_total{kind="store"} 3"#,
            r#"failures_total{kind="unsaved"} 1"#,
            r#"refreshes_total{trigger="first_use",outcome="read"} 1"#,
            r#"refreshes_total{trigger="requested",outcome="renewed"} 1"#,
            r#"refreshes_total{trigger="requested",outcome="store"} 3"#,
            r#"store_errors_total{operation="delete"} 1"#,
            r#"store_errors_total{operation="intend"} 1"#,
            r#"store_errors_total{operation="lease"} 1"#,
            r#"store_errors_total{operation="load"} 1"#,
            r#"store_errors_total{operation="save"} 2"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn open_redeems_and_adoptions_are_counted() {
    let meter = Meter::new();
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let state = opened(&auth, &store).await;
    auth.next(Play::Fail);
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    sleep(secs(60)).await;
    state.refresh().await.unwrap();
    store.overwrite(Some(tokens(20))).await;
    state.refresh().await.unwrap();
    idle().await;
    assert_eq!(
        meter.counters(),
        [
            r#"failures_total{kind="transient"} 1"#,
            r#"open_redeems_total{cause="unanswered"} 1"#,
            r#"refreshes_total{trigger="first_use",outcome="read"} 1"#,
            r#"refreshes_total{trigger="requested",outcome="adopted"} 1"#,
            r#"refreshes_total{trigger="requested",outcome="renewed"} 1"#,
            r#"refreshes_total{trigger="requested",outcome="transient"} 1"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_brake_and_deadlines_are_counted() {
    let meter = Meter::new();
    let auth = Auth::new();
    let state = builder(&auth).brake(1, secs(100), secs(100)).deadline(secs(1)).build();
    for _ in 0..4 {
        let _ = state.challenged(state.current().generation()).await;
    }
    sleep(secs(200)).await;
    auth.gate.close();
    let waiters = (0..3).map(|_| state.refresh());
    for failed in join_all(waiters).await {
        assert_eq!(kind(failed), FailureKind::Deadline);
    }
    meter.assert_has(r#"tower_refresh_failures_total{kind="braked"} 1"#);
    meter.assert_has(r#"tower_refresh_failures_total{kind="deadline"} 3"#);
}

#[tokio::test(start_paused = true)]
async fn revocations_are_counted_by_outcome() {
    let meter = Meter::new();
    for failures in [0, 1, 3] {
        let left = Arc::new(AtomicU32::new(failures));
        let hook = move |_| {
            let fails = left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            async move { if fails { Err("503") } else { Ok(()) } }
        };
        let state = builder(&Auth::new()).on_sign_out(hook).build();
        state.clear().await.unwrap();
        state.drain().await;
    }
    assert_eq!(
        meter.counters(),
        [
            r#"revocations_total{outcome="done"} 2"#,
            r#"revocations_total{outcome="failed"} 1"#,
            r#"revocations_total{outcome="pending"} 2"#,
        ]
    );
}

/// A route that refuses for a reason of its own, while others accept the token.
#[tokio::test(start_paused = true)]
async fn doubts_are_counted_once_a_challenge() {
    let meter = Meter::new();
    let layer = RefreshLayer::new(builder(&Auth::new()).build());
    let (service, mut handle) = mock(&layer);
    let mut send = async |uri: &'static str, statuses: &[u16]| {
        let call = tokio::spawn(service.clone().oneshot(get(uri)));
        for status in statuses {
            next(&mut handle).await.1.send_response(testing::answer(*status));
        }
        call.await.unwrap().unwrap()
    };
    send("/good", &[200]).await;
    send("/bad", &[401, 401]).await;
    send("/good", &[200]).await;
    for _ in 0..3 {
        let refused = send("/bad", &[401]).await;
        let why = refused.extensions().get::<tower_refresh::RefreshFailure>().unwrap().kind();
        assert_eq!(why, FailureKind::Doubted);
    }
    meter.assert_has(r#"tower_refresh_failures_total{kind="doubted"} 3"#);
    meter.assert_has(r#"tower_refresh_not_replayed_total{reason="doubted"} 3"#);
}

/// However many credentials there are, and whatever their names.
#[tokio::test(start_paused = true)]
async fn no_label_has_a_name_and_each_metric_has_a_description() {
    let meter = Meter::new();
    tower_refresh::metrics::describe();
    for number in 0..3 {
        let auth = Auth::new();
        let store = Store::with(tokens(1));
        let state = stored(&auth, &store).name(format!("alice-{number}")).build();
        state.refresh().await.unwrap();
        state.drain().await;
    }
    let text = meter.text();
    assert!(!text.contains("alice"), "{text}");
    meter.assert_has(r#"tower_refresh_refreshes_total{trigger="first_use",outcome="renewed"} 3"#);
    assert!(text.contains("# HELP tower_refresh_refreshes_total Refreshes"), "{text}");
}

/// A flight that goes with its runtime has ended, too.
#[test]
fn a_flight_that_is_aborted_is_counted() {
    let meter = Meter::new();
    let auth = Auth::new();
    auth.gate.close();
    let state = builder(&auth).build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let refresh = tokio::spawn({
            let state = Arc::clone(&state);
            async move { state.refresh().await.map(drop) }
        });
        auth.gate.arrived(1).await;
        drop(refresh);
    });
    drop(runtime);
    let aborted = r#"refreshes_total{trigger="requested",outcome="shutdown"} 1"#;
    assert_eq!(meter.counters(), [r#"failures_total{kind="shutdown"} 1"#, aborted]);
}

#[test]
fn a_reason_is_its_name_in_snake_case() {
    use NotReplayable::*;
    for reason in [TooLarge, OverBudget, SourceFailed, Released, Forbidden] {
        let word = reason.as_str();
        assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
        assert_eq!(word.replace('_', ""), format!("{reason:?}").to_lowercase());
    }
}

/// What is between these marks.
fn between(text: &str, mark: char) -> impl Iterator<Item = &str> {
    text.split(mark).skip(1).step_by(2)
}

/// Names and labels, as the source has them: those that are documented, and those that are counted.
#[test]
fn the_table_lists_what_is_described_and_what_is_counted() {
    let source = include_str!("../../../../src/metrics.rs");
    let (above, functions) = source.split_once("pub(crate) fn ").unwrap();
    let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let rows = above.lines().filter_map(|line| line.strip_prefix("//! | `tower_refresh_"));
    let listed: BTreeMap<&str, BTreeSet<&str>> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` |").unwrap();
            // After a colon there are the values of the one label.
            let labels = rest.split('|').next().unwrap().split(": ").next().unwrap();
            (name, between(labels, '`').filter(is_word).collect())
        })
        .collect();
    let counted: BTreeMap<&str, BTreeSet<&str>> = functions
        .split("!(\"tower_refresh_")
        .skip(1)
        .map(|call| {
            let (name, labels) = call.split(')').next().unwrap().split_once('"').unwrap();
            (name, between(labels, '"').collect())
        })
        .collect();
    assert_eq!(listed, counted);
    let described = between(above, '"').filter_map(|text| text.strip_prefix("tower_refresh_"));
    assert_eq!(described.collect::<BTreeSet<_>>(), listed.into_keys().collect());
}
