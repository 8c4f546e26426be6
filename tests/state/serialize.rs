//! What an operator is told as JSON (feature `serde`).

use serde_json::{Value, from_value, json, to_value};
use testing::{Auth, Play, builder, idle, kind, secs, tokens};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshError, RefreshState, Tokens,
    refresher::Trigger,
    state::{Health, Revocation},
    store::OpenCause,
};

#[tokio::test(start_paused = true)]
async fn a_status_is_told_in_words_and_seconds() {
    let auth = Auth::new();
    let expiring = tokens(1).with_expires_in(secs(1000));
    let state = RefreshState::builder(auth.refresher()).tokens(expiring).name("alice").build();
    tokio::time::advance(std::time::Duration::from_millis(500)).await;
    assert_eq!(
        to_value(state.status()).unwrap(),
        json!({
            "name": "alice",
            "health": "fresh",
            "generation": 1,
            "signed_in": true,
            "expires_in": 999.5,
            "in_flight": null,
            "retry_in": null,
            "last_failure": null,
            "unrevoked": 0,
            "counts": { "refreshes": 0, "replays": 0, "joined": 0, "failures": [] },
        })
    );
}

#[tokio::test(start_paused = true)]
async fn failures_are_told_with_their_words_times_and_generations() {
    let auth = Auth::new();
    auth.next(Play::RetryAfter(secs(3000)));
    let state = builder(&auth).build();
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    let mut status = to_value(state.status()).unwrap();
    assert_eq!((&status["health"], &status["retry_in"]), (&json!("cooling_down"), &json!(3000.0)));
    let told = json!({
        "kind": "transient", "code": null, "open_redeem": null, "awaits_lease": false,
    });
    assert_eq!(status["last_failure"], told);
    let at = status["counts"]["failures"][0]["last_at"].take();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((0.0..1000.0).contains(&(now.as_secs_f64() - at.as_f64().unwrap())), "{at}");
    let past = json!([{ "kind": "transient", "count": 1, "last_at": null, "generation": 1 }]);
    assert_eq!(status["counts"]["failures"], past);

    auth.gate.close();
    let state = builder(&auth).build();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    idle().await;
    assert_eq!(to_value(state.status()).unwrap()["in_flight"], "requested");
}

/// I13.
#[tokio::test(start_paused = true)]
async fn no_secret_is_told() {
    let secret = Tokens::new("SECRET").with_refresh_token("SECRET").with_extra("id", "SECRET");
    let refuse = async |_| Err(RefreshError::rejected("SECRET is dead").with_code("invalid_grant"));
    let state = RefreshState::builder(refuse).tokens(secret).build();
    assert_eq!(kind(state.refresh().await), FailureKind::Rejected);
    let status = to_value(state.status()).unwrap();
    assert!(!status.to_string().contains("SECRET"), "{status}");
    assert_eq!(status["last_failure"]["code"], "invalid_grant");
}

#[test]
fn words_are_their_stable_words_both_ways() {
    for (told, word) in [
        (to_value(FailureKind::ClientRefused), "client_refused"),
        (to_value(Trigger::FirstUse), "first_use"),
        (to_value(Health::CoolingDown), "cooling_down"),
        (to_value(Revocation::NotAsked), "not_asked"),
        (to_value(OpenCause::ServerFailed), "failed"),
    ] {
        assert_eq!(told.unwrap(), Value::from(word));
    }
    let kinds: Vec<FailureKind> = from_value(json!(["rejected", "braked"])).unwrap();
    assert_eq!(kinds, [FailureKind::Rejected, FailureKind::Braked]);
    assert_eq!(from_value::<Health>(json!("fresh")).unwrap(), Health::Fresh);
    assert_eq!(from_value::<Trigger>(json!("early")).unwrap(), Trigger::Early);
    let unknown = from_value::<Health>(json!("well")).unwrap_err().to_string();
    assert!(unknown.contains("`well`") && unknown.contains("`fresh`"), "{unknown}");
}
