//! What a response means for the token it was sent with.

use http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE};
use http_auth::ChallengeParser;

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
/// `WWW-Authenticate` asks for another scope (`insufficient_scope`, RFC 6750,
/// section 3.1) or a stronger sign-in (`insufficient_user_authentication`,
/// RFC 9470), which a refresh does not bring. A 5xx says nothing of the token, since
/// it may come from before the check; anything else accepts it.
pub fn classify(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        401 if asks_for_more(headers) => Verdict::NotOurs,
        401 => Verdict::Challenge,
        500.. => Verdict::NotOurs,
        _ => Verdict::Accept,
    }
}

/// Whether every challenge that names an error names one that no refresh helps.
fn asks_for_more(headers: &HeaderMap) -> bool {
    let mut asks = false;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        // The parser knows ASCII only, and a description may be in any language.
        let ascii = |byte: &u8| if byte.is_ascii() { char::from(*byte) } else { '?' };
        let value: String = value.as_bytes().iter().map(ascii).collect();
        // What cannot be parsed says nothing: the 401 alone counts then.
        for challenge in ChallengeParser::new(&value).map_while(Result::ok) {
            for (name, value) in &challenge.params {
                if name.eq_ignore_ascii_case("error") {
                    match &*value.to_unescaped() {
                        "insufficient_scope" | "insufficient_user_authentication" => asks = true,
                        _ => return false,
                    }
                }
            }
        }
    }
    asks
}

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
