//! What a response means for the token it was sent with.

use std::fmt;

use http::{
    Extensions, HeaderMap, HeaderValue, Response, StatusCode, Version, header::WWW_AUTHENTICATE,
};

use super::www_authenticate::Challenges;
use crate::grpc::protocol;

/// What a response says of the access token that its request carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The token was accepted, whatever else came of the request.
    Accept,
    /// The token is not accepted: refresh it, and send the request again.
    Challenge,
    /// The response says nothing of the token, or asks for what no refresh brings. It goes to
    /// the caller, and nothing is concluded from it.
    Ignore,
}

/// The head of a response: what a [`Classify`] judges by.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    status: StatusCode,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
}

impl<'a> ResponseHead<'a> {
    /// The head of this response, such as one that is made to test a classifier with.
    pub fn of<B>(response: &'a Response<B>) -> Self {
        Self {
            status: response.status(),
            version: response.version(),
            headers: response.headers(),
            extensions: response.extensions(),
        }
    }

    /// The status code (RFC 9110, section 15).
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The version of HTTP that the response came in.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The header fields.
    #[must_use]
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// What the inner service has put beside the response.
    #[must_use]
    pub fn extensions(&self) -> &'a Extensions {
        self.extensions
    }
}

// By hand, because headers may hold secrets (`Set-Cookie`) that are not marked as such.
impl fmt::Debug for ResponseHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// Judges responses by their heads. A closure is one; its argument's type has to be written
/// out.
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_refresh::{layer::{Classify, ResponseHead, Verdict}};
///
/// // An API that says 419 for an expired token.
/// let classify = |head: &ResponseHead<'_>| match head.status().as_u16() {
///     419 => Verdict::Challenge,
///     500.. => Verdict::Ignore,
///     _ => Verdict::Accept,
/// };
///
/// let expired = Response::builder().status(419).body(())?;
/// assert_eq!(classify.classify(&ResponseHead::of(&expired)), Verdict::Challenge);
/// # Ok::<_, http::Error>(())
/// ```
pub trait Classify: Send + Sync + 'static {
    /// Judges a response by its head. Called once for each response to a request that was
    /// sent with a token, on the task that polls the request: must not block. If it panics,
    /// the panic goes to the request's caller and harms no other.
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict;
}

impl<F> Classify for F
where
    F: Fn(&ResponseHead<'_>) -> Verdict + Send + Sync + 'static,
{
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict {
        self(head)
    }
}

/// The default: 401 is a challenge (RFC 9110, section 15.5.2), unless its
/// `WWW-Authenticate` asks for what a refresh does not bring: another scope
/// (`insufficient_scope`, RFC 6750, section 3.1), a stronger sign-in
/// (`insufficient_user_authentication`, RFC 9470) or a nonce in the proof
/// (`use_dpop_nonce`, RFC 9449, section 9). A 5xx says nothing of the token, since it may
/// come from before the check; anything else accepts it.
///
/// A gRPC response that is nothing but a status (HTTP 200, `content-type:
/// application/grpc`, `grpc-status` in its head) is judged by that: `UNAUTHENTICATED`
/// (16) is a challenge like a 401; `UNKNOWN`, `DEADLINE_EXCEEDED`, `INTERNAL`,
/// `UNAVAILABLE` and `DATA_LOSS` say as little as a 5xx; any other accepts the token. For
/// servers that send the status after the head there is
/// [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer).
pub fn classify(head: &ResponseHead<'_>) -> Verdict {
    let headers = head.headers();
    match head.status().as_u16() {
        200 => match headers.get(&protocol::STATUS) {
            Some(status) if protocol::is_grpc(headers) => judge_rpc(status, headers),
            _ => Verdict::Accept,
        },
        401 => refused(headers),
        500.. => Verdict::Ignore,
        _ => Verdict::Accept,
    }
}

/// Judges a call by its status code.
fn judge_rpc(status: &HeaderValue, headers: &HeaderMap) -> Verdict {
    let code = status.to_str().ok().and_then(|code| code.parse::<u32>().ok());
    match code {
        Some(16) => refused(headers),
        // What is no number counts as unknown.
        None | Some(2 | 4 | 13 | 14 | 15) => Verdict::Ignore,
        Some(_) => Verdict::Accept,
    }
}

/// The token is not accepted; whether a refresh would help.
fn refused(headers: &HeaderMap) -> Verdict {
    if asks_for_more(headers) { Verdict::Ignore } else { Verdict::Challenge }
}

/// Whether every error that is named is one that no refresh helps. What a Bearer
/// challenge names is of the token that was sent; others count if none does.
fn asks_for_more(headers: &HeaderMap) -> bool {
    let (mut bearer, mut others) = (None, None);
    let lines = headers.get_all(WWW_AUTHENTICATE).into_iter();
    for challenge in lines.flat_map(|line| Challenges::of(line.as_bytes())) {
        let said = if challenge.is("Bearer") { &mut bearer } else { &mut others };
        for (_, error) in challenge.params().filter(|(name, _)| name.eq_ignore_ascii_case(b"error"))
        {
            let beyond = BEYOND_A_REFRESH.iter().any(|known| error.is(known));
            *said = Some(beyond && said.unwrap_or(true));
        }
    }
    bearer.or(others).unwrap_or(false)
}

const BEYOND_A_REFRESH: [&str; 3] =
    ["insufficient_scope", "insufficient_user_authentication", "use_dpop_nonce"];

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(status: u16, authenticate: &[&str]) -> Verdict {
        let mut response = Response::builder().status(status);
        for value in authenticate {
            response = response.header(WWW_AUTHENTICATE, value.as_bytes());
        }
        classify(&ResponseHead::of(&response.body(()).unwrap()))
    }

    #[test]
    fn a_401_is_a_challenge() {
        for authenticate in [
            &[][..],
            &["Bearer"],
            &["Bearer realm=\"x\", error=\"invalid_token\""],
            &["Basic realm=\"x\"", "Bearer error=invalid_token"],
            &[
                "Bearer error=\"invalid_token\", error_description=\"not error=\\\"insufficient_scope\\\"\"",
            ],
            &["DPoP error=\"insufficient_scope\", Bearer error=\"invalid_token\""],
            &["\"\"not a challenge"],
            &["Bearer error=\"Insufficient_Scope\""],
            &["Bearer error=use_dpop_nonce", "Bearer error=expired"],
            // Half a challenge is none, and neither is what follows it.
            &["Bearer error=insufficient_scope, realm=\"x"],
            &["Bearer realm=, error=insufficient_scope"],
            &["Negotiate YII==, Bearer error=\"invalid_token\""],
        ] {
            assert_eq!(judge(401, authenticate), Verdict::Challenge, "{authenticate:?}");
        }
    }

    #[test]
    fn step_up_and_scope_are_ignored() {
        for authenticate in [
            &["Bearer error=\"insufficient_scope\", scope=\"admin\""][..],
            &[
                "Bearer realm=\"x\", Error=\"insufficient_user_authentication\", acr_values=\"gold\"",
            ],
            &["Basic realm=\"x\", Bearer error=insufficient_scope"],
            &["Basic realm=\"x\"", "Bearer error=\"insufficient_scope\""],
            &["Bearer error=\"insufficient_scope\", error_description=\"zu wenig für dich\""],
            &["Negotiate YII==, Bearer error=\"insufficient_\\scope\""],
            &["DPoP error=\"use_dpop_nonce\", algs=\"ES256\""],
            &["Bearer realm=\"x\", DPoP error=\"use_dpop_nonce\""],
            &["BEARER error=\"insufficient_scope\", DPoP error=\"invalid_token\""],
            &["bearer Error=insufficient_scope, DPoP error=use_dpop_nonce"],
            &["Bearer error=insufficient_scope, @", "@"],
        ] {
            assert_eq!(judge(401, authenticate), Verdict::Ignore, "{authenticate:?}");
        }
    }

    #[test]
    fn other_statuses() {
        for status in [200, 204, 304, 400, 403, 404, 429] {
            assert_eq!(judge(status, &[]), Verdict::Accept, "{status}");
        }
        for status in [500, 503] {
            assert_eq!(judge(status, &[]), Verdict::Ignore, "{status}");
        }
    }

    fn judge_rpc(status: u16, kind: &'static str, code: &'static str, more: &str) -> Verdict {
        let mut response = Response::builder()
            .status(status)
            .header("content-type", kind)
            .header("grpc-status", code);
        if !more.is_empty() {
            response = response.header(WWW_AUTHENTICATE, more);
        }
        classify(&ResponseHead::of(&response.body(()).unwrap()))
    }

    #[test]
    fn a_grpc_status_in_the_head_counts() {
        for code in [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16", "17", "", "x", "-1",
        ] {
            let expected = match code {
                "16" => Verdict::Challenge,
                "2" | "4" | "13" | "14" | "15" | "" | "x" | "-1" => Verdict::Ignore,
                _ => Verdict::Accept,
            };
            for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC;a=b"] {
                assert_eq!(judge_rpc(200, kind, code, ""), expected, "{code} {kind}");
            }
        }
    }

    #[test]
    fn an_rpc_that_needs_more_than_a_refresh_is_ignored() {
        let judge = |more| judge_rpc(200, "application/grpc", "16", more);
        assert_eq!(judge("Bearer error=\"insufficient_scope\""), Verdict::Ignore);
        assert_eq!(judge("DPoP error=\"use_dpop_nonce\""), Verdict::Ignore);
        assert_eq!(judge("Bearer error=\"invalid_token\""), Verdict::Challenge);
        assert_eq!(judge("Bearer"), Verdict::Challenge);
    }

    #[test]
    fn only_grpc_has_a_grpc_status() {
        assert_eq!(judge_rpc(200, "application/json", "16", ""), Verdict::Accept);
        assert_eq!(judge_rpc(200, "text/application/grpc", "16", ""), Verdict::Accept);
        assert_eq!(judge_rpc(404, "application/grpc", "16", ""), Verdict::Accept);
        assert_eq!(judge_rpc(503, "application/grpc", "16", ""), Verdict::Ignore);
        assert_eq!(judge_rpc(401, "application/grpc", "0", ""), Verdict::Challenge);
    }
}
