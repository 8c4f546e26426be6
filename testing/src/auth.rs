//! An authorization server in process, with rotation and reuse detection: a refresher.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tower_refresh::{RefreshError, Refresher, Tokens, refresher_fn};

use super::{Gate, tokens};

/// What the server does when it is asked next.
pub enum Play {
    /// These tokens. Without a refresh token the one that was brought stays good.
    Mint(Tokens),
    /// `invalid_grant`.
    Reject,
    /// A transient failure.
    Fail,
    /// A transient failure with this `Retry-After`.
    RetryAfter(Duration),
    /// The refresher panics.
    Panic,
}

/// Mints `access-2` and `refresh-2` the first time, and so on, unless told to do
/// otherwise with [`next`](Self::next).
#[derive(Clone)]
pub struct Auth {
    shared: Arc<Mutex<Shared>>,
    /// Every redeem passes here before it is answered.
    pub gate: Gate,
}

#[derive(Default)]
struct Shared {
    minted: u64,
    plays: VecDeque<Play>,
    asked: Vec<Option<String>>,
    spent: HashSet<String>,
    reused: bool,
    now: usize,
    most: usize,
}

/// One redeem under way.
struct Visit(Arc<Mutex<Shared>>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.lock().unwrap().now -= 1;
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self::new()
    }
}

impl Auth {
    /// A server that was not asked yet.
    pub fn new() -> Self {
        let shared = Arc::new(Mutex::new(Shared { minted: 1, ..Shared::default() }));
        Self { shared, gate: Gate::new() }
    }

    /// The refresh-token grant.
    pub fn refresher(&self) -> impl Refresher + use<> {
        let this = self.clone();
        move |current: Tokens| {
            let this = this.clone();
            async move { this.redeem(Some(current)).await }
        }
    }

    /// The client-credentials grant.
    pub fn minter(&self) -> impl Refresher + use<> {
        let this = self.clone();
        refresher_fn(move || {
            let this = this.clone();
            async move { this.redeem(None).await }
        })
    }

    /// What it does when it is asked next; call it again for the time after.
    pub fn next(&self, play: Play) -> &Self {
        self.lock().plays.push_back(play);
        self
    }

    /// How often it was asked.
    pub fn count(&self) -> usize {
        self.lock().asked.len()
    }

    /// The refresh tokens it was brought, in order.
    pub fn asked(&self) -> Vec<String> {
        self.lock().asked.iter().map(|token| token.clone().unwrap_or_default()).collect()
    }

    /// No two redeems were under way at once, and no token was spent twice.
    ///
    /// # Panics
    ///
    /// Otherwise.
    #[track_caller]
    pub fn assert_sound(&self) {
        let shared = self.lock();
        assert!(shared.most <= 1, "{} redeems at once", shared.most);
        assert!(!shared.reused, "a spent refresh token came again: {:?}", shared.asked);
    }

    /// Redeems, as its refreshers do. `None`: client credentials.
    pub async fn redeem(&self, current: Option<Tokens>) -> Result<Tokens, RefreshError> {
        let token = current.as_ref().and_then(|tokens| tokens.refresh_token().map(str::to_owned));
        let _visit = {
            let mut shared = self.lock();
            shared.asked.push(token.clone());
            shared.now += 1;
            shared.most = shared.most.max(shared.now);
            Visit(Arc::clone(&self.shared))
        };
        self.gate.pass().await;
        let mut shared = self.lock();
        if token.as_ref().is_some_and(|token| shared.spent.contains(token)) {
            shared.reused = true;
            return Err(RefreshError::rejected("invalid_grant: token reuse"));
        }
        match shared.plays.pop_front() {
            None => {
                shared.spent.extend(token);
                shared.minted += 1;
                Ok(tokens(shared.minted))
            }
            Some(Play::Mint(minted)) => {
                if minted.refresh_token().is_some() {
                    shared.spent.extend(token);
                }
                Ok(minted)
            }
            Some(Play::Reject) => Err(RefreshError::rejected("invalid_grant")),
            Some(Play::Fail) => Err(RefreshError::transient("503")),
            Some(Play::RetryAfter(wait)) => {
                Err(RefreshError::transient("429").with_retry_after(wait))
            }
            Some(Play::Panic) => {
                drop(shared);
                panic!("the refresher panics, as told")
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}
