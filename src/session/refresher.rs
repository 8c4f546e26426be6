//! What a refresh of a session may not change: whose it is ([`CheckedRefresher`]).

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::identity::Identity;
use crate::{
    refresher::{BoxFuture, RefreshError, RefreshRequest, Refresher},
    state::TokensHook,
    tokens::Tokens,
};

/// Refuses an answer whose ID token is another user's: it must have the same `iss` and `sub` (OpenID
/// Connect Core 1.0, section 12.2). Its signature is not checked, as it came straight from the token
/// endpoint (section 3.1.3.7, number 6).
pub(super) struct CheckedRefresher {
    refresher: Arc<dyn Refresher>,
    /// For tokens that nothing will use.
    discard: Option<TokensHook>,
    /// Once it was looked at.
    drops_id_token: bool,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
}

impl CheckedRefresher {
    pub(super) fn new(
        refresher: Arc<dyn Refresher>,
        discard: Option<TokensHook>,
        drops_id_token: bool,
    ) -> Self {
        Self { refresher, discard, drops_id_token }
    }
}

impl Refresher for CheckedRefresher {
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(async move {
            let identity = request.tokens.as_ref().and_then(Identity::of_tokens);
            let minted = self.refresher.refresh(request).await?;
            let Some(identity) = identity else { return Ok(minted) };
            match minted.extra("id_token") {
                Some(id_token) if !is_of(&identity, id_token) => {
                    if let Some(discard) = &self.discard {
                        // Best effort: the session ends in any case.
                        let _ = discard(minted).await;
                    }
                    let what = "the refreshed ID token is not that of the user who has signed in";
                    Err(RefreshError::rejected(what).with_code("other_user"))
                }
                Some(_) if self.drops_id_token => Ok(minted.without_extra("id_token")),
                _ => Ok(minted),
            }
        })
    }

    fn needs_tokens(&self) -> bool {
        self.refresher.needs_tokens()
    }

    fn minted_for(&self) -> Option<String> {
        self.refresher.minted_for()
    }
}

/// Whether it says so. One that cannot be read, as it is encrypted, says nothing of anybody else.
fn is_of(identity: &Identity, id_token: &str) -> bool {
    let payload = id_token.split('.').nth(1).unwrap_or_default();
    let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).ok();
    let claims = claims.and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
    claims.is_none_or(|it| it.iss == identity.issuer() && it.sub == identity.subject())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{FailureKind, Renewal};

    fn id_token(issuer: &str, subject: &str) -> String {
        let claims = format!(r#"{{"iss":"{issuer}","sub":"{subject}","aud":"app"}}"#);
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    /// Refreshes a session of Alice, for an answer with this ID token. Returns what is kept, and what
    /// was revoked.
    async fn refreshed(id_token: Option<String>) -> (Result<String, FailureKind>, usize) {
        let revoked = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&revoked);
        let renewal = Renewal::builder(move |_: Tokens| {
            let minted = Tokens::new("second").with_refresh_token("r2");
            let minted = match id_token.clone() {
                Some(id_token) => minted.with_extra("id_token", id_token),
                None => minted,
            };
            async { Ok::<_, RefreshError>(minted) }
        })
        .on_discard(move |_| async move { *counted.lock().unwrap() += 1 })
        .wrap(|refresher, discard| CheckedRefresher::new(refresher, discard, false))
        .build();
        let alice = Identity::new("https://id", "alice");
        let state =
            renewal.in_memory(alice.put_into(Tokens::new("first").with_refresh_token("r1")));
        let refreshed = state.refresh().await;
        let token = refreshed.map(|it| it.access_token().unwrap().to_owned());
        let revoked = *revoked.lock().unwrap();
        (token.map_err(|failure| failure.kind()), revoked)
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_another_user_end_the_session_and_are_revoked() {
        for other in [id_token("https://id", "mallory"), id_token("https://other", "alice")] {
            assert_eq!(refreshed(Some(other)).await, (Err(FailureKind::Rejected), 1));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_the_same_user_are_kept() {
        let same = [None, Some(id_token("https://id", "alice")), Some("encrypted".to_owned())];
        for same in same {
            assert_eq!(refreshed(same).await, (Ok("second".to_owned()), 0));
        }
    }
}
