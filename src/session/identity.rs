//! Who is signed in: [`Identity`].

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::{
    credential::Credential,
    tokens::{RESERVED_IDENTITY, Tokens},
};

/// The user who has signed in, as the application has learned it at the sign-in, from an ID token say
/// (OpenID Connect Core 1.0, section 2): the issuer and the subject, the provider's id of its own
/// session, and further claims that pages need.
///
/// It is part of the tokens' record, and sealed with them if the store seals. A refresh leaves it as it
/// is, whatever the server's answer says; a sign-in replaces it, and a sign-out deletes it.
/// `Debug` shows none of it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tower_refresh::{Renewal, Tokens, session::Identity};
///
/// let renewal = Renewal::builder(async |_spent: Tokens| {
///     Ok(Tokens::new("second").with_refresh_token("r2"))
/// })
/// .build();
/// let state = renewal.in_memory(None);
///
/// let alice = Identity::new("https://id.example.com", "248289761001").claim("name", "Alice");
/// state.set(alice.put_into(Tokens::new("first").with_refresh_token("r1"))).await?;
/// let credential = state.refresh().await?;
/// assert_eq!(credential.access_token(), Some("second"));
/// let alice = Identity::of(&credential).unwrap();
/// assert_eq!(alice.subject(), "248289761001");
/// assert_eq!(alice.get("name"), Some("Alice"));
/// # Ok::<_, tower_refresh::BoxError>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "sub")]
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    sid: Option<String>,
    #[serde(rename = "iat", skip_serializing_if = "Option::is_none", default)]
    issued: Option<u64>,
    #[serde(rename = "session_expiry", skip_serializing_if = "Option::is_none", default)]
    expiry: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    claims: BTreeMap<String, String>,
}

impl Identity {
    /// A user by issuer and subject (`iss` and `sub`), which name one person together and for ever.
    pub fn new(issuer: impl Into<String>, subject: impl Into<String>) -> Self {
        let (issuer, subject) = (issuer.into(), subject.into());
        Self { issuer, subject, sid: None, issued: None, expiry: None, claims: BTreeMap::new() }
    }

    /// With the provider's id of its own session (`sid`), by which it may end this one (OpenID Connect
    /// Back-Channel Logout 1.0, section 2.1).
    #[must_use]
    pub fn sid(self, sid: impl Into<String>) -> Self {
        Self { sid: Some(sid.into()), ..self }
    }

    /// With the moment at which the ID token was issued (`iat`), in full seconds: a logout of all of a
    /// user's sessions that comes before this one is stored ends it, too
    /// ([`Sessions::end_all`](super::Sessions::end_all)).
    #[must_use]
    pub fn issued_at(self, at: SystemTime) -> Self {
        Self { issued: Some(seconds(at)), ..self }
    }

    /// With the moment at which the session ends at the latest, in full seconds, if the provider has
    /// said so (`session_expiry`), or if the refresh token's own end is known.
    #[must_use]
    pub fn expires_at(self, at: SystemTime) -> Self {
        Self { expiry: Some(seconds(at)), ..self }
    }

    /// With another claim, as text. Keep what pages need, and not the whole ID token: all claims are in
    /// the record, which is read whenever a look at the store finds something new.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    /// The issuer (`iss`).
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The subject (`sub`).
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The provider's id of its own session (`sid`), if it was given.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.sid.as_deref()
    }

    /// When the ID token was issued (`iat`), if that was given.
    #[must_use]
    pub fn issued(&self) -> Option<SystemTime> {
        moment(self.issued?)
    }

    /// When the session ends at the latest, if that was given.
    #[must_use]
    pub fn expiry(&self) -> Option<SystemTime> {
        moment(self.expiry?)
    }

    /// Another claim.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.claims.get(name).map(String::as_str)
    }

    /// These tokens, with this identity in their record.
    #[must_use]
    pub fn put_into(&self, tokens: Tokens) -> Tokens {
        // Cannot fail: all of it is text.
        let text = serde_json::to_string(self).expect("text and maps of text");
        tokens.with_extra(RESERVED_IDENTITY, text)
    }

    /// The identity that [`put_into`](Self::put_into) has put into these tokens.
    #[must_use]
    pub fn of(credential: &Credential) -> Option<Self> {
        Self::parse(credential.extra(RESERVED_IDENTITY)?)
    }

    /// The same of what a store holds.
    pub(super) fn of_tokens(tokens: &Tokens) -> Option<Self> {
        Self::parse(tokens.extra(RESERVED_IDENTITY)?)
    }

    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Full seconds since the epoch.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn moment(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

// By hand, because it is personal.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{RefreshError, Renewal};

    fn alice() -> Identity {
        Identity::new("https://id.example.com", "1").sid("s-7").claim("name", "Alice \"A\"")
    }

    /// However the server's answer calls its fields.
    #[tokio::test(start_paused = true)]
    async fn no_answer_of_a_server_replaces_it() {
        let renewal = Renewal::builder(async |_: Tokens| {
            let mallory = Identity::new("https://id.example.com", "2");
            Ok::<_, RefreshError>(mallory.put_into(Tokens::new("second")))
        });
        let state = renewal.build().in_memory(alice().put_into(Tokens::new("first")));
        assert_eq!(Identity::of(&state.current()), Some(alice()));
        let refreshed = state.refresh().await.unwrap();
        assert_eq!(refreshed.access_token(), Some("second"));
        assert_eq!(Identity::of(&refreshed), Some(alice()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_gives_none_where_there_was_none() {
        let renewal = Renewal::builder(async |_: Tokens| {
            Ok::<_, RefreshError>(alice().put_into(Tokens::new("second")))
        });
        let state = renewal.build().in_memory(Tokens::new("first"));
        assert_eq!(Identity::of(&state.refresh().await.unwrap()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_in_replaces_it_and_a_sign_out_deletes_it() {
        let renewal =
            Renewal::builder(async |_: Tokens| Ok::<_, RefreshError>(Tokens::new("next")));
        let state = renewal.build().in_memory(alice().put_into(Tokens::new("first")));
        let bob = Identity::new("https://id.example.com", "3");
        state.set(bob.put_into(Tokens::new("bobs"))).await.unwrap();
        assert_eq!(Identity::of(&state.current()), Some(bob));
        state.clear().await.unwrap();
        assert_eq!(Identity::of(&state.current()), None);
    }

    #[test]
    fn it_is_not_shown() {
        assert_eq!(format!("{:?}", alice()), "Identity { .. }");
    }
}
