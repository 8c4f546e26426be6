//! What a request's cookies show, and what a response writes into them ([`Sealed`]).

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::{
    contents::{Contents, Id},
    copy::BrowserCopy,
    now,
};
use crate::{
    seal::{Keyring, Purpose, random},
    session::{
        cookie::{Piece, SessionCookie},
        error::SignInError,
        id::{Digested, NO_RANDOMNESS},
        identity::seconds,
    },
    store::Record,
    time::Time,
    tokens::{Generation, RESERVED_IDENTITY, Tokens},
};

/// What the cookies of sealed sessions are made by.
pub(in crate::session) struct Sealed {
    pub(in crate::session) keys: Keyring,
    /// The most that a session's cookies may take, names included, in bytes.
    pub(in crate::session) max_bytes: usize,
    /// For how long a response may be on its way to the browser.
    pub(in crate::session) transit: Duration,
    pub(in crate::session) keeps_id_token: bool,
}

/// A session that a request's cookies show.
pub(in crate::session) struct Shown {
    id: Id,
    pub(in crate::session) begun: u64,
    minted: u64,
    written: u64,
    pub(super) record: Record,
    slot: u8,
    /// The other name has an older cookie of this session, or the same.
    has_older: bool,
}

/// What a response writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) enum Due {
    /// A new session, under both names.
    New,
    /// The newest tokens, under the one of the names that is their turn.
    Newest,
    /// Nothing, and it clears this one of the names, which has an older cookie of the same session.
    Clear(u8),
}

/// What a loaded session has besides, where its tokens are in the browser.
pub(in crate::session) struct InBrowser {
    id: Id,
    begun: u64,
    pub(in crate::session) copy: BrowserCopy,
}

/// How many bytes a piece may have, its name included. A browser drops a cookie of more than 4096
/// without a word, and keeps the old one.
const MAX_PIECE: usize = 4000;

/// The most that may be set for all pieces of a session. A browser may bring those of two generations,
/// and hyper takes 14 KiB of cookies over HTTP/2, all of a site's: a request with more is refused before any
/// handler could take a cookie away.
pub(in crate::session) const MAX_BYTES: usize = 5 * 1024;

/// How many sets of pieces of a request are tried to be opened.
const MAX_SETS: usize = 4;

/// Pieces that belong together.
struct Set<'a> {
    slot: u8,
    count: u8,
    generation: &'a str,
    parts: [Option<&'a str>; Piece::MOST as usize],
}

impl<'a> Set<'a> {
    /// `<count>.<generation>.<part>`.
    fn parse(piece: Piece, value: &'a [u8]) -> Option<(Self, &'a str)> {
        let mut fields = std::str::from_utf8(value).ok()?.splitn(3, '.');
        let (count, generation, part) = (fields.next()?, fields.next()?, fields.next()?);
        let count = count.parse().ok().filter(|count| (1..=Piece::MOST).contains(count))?;
        let is_known = piece.slot < 2 && piece.index < count;
        let set = Self { slot: piece.slot, count, generation, parts: Default::default() };
        is_known.then_some((set, part))
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.slot, self.count, self.generation) == (other.slot, other.count, other.generation)
    }

    fn sealed(&self) -> Option<String> {
        self.parts[..usize::from(self.count)].iter().copied().collect()
    }
}

impl Sealed {
    /// The sessions that these cookies show, those that were begun last first, and of each the newest
    /// generation. What no key opens is nothing. The cookies are taken off the request.
    pub(in crate::session) fn take(
        &self,
        cookie: &SessionCookie,
        headers: &mut HeaderMap,
    ) -> SmallVec<[Arc<Shown>; 1]> {
        let pieces = cookie.take_pieces(headers);
        let mut sets = SmallVec::<[Set<'_>; 2]>::new();
        for (piece, value) in &pieces {
            let Some((set, part)) = Set::parse(*piece, value) else { continue };
            // Twins have each their own.
            let fits = |it: &Set<'_>| {
                it.is_same(&set) && it.parts[usize::from(piece.index)].is_none_or(|it| it == part)
            };
            let at = match sets.iter().position(fits) {
                Some(at) => at,
                None if sets.len() == MAX_SETS => continue,
                None => {
                    sets.push(set);
                    sets.len() - 1
                }
            };
            sets[at].parts[usize::from(piece.index)].get_or_insert(part);
        }
        let mut shown = SmallVec::<[Shown; 1]>::new();
        for mut new in sets.iter().filter_map(|set| self.open(cookie, set)) {
            let Some(old) = shown.iter_mut().find(|it| it.id == new.id) else {
                shown.push(new);
                continue;
            };
            let is_older = (old.generation(), old.written) < (new.generation(), new.written);
            if is_older {
                std::mem::swap(old, &mut new);
            }
            old.has_older |= old.slot != new.slot;
        }
        shown.sort_by_key(|it| std::cmp::Reverse(it.begun));
        shown.into_iter().map(Arc::new).collect()
    }

    fn open(&self, cookie: &SessionCookie, set: &Set<'_>) -> Option<Shown> {
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(set.sealed()?).ok()?;
        let name = bound_to(cookie, set.slot, set.generation);
        let text = self.keys.decrypt(Purpose::Session, name.as_bytes(), &sealed).ok()?;
        let Contents { id, generation, begun, minted, written, tokens } = Contents::parse(&text)?;
        let record = Record::new(generation, tokens);
        Some(Shown { id, begun, minted, written, record, slot: set.slot, has_older: false })
    }

    /// What this response has to write, for a browser that has shown this much.
    pub(in crate::session) fn due(
        &self,
        session: &InBrowser,
        shown: Option<&Shown>,
        idle: Option<Duration>,
    ) -> Option<Due> {
        let Some(shown) = shown else { return Some(Due::New) };
        if session.copy.keeps_all() {
            return None;
        }
        let now = now();
        let age = now.saturating_sub(shown.written);
        let is_due = shown.generation() < session.copy.newest()
            || session.copy.is_forgotten()
            || idle.is_some_and(|idle| age >= (idle.as_secs() / 10).max(1))
            || (!self.is_last_write(shown) && self.is_settled(shown.minted, now));
        let other = 1 - shown.slot;
        match is_due {
            true => Some(Due::Newest),
            false => (shown.has_older && self.is_last_write(shown)).then_some(Due::Clear(other)),
        }
    }

    fn is_settled(&self, minted: u64, at: u64) -> bool {
        at.saturating_sub(minted) >= self.transit.as_secs()
    }

    /// The headers for that. Each response writes one name only, or else one that is late could take away
    /// both: a new session has both, so that what is on its way of one before it leaves one of them.
    pub(in crate::session) fn write(
        &self,
        cookie: &SessionCookie,
        session: &InBrowser,
        due: Due,
    ) -> Result<Vec<HeaderValue>, SignInError> {
        if let Due::Clear(slot) = due {
            return Ok(Piece::all_of(slot).map(|piece| cookie.clear_piece(piece)).collect());
        }
        let (record, minted) = session.copy.newest_record();
        let InBrowser { id, begun, .. } = *session;
        let (generation, written) = (record.generation, now());
        let Some(tokens) = record.tokens else { return Ok(Vec::new()) };
        let contents = Contents { id, generation, begun, minted, written, tokens };
        let slot = (generation.get() % 2) as u8;
        let written = self.write_slot(cookie, slot, &contents).and_then(|mut headers| {
            if due == Due::New {
                headers.extend(self.write_slot(cookie, 1 - slot, &contents)?);
            }
            Ok(headers)
        });
        if let Err(SignInError::TooLarge { .. }) = &written {
            session.copy.mark_too_large();
        }
        written
    }

    /// Whether a new session of these tokens fits.
    pub(in crate::session) fn fits(
        &self,
        cookie: &SessionCookie,
        tokens: Tokens,
    ) -> Result<(), SignInError> {
        let generation = Generation::ZERO.next_at(Time::never_back().wall);
        let (begun, minted, written) = (now(), now(), now());
        let contents = Contents { id: Id::default(), generation, begun, minted, written, tokens };
        self.write_slot(cookie, 0, &contents).map(drop)
    }

    /// All pieces of a slot, those that are cleared too.
    pub(super) fn write_slot(
        &self,
        cookie: &SessionCookie,
        slot: u8,
        contents: &Contents,
    ) -> Result<Vec<HeaderValue>, SignInError> {
        let number = contents.generation.to_string();
        let name = bound_to(cookie, slot, &number);
        let sealed = self.keys.encrypt(Purpose::Session, name.as_bytes(), &contents.to_bytes());
        let sealed = sealed.map_err(|_| SignInError::Random(NO_RANDOMNESS))?;
        let sealed = BASE64_URL_SAFE_NO_PAD.encode(sealed);
        let head = cookie.piece_name_len() + "=1..".len() + number.len();
        let parts: Vec<_> = sealed.as_bytes().chunks(MAX_PIECE - head).collect();
        let bytes = sealed.len() + parts.len() * head;
        if bytes > self.max_bytes || parts.len() > usize::from(Piece::MOST) {
            return Err(too_large(&contents.tokens, bytes, self.max_bytes));
        }
        let count = parts.len();
        let mut parts = parts.into_iter();
        let header = |piece| match parts.next().and_then(|part| std::str::from_utf8(part).ok()) {
            Some(part) => cookie.set_piece(piece, &format!("{count}.{number}.{part}")),
            None => cookie.clear_piece(piece),
        };
        Ok(Piece::all_of(slot).map(header).collect())
    }

    /// The tokens without what a cookie has no room for.
    pub(in crate::session) fn trim(&self, tokens: Tokens) -> Tokens {
        if self.keeps_id_token { tokens } else { tokens.without_extra("id_token") }
    }

    /// It was written when no older `Set-Cookie` could be on its way any more.
    pub(in crate::session) fn is_last_write(&self, shown: &Shown) -> bool {
        self.is_settled(shown.minted, shown.written)
    }
}

/// What a seal is bound to, besides its purpose and format: the name of the cookie and the generation.
fn bound_to(cookie: &SessionCookie, slot: u8, generation: &str) -> String {
    format!("{} {slot} {generation}", cookie.name())
}

fn too_large(tokens: &Tokens, bytes: usize, limit: usize) -> SignInError {
    SignInError::TooLarge {
        bytes,
        limit,
        access_token: tokens.access_token().len(),
        refresh_token: tokens.refresh_token().map_or(0, str::len),
        identity: tokens.extra(RESERVED_IDENTITY).map_or(0, str::len),
    }
}

impl Shown {
    pub(in crate::session) fn digest(&self) -> Digested {
        digest(self.id)
    }

    pub(in crate::session) fn generation(&self) -> Generation {
        self.record.generation
    }

    /// Whether no request has used the session for so long, as far as this cookie tells.
    pub(in crate::session) fn is_idle(&self, idle: Duration, now: SystemTime) -> bool {
        seconds(now).saturating_sub(self.written) > idle.as_secs()
    }

    pub(in crate::session) fn has_run_out(&self, now: SystemTime) -> bool {
        let end = self.record.tokens.as_ref().and_then(Tokens::expires_at);
        end.is_some_and(|end| end <= now)
    }

    pub(in crate::session) fn tokens(&self) -> Option<Tokens> {
        self.record.tokens.clone()
    }

    pub(super) fn minted(&self) -> u64 {
        self.minted
    }
}

impl InBrowser {
    /// Of a session that a request shows.
    pub(in crate::session) fn shown(shown: &Shown, copy: BrowserCopy) -> Self {
        let Shown { id, begun, .. } = *shown;
        Self { id, begun, copy }
    }

    /// Of a new session.
    pub(in crate::session) fn new(id: Id, begun: SystemTime, copy: BrowserCopy) -> Self {
        Self { id, begun: seconds(begun), copy }
    }

    /// When the user signed in.
    pub(in crate::session) fn begun(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.begun)
    }
}

/// A new session's id, and what it is called.
pub(in crate::session) fn new_id() -> Option<(Id, Digested)> {
    let id: Id = random()?;
    Some((id, digest(id)))
}

fn digest(id: Id) -> Digested {
    Sha256::digest(id).into()
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}
