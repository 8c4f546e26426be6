//! A family: many credentials that share how they are renewed.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use testing::{Auth, Op, Play, Store, kind, tokens};
use tokio::task::yield_now;
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshError, RefreshState, Refresher, Renewal, Tokens,
    refresher::{RefreshRequest, Trigger},
    store::{MemoryStores, Stores},
};

/// Each user's refresh token names the user: the server sees whose it is.
fn of(user: &str, number: u64) -> Tokens {
    Tokens::new(format!("access-{user}-{number}"))
        .with_refresh_token(format!("refresh-{user}-{number}"))
}

/// Redeems every user's token but that of `mallory`.
async fn redeem(spent: Tokens) -> Result<Tokens, RefreshError> {
    let token = spent.refresh_token().unwrap_or_default().to_owned();
    let (user, number) = token["refresh-".len()..].split_once('-').unwrap();
    match user {
        "mallory" => Err(RefreshError::rejected("invalid_grant")),
        _ => Ok(of(user, number.parse::<u64>().unwrap() + 1)),
    }
}

#[tokio::test(start_paused = true)]
async fn i14_the_credentials_of_a_family_share_no_fate() {
    let renewal = Renewal::builder(redeem).build();
    let states = ["alice", "bob", "mallory"].map(|user| renewal.in_memory(of(user, 1)));
    let outcomes = join_all(states.iter().map(|state| state.refresh())).await;
    let [alice, bob, mallory] = outcomes.try_into().unwrap();
    assert_eq!(alice.unwrap().access_token(), Some("access-alice-2"));
    assert_eq!(bob.unwrap().access_token(), Some("access-bob-2"));
    assert_eq!(kind(mallory), FailureKind::Rejected);
    states[0].clear().await.unwrap();
    assert!(!states[0].status().signed_in && states[1].status().signed_in);
    assert_eq!(kind(states[2].refresh().await), FailureKind::Rejected);
    assert_eq!(states[1].refresh().await.unwrap().access_token(), Some("access-bob-3"));
}

/// One credential's redeem that does not end holds up no other's.
#[tokio::test(start_paused = true)]
async fn i14_a_slow_refresh_delays_its_own_credential_only() {
    let auth = Auth::new();
    let slow = auth.clone();
    let renewal = Renewal::builder(move |spent: Tokens| {
        let slow = slow.clone();
        async move {
            match spent.refresh_token() {
                Some("refresh-1") => slow.redeem(Some(spent)).await,
                _ => redeem(spent).await,
            }
        }
    })
    .build();
    let (held, free) = (renewal.in_memory(tokens(1)), renewal.in_memory(of("bob", 1)));
    auth.gate.close();
    let mut waiting = task::spawn(held.refresh());
    assert_pending!(waiting.poll());
    assert_eq!(free.refresh().await.unwrap().access_token(), Some("access-bob-2"));
    assert_pending!(waiting.poll());
    auth.gate.open();
    assert_eq!(waiting.await.unwrap().access_token(), Some("access-2"));
}

#[tokio::test(start_paused = true)]
async fn a_state_reads_its_store_on_first_use() {
    let (auth, store) = (Auth::new(), Store::with(tokens(1)));
    let renewal = Renewal::builder(auth.refresher()).build();
    let state = renewal.state(Arc::new(store.clone()));
    assert_eq!((store.count(Op::Load), state.current().access_token()), (0, None));
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!((store.count(Op::Load), auth.count()), (1, 0));
}

/// Two states over one name are as good as two processes.
#[tokio::test(start_paused = true)]
async fn i1_two_states_of_one_name_redeem_once() {
    let auth = Auth::new();
    let renewal = Renewal::builder(auth.refresher()).build();
    let stores: Arc<dyn Stores> = Arc::new(MemoryStores::new());
    renewal.state(stores.store("alice")).set(tokens(1)).await.unwrap();
    let [one, two] = [stores.store("alice"), stores.store("alice")].map(|it| renewal.state(it));
    one.token().await.unwrap();
    two.token().await.unwrap();
    let (one, two) = tokio::join!(one.refresh(), two.refresh());
    assert_eq!(one.unwrap().access_token(), Some("access-2"));
    assert_eq!(two.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
    auth.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn the_knobs_and_hooks_of_a_family_are_each_credentials() {
    let auth = Auth::new();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&ended);
    let renewal = Renewal::builder(auth.refresher())
        .cool_down(Duration::from_secs(1000), Duration::from_secs(1000))
        .on_sign_out(move |tokens: Tokens| {
            hook.lock().unwrap().push(tokens.access_token().to_owned());
            async {}
        })
        .build();
    auth.next(Play::RetryAfter(Duration::from_secs(2000)));
    let state = renewal.clone().in_memory(tokens(1));
    // Nothing of a family ends with the handle on it.
    drop(renewal);
    assert_eq!(kind(state.refresh().await), FailureKind::Transient);
    assert_eq!(state.status().retry_in, Some(Duration::from_secs(2000)));
    state.clear().await.unwrap();
    assert_eq!(*ended.lock().unwrap(), ["access-1"]);
}

/// A shared refresher is a refresher, and is told what it is asked for.
#[tokio::test(start_paused = true)]
async fn a_refresher_may_be_shared_and_wrapped() {
    struct Noting<R>(R, Mutex<Vec<Trigger>>);
    impl<R: Refresher> Refresher for Noting<R> {
        fn refresh(
            &self,
            request: RefreshRequest,
        ) -> tower_refresh::BoxFuture<'_, Result<Tokens, RefreshError>> {
            self.1.lock().unwrap().push(request.trigger);
            self.0.refresh(request)
        }

        fn needs_tokens(&self) -> bool {
            self.0.needs_tokens()
        }
    }
    let auth = Auth::new();
    let noting = Arc::new(Noting(auth.minter(), Mutex::default()));
    let shared: Arc<dyn Refresher> = noting.clone();
    let (one, two) = (RefreshState::builder(Arc::clone(&shared)).build(), Renewal::builder(shared));
    assert_eq!(one.token().await.unwrap().access_token(), Some("access-2"));
    let two = two.build().in_memory(None);
    assert_eq!(two.token().await.unwrap().access_token(), Some("access-3"));
    two.challenged(two.current().generation()).await.unwrap();
    let asked = [Trigger::FirstUse, Trigger::FirstUse, Trigger::Challenge];
    assert_eq!(*noting.1.lock().unwrap(), asked);
}

#[tokio::test(start_paused = true)]
async fn a_late_subscriber_sees_what_is_current_and_hears_what_comes() {
    let renewal = Renewal::builder(redeem).build();
    let state = renewal.in_memory(of("alice", 1));
    state.refresh().await.unwrap();
    let mut changes = state.subscribe();
    assert_eq!(changes.borrow_and_update().access_token(), Some("access-alice-2"));
    state.refresh().await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(changes.borrow_and_update().access_token(), Some("access-alice-3"));
}

/// What an idle, signed-in credential has on the heap besides the text of its tokens and its
/// name: as it is built, after a sign-in, and after a refresh.
#[test]
fn an_idle_credential_costs_at_most_500_bytes() {
    const ACCESS: &str = "an access token of thirty bytes";
    const REFRESH: &str = "a refresh token of thirty bytes";
    fn pair() -> Tokens {
        let life = Duration::from_secs(3600);
        Tokens::new(ACCESS).with_refresh_token(REFRESH).with_expires_in(life)
    }
    const COUNT: usize = 1000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let renewal = Renewal::builder(async |_: Tokens| Ok(pair())).build();
    let stores = Arc::new(MemoryStores::new());
    let named = |number: usize| {
        let stores: &dyn Stores = &*stores;
        renewal.state(stores.store(&format!("{number:08}")))
    };
    let text = ACCESS.len() + REFRESH.len();
    let built = |number: usize| (number < COUNT).then(|| renewal.in_memory(pair()));
    let signed_in = |number: usize| {
        let state = named(number);
        runtime.block_on(state.set(pair())).unwrap();
        Some(state)
    };
    let refreshed = |number: usize| {
        let state = named(COUNT + number);
        runtime.block_on(async {
            state.set(pair()).await.unwrap();
            state.refresh().await.unwrap();
            // The flight's task gives its lease back.
            yield_now().await;
        });
        Some(state)
    };
    let measure = |make: &dyn Fn(usize) -> Option<Arc<RefreshState>>| {
        let mut states = Vec::with_capacity(COUNT);
        let allocated = allocation_counter::measure(|| states.extend((0..COUNT).map(make)));
        usize::try_from(allocated.bytes_current).unwrap() / COUNT
    };
    // The runtime's own memory is there before it is measured.
    drop(refreshed(COUNT));
    for (what, make, name) in [
        ("built", &built as &dyn Fn(usize) -> Option<Arc<RefreshState>>, 0),
        ("signed in", &signed_in, 8),
        ("refreshed", &refreshed, 8),
    ] {
        let bytes = measure(make) - text - name;
        println!("{what}: {bytes} bytes");
        assert!(bytes <= 500, "{what}: {bytes} bytes");
    }
}
