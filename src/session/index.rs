//! Which sessions a user has: [`IndexKey`], and the lists by it.
//!
//! A list is a record beside those of the sessions, in the same store, changed by
//! compare-and-swap: each store that keeps credentials keeps these, too, and seals them if it seals.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::{
    id::SessionName,
    identity::{Identity, seconds},
};
use crate::{
    store::{Record, SaveError, StoreError, Stores, TokenStore},
    time::Time,
    tokens::{Generation, RESERVED_SESSIONS, Tokens},
};

/// Names sessions for [`Sessions::end_all`](super::Sessions::end_all): all sessions of a user, or those of
/// one session at the provider. `Debug` shows neither.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use tower_refresh::{Renewal, Tokens, store::MemoryStores};
/// use tower_refresh::session::{Identity, IndexKey, Sessions};
///
/// # let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("next")));
/// # let sessions = Sessions::builder(renewal, MemoryStores::new()).build()?;
/// // The user was removed: all sessions end, on every replica.
/// let alice = IndexKey::sub(&Identity::new("https://id.example.com", "alice"));
/// assert_eq!(sessions.end_all(&alice).await?, 0);
/// # Ok::<_, tower_refresh::BoxError>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IndexKey {
    /// All sessions that came of one session at the provider.
    Sid {
        /// The issuer (`iss`).
        issuer: String,
        /// The provider's id of its session (`sid`).
        sid: String,
    },
    /// All sessions of a user.
    Sub {
        /// The issuer (`iss`).
        issuer: String,
        /// The subject (`sub`).
        subject: String,
    },
}

/// For how long it is known that sessions were ended. A sign-in that was begun before has come to its
/// end by then.
const MARK: Duration = Duration::from_secs(3600);

/// For how long an empty list stays.
const LINGER: Duration = Duration::from_secs(600);

/// How many sessions of one key are known. Of more, those that end first are forgotten: they are ended
/// by themselves, and not by the key.
const MAX_SESSIONS: usize = 1000;

/// How often a list is written anew because another process was writing.
const MAX_CONFLICTS: u32 = 64;

impl IndexKey {
    /// All sessions of the user of this identity.
    #[must_use]
    pub fn sub(identity: &Identity) -> Self {
        let (issuer, subject) = (identity.issuer().into(), identity.subject().into());
        Self::Sub { issuer, subject }
    }

    /// All sessions of this identity's session at the provider. `None` if the provider has not named one.
    #[must_use]
    pub fn sid(identity: &Identity) -> Option<Self> {
        Some(Self::Sid { issuer: identity.issuer().into(), sid: identity.session()?.into() })
    }

    fn all(identity: &Identity) -> impl Iterator<Item = Self> {
        [Self::sid(identity), Some(Self::sub(identity))].into_iter().flatten()
    }

    /// The name of its record: no session's, and nothing that says who it is.
    fn name(&self) -> String {
        match self {
            Self::Sid { issuer, sid } => name_of("sid", issuer, sid),
            Self::Sub { issuer, subject } => name_of("sub", issuer, subject),
        }
    }
}

/// A name of two texts, for a record of its kind.
fn name_of(kind: &str, issuer: &str, text: &str) -> String {
    let hash = Sha256::new()
        .chain_update(issuer.len().to_be_bytes())
        .chain_update(issuer)
        .chain_update(text)
        .finalize();
    format!("{kind}-{}", BASE64_URL_SAFE_NO_PAD.encode(hash))
}

impl fmt::Debug for IndexKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sid { .. } => "Sid { .. }",
            Self::Sub { .. } => "Sub { .. }",
        })
    }
}

pub(super) struct Index(Arc<dyn Stores>);

/// The sessions of a key, and until when each may live, in seconds since the epoch.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct List {
    #[serde(default)]
    sessions: BTreeMap<String, u64>,
    /// When all of them were ended last, in microseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ended: Option<u64>,
}

impl List {
    fn read(record: &Record) -> Self {
        let text = record.tokens.as_ref().and_then(|tokens| tokens.extra(RESERVED_SESSIONS));
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn tokens(&self) -> Tokens {
        // Cannot fail: all of it is text and numbers.
        let text = serde_json::to_string(self).expect("text and numbers");
        Tokens::new("").with_extra(RESERVED_SESSIONS, text)
    }

    /// Without what has no meaning any more.
    fn prune(&mut self, now: u64) {
        self.sessions.retain(|_, until| *until > now);
        self.ended = self.ended.filter(|ended| ended / 1_000_000 + MARK.as_secs() > now);
        while self.sessions.len() > MAX_SESSIONS {
            let first = self.sessions.iter().min_by_key(|(_, until)| **until);
            let Some(first) = first.map(|(name, _)| name.clone()) else { break };
            self.sessions.remove(&first);
        }
    }

    /// When it may be forgotten. Not at once: another process may write to it between this one's write
    /// and the moment at which it is given its end.
    fn end(&self, now: u64) -> u64 {
        let mark = self.ended.map(|ended| ended / 1_000_000 + MARK.as_secs());
        let last = self.sessions.values().copied().chain(mark).max().unwrap_or(now);
        last.max(now + LINGER.as_secs())
    }
}

fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Index {
    pub(super) fn new(stores: Arc<dyn Stores>) -> Self {
        Self(stores)
    }

    /// Adds a session that was stored. `false`: its like have been ended meanwhile.
    pub(super) async fn add(
        &self,
        identity: &Identity,
        name: &SessionName,
        (begun, deadline): (SystemTime, SystemTime),
    ) -> Result<bool, StoreError> {
        for key in IndexKey::all(identity) {
            let marked = self.change(&key, |list| {
                list.sessions.insert(name.as_str().into(), seconds(deadline));
                list.ended
            });
            let was_ended = match (marked.await?, &key) {
                (None, _) => false,
                // The provider gives no session's id twice.
                (Some(_), IndexKey::Sid { .. }) => true,
                (Some(at), _) => micros(identity.issued().unwrap_or(begun)) < at,
            };
            if was_ended {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes out a session that has ended. Best effort: it goes by itself in time.
    pub(super) async fn remove(&self, identity: &Identity, name: &SessionName) {
        for key in IndexKey::all(identity) {
            let removed = self.change(&key, |list| list.sessions.remove(name.as_str()));
            if removed.await.is_err() {
                tracing::debug!("a session that has ended stays in the list of its user");
            }
        }
    }

    /// Marks them as ended, but for one, and returns which they were.
    pub(super) async fn end(
        &self,
        key: &IndexKey,
        but: Option<&SessionName>,
    ) -> Result<Vec<SessionName>, StoreError> {
        let now = micros(Time::now().wall);
        let is_kept = |name: &str| but.is_some_and(|but| but.as_str() == name);
        // They are taken out once they have ended: who fails on the way can call again.
        self.change(key, |list| {
            if but.is_none() {
                list.ended = Some(now);
            }
            let names = list.sessions.keys().filter(|name| !is_kept(name));
            names.filter_map(|name| SessionName::parse(name)).collect()
        })
        .await
    }

    /// Whether a logout token was used before.
    pub(super) async fn is_used(&self, issuer: &str, id: &str) -> Result<bool, StoreError> {
        let record = self.0.store(&name_of("jti", issuer, id)).load().await?;
        Ok(record.tokens.is_some())
    }

    /// It was used, and is not to be used again until then.
    pub(super) async fn use_once(
        &self,
        issuer: &str,
        id: &str,
        until: SystemTime,
    ) -> Result<(), StoreError> {
        let store = self.0.store(&name_of("jti", issuer, id));
        let first = Generation::ZERO.next_at(Time::now().wall);
        match store.save(Generation::ZERO, Record::new(first, Tokens::new(""))).await {
            Ok(()) => store.keep_until(until).await.map(drop),
            Err(SaveError::Failed(error)) => Err(error),
            // The same token at the same moment: to end twice is no harm.
            Err(SaveError::Conflict | SaveError::LeaseLost) => Ok(()),
        }
    }

    async fn change<T>(
        &self,
        key: &IndexKey,
        change: impl Fn(&mut List) -> T,
    ) -> Result<T, StoreError> {
        let store = self.0.store(&key.name());
        for conflicts in 0..MAX_CONFLICTS {
            let (known, time) = (store.load().await?, Time::now());
            let now = seconds(time.wall);
            let old = List::read(&known);
            let mut list = old.clone();
            list.prune(now);
            let done = change(&mut list);
            if list == old {
                return Ok(done);
            }
            let generation = known.generation.next_at(time.wall);
            match store.save(known.generation, Record::new(generation, list.tokens())).await {
                Ok(()) => {
                    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(list.end(now));
                    store.keep_until(end).await?;
                    return Ok(done);
                }
                Err(SaveError::Failed(error)) => return Err(error),
                Err(SaveError::Conflict | SaveError::LeaseLost) => {
                    let pause = Duration::from_millis(u64::from(conflicts.min(20)));
                    sleep(pause.mul_f64(fastrand::f64())).await;
                }
            }
        }
        Err(StoreError::new("other processes kept writing the list of a user's sessions"))
    }
}
