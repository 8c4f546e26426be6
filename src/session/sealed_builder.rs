//! Knobs of sealed sessions: [`SealedBuilder`].

use std::{fmt, time::Duration};

use super::{
    builder::SessionsBuilder,
    sealed::{MAX_BYTES, Sealed},
    sessions::Sessions,
};
use crate::{
    seal::Keyring,
    state::RenewalBuilder,
    store::{MemoryStores, Stores},
};

/// Configures what is particular to [sealed](Sessions::sealed) sessions. [`remember`](Self::remember)
/// goes on to what all have.
///
/// ```
/// use tower_refresh::{Renewal, Tokens, seal::Keyring, session::Sessions, store::MemoryStores};
/// # let key = [7; 32];
///
/// let renewal = Renewal::builder(async |_spent: Tokens| Ok(Tokens::new("next")));
/// let sessions = Sessions::sealed(renewal, Keyring::new(key))
///     .max_bytes(4096)
///     .remember(MemoryStores::new())
///     .build()?;
/// # let _ = sessions;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[must_use]
pub struct SealedBuilder {
    renewal: RenewalBuilder,
    sealed: Sealed,
}

impl Sessions {
    /// Sessions whose tokens are in the browser's cookies, sealed with these keys: for a program that
    /// has no store. The [default mode](Sessions::builder) is simpler, its cookie is 43 letters instead
    /// of some thousand, and a sign-out there can be relied on without anything else: take it where
    /// there is a store.
    ///
    /// Everything above it is the same: the layer, [`Session`](super::Session), the extractors. What is
    /// different:
    ///
    /// - **A memory** keeps a session's newest tokens until the browser has shown that it has them, and
    ///   after that their number ([`SealedBuilder::remember`]). So an older cookie costs a look into it
    ///   and is replaced, and no refresh token is spent twice.
    /// - **A refresh token is spent only for a request whose response** can take the new tokens to the
    ///   browser. In a stream whose head was sent, behind an upgraded connection or in a task of its own
    ///   the refusal is [`NoResponseHead`](crate::FailureKind::NoResponseHead), and the browser's next
    ///   request refreshes. There are no early refreshes.
    /// - **`Set-Cookie` comes at a refresh, too**, at every tenth of the
    ///   [idle](SessionsBuilder::idle) time, and once when no older one can be on its way any more. Such
    ///   responses are `no-store`.
    /// - **A cookie that no key opens is ignored**: it is neither cleared nor an error. So to drop a key
    ///   signs out the users whose cookies were sealed with it.
    ///
    /// Nothing is compressed, since what a user has chosen (a name) stands beside secrets, and a length that
    /// depends on both would tell of the secrets. Tokens that are base64url, as JWTs are, are kept as the bytes
    /// that they encode.
    pub fn sealed(renewal: RenewalBuilder, keys: Keyring) -> SealedBuilder {
        SealedBuilder {
            renewal: renewal.early_refresh(Duration::ZERO),
            sealed: Sealed {
                keys,
                max_bytes: MAX_BYTES,
                transit: Duration::from_secs(600),
                keeps_id_token: false,
            },
        }
    }
}

impl SealedBuilder {
    /// How many bytes a session's cookies may take, names included. A sign-in whose tokens need more
    /// fails ([`SignInError::TooLarge`](super::SignInError::TooLarge)); tokens of a refresh that need more
    /// stay in the memory. Default: 5 KiB, which leaves 4 KiB of what hyper takes over HTTP/2 to other
    /// cookies. More than the default counts as the default: browsers may bring two generations at once,
    /// and HTTP/2 servers refuse more than both.
    ///
    /// What servers take by default, all cookies of a site together, as Chromium sends them:
    ///
    /// | server | at most | else |
    /// |---|---|---|
    /// | hyper 1.12, HTTP/1.1 | over 400 KiB | 431 |
    /// | hyper 1.12, HTTP/2 | 14 KiB: 16 KiB with all other headers, and 38 bytes more for each cookie | 431 |
    /// | nginx 1.22, HTTP/1.1 | 8 KiB: one of the `large_client_header_buffers` | 400 |
    /// | nginx 1.22, HTTP/2 | 32 KiB with all other headers: all of them | the connection is closed |
    ///
    /// And nginx takes a response's headers only if they fit into its `proxy_buffer_size`, 4 KiB, and
    /// answers with 502 else. That is enough for cookies of 1700 bytes, since a session is set twice at its
    /// sign-in; 16 KiB are enough for all that may be set. The page `guide::sessions` has the lines.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.sealed.max_bytes = bytes.min(MAX_BYTES);
        self
    }

    /// For how long a response may be on its way to the browser, proxies included. The tokens stay in the
    /// memory for that long after a refresh, whatever the browser shows. A response that arrives later
    /// may put an older cookie over the newest one, and end the session. The wall clocks of all replicas
    /// count, and have to agree to some seconds. Default: 10 minutes.
    pub fn transit(mut self, time: Duration) -> Self {
        self.sealed.transit = time.max(Duration::from_secs(1));
        self
    }

    /// Keeps the ID token of the server's answers beside the tokens, for a sign-out at the provider
    /// that asks for it (`id_token_hint`). It is as large as an access token. Default: it is left out.
    pub fn keep_id_token(mut self) -> Self {
        self.sealed.keeps_id_token = true;
        self
    }

    /// Where the sessions remember tokens that the browser may not have received, and which sessions have
    /// ended: a [`MemoryStores`] for one process, a shared store for several. The tokens are there for
    /// some minutes after each refresh, and then only their number.
    ///
    /// If this memory is lost, sessions go on from their cookies. Lost are the tokens that a browser has
    /// not received, and the knowledge that a session was signed out or ended from outside. A copy of
    /// such a session's cookie then opens again until it is idle or at its deadline. How much it can do
    /// is bounded by the revocation of its tokens and by the access token's life.
    pub fn remember(self, stores: impl Stores) -> SessionsBuilder {
        SessionsBuilder::sealed(self.renewal, self.sealed, stores)
    }

    /// Goes without a shared memory: each process remembers by itself, for as long as it lives. Two
    /// processes may spend the same refresh token, and a restart may lose a token that no browser has
    /// received. So this needs a server that accepts a spent token once more within some seconds (a
    /// *reuse leeway*, *grace period* or *overlap*); with every other server users are signed out at
    /// times. Only one process knows of a sign-out.
    pub fn rely_on_reuse_leeway(self) -> SessionsBuilder {
        self.remember(MemoryStores::new())
    }
}

impl fmt::Debug for SealedBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedBuilder").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}
