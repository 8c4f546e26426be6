//! The authorization server, and whose tokens its API takes.

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::{Either, select};
use tower_refresh::{BoxFuture, RefreshError, Tokens};

use super::{Answer, Browser, Replica};
use crate::Gate;

/// An authorization server that rotates, and revokes a family when a spent token comes again; and the
/// API that takes its tokens.
#[derive(Clone, Default)]
pub struct Server(
    Arc<Mutex<Families>>,
    /// Every redeem passes here before it is answered.
    pub Gate,
);

#[derive(Default)]
struct Families {
    /// The number of the tokens that count, by family.
    current: HashMap<String, u64>,
    /// What the API takes: an access token may run out before the refresh token is spent.
    accepted: HashSet<String>,
    redeems: usize,
    reuses: usize,
    revoked: HashSet<String>,
    is_away: bool,
    families: usize,
    /// How long access tokens live, if the server says so.
    life: Option<Duration>,
    /// What it sends besides, and how much of it.
    besides: Option<(String, usize)>,
}

impl Families {
    fn tokens(&self, family: &str, number: u64) -> Tokens {
        let tokens = Tokens::new(format!("access-{family}-{number}"))
            .with_refresh_token(format!("refresh-{family}-{number}"));
        let tokens = self.life.into_iter().fold(tokens, Tokens::with_expires_in);
        self.besides
            .iter()
            .fold(tokens, |tokens, (name, len)| tokens.with_extra(name.clone(), "x".repeat(*len)))
    }
}

impl Server {
    /// The tokens of a new sign-in.
    pub fn sign_in(&self) -> Tokens {
        let mut families = self.0.lock().unwrap();
        families.families += 1;
        let family = format!("f{}", families.families);
        families.current.insert(family.clone(), 1);
        families.accepted.insert(format!("access-{family}-1"));
        families.tokens(&family, 1)
    }

    /// No access token is good any more.
    pub fn expire_all(&self) {
        self.0.lock().unwrap().accepted.clear();
    }

    /// The same, and no refresh is answered until the gate is opened.
    pub fn hold(&self) {
        self.expire_all();
        self.1.close();
    }

    /// The refresh tokens, too.
    pub fn revoke_all(&self) {
        let mut families = self.0.lock().unwrap();
        families.accepted.clear();
        let all: Vec<_> = families.current.drain().map(|(family, _)| family).collect();
        families.revoked.extend(all);
    }

    /// It says from now on how long access tokens live.
    pub fn tell_life(&self, life: Duration) {
        self.0.lock().unwrap().life = Some(life);
    }

    /// It sends another field from now on, of this length.
    pub fn send_besides(&self, name: &str, len: usize) {
        self.0.lock().unwrap().besides = Some((name.to_owned(), len));
    }

    /// It answers with 503 from now on, or does again what it does.
    pub fn go_away(&self, is_away: bool) {
        self.0.lock().unwrap().is_away = is_away;
    }

    /// How many refresh tokens were brought.
    pub fn redeems(&self) -> usize {
        self.0.lock().unwrap().redeems
    }

    /// How many of them had been spent.
    pub fn reuses(&self) -> usize {
        self.0.lock().unwrap().reuses
    }

    /// How many families are left whose refresh token is good.
    pub fn alive(&self) -> usize {
        self.0.lock().unwrap().current.len()
    }

    pub(super) async fn redeem(&self, spent: Tokens) -> Result<Tokens, RefreshError> {
        self.1.pass().await;
        let mut families = self.0.lock().unwrap();
        if families.is_away {
            return Err(RefreshError::transient("503"));
        }
        families.redeems += 1;
        let (family, number) = parse(spent.refresh_token().unwrap_or_default());
        match families.current.get_mut(&family) {
            Some(current) if *current == number => {
                *current += 1;
                let number = *current;
                families.accepted.insert(format!("access-{family}-{number}"));
                Ok(families.tokens(&family, number))
            }
            Some(_) => {
                families.reuses += 1;
                families.current.remove(&family);
                Err(RefreshError::rejected("reuse").with_code("invalid_grant"))
            }
            None => Err(RefreshError::rejected("revoked").with_code("invalid_grant")),
        }
    }

    /// A request of this tab whose refresh is held at the gate until that is opened. It goes on where it is
    /// awaited, and is given up where it is dropped.
    pub async fn hold_refresh(
        &self,
        tab: &Browser,
        replica: &Replica,
    ) -> BoxFuture<'static, Answer> {
        self.hold();
        let (come, tab, replica) = (self.1.count(), tab.clone(), replica.clone());
        let request = Box::pin(async move { tab.get(&replica, "/api").await });
        match select(request, pin!(self.1.arrived(come + 1))).await {
            Either::Left((answer, _)) => panic!("nothing is held: {answer:?}"),
            Either::Right((_, request)) => request,
        }
    }

    pub(super) fn revoke(&self, tokens: &Tokens) {
        let mut families = self.0.lock().unwrap();
        let (family, _) = parse(tokens.refresh_token().unwrap_or_default());
        families.current.remove(&family);
        families.accepted.retain(|token| !token.starts_with(&format!("access-{family}-")));
        families.revoked.insert(family);
    }

    /// Whether the API takes this token.
    pub fn accepts(&self, authorization: &str) -> bool {
        let token = authorization.strip_prefix("Bearer ").unwrap_or_default();
        self.0.lock().unwrap().accepted.contains(token)
    }
}

fn parse(token: &str) -> (String, u64) {
    let (family, number) = token["refresh-".len()..].split_once('-').unwrap();
    (family.to_owned(), number.parse().unwrap())
}
