//! What a response means for the token it was sent with.

use http::{HeaderMap, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};

use crate::{grpc::protocol, layer::www_authenticate::Challenges};

/// What a response says of the access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The token was accepted, whatever else came of the request.
    Accept,
    /// The token is not accepted: refresh it, and send the request again.
    Challenge,
    /// It says nothing of the token, or asks for what no refresh can give. The
    /// response goes to the caller.
    NotOurs,
}

/// In a response's extensions: it is not from where the token was sent, so that its
/// refusal is not the token's.
#[cfg_attr(not(feature = "reqwest-middleware"), allow(dead_code, reason = "who else redirects?"))]
#[derive(Clone, Copy)]
pub(crate) struct FromOtherOrigin;

/// Judges responses by status and headers. A closure is one.
///
/// ```
/// use http::{HeaderMap, StatusCode};
/// use tower_refresh::{RefreshLayer, Verdict};
/// # let layer = |_: fn(StatusCode, &HeaderMap) -> Verdict| ();
///
/// // An API that says 419 for an expired token.
/// fn classify(status: StatusCode, _headers: &HeaderMap) -> Verdict {
///     match status.as_u16() {
///         419 => Verdict::Challenge,
///         500.. => Verdict::NotOurs,
///         _ => Verdict::Accept,
///     }
/// }
/// # layer(classify);
/// ```
pub trait Classify: Send + Sync + 'static {
    /// Judges a response by its head. Called once a response; must not block.
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict;
}

impl<F> Classify for F
where
    F: Fn(StatusCode, &HeaderMap) -> Verdict + Send + Sync + 'static,
{
    fn classify(&self, status: StatusCode, headers: &HeaderMap) -> Verdict {
        self(status, headers)
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
pub fn classify(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        200 => match headers.get(&protocol::STATUS) {
            Some(status) if protocol::is_grpc(headers) => judge_rpc(status, headers),
            _ => Verdict::Accept,
        },
        401 => refused(headers),
        500.. => Verdict::NotOurs,
        _ => Verdict::Accept,
    }
}

/// Judges a call by its status code.
fn judge_rpc(status: &HeaderValue, headers: &HeaderMap) -> Verdict {
    let code = status.to_str().ok().and_then(|code| code.parse::<u32>().ok());
    match code {
        Some(16) => refused(headers),
        // What is no number counts as unknown.
        None | Some(2 | 4 | 13 | 14 | 15) => Verdict::NotOurs,
        Some(_) => Verdict::Accept,
    }
}

/// The token is not accepted; whether a refresh would help.
fn refused(headers: &HeaderMap) -> Verdict {
    if asks_for_more(headers) { Verdict::NotOurs } else { Verdict::Challenge }
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
    use http::HeaderValue;

    use super::*;

    fn judge(status: u16, authenticate: &[&str]) -> Verdict {
        let mut headers = HeaderMap::new();
        for value in authenticate {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        classify(StatusCode::from_u16(status).unwrap(), &headers)
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
    fn step_up_and_scope_are_not_ours() {
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
            assert_eq!(judge(401, authenticate), Verdict::NotOurs, "{authenticate:?}");
        }
    }

    #[test]
    fn other_statuses() {
        for status in [200, 204, 304, 400, 403, 404, 429] {
            assert_eq!(judge(status, &[]), Verdict::Accept, "{status}");
        }
        for status in [500, 503] {
            assert_eq!(judge(status, &[]), Verdict::NotOurs, "{status}");
        }
    }

    fn judge_rpc(status: u16, kind: &'static str, code: &'static str, more: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(kind));
        headers.insert("grpc-status", HeaderValue::from_static(code));
        if !more.is_empty() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(more).unwrap());
        }
        classify(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn a_grpc_status_in_the_head_counts() {
        for code in [
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15",
            "16", "17", "", "x", "-1",
        ] {
            let expected = match code {
                "16" => Verdict::Challenge,
                "2" | "4" | "13" | "14" | "15" | "" | "x" | "-1" => Verdict::NotOurs,
                _ => Verdict::Accept,
            };
            for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC;a=b"] {
                assert_eq!(judge_rpc(200, kind, code, ""), expected, "{code} {kind}");
            }
        }
    }

    #[test]
    fn an_rpc_that_needs_more_than_a_refresh_is_not_ours() {
        let judge = |more| judge_rpc(200, "application/grpc", "16", more);
        assert_eq!(judge("Bearer error=\"insufficient_scope\""), Verdict::NotOurs);
        assert_eq!(judge("DPoP error=\"use_dpop_nonce\""), Verdict::NotOurs);
        assert_eq!(judge("Bearer error=\"invalid_token\""), Verdict::Challenge);
        assert_eq!(judge("Bearer"), Verdict::Challenge);
    }

    #[test]
    fn only_grpc_has_a_grpc_status() {
        assert_eq!(judge_rpc(200, "application/json", "16", ""), Verdict::Accept);
        assert_eq!(judge_rpc(200, "text/application/grpc", "16", ""), Verdict::Accept);
        assert_eq!(judge_rpc(404, "application/grpc", "16", ""), Verdict::Accept);
        assert_eq!(judge_rpc(503, "application/grpc", "16", ""), Verdict::NotOurs);
        assert_eq!(judge_rpc(401, "application/grpc", "0", ""), Verdict::Challenge);
    }
}
