//! What a response says of the token that its request carried ([`Classify`]).

use std::fmt;

use http::{
    Extensions, HeaderMap, HeaderValue, Response, StatusCode, Uri, Version,
    header::WWW_AUTHENTICATE,
};

use super::www_authenticate::{Challenge, Challenges};
use crate::grpc::protocol;

/// What a response says of the access token that its request carried. A layer below may put one into
/// a response's extensions, and [`classify`] believes it.
///
/// [`Classify`] has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The server accepted the token, whatever else came of the request.
    Accept,
    /// The server does not accept the token: refresh it, and send the request again.
    Challenge,
    /// The server does not accept the token, but has carried the request out in part: refresh the
    /// token for later requests, and do not send this one again. The response goes to the caller at
    /// once, with a [`NotReplayable::CarriedOut`](crate::body::NotReplayable::CarriedOut) in its
    /// extensions.
    RefreshOnly,
    /// The response says nothing of the token, or asks for what no refresh brings. It goes to the
    /// caller, and the layer concludes nothing from it.
    Ignore,
}

/// The head of a response: what a [`Classify`] judges by.
///
/// [`Classify`] has an example.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    status: StatusCode,
    version: Version,
    headers: &'a HeaderMap,
    extensions: &'a Extensions,
    uri: Option<&'a Uri>,
}

impl<'a> ResponseHead<'a> {
    /// The head of this response, such as one that is made to test a classifier with.
    pub fn of<B>(response: &'a Response<B>) -> Self {
        Self {
            status: response.status(),
            version: response.version(),
            headers: response.headers(),
            extensions: response.extensions(),
            uri: None,
        }
    }

    /// The head of a response to a request for this URI.
    #[must_use]
    pub fn with_uri(self, uri: &'a Uri) -> Self {
        Self { uri: Some(uri), ..self }
    }

    /// The URI of the request, as the layer got it. `None` only if the head was made without
    /// one.
    #[must_use]
    pub fn uri(&self) -> Option<&'a Uri> {
        self.uri
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
    /// Judges a response by its head. The layer calls it once for each response to a request that was
    /// sent with a token, on the task that polls the request, so it must not block. A panic goes to
    /// that request's caller and harms no other.
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict;

    /// Whether it looks at [`ResponseHead::uri`]. The layer asks once, when it is built. With `false`
    /// it copies no URI. Default: `true`.
    fn reads_uri(&self) -> bool {
        true
    }
}

impl<F> Classify for F
where
    F: Fn(&ResponseHead<'_>) -> Verdict + Send + Sync + 'static,
{
    fn classify(&self, head: &ResponseHead<'_>) -> Verdict {
        self(head)
    }
}

/// The classifier of a layer that is given no other.
///
/// - A `Verdict` in the response's extensions counts before all else. A layer below has put it
///   there: an `InBodyLayer` (feature `in-body`), or one of your own. A challenge is judged like a
///   401.
/// - 401 is a [challenge](Verdict::Challenge) (RFC 9110, section 15.5.2), unless its
///   `WWW-Authenticate` asks for what no refresh brings: another scope
///   (`insufficient_scope`, RFC 6750, section 3.1), a stronger sign-in
///   (`insufficient_user_authentication`, RFC 9470, section 3) or a nonce in the proof
///   (`use_dpop_nonce`, RFC 9449, section 9). Such a response is [ignored](Verdict::Ignore).
/// - A redirect with a Bearer challenge in its `WWW-Authenticate` is judged like a 401: nginx
///   sends that, with an `error_page` that is a redirect.
/// - 5xx is ignored: the server may have failed before it looked at the token.
/// - A gRPC response that consists of a status alone (HTTP 200, `content-type:
///   application/grpc`, `grpc-status` in its head) is judged by that status.
///   `UNAUTHENTICATED` (16) is a challenge like a 401. `UNKNOWN`, `DEADLINE_EXCEEDED`,
///   `INTERNAL`, `UNAVAILABLE` and `DATA_LOSS` are ignored like a 5xx. For servers that send
///   the status after the head there is [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer).
/// - Any other response [accepts](Verdict::Accept) the token.
///
/// For servers that refuse in another way there are [`Refusals`](super::Refusals).
pub fn classify(head: &ResponseHead<'_>) -> Verdict {
    let headers = head.headers();
    if let Some(verdict) = found_below(head) {
        return verdict;
    }
    match head.status().as_u16() {
        200 => match headers.get(&protocol::STATUS) {
            Some(status) if protocol::is_grpc(headers) => judge_call(status, headers),
            _ => Verdict::Accept,
        },
        401 => refused(headers),
        300..=399 if challenges_bearer(headers) => refused(headers),
        500.. => Verdict::Ignore,
        _ => Verdict::Accept,
    }
}

/// What a layer below has found out, in the response's extensions.
pub(super) fn found_below(head: &ResponseHead<'_>) -> Option<Verdict> {
    Some(match *head.extensions().get()? {
        Verdict::Challenge => refused(head.headers()),
        Verdict::RefreshOnly if asks_for_more(head.headers()) => Verdict::Ignore,
        verdict => verdict,
    })
}

/// Judges a gRPC call by its status.
pub(crate) fn judge_call(status: &HeaderValue, headers: &HeaderMap) -> Verdict {
    use protocol::{DATA_LOSS, DEADLINE_EXCEEDED, INTERNAL, UNAUTHENTICATED, UNAVAILABLE, UNKNOWN};
    match protocol::code(status) {
        UNAUTHENTICATED => refused(headers),
        UNKNOWN | DEADLINE_EXCEEDED | INTERNAL | UNAVAILABLE | DATA_LOSS => Verdict::Ignore,
        _ => Verdict::Accept,
    }
}

/// The server does not accept the token: a challenge, if a refresh would help.
pub(super) fn refused(headers: &HeaderMap) -> Verdict {
    if asks_for_more(headers) { Verdict::Ignore } else { Verdict::Challenge }
}

fn challenges(headers: &HeaderMap) -> impl Iterator<Item = Challenge<'_>> {
    let lines = headers.get_all(WWW_AUTHENTICATE).into_iter();
    lines.flat_map(|line| Challenges::of(line.as_bytes()))
}

fn challenges_bearer(headers: &HeaderMap) -> bool {
    challenges(headers).any(|challenge| challenge.is("Bearer"))
}

/// Whether no refresh helps against any error that is named. If a Bearer challenge names
/// some, they alone count, because they are about the token that was sent; otherwise those
/// of other schemes do.
fn asks_for_more(headers: &HeaderMap) -> bool {
    let (mut bearer, mut other_schemes) = (None, None);
    for challenge in challenges(headers) {
        let beyond = if challenge.is("Bearer") { &mut bearer } else { &mut other_schemes };
        for (_, error) in challenge.params().filter(|(name, _)| name.eq_ignore_ascii_case(b"error"))
        {
            let is_beyond = BEYOND_A_REFRESH.iter().any(|known| error.is(known));
            *beyond = Some(is_beyond && beyond.unwrap_or(true));
        }
    }
    bearer.or(other_schemes).unwrap_or(false)
}

/// Errors that another token from the same refresh token does not mend.
const BEYOND_A_REFRESH: [&str; 3] =
    ["insufficient_scope", "insufficient_user_authentication", "use_dpop_nonce"];

#[cfg(test)]
mod tests;
