//! What holds in memory holds over files, Redis and PostgreSQL: two replicas with connections of their
//! own.

use std::{sync::OnceLock, time::Duration};

use futures_util::future::join_all;
use http::StatusCode;
use testing::{PostgresServer, RedisServer};
use tokio::time::sleep;
use tower_refresh::{
    session::{Ended, IndexKey, SessionId},
    store::{FileStores, Keyring, PostgresStores, RedisStores, Stores},
};

use testing::sessions::{Browser, ISSUER, Place, Replica, World, signed_in};

const KEY: [u8; 32] = [7; 32];

/// A place, and two worlds over it that share a server: what two processes see.
async fn worlds<S: Stores>(open: impl AsyncFn() -> S) -> [World; 2] {
    let one = World { place: Place::at(open().await), ..World::new() };
    let other = World { place: Place::at(open().await), ..one.clone() };
    [one, other]
}

/// Something that happens soon, and nobody says when.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..1000 {
        if is_so().await {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never {what}");
}

async fn who(browser: &Browser, replica: &Replica) -> String {
    browser.get(replica, "/").await.text
}

/// S1, S2, S5, S6, S8, S9, S16, S17 over one kind of store.
async fn the_promises_hold<S: Stores>(open: impl AsyncFn() -> S) {
    let worlds = worlds(open).await;
    let [here, there] = worlds.each_ref().map(World::replica);
    let server = &worlds[0].server;

    // S1.
    let browser = signed_in(&here, "alice").await;
    assert_eq!([who(&browser, &here).await, who(&browser, &there).await], ["alice", "alice"]);
    server.expire_all();
    let tabs = (0..40).map(|at| browser.get(if at % 2 == 0 { &here } else { &there }, "/api"));
    for answer in join_all(tabs).await {
        assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "data"));
    }
    assert_eq!((server.redeems(), server.reuses()), (1, 0));

    // S9: a cookie that names nothing.
    let nobody = Browser::new();
    let id = SessionId::random().unwrap();
    *nobody.cookie.lock().unwrap() = Some(format!("__Host-Http-sid={}", id.expose()));
    assert_eq!(who(&nobody, &there).await, "anonymous");

    // S5: ended here, and there at the next request.
    let copy = browser.copy();
    browser.post(&here, "/sign_out").await;
    assert_eq!(who(&copy, &there).await, "anonymous");
    assert_eq!(copy.get(&there, "/ended").await.text, "signed_out");
    assert_eq!(server.alive(), 0);

    // S6: a sign-out there while a redeem is under way here.
    let browser = signed_in(&here, "bob").await;
    assert_eq!(who(&browser, &there).await, "bob");
    let late = server.hold_refresh(&browser.copy(), &here).await;
    let copy = browser.copy();
    browser.post(&there, "/sign_out").await;
    server.1.open();
    assert_eq!(late.await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(who(&copy, &here).await, "anonymous");
    until("revoked", async || server.alive() == 0).await;

    // S8: replaced by a sign-in on the other replica.
    let browser = signed_in(&here, "carol").await;
    let tab = browser.copy();
    browser.sign_in(&there, "carol").await;
    assert_eq!(tab.get(&here, "/").await.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(who(&browser, &here).await, "carol");

    // S17: all of a user, wherever they were begun.
    let other = signed_in(&there, "carol").await;
    let key = IndexKey::Sub { issuer: ISSUER.to_owned(), subject: "carol".to_owned() };
    assert_eq!(here.sessions.end_all(&key).await.unwrap(), 2);
    for browser in [&browser, &other] {
        assert_eq!(who(browser, &there).await, "anonymous");
        assert_eq!(browser.get(&there, "/ended").await.text, "signed_out_elsewhere");
    }

    // S16: a dead refresh token.
    let browser = signed_in(&here, "dave").await;
    assert_eq!(who(&browser, &there).await, "dave");
    server.revoke_all();
    let redeems = server.redeems();
    assert_eq!(browser.get(&here, "/api").await.headers["session-ended"], "refused");
    until("ended", async || here.sessions.status().ended(Ended::Refused) == 1).await;
    assert_eq!(who(&browser, &there).await, "anonymous");
    assert_eq!(browser.get(&there, "/ended").await.text, "refused");
    assert_eq!(server.redeems(), redeems + 1);

    // Many users at once, of whom each has a list of the same name there and here.
    let users = (0..30).map(|at| signed_in(if at % 2 == 0 { &here } else { &there }, "erin"));
    let browsers = join_all(users).await;
    server.expire_all();
    let redeems = server.redeems();
    let tabs = browsers
        .iter()
        .flat_map(|browser| [browser.get(&here, "/api"), browser.get(&there, "/api")]);
    assert!(join_all(tabs).await.iter().all(|answer| answer.text == "data"));
    assert_eq!((server.redeems(), server.reuses()), (redeems + 30, 0));
    let key = IndexKey::Sub { issuer: ISSUER.to_owned(), subject: "erin".to_owned() };
    assert_eq!(there.sessions.end_all(&key).await.unwrap(), 30);
}

/// And what nobody uses ends by the store's own clock.
async fn an_idle_session_ends<S: Stores>(open: impl AsyncFn() -> S) {
    let worlds = worlds(open).await;
    let idle = Duration::from_secs(1);
    let [here, there] = worlds.each_ref().map(|world| world.replica_with(|it| it.idle(idle)));
    let browser = signed_in(&here, "alice").await;
    assert_eq!(who(&browser, &there).await, "alice");
    // Whoever asks uses it.
    sleep(idle * 2).await;
    assert_eq!(who(&browser, &there).await, "anonymous");
    assert_eq!(who(&browser, &here).await, "anonymous");
}

/// How many commands Redis has been sent, this one included.
fn commands(server: &RedisServer) -> usize {
    let mut info = ::redis::cmd("INFO");
    let text: String = info.arg("stats").query(&mut server.connection()).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.unwrap().trim().parse().unwrap()
}

/// What the test's own look at the counter costs.
fn own(server: &RedisServer) -> usize {
    let before = commands(server);
    commands(server) - before
}

#[tokio::test]
async fn a_request_is_one_command_of_redis_and_none_while_a_look_is_believed() {
    let server = RedisServer::start();
    let stores = async || RedisStores::builder(server.url(), Keyring::new(KEY)).build().unwrap();
    let [world, other] = worlds(stores).await;
    let here = world.replica();
    let there = other.replica_with(|it| it.trust_for(Duration::from_secs(3600)));
    let browser = signed_in(&here, "alice").await;
    // It is loaded, and the store has been told that it is used.
    assert_eq!([who(&browser, &here).await, who(&browser, &there).await], ["alice", "alice"]);
    let settled = async || {
        let before = commands(&server);
        sleep(Duration::from_millis(20)).await;
        commands(&server) - before == own(&server)
    };
    until("at rest", settled).await;
    let own = own(&server);
    for (replica, each) in [(&here, 1), (&there, 0)] {
        let before = commands(&server);
        for _ in 0..20 {
            assert_eq!(who(&browser, replica).await, "alice");
        }
        assert_eq!(commands(&server) - before - own, 20 * each);
    }
    // Cookies that name nothing: a read each, and no key.
    let keys = |server: &RedisServer| -> usize {
        ::redis::cmd("DBSIZE").query(&mut server.connection()).unwrap()
    };
    let kept = keys(&server);
    let nobody = Browser::new();
    let before = commands(&server);
    for _ in 0..1000 {
        let id = SessionId::random().unwrap();
        *nobody.cookie.lock().unwrap() = Some(format!("__Host-Http-sid={}", id.expose()));
        assert_eq!(who(&nobody, &here).await, "anonymous");
    }
    assert!(commands(&server) - before <= 1000 + 2 * own + 2);
    assert_eq!(keys(&server), kept);
}

fn files(folder: &tempfile::TempDir) -> impl AsyncFn() -> FileStores {
    let path = folder.path().join("sessions");
    async move || FileStores::open(&path).unwrap().sealed(Keyring::new(KEY))
}

fn redis() -> impl AsyncFn() -> RedisStores {
    static SERVER: OnceLock<RedisServer> = OnceLock::new();
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let server = SERVER.get_or_init(RedisServer::start);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    async move || {
        let builder = RedisStores::builder(server.url(), Keyring::new(KEY));
        builder.prefix(format!("app{number}:")).build().unwrap()
    }
}

fn postgres() -> impl AsyncFn() -> PostgresStores {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let server = SERVER.get_or_init(PostgresServer::start);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    async move || {
        let builder = PostgresStores::builder(server.url(), Keyring::new(KEY));
        let stores = builder.prefix(format!("app{number}")).build().unwrap();
        stores.migrate().await.unwrap();
        stores
    }
}

#[tokio::test]
async fn the_promises_hold_over_files() {
    let folder = tempfile::tempdir().unwrap();
    the_promises_hold(files(&folder)).await;
    an_idle_session_ends(files(&folder)).await;
}

#[tokio::test]
async fn the_promises_hold_over_redis() {
    the_promises_hold(redis()).await;
    an_idle_session_ends(redis()).await;
}

#[tokio::test]
async fn the_promises_hold_over_postgres() {
    the_promises_hold(postgres()).await;
    an_idle_session_ends(postgres()).await;
}
