//! The hook that a sign-out calls with what it has deleted: revocation, and what is left of it.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use testing::{Auth, Fault, Gate, Logs, Op, Store, builder, idle, opened, secs, stored, tokens};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep, timeout},
};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    BoxError, Generation, RefreshError, RefreshState, Tokens,
    state::{RefreshStateBuilder, Revocation},
};

struct Scene {
    store: Store,
    state: Arc<RefreshState>,
    /// The refresh tokens that the hook was called with.
    told: Arc<Mutex<Vec<String>>>,
    /// The hook comes by here.
    gate: Gate,
}

fn scene() -> Scene {
    let store = Store::with(tokens(1));
    let (told, gate) = (Arc::<Mutex<Vec<String>>>::default(), Gate::new());
    let (noted, passed) = (Arc::clone(&told), gate.clone());
    let state = RefreshState::builder(Auth::new().refresher())
        .store(store.clone())
        .on_sign_out(move |tokens| {
            noted.lock().unwrap().push(tokens.refresh_token().unwrap().to_owned());
            let gate = passed.clone();
            async move { gate.pass().await }
        })
        .build();
    Scene { store, state, told, gate }
}

/// The store's tokens, not those that this process has seen last.
#[tokio::test(start_paused = true)]
async fn it_gets_what_was_deleted() {
    let Scene { store, state, told, .. } = scene();
    state.token().await.unwrap();
    store.overwrite(Some(tokens(7))).await;
    state.clear().await.unwrap();
    assert_eq!(*told.lock().unwrap(), ["refresh-7"]);
    state.clear().await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_not_called_if_nothing_was_deleted() {
    let Scene { store, state, told, .. } = scene();
    store.fault(Op::Delete, Fault::Fail);
    state.clear().await.unwrap_err();
    assert_eq!(told.lock().unwrap().len(), 0);
    state.clear().await.unwrap();
    assert_eq!(told.lock().unwrap().len(), 1);
}

/// `clear` waits for it and `drain` does; it outlives them both, and a sign-in does not
/// wait.
#[tokio::test(start_paused = true)]
async fn who_waits_for_it() {
    let Scene { state, gate, .. } = scene();
    gate.close();
    let mut clear = task::spawn(state.clear());
    assert_pending!(clear.poll());
    gate.arrived(1).await;
    idle().await;
    assert_pending!(clear.poll());
    state.set(tokens(2)).await.unwrap();
    assert_eq!(state.current().access_token(), Some("access-2"));

    drop(clear);
    let mut drain = task::spawn(state.drain());
    assert_pending!(drain.poll());
    gate.open();
    drain.await;
    assert_eq!(state.current().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn its_panic_is_its_own() {
    let state = RefreshState::builder(Auth::new().refresher())
        .tokens(tokens(1))
        .on_sign_out(|_| async { panic!("the hook panics, as told") })
        .build();
    state.clear().await.unwrap();
    assert_eq!(state.current().access_token(), None);
    state.set(tokens(2)).await.unwrap();
}

/// A revocation endpoint in process, which is told how each try ends.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Endpoint>>);

#[derive(Default)]
struct Endpoint {
    /// Why the tries fail. Each is asked for once.
    failures: Vec<fn() -> BoxError>,
    /// When it was asked, and for which token.
    asked: Vec<(Instant, String)>,
}

fn unreachable() -> BoxError {
    io::Error::from(io::ErrorKind::NetworkUnreachable).into()
}

impl Server {
    fn failing(failures: impl IntoIterator<Item = fn() -> BoxError>) -> Self {
        let failures = failures.into_iter().collect();
        Self(Arc::new(Mutex::new(Endpoint { failures, asked: Vec::new() })))
    }

    fn revoke(&self, tokens: &Tokens) -> Result<(), BoxError> {
        let Endpoint { failures, asked } = &mut *self.0.lock().unwrap();
        asked.push((Instant::now(), tokens.refresh_token().unwrap_or_default().to_owned()));
        if failures.is_empty() { Ok(()) } else { Err(failures.remove(0)()) }
    }

    fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.iter().map(|(_, token)| token.clone()).collect()
    }

    fn signing_out(&self, builder: RefreshStateBuilder) -> Arc<RefreshState> {
        let this = self.clone();
        let hook = move |tokens: Tokens| {
            let this = this.clone();
            async move { this.revoke(&tokens) }
        };
        builder.on_sign_out(hook).build()
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_said_what_has_become_of_the_tokens_at_the_server() {
    type Case = (Option<fn() -> BoxError>, Revocation);
    let cases: [Case; 4] = [
        (None, Revocation::Done),
        (Some(unreachable), Revocation::Pending),
        (Some(|| "503".into()), Revocation::Pending),
        (Some(|| RefreshError::rejected("400").into()), Revocation::Failed),
    ];
    for (failure, expected) in cases {
        let server = Server::failing(failure);
        let state = server.signing_out(builder(&Auth::new()));
        let signed_out = state.clear().await.unwrap();
        assert_eq!(signed_out.revocation, expected);
        assert_eq!(signed_out.lives_on(), failure.is_some());
        assert_eq!(signed_out.error().is_some(), failure.is_some());
        assert_eq!(state.current().access_token(), None, "signed out all the same");
        assert_eq!(state.status().unrevoked, usize::from(failure.is_some()));
    }

    // A hook that says nothing, none at all, and nothing to be revoked.
    let state = builder(&Auth::new()).on_sign_out(async |_| {}).build();
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Done);
    let again = state.clear().await.unwrap();
    assert_eq!((again.revocation, again.lives_on()), (Revocation::Nothing, false));
    let state = builder(&Auth::new()).build();
    let signed_out = state.clear().await.unwrap();
    assert_eq!((signed_out.revocation, signed_out.lives_on()), (Revocation::NotAsked, true));
    let state = builder(&Auth::new()).on_sign_out(|_| async { panic!("as told") }).build();
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Failed);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_revoked_is_tried_again_until_it_is() {
    let server = Server::failing([unreachable as fn() -> BoxError; 7]);
    let state = server.signing_out(builder(&Auth::new()).cool_down(secs(1), secs(8)));
    assert!(state.clear().await.unwrap().lives_on());
    assert_eq!(server.asked().len(), 1, "the caller does not wait for more");
    // A sign-in is another session.
    state.set(tokens(9)).await.unwrap();
    sleep(secs(120)).await;
    assert_eq!(server.asked(), ["refresh-1"; 8]);
    assert_eq!(state.status().unrevoked, 0);
    let times: Vec<_> = server.0.lock().unwrap().asked.iter().map(|(at, _)| *at).collect();
    for pause in times.windows(2).map(|pair| pair[1] - pair[0]) {
        assert!(Duration::from_millis(100) <= pause && pause <= secs(9), "{pause:?}");
    }
    assert!(state.drain().await.is_clean());
    assert_eq!(server.asked().len(), 8);
}

/// Also when its handle is dropped right after, as a server does with a session.
#[tokio::test(start_paused = true)]
async fn it_is_tried_again_although_the_credential_is_dropped() {
    let server = Server::failing([unreachable as fn() -> BoxError; 2]);
    let state = server.signing_out(builder(&Auth::new()));
    state.clear().await.unwrap();
    let weak = Arc::downgrade(&state);
    drop(state);
    sleep(secs(60)).await;
    assert_eq!(server.asked().len(), 3);
    assert!(weak.upgrade().is_none(), "it goes when that is done");
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_pause_and_its_final_refusal_are_heeded() {
    let server = Server::failing([
        (|| RefreshError::transient("503").with_retry_after(secs(500)).into()) as fn() -> BoxError,
        || RefreshError::client_refused("401").into(),
        || RefreshError::rejected("400").into(),
    ]);
    let state = server.signing_out(builder(&Auth::new()).client_cool_down(secs(300)));
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Pending);
    for (passed, asked) in [(499, 1), (2, 2), (298, 2), (2, 3), (10_000, 3)] {
        sleep(secs(passed)).await;
        assert_eq!(server.asked().len(), asked, "after {passed} s more");
    }
    let left = state.drain().await.unrevoked;
    assert_eq!(left.len(), 1);
    assert_eq!(server.asked().len(), 3, "it was refused for good");
}

/// A short cool-down is no reason to call without a pause.
#[tokio::test(start_paused = true)]
async fn there_is_a_pause_whatever_the_cool_down_is() {
    let server = Server::failing([unreachable as fn() -> BoxError; 1000]);
    let none = Duration::ZERO;
    let state = server.signing_out(builder(&Auth::new()).cool_down(none, none));
    state.clear().await.unwrap();
    sleep(secs(10)).await;
    assert!(server.asked().len() <= 101, "{}", server.asked().len());
}

#[tokio::test(start_paused = true)]
async fn drain_tries_once_more_and_says_what_is_left() {
    let none: [fn() -> BoxError; 0] = [];
    for (failures, left) in [(none.to_vec(), 0), (vec![unreachable as fn() -> BoxError], 1)] {
        let server = Server::failing([unreachable as fn() -> BoxError].into_iter().chain(failures));
        let patient = builder(&Auth::new()).cool_down(secs(3600), secs(3600));
        let state = server.signing_out(patient);
        state.clear().await.unwrap();
        idle().await;
        let tries = server.asked().len();
        assert_eq!(tries, 1);
        let drained = timeout(secs(1), state.drain()).await.expect("it does not wait out a pause");
        assert_eq!(server.asked().len(), 2);
        assert_eq!((drained.unrevoked.len(), drained.is_clean()), (left, left == 0));
        if let Some(tokens) = drained.unrevoked.first() {
            assert_eq!(tokens.refresh_token(), Some("refresh-1"), "for the program to keep");
        }
        // It tells the same again.
        assert_eq!(state.drain().await.unrevoked.len(), left);
        assert_eq!(server.asked().len(), 2);
    }

    // After it, there is no time for another try.
    let server = Server::failing([unreachable as fn() -> BoxError]);
    let state = server.signing_out(builder(&Auth::new()));
    state.drain().await;
    assert_eq!(state.clear().await.unwrap().revocation, Revocation::Failed);
    assert_eq!(state.drain().await.unrevoked.len(), 1);
}

/// Minted tokens that came too late live on at the server as well.
#[tokio::test(start_paused = true)]
async fn what_could_not_be_discarded_is_tried_again_too() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let server = Server::failing([unreachable as fn() -> BoxError]);
    let this = server.clone();
    let state = stored(&auth, &store)
        .on_discard(move |tokens: Tokens| {
            let this = this.clone();
            async move { this.revoke(&tokens) }
        })
        .build();
    state.token().await.unwrap();
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;
    state.set(tokens(9)).await.unwrap();
    auth.gate.open();
    refresh.await.unwrap();
    idle().await;
    assert_eq!((server.asked(), state.status().unrevoked), (vec!["refresh-2".to_owned()], 1));
    sleep(secs(60)).await;
    assert_eq!((server.asked().len(), state.status().unrevoked), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_revocation_is_a_warning_at_first_and_at_last() {
    let (logs, _guard) = Logs::capture();
    let server = Server::failing([
        unreachable as fn() -> BoxError,
        || "SECRET-refresh-1 could not be sent".into(),
        || RefreshError::rejected("SECRET").with_code("unsupported_token_type").into(),
    ]);
    let state = server.signing_out(builder(&Auth::new()).name("alice"));
    let signed_out = state.clear().await.unwrap();
    assert!(!format!("{signed_out:?}").contains("SECRET"));
    sleep(secs(120)).await;
    assert_eq!(server.asked().len(), 3);
    let said = ["WARN", "revocation failed", "name=\"alice\""];
    assert_eq!(logs.count(&said), 2);
    let [first, last] = [("network unreachable", "pending"), ("unsupported_token_type", "failed")]
        .map(|(cause, word)| [format!("cause=\"{cause}\""), format!("outcome=\"{word}\"")]);
    for [cause, word] in [&first, &last] {
        logs.assert_told(&[&said[..], &[cause, word]].concat());
    }
    logs.assert_clean();
}

/// Where there is none, the caller is told that there is no other try.
#[test]
fn without_a_runtime_there_is_one_try() {
    let server = Server::failing([unreachable as fn() -> BoxError]);
    let state = server.signing_out(builder(&Auth::new()));
    let signed_out = tokio_test::task::spawn(state.clear()).poll();
    let std::task::Poll::Ready(Ok(signed_out)) = signed_out else { panic!("{signed_out:?}") };
    assert_eq!((signed_out.revocation, signed_out.lives_on()), (Revocation::Failed, true));
}

/// A refresh whose runtime was shut down during its save, and nothing after it.
#[test]
fn drain_says_that_minted_tokens_are_lost() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let build = || Builder::new_current_thread().enable_all().build().unwrap();
    let (gone, here) = (build(), build());
    let state = gone.block_on(async {
        let state = opened(&auth, &store).await;
        store.gate(Op::Save).close();
        assert_pending!(task::spawn(state.refresh()).poll());
        store.gate(Op::Save).arrived(1).await;
        state
    });
    drop(gone);
    store.gate(Op::Save).open();
    let drained = here.block_on(state.drain());
    assert!(drained.unsaved && !drained.is_clean() && drained.unrevoked.is_empty());
    assert!(state.current().generation() > Generation::ZERO);
}

/// However many sign-outs fail.
#[tokio::test(start_paused = true)]
async fn what_is_left_is_bounded() {
    let fail = || RefreshError::rejected("400").into();
    let server = Server::failing([fail as fn() -> BoxError; 100]);
    let state = server.signing_out(builder(&Auth::new()));
    for number in 2..100 {
        state.clear().await.unwrap();
        state.set(tokens(number)).await.unwrap();
    }
    let left = state.drain().await.unrevoked;
    assert_eq!((left.len(), left.last().unwrap().refresh_token()), (64, Some("refresh-98")));
}
