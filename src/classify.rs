//! What a response means for the token it was sent with.

use http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE};

use crate::challenge::Challenges;

/// What a response says of the access token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The token was accepted, whatever else came of the request.
    Accept,
    /// The token is not accepted: refresh it, and send the request again.
    Challenge,
    /// It says nothing of the token, or asks for what no refresh can give. The
    /// response goes to the caller.
    NotOurs,
}

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
pub fn classify(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        401 => refused(headers),
        500.. => Verdict::NotOurs,
        _ => Verdict::Accept,
    }
}

/// The token is not accepted; whether a refresh would help.
fn refused(headers: &HeaderMap) -> Verdict {
    if asks_for_more(headers) { Verdict::NotOurs } else { Verdict::Challenge }
}

/// Whether every challenge that names an error names one that no refresh helps.
fn asks_for_more(headers: &HeaderMap) -> bool {
    let mut asks = false;
    for line in headers.get_all(WWW_AUTHENTICATE) {
        let params = Challenges::of(line.as_bytes()).flat_map(|challenge| challenge.params());
        for (_, error) in params.filter(|(name, _)| name.eq_ignore_ascii_case(b"error")) {
            if !BEYOND_A_REFRESH.iter().any(|known| error.is(known)) {
                return false;
            }
            asks = true;
        }
    }
    asks
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
}
