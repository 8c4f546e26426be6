//! What an authorization server knows: which tokens are good, and what became of the
//! others. No clock but tokio's, and no sockets.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// The book of an authorization server that has one user.
///
/// Refresh tokens are for single use. One that comes a second time ends the session, with
/// all of its tokens, unless it comes within the grace period. Tokens read
/// `access-<session>-<number>` and `refresh-<session>-<number>`.
#[derive(Clone, Debug, Default)]
pub struct Book {
    grace: Duration,
    life: Option<Duration>,
    session: u64,
    /// Whether the session's refresh token is good.
    alive: bool,
    /// The number of the current pair, and since when its access token is good. `None`: it
    /// is not.
    number: u64,
    issued: Option<Instant>,
    /// When this session's refresh tokens were spent, by number.
    spent: HashMap<u64, Instant>,
    /// How many tokens were given out for a refresh token or for client credentials.
    pub refreshes: usize,
    /// How many refresh tokens came a second time, and ended a session.
    pub token_reuse: usize,
    /// How many came a second time, and got the same pair again.
    pub graces: usize,
    /// How many tokens were revoked at their owner's request.
    pub revoked: usize,
    /// How many requests the API has accepted.
    pub ok: usize,
    /// How many requests the API has refused.
    pub unauthorized: usize,
}

/// Two tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

/// What is answered to a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is spent now: here is the next pair.
    Renewed(Pair),
    /// It was spent before, within the grace period: the same pair again.
    Again(Pair),
    /// It was spent before. Everything is revoked. This is its number, for the excuses of
    /// those who look for one.
    Reused(u64),
    /// Its session is over.
    Over,
    /// It was never issued.
    Unknown,
}

impl Book {
    /// A server without a grace period, whose access tokens are good until they are
    /// replaced.
    pub fn new() -> Self {
        Self::default()
    }

    /// For so long the previous refresh token gets the same pair again.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }

    /// Access tokens are refused after so long.
    #[must_use]
    pub fn life(self, life: Duration) -> Self {
        Self { life: Some(life), ..self }
    }

    /// A new session. The one before ends.
    pub fn sign_in(&mut self) -> Pair {
        self.session += 1;
        self.alive = true;
        self.spent.clear();
        self.issue(1)
    }

    /// A new access token for a client that has none to spend.
    pub fn grant(&mut self) -> String {
        self.refreshes += 1;
        self.issue(self.number + 1).access
    }

    fn issue(&mut self, number: u64) -> Pair {
        self.number = number;
        self.issued = Some(Instant::now());
        self.current()
    }

    /// The pair that was given out last.
    pub fn current(&self) -> Pair {
        let (session, number) = (self.session, self.number);
        Pair {
            access: format!("access-{session}-{number}"),
            refresh: format!("refresh-{session}-{number}"),
        }
    }

    /// The number of the current pair, from 1 in each session.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of the session, from 1.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Whether there is a session that can go on.
    pub fn is_alive(&self) -> bool {
        self.alive
    }

    /// From now on every access token that was given out so far is refused.
    pub fn expire_access_token(&mut self) {
        self.issued = None;
    }

    /// Whether this is the current access token, run out or not.
    pub fn is_current(&self, access: &str) -> bool {
        parse(access, "access-") == Some((self.session, self.number))
    }

    /// Whether this access token is good. It counts as a request.
    pub fn accepts(&mut self, access: &str) -> bool {
        let lives = |issued: Instant| self.life.is_none_or(|life| issued.elapsed() <= life);
        let good = self.is_current(access) && self.issued.is_some_and(lives);
        *(if good { &mut self.ok } else { &mut self.unauthorized }) += 1;
        good
    }

    /// A refresh token is brought.
    pub fn redeem(&mut self, refresh: &str) -> Verdict {
        let Some((session, number)) = parse(refresh, "refresh-") else {
            return Verdict::Unknown;
        };
        if session != self.session || !self.alive {
            return Verdict::Over;
        }
        if let Some(spent) = self.spent.get(&number) {
            if number + 1 == self.number && spent.elapsed() < self.grace {
                self.graces += 1;
                return Verdict::Again(self.current());
            }
            self.token_reuse += 1;
            self.end();
            return Verdict::Reused(number);
        }
        if number != self.number {
            return Verdict::Unknown;
        }
        self.spent.insert(number, Instant::now());
        self.refreshes += 1;
        Verdict::Renewed(self.issue(number + 1))
    }

    /// A token is brought to be revoked: if it is good, so is its whole session.
    pub fn revoke(&mut self, token: &str) {
        let Pair { access, refresh } = self.current();
        let good = (self.alive && token == refresh) || (self.issued.is_some() && token == access);
        if good {
            self.revoked += 1;
            self.end();
        }
    }

    fn end(&mut self) {
        self.alive = false;
        self.issued = None;
    }
}

fn parse(token: &str, kind: &str) -> Option<(u64, u64)> {
    let (session, number) = token.strip_prefix(kind)?.split_once('-')?;
    Some((session.parse().ok()?, number.parse().ok()?))
}
