//! Several processes: races, kills, full disks.

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use fs4::FileExt;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustix::process::{Resource, Rlimit, setrlimit};
use testing::{Auth, Loopback, Play, tokens};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{JoinSet, spawn_blocking},
};
use tower::{Layer, ServiceExt};
use tower_refresh::{
    FailureKind, RefreshError, RefreshLayer, RefreshState, Tokens,
    store::{FileStore, OpenCause, Record, TokenStore},
};

use super::{
    Dir,
    actor::{Actor, FILE, PART, listen, say},
    assert_says, generation, lease, record, soon,
};

const CHILD: &str = "file::processes::child";
const ADDRESS: &str = "TOWER_REFRESH_TEST_ADDRESS";

/// How many states a racing process has.
const STATES: usize = 16;

/// What a child does. In the parent, nothing.
#[test]
fn child() {
    let Ok(part) = env::var(PART) else {
        return;
    };
    let store = || FileStore::open(env::var_os(FILE).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match &*part {
            "holder" => {
                let mut held = lease(&store()).await;
                held.intend(generation(1)).await.unwrap();
                say("held");
                listen();
            }
            "writer" => {
                for number in 1.. {
                    store().save(generation(number), long(number + 1)).await.unwrap();
                    say(&(number + 1).to_string());
                }
            }
            "half" => {
                // The system kills the process if it writes more into a file.
                limit(Some(100));
                let _ = store().save(generation(1), long(2)).await;
            }
            "full" => full_disk(store()).await,
            "no room" => no_room_for_a_record(store()).await,
            "racer" => race(store, env::var(ADDRESS).unwrap()).await,
            other => panic!("there is no part {other}"),
        }
    });
}

/// A record that takes a while to write.
fn long(number: u64) -> Record {
    Record::new(generation(number), tokens(number).with_extra("long", "x".repeat(1 << 18)))
}

fn limit(current: Option<u64>) {
    setrlimit(Resource::Fsize, Rlimit { current, maximum: None }).unwrap();
}

#[tokio::test]
async fn the_lease_of_a_process_that_is_killed_is_free_at_once() {
    let dir = Dir::signed_in().await;
    let mut holder = Actor::new("holder", CHILD, &dir.file);
    holder.says("held");
    let file = fs::File::open(dir.beside(".lease")).unwrap();
    assert!(FileExt::try_lock(&file).is_err(), "it is held");
    holder.kill();
    FileExt::try_lock(&file).unwrap();
    FileExt::unlock(&file).unwrap();

    let found = lease(&dir.store()).await.open_redeem().unwrap();
    assert_eq!((found.generation, found.cause), (generation(1), OpenCause::HolderEnded));
    // The token is tried all the same, and a rejection tells why.
    let auth = Auth::new();
    auth.next(Play::Reject).next(Play::Reject);
    let state = RefreshState::builder(auth.refresher()).store(dir.store()).build();
    soon(state.token()).await.unwrap();
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Rejected);
    assert_eq!(failure.open_redeem(), Some(OpenCause::HolderEnded));
}

/// Those who wait for the lease of a process that is killed are given it.
#[tokio::test]
async fn whoever_waits_for_a_process_that_is_killed_is_next() {
    let dir = Dir::signed_in().await;
    let mut holder = Actor::new("holder", CHILD, &dir.file);
    holder.says("held");
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).store(dir.store()).build();
    soon(state.token()).await.unwrap();
    let mut refresh = tokio_test::task::spawn(state.refresh());
    tokio_test::assert_pending!(refresh.poll());
    holder.kill();
    assert_eq!(soon(refresh).await.unwrap().access_token(), Some("access-2"));
}

/// The system kills it in the middle of the temporary file.
#[tokio::test]
async fn a_process_that_is_killed_while_it_writes_leaves_the_old_record() {
    let dir = Dir::signed_in().await;
    let mut half = Actor::new("half", CHILD, &dir.file);
    assert_eq!(half.word(), None);
    assert!(!half.end().success());
    assert_eq!(fs::metadata(dir.beside(".tmp")).unwrap().len(), 100);
    assert_eq!(dir.store().load().await.unwrap(), record(1));
    dir.store().save(generation(1), record(2)).await.unwrap();
    assert_eq!(dir.store().load().await.unwrap(), record(2));
    assert!(!dir.beside(".tmp").exists());
}

/// At any moment: what is there afterwards is whole, and no older than what was reported.
#[tokio::test]
async fn a_process_that_is_killed_at_any_moment_leaves_a_whole_record() {
    for round in 0..12_u64 {
        let dir = Dir::signed_in().await;
        let mut writer = Actor::new("writer", CHILD, &dir.file);
        let mut reported = 0;
        for _ in 0..=round % 3 {
            reported = writer.word().unwrap().parse().unwrap();
        }
        // Not all at the same point of the next write.
        for _ in 0..round * 20_000 {
            std::hint::spin_loop();
        }
        writer.kill();
        let found = dir.store().load().await.unwrap();
        assert!(found.generation.get() >= reported, "{:?} after {reported}", found.generation);
        assert_eq!(found, long(found.generation.get()));
        let next = found.generation.next();
        dir.store().save(found.generation, record(next.get())).await.unwrap();
        assert!(!dir.beside(".tmp").exists());
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let dir = Dir::new();
    let mut full = Actor::new("full", CHILD, &dir.file);
    full.says("it is saved");
    assert!(full.end().success());
}

/// A file must not grow beyond a limit, for which the system says "too large" where a disk
/// says "full". In a process of its own, since the limit is one for all its files.
async fn full_disk(store: FileStore) {
    // Otherwise the first such write is the process's end.
    let _too_large = signal(SignalKind::from_raw(25)).unwrap();
    store.save(generation(0), record(1)).await.unwrap();
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher())
        .store(store)
        .cool_down(Duration::from_millis(1), Duration::from_millis(20))
        .build();
    soon(state.token()).await.unwrap();

    // There is room for nothing: nothing is spent.
    limit(Some(0));
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &["could not write", "tokens.json.tmp", "File too large"]);
    assert_eq!(auth.count(), 0);
    soon(state.drain()).await;

    // It fills up during the redeem.
    limit(None);
    let store = || FileStore::open(env::var_os(FILE).unwrap()).unwrap();
    let state = RefreshState::builder(auth.refresher())
        .store(store())
        .cool_down(Duration::from_millis(1), Duration::from_millis(20))
        .build();
    soon(state.token()).await.unwrap();
    auth.gate.close();
    let mut refresh = tokio_test::task::spawn(state.refresh());
    tokio_test::assert_pending!(refresh.poll());
    soon(auth.gate.arrived(1)).await;
    limit(Some(50));
    auth.gate.open();
    let failure = soon(refresh).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unsaved);
    assert_says(&failure, &["could not write", "tokens.json.tmp", "File too large"]);
    assert_eq!(soon(store().load()).await.unwrap(), record(1));
    assert_eq!(auth.count(), 1);
    let sign_in = soon(store().save(generation(1), record(9))).await.unwrap_err();
    assert_says(&sign_in, &["could not write", "tokens.json.tmp", "File too large"]);
    // What was written of it takes no room.
    let temp = Path::new(&env::var_os(FILE).unwrap()).with_file_name("tokens.json.tmp");
    assert!(temp.parent().unwrap().join("tokens.json").exists() && !temp.exists());

    limit(None);
    soon(state.drain()).await;
    assert_eq!(soon(store().load()).await.unwrap(), record(2));
    assert_eq!(auth.asked(), ["refresh-1"]);
    say("it is saved");
}

#[test]
fn a_disk_without_room_for_a_record_is_found_before_a_refresh_token_is_spent() {
    let dir = Dir::new();
    let mut full = Actor::new("no room", CHILD, &dir.file);
    full.says("nothing is spent");
    assert!(full.end().success());
}

/// "What cannot be saved must not be minted". There is room for the line in the lease, for an
/// empty file, and at last for a record of the same length.
async fn no_room_for_a_record(store: FileStore) {
    // Otherwise the first such write is the process's end.
    let _too_large = signal(SignalKind::from_raw(25)).unwrap();
    store.save(generation(0), record(1)).await.unwrap();
    let file = env::var_os(FILE).unwrap();
    let length = fs::metadata(&file).unwrap().len();
    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher())
        .store(store)
        .cool_down(Duration::ZERO, Duration::ZERO)
        .build();
    soon(state.token()).await.unwrap();
    for room in [32, length - 1, length] {
        limit(Some(room));
        let failure = soon(state.refresh()).await.unwrap_err();
        assert_eq!((failure.kind(), auth.count()), (FailureKind::Store, 0), "{room} bytes");
        assert_says(&failure, &["could not write", "tokens.json.tmp", "File too large"]);
    }
    limit(None);
    assert!(!Path::new(&file).with_file_name("tokens.json.tmp").exists());
    soon(state.refresh()).await.unwrap();
    say("nothing is spent");
}

/// Three processes with sixteen states each find out at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_race_are_one_refresh() {
    let servers = Loopback::start(Duration::from_millis(5)).await.unwrap();
    let dir = Dir::new();
    let signed_in = Record::new(generation(1), servers.sign_in());
    dir.store().save(generation(0), signed_in).await.unwrap();
    servers.expire_access_token();
    servers.refuse_together(3 * STATES);

    let mut racers = JoinSet::new();
    for _ in 0..3 {
        let mut racer = Actor::with("racer", CHILD, &dir.file, &[(ADDRESS, servers.address())]);
        racers.spawn_blocking(move || {
            racer.says("ready");
            racer.tell();
            racer.says("200 in all");
            assert!(racer.end().success());
        });
    }
    while let Some(racer) = soon(racers.join_next()).await {
        racer.unwrap();
    }
    let book = servers.book();
    assert_eq!((book.refreshes, book.token_reuse), (1, 0));
    assert_eq!((book.ok, book.unauthorized), (3 * STATES, 3 * STATES));
    assert_eq!(dir.store().load().await.unwrap().generation, generation(2));
}

/// One racing process: its states share nothing with one another but the file.
async fn race(store: impl Fn() -> FileStore, address: String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let plain = Client::builder(TokioExecutor::new()).build_http();
    let mut requests = JoinSet::new();
    let mut services = Vec::new();
    for _ in 0..STATES {
        let (plain, endpoint) = (plain.clone(), format!("{address}/token"));
        let redeem = move |spent: Tokens| redeem(plain.clone(), endpoint.clone(), spent);
        let state = RefreshState::builder(redeem).store(store()).build();
        state.token().await.unwrap();
        services.push(RefreshLayer::new(Arc::clone(&state)).layer(client.clone()));
    }
    say("ready");
    spawn_blocking(listen).await.unwrap();
    for service in services {
        let request =
            Request::post(format!("{address}/api")).body(Full::<Bytes>::default()).unwrap();
        requests.spawn(async move { soon(service.oneshot(request)).await.unwrap().status() });
    }
    while let Some(status) = requests.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    say("200 in all");
}

async fn redeem(
    client: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
    spent: Tokens,
) -> Result<Tokens, RefreshError> {
    let form = format!("grant_type=refresh_token&refresh_token={}", spent.refresh_token().unwrap());
    let request = Request::post(endpoint)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::from(form))
        .unwrap();
    let response = client.request(request).await.map_err(RefreshError::transient)?;
    let body = response.into_body().collect().await.map_err(RefreshError::transient)?.to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    match (answer["access_token"].as_str(), answer["refresh_token"].as_str()) {
        (Some(access), Some(refresh)) => Ok(Tokens::new(access).with_refresh_token(refresh)),
        _ => Err(RefreshError::rejected("invalid_grant")),
    }
}
