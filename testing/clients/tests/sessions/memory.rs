//! What a session costs that nobody uses at the moment.

use std::{convert::Infallible, time::Duration};

use allocation_counter::measure;
use http::{Request, Response};
use tokio::{runtime::Builder, time::advance};
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{
    RefreshError, Renewal, Tokens,
    session::{Identity, SessionSlot, Sessions},
    store::MemoryStores,
};

const COUNT: usize = 20_000;

const TEXT: usize = "access-1234567890refresh-1234567890".len();

async fn sign_in(sessions: &Sessions, users: std::ops::Range<usize>) {
    let app = sessions.layer().layer(service_fn(async |request: Request<String>| {
        let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
        let tokens = Tokens::new("access-1234567890").with_refresh_token("refresh-1234567890");
        slot.sign_in(tokens, Identity::new("https://id", request.into_body())).await.unwrap();
        Ok::<_, Infallible>(Response::new(String::new()))
    }));
    for user in users {
        let request = Request::post("/").body(format!("user{user}")).unwrap();
        drop(app.clone().oneshot(request).await.unwrap());
    }
}

/// In this process's memory: its record and who it is, which is about half, and the list of its user's
/// sessions. While it is loaded, there is its state besides.
#[test]
fn an_idle_session_takes_less_than_a_kilobyte_beyond_its_tokens() {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let renewal =
        Renewal::builder(async |_: Tokens| Err::<Tokens, _>(RefreshError::transient("no")));
    let sessions = Sessions::builder(renewal, MemoryStores::new()).build().unwrap();
    let (mut loaded, mut all) = (0, 0);
    // What is made once is made before.
    runtime.block_on(sign_in(&sessions, 0..100));
    let measured = measure(|| runtime.block_on(sign_in(&sessions, 100..100 + COUNT)));
    loaded += measured.bytes_current;
    all += measured.bytes_current;
    assert!(sessions.status().loaded > COUNT);
    // A minute later, each next sign-in looks through one part of the registry.
    runtime.block_on(advance(Duration::from_secs(120)));
    let next = 100 + COUNT..100 + COUNT + 1_000;
    let (first, next) = (next.start..next.start + 1, next.start + 1..next.end);
    let before = sessions.status().loaded;
    all += measure(|| runtime.block_on(sign_in(&sessions, first))).bytes_current;
    // It drops some of those, and leaves the rest to others.
    let dropped = before + 1 - sessions.status().loaded;
    assert!((1..=256).contains(&dropped), "{dropped}");
    all += measure(|| runtime.block_on(sign_in(&sessions, next))).bytes_current;
    let left = sessions.status().loaded;
    assert!(left < 1_200, "{left}");
    let each = |bytes: i64, count: usize| bytes as usize / count - TEXT;
    let (loaded, idle) = (each(loaded, COUNT), each(all, COUNT + 1_000));
    println!(
        "a session takes {loaded} bytes beyond its tokens while it is loaded, and {idle} later"
    );
    assert!(idle < 1_000, "{idle}");
}
