//! The cookie of a session ([`SessionCookie`]): how it is set, found, and kept from going further
//! than it has to.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{COOKIE, Entry, SET_COOKIE},
};
use secrecy::zeroize::Zeroizing;
use smallvec::SmallVec;

use super::id::{Digested, SessionId};
use crate::error::ConfigError;

/// How many cookies of its name are looked at: a browser may bring more than one, and each costs a
/// look at the store.
const MAX_TWINS: usize = 4;

/// The cookie that names a browser's session (RFC 6265). It holds the session's [id](SessionId). A
/// sign-in sets it, a sign-out clears it, and nothing else does. In particular, a cookie that names no
/// session is not cleared in passing: that response may arrive after another tab has signed in, and
/// would wipe the new cookie.
///
/// [Sealed](super::Sessions::sealed) sessions have up to four cookies of this name, with a dot and two
/// digits, which hold the tokens and are set at refreshes, too.
///
/// Its attributes are `HttpOnly`, `Secure`, `Path=/` and `SameSite=Lax`, it has no `Domain`, and ends
/// with the browser's session. `Priority=High` keeps Chromium from evicting it first when a site has
/// more cookies than the browser takes.
///
/// ```
/// use tower_refresh::session::{SessionCookie, SessionId};
///
/// let cookie = SessionCookie::host("shop")?.strict();
/// assert_eq!(cookie.name(), "__Host-Http-shop");
/// assert!(cookie.set(&SessionId::random()?).is_sensitive());
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionCookie {
    name: Box<str>,
    is_strict: bool,
    is_secure: bool,
    /// It holds the tokens themselves, in pieces.
    is_sealed: bool,
}

/// One of the cookies that a sealed session is cut into: `<name>.<slot><index>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which of two, in turn by the generation.
    pub(super) slot: u8,
    pub(super) index: u8,
}

/// What a cookie of our name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// A new session's, beside one that the browser may have had before.
    Landing,
    Piece(Piece),
}

/// The end of the name of a cookie that a sign-in sets where the browser may have one that it did not
/// bring.
const LANDING: &str = ".new";

impl Piece {
    /// How many pieces a session may have.
    pub(super) const MOST: u8 = 2;

    /// All that there may be of a slot.
    pub(super) fn all_of(slot: u8) -> impl Iterator<Item = Self> {
        (0..Self::MOST).map(move |index| Self { slot, index })
    }

    /// All that there may be.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..2).flat_map(Self::all_of)
    }

    fn suffix(self) -> String {
        format!(".{}{}", self.slot, self.index)
    }
}

/// How long a name may be: what a browser takes is far more, and far less than everything.
const MAX_NAME: usize = 64;

impl SessionCookie {
    /// A cookie of this host alone, called `__Host-Http-<name>`. Browsers let no other host and no page
    /// without TLS set a cookie of that name; browsers that know this prefix let no script set it
    /// either. Chromium accepts it from `http://localhost` and `http://127.0.0.1`, too; Safari does not.
    ///
    /// # Errors
    ///
    /// The name is empty, has more than 64 letters, begins with `__`, or has something else in it than
    /// letters, digits, `-` and `_`.
    pub fn host(name: &str) -> Result<Self, ConfigError> {
        Self::new(name, "__Host-Http-", true)
    }

    /// A cookie for development over `http`, called `<name>`, for browsers that refuse the other one. It
    /// has neither `Secure` nor a prefix, so every program between browser and server can read and set
    /// it. The ports of a host share their cookies, so two programs of one machine need two names.
    ///
    /// # Errors
    ///
    /// As [`host`](Self::host).
    pub fn insecure_for_development(name: &str) -> Result<Self, ConfigError> {
        Self::new(name, "", false)
    }

    fn new(name: &str, prefix: &str, is_secure: bool) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // A browser takes none of the reserved names without their attributes, and no long one.
        let is_reserved = name.starts_with("__");
        if name.is_empty() || name.len() > MAX_NAME || is_reserved || !name.bytes().all(is_plain) {
            return Err(ConfigError::new(
                "the name of a session cookie consists of up to 64 letters, digits, `-` and `_`, and \
                 does not begin with `__`",
            ));
        }
        let name = format!("{prefix}{name}").into();
        Ok(Self { name, is_strict: false, is_secure, is_sealed: false })
    }

    /// With `SameSite=Strict` the browser sends the cookie with no request that another site has begun,
    /// such as the navigation that brings a user back from the authorization server. So answer a sign-in
    /// with a page of your own that goes on, and not with a redirect;
    /// [`SessionSlot::land`](super::SessionSlot::land) does that.
    ///
    /// The new session then has a cookie of its own, `<name>.new`, beside the one that the browser may
    /// have had. The next request of a page of the application shows both: the older session ends, and
    /// the new one takes its place.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { is_strict: true, ..self }
    }

    pub(super) fn sealed(self) -> Self {
        Self { is_sealed: true, ..self }
    }

    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// The name, as the browser has it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of the `Set-Cookie` header that gives a browser this session. The header's value is
    /// sensitive, and its response must not be stored (`Cache-Control: no-store`).
    #[must_use]
    pub fn set(&self, id: &SessionId) -> HeaderValue {
        self.header("", id.expose(), "")
    }

    /// The value of the `Set-Cookie` header that takes the cookie away. It has the attributes that the
    /// cookie was set with, since with others a browser keeps it.
    #[must_use]
    pub fn clear(&self) -> HeaderValue {
        self.header("", "", "; Max-Age=0")
    }

    /// The same of all that a session may consist of.
    pub(super) fn clear_all(&self) -> Vec<HeaderValue> {
        match self.is_sealed {
            true => Piece::all().map(|piece| self.clear_piece(piece)).collect(),
            false if self.is_strict => vec![self.clear(), self.header(LANDING, "", "; Max-Age=0")],
            false => vec![self.clear()],
        }
    }

    /// As [`set`](Self::set), for a browser that may have a session's cookie that it did not bring: that
    /// one stays, and comes with the next request of a page of the application, so that it can be ended.
    pub(super) fn set_beside(&self, id: &SessionId) -> HeaderValue {
        self.header(LANDING, id.expose(), "")
    }

    pub(super) fn set_piece(&self, piece: Piece, value: &str) -> HeaderValue {
        self.header(&piece.suffix(), value, "")
    }

    pub(super) fn clear_piece(&self, piece: Piece) -> HeaderValue {
        self.header(&piece.suffix(), "", "; Max-Age=0")
    }

    /// How long the name of a piece is.
    pub(super) fn piece_name_len(&self) -> usize {
        self.name.len() + ".00".len()
    }

    /// `suffix` and `value` consist of letters, digits, `-`, `_` and `.`.
    fn header(&self, suffix: &str, value: &str, age: &str) -> HeaderValue {
        let name = &self.name;
        let secure = if self.is_secure { "; Secure" } else { "" };
        let site = if self.is_strict { "Strict" } else { "Lax" };
        let text = Zeroizing::new(format!(
            "{name}{suffix}={value}; HttpOnly{secure}; SameSite={site}; Path=/; Priority=High{age}"
        ));
        // Cannot fail: the name and the value consist of letters, digits, `-`, `_` and `.`.
        let mut header = HeaderValue::from_str(&text).expect("plain letters");
        header.set_sensitive(true);
        header
    }

    /// The ids in a request's cookies of this name, in their order. There may be several, such as a
    /// stale twin with another path; the session is the first that lives. Values that are no id are
    /// left out, and so are repetitions and all after the fourth. Over HTTP/2 each cookie may be a
    /// header field of its own (RFC 9113, section 8.2.3).
    pub fn ids<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = SessionId> + 'a {
        // By bytes: another program's cookie may be no text, and is in the same field.
        let fields = headers.get_all(COOKIE).into_iter();
        let values = fields.flat_map(|field| self.values(field.as_bytes()));
        let mut known = SmallVec::<[&[u8]; MAX_TWINS]>::new();
        let others = values.filter(move |value| {
            let is_new = !known.contains(value);
            if is_new {
                known.push(value);
            }
            is_new
        });
        let ids = others.filter_map(|value| std::str::from_utf8(value).ok()?.parse().ok());
        ids.take(MAX_TWINS)
    }

    /// What the [`ids`](Self::ids) of this request are called, which then has no cookie of this name
    /// any more. Both in one go, since each request of a browser comes through here. And the id that was
    /// [set beside](Self::set_beside) them.
    pub(super) fn take(
        &self,
        headers: &mut HeaderMap,
    ) -> (SmallVec<[Digested; 1]>, Option<SessionId>) {
        let (mut found, mut beside) = (SmallVec::new(), None);
        self.take_each(headers, |part, value| match SessionId::digest_of(value) {
            Some(_) if part == Part::Landing => {
                beside = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            }
            Some(digest) if found.len() < MAX_TWINS && !found.contains(&digest) => {
                found.push(digest);
            }
            _ => {}
        });
        (found, beside)
    }

    /// The pieces in a request's cookies, which then has none any more.
    pub(super) fn take_pieces(&self, headers: &mut HeaderMap) -> Vec<(Piece, Vec<u8>)> {
        let mut found = Vec::new();
        self.take_each(headers, |piece, value| {
            if let Part::Piece(piece) = piece {
                found.push((piece, value.to_vec()));
            }
        });
        found
    }

    fn take_each(&self, headers: &mut HeaderMap, mut take: impl FnMut(Part, &[u8])) {
        let mut has_gone = false;
        if let Entry::Occupied(mut fields) = headers.entry(COOKIE) {
            for field in fields.iter_mut() {
                let mut is_ours = false;
                for (part, value) in pairs(field.as_bytes()).filter_map(|pair| self.part_of(pair)) {
                    take(part, value);
                    is_ours = true;
                }
                if is_ours {
                    match self.others(field) {
                        Some(others) => *field = others,
                        None => has_gone = true,
                    }
                }
            }
        }
        if has_gone {
            self.strip(headers);
        }
    }

    /// Takes every cookie of this name out of a request's headers, so that it goes no further: the
    /// servers behind this one have no use for it. Other cookies stay as they are.
    pub fn strip(&self, headers: &mut HeaderMap) {
        let is_ours = |field: &HeaderValue| self.values(field.as_bytes()).next().is_some();
        without(headers, COOKIE, is_ours, |field| self.others(field));
    }

    /// This field without the pairs of this name. `None`: there are no others.
    fn others(&self, field: &HeaderValue) -> Option<HeaderValue> {
        let mut kept = Vec::with_capacity(field.len());
        let is_other = |pair: &&[u8]| !pair.is_empty() && self.value_of(pair).is_none();
        for pair in pairs(field.as_bytes()).filter(is_other) {
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair);
        }
        let mut kept = HeaderValue::from_maybe_shared(Bytes::from(kept)).ok()?;
        kept.set_sensitive(field.is_sensitive());
        (!kept.is_empty()).then_some(kept)
    }

    /// Takes every `Set-Cookie` of this name out of a response's headers: what comes from a server
    /// behind this one must not set it.
    pub fn strip_response(&self, headers: &mut HeaderMap) {
        let is_ours = |field: &HeaderValue| {
            let pair = pairs(field.as_bytes()).next().unwrap_or_default();
            // A nameless cookie comes back as its value, which may look like a pair of ours.
            let pair = pair.strip_prefix(b"=").map_or(pair, <[u8]>::trim_ascii_start);
            self.value_of(pair).is_some()
        };
        without(headers, SET_COOKIE, is_ours, |_| None);
    }

    /// The values of all pairs of this name.
    fn values<'a>(&'a self, field: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        pairs(field).filter_map(|pair| self.value_of(pair))
    }

    /// The value, if the pair is of this name.
    fn value_of<'a>(&self, pair: &'a [u8]) -> Option<&'a [u8]> {
        Some(self.part_of(pair)?.1)
    }

    /// The same, and what it is.
    fn part_of<'a>(&self, pair: &'a [u8]) -> Option<(Part, &'a [u8])> {
        let rest = pair.strip_prefix(self.name.as_bytes())?;
        let (part, rest) = match rest {
            [b'.', slot @ b'0'..=b'9', index @ b'0'..=b'9', rest @ ..] if self.is_sealed => {
                (Part::Piece(Piece { slot: slot - b'0', index: index - b'0' }), rest)
            }
            rest => match rest.strip_prefix(LANDING.as_bytes()) {
                Some(rest) => (Part::Landing, rest),
                None => (Part::Whole, rest),
            },
        };
        // A pair is trimmed, but around its `=` there may be white space.
        Some((part, rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii()))
    }
}

/// The pairs of a `Cookie` field, and the first one of a `Set-Cookie` field with its attributes.
fn pairs(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|byte| *byte == b';').map(<[u8]>::trim_ascii)
}

/// Changes those fields of this name, or leaves them out.
fn without(
    headers: &mut HeaderMap,
    name: HeaderName,
    is_one: impl Fn(&HeaderValue) -> bool,
    change: impl Fn(&HeaderValue) -> Option<HeaderValue>,
) {
    let mut fields = headers.get_all(&name).iter();
    if !fields.any(&is_one) {
        return;
    }
    let changed = headers.get_all(&name).iter();
    let changed = changed.filter_map(|it| if is_one(it) { change(it) } else { Some(it.clone()) });
    let kept: SmallVec<[HeaderValue; 1]> = changed.collect();
    headers.remove(&name);
    for field in kept {
        headers.append(&name, field);
    }
}

#[cfg(test)]
mod tests;
