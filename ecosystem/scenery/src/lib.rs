//! What the programs share: an authorization server and an API on loopback, a credential, and how a program ends.

pub mod json_rpc;

use std::{error::Error, fmt::Display, iter::successors, process::ExitCode, sync::Arc};

pub use testing::loopback::{self, Loopback};
use tokio::task::JoinSet;
use tower_refresh::{BoxError, RefreshState, Renewal, layer::Refused, oauth2};

/// Any error.
pub type AnyError = BoxError;

/// How many calls a program makes at once, with a token that has just expired.
pub const CALLS: usize = 20;

/// A credential that is signed in at these servers, whose access token is refused from now on.
pub fn credential(servers: &Loopback) -> Result<Arc<RefreshState>, AnyError> {
    let state = signed_in(servers)?;
    servers.expire_access_token();
    Ok(state)
}

/// A credential that is signed in at these servers.
pub fn signed_in(servers: &Loopback) -> Result<Arc<RefreshState>, AnyError> {
    Ok(renewal(servers)?.in_memory(servers.sign_in()))
}

/// Credentials that are refreshed at these servers, over HTTP, as RFC 6749 has it.
pub fn renewal(servers: &Loopback) -> Result<Renewal, AnyError> {
    let client = oauth2::Client::builder(&servers.token_endpoint(), loopback::CLIENT_ID)?
        .client_secret_basic(loopback::CLIENT_SECRET)
        .build()?;
    Ok(Renewal::builder(client.refresh_token_grant()).build())
}

/// Makes [`CALLS`] calls at once, none of which is answered before all were refused. How many of them say
/// that they succeeded.
pub async fn at_once<F>(servers: &Loopback, call: impl FnMut(usize) -> F) -> usize
where
    F: Future<Output = bool> + Send + 'static,
{
    servers.refuse_together(CALLS);
    let running: JoinSet<bool> = (0..CALLS).map(call).collect();
    running.join_all().await.into_iter().filter(|ok| *ok).count()
}

/// The user ends the session at the authorization server: neither token is good any more, and what comes
/// is refused at once.
pub fn end_session(servers: &Loopback) {
    servers.refuse_together(0);
    let mut book = servers.lock();
    let refresh_token = book.current().refresh;
    book.revoke(&refresh_token);
    book.expire_access_token();
}

/// An error and its sources, in one line. What is said already is not said again, and no port is
/// named: they are others each time.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for error in sources(error) {
        let says = error.to_string();
        if !line.contains(&says) {
            line.push_str(if line.is_empty() { "" } else { ": " });
            line.push_str(&says);
        }
    }
    let mut parts = line.split("127.0.0.1:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| {
        line + "127.0.0.1" + part.trim_start_matches(|letter: char| letter.is_ascii_digit())
    })
}

/// The part of an error that says why a request was not helped, if it is among its sources.
pub fn refused<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Refused> {
    sources(error).find_map(|error| error.downcast_ref())
}

/// An error and its sources.
fn sources<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |error| (*error).source())
}

/// What has happened until the session ended.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Outcome {
    /// How many calls were made at once.
    pub calls: usize,
    /// How many of them succeeded.
    pub ok: usize,
    /// How often a refresh token was redeemed.
    pub refreshes: usize,
    /// How often one came that had been redeemed already.
    pub token_reuse: usize,
}

impl Outcome {
    /// As the servers saw it.
    pub fn of(servers: &Loopback, calls: usize, ok: usize) -> Self {
        let book = servers.book();
        Self { calls, ok, refreshes: book.refreshes, token_reuse: book.token_reuse }
    }

    /// The same, where each call that succeeds is one request that the API accepts.
    pub fn of_requests(servers: &Loopback, calls: usize, ok: usize) -> Self {
        let once = servers.book().ok == ok;
        Self::of(servers, calls, if once { ok } else { 0 })
    }

    /// Ends a program by what came of a call when the session had ended.
    pub fn report_error<T>(self, last: Result<T, impl Into<AnyError>>) -> ExitCode {
        let error = last.err().map(|error| in_one_line(&*error.into()));
        self.report(error.unwrap_or_default())
    }

    /// Ends a program: says what its caller saw when the session had ended, and in the last line what
    /// happened before.
    pub fn report(self, failure: impl Display) -> ExitCode {
        let Self { calls, ok, refreshes, token_reuse } = self;
        println!("on failure: {failure}");
        println!("calls={calls} ok={ok} refreshes={refreshes} token_reuse={token_reuse}");
        match (ok == calls, refreshes, token_reuse) {
            (true, 1, 0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

/// Signs in at a web application with `POST /sign_in` and `GET /orders`, whose session's token runs out then, and ends
/// the program.
pub async fn as_a_browser(servers: &Loopback, address: &str) -> Result<ExitCode, AnyError> {
    let browser = reqwest::Client::new();
    let signed_in = browser.post(format!("{address}/sign_in")).send().await?;
    let cookie = signed_in.headers().get("set-cookie").ok_or("no cookie")?.clone();
    let orders =
        || browser.get(format!("{address}/orders")).header("cookie", cookie.clone()).send();

    servers.expire_access_token();
    let ok = at_once(servers, |_| {
        let sent = orders();
        async move { sent.await.is_ok_and(|answer| answer.status() == 200) }
    });
    let outcome = Outcome::of(servers, CALLS, ok.await);

    end_session(servers);
    let last = orders().await?;
    Ok(outcome.report(format!("{}, {}", last.status(), last.text().await?)))
}
