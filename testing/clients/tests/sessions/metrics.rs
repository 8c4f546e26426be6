//! What is counted of sessions, by names and labels, which are stable.

use std::time::Duration;

use http::{Method, Request, StatusCode};
use tokio::time::advance;
use tower_refresh::session::{IndexKey, SessionsStatus};

use testing::{
    Meter,
    sessions::{Browser, ISSUER, World, settle, signed_in},
};

/// What the meter has of sessions: of their lives, and of refusals.
fn counted(meter: &Meter) -> (Vec<String>, Vec<String>) {
    let all = meter.counters().into_iter().filter(|line| line.starts_with("session"));
    all.partition(|line| !line.starts_with("session_refusals"))
}

/// The lines that say the same as the status.
fn lines(status: &SessionsStatus) -> Vec<String> {
    let ended = status.all_ended().filter(|(_, count)| *count > 0);
    let ended =
        ended.map(|(ended, count)| format!("sessions_ended_total{{reason=\"{ended}\"}} {count}"));
    let others = [
        format!("session_looks_total {}", status.looks),
        format!("sessions_begun_total {}", status.begun),
    ];
    let mut all: Vec<_> = others.into_iter().chain(ended).collect();
    all.sort();
    all
}

#[tokio::test(start_paused = true)]
async fn sessions_are_counted_as_they_begin_are_looked_at_and_end() {
    let meter = Meter::new();
    let world = World::new();
    let replica = world.replica();
    for _ in 0..2 {
        signed_in(&replica, "alice").await.post(&replica, "/sign_out").await;
    }
    let browser = signed_in(&replica, "bob").await;
    browser.sign_in(&replica, "bob").await;
    let key = IndexKey::Sub { issuer: ISSUER.to_owned(), subject: "bob".to_owned() };
    assert_eq!(replica.sessions.end_all(&key).await.unwrap(), 1);
    let browser = signed_in(&replica, "carol").await;
    world.server.revoke_all();
    assert_eq!(browser.get(&replica, "/api").await.status, StatusCode::UNAUTHORIZED);
    let browser = signed_in(&replica, "dave").await;
    advance(Duration::from_secs(1801)).await;
    assert_eq!(browser.get(&replica, "/").await.text, "anonymous");
    settle().await;
    let (lives, _) = counted(&meter);
    assert_eq!(lives, lines(&replica.sessions.status()));
    assert_eq!(
        lives,
        [
            // Each request with a cookie, and `end_all`.
            "session_looks_total 6",
            "sessions_begun_total 6",
            r#"sessions_ended_total{reason="idle"} 1"#,
            r#"sessions_ended_total{reason="refused"} 1"#,
            r#"sessions_ended_total{reason="replaced"} 1"#,
            r#"sessions_ended_total{reason="signed_out"} 2"#,
            r#"sessions_ended_total{reason="signed_out_elsewhere"} 1"#,
        ]
    );
}

/// Whom it takes to a sign-in it has not refused.
#[tokio::test(start_paused = true)]
async fn what_the_layer_refuses_is_counted_by_reason() {
    let meter = Meter::new();
    let world = World::new();
    let replica = world.replica_by(|it| it, |layer| layer.sign_in_at("/sign_in").unwrap());
    let (browser, nobody) = (signed_in(&replica, "alice").await, Browser::new());
    let answered = async |browser: &Browser, request| browser.send(&replica, request).await.status;

    let forged = Request::post("/sign_out").header("sec-fetch-site", "cross-site");
    assert_eq!(answered(&browser, forged).await, StatusCode::FORBIDDEN);
    let open = || Request::get("/").header("sec-fetch-mode", "navigate");
    assert_eq!(answered(&nobody, open()).await, StatusCode::SEE_OTHER);
    let prefetch = open().header("sec-purpose", "prefetch");
    assert_eq!(answered(&nobody, prefetch).await, StatusCode::SERVICE_UNAVAILABLE);
    let fetch = nobody.request(Method::GET, "/");
    assert_eq!(answered(&nobody, fetch).await, StatusCode::UNAUTHORIZED);
    for is_away in [true, false] {
        world.place.go_away(is_away);
        world.server.go_away(!is_away);
        world.server.expire_all();
        let fetch = browser.request(Method::GET, "/api");
        assert_eq!(answered(&browser, fetch).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(
        counted(&meter).1,
        [
            r#"session_refusals_total{reason="csrf"} 1"#,
            r#"session_refusals_total{reason="no_session"} 2"#,
            r#"session_refusals_total{reason="unavailable"} 2"#,
        ]
    );
}
