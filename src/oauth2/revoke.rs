//! Revocation (RFC 7009), for tokens that no request will use.

use std::fmt;

use ::oauth2::{
    AccessToken, EndpointSet, RefreshToken, RequestTokenError, RevocationUrl,
    StandardRevocableToken,
};

use super::{
    client::{Client, Messages},
    endpoint::Endpoint,
    error::Error,
};
use crate::{
    error::ConfigError,
    refresher::{BoxFuture, RefreshError},
    tokens::Tokens,
};

/// Revokes tokens (RFC 7009). Made by [`Client::revoker`].
///
/// ```
/// use tower_refresh::{RefreshState, oauth2};
///
/// let client = oauth2::Client::builder("http://localhost:8080/token", "my-client")?.build()?;
/// let revoker = client.revoker("http://localhost:8080/revoke")?;
/// let state = RefreshState::builder(client.refresh_token_grant())
///     .on_discard(revoker.hook())
///     .on_sign_out(revoker.hook())
///     .build();
/// # let _ = state;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Revoker {
    client: Client,
    endpoint: Endpoint,
    messages: Messages<EndpointSet>,
}

impl Client {
    /// Revokes tokens at this endpoint (RFC 7009). Its requests are authenticated and sent like
    /// this client's others.
    ///
    /// # Errors
    ///
    /// As [`builder`](Self::builder).
    pub fn revoker(&self, revocation_endpoint: &str) -> Result<Revoker, ConfigError> {
        Revoker::new(self.clone(), revocation_endpoint)
    }
}

impl Revoker {
    pub(super) fn new(client: Client, endpoint: &str) -> Result<Self, ConfigError> {
        let endpoint = Endpoint::parse(endpoint, client.0.settings.endpoint.schemes())?;
        let url = RevocationUrl::new(endpoint.as_https());
        let url = url.map_err(|_| ConfigError::new("an endpoint is not a URL"))?;
        let messages = client.0.settings.messages.clone().set_revocation_url(url);
        Ok(Self { client, endpoint, messages })
    }

    /// Revokes the refresh token, and with it, where the server does so (RFC 7009,
    /// section 2.1), the access token; without a refresh token, the access token. A token that
    /// the server does not know counts as revoked (section 2.2).
    ///
    /// Cancelled, it may or may not have revoked the token. It is safe to call again.
    ///
    /// # Errors
    ///
    /// The server refused, or its response was lost: then the token may be revoked.
    pub async fn revoke(&self, tokens: &Tokens) -> Result<(), Error> {
        let (token, revocable): (_, StandardRevocableToken) = match tokens.refresh_token() {
            Some(token) => (token, RefreshToken::new(token.to_owned()).into()),
            None => {
                let token = tokens.access_token();
                (token, AccessToken::new(token.to_owned()).into())
            }
        };
        let roundtrip = self.client.roundtrip(&self.endpoint);
        let result = match self.messages.revoke_token(revocable) {
            Ok(request) => request.request_async(&roundtrip).await,
            // It refuses a URL that is not https. Ours always is: `Endpoint::as_https`.
            Err(error) => Err(RequestTokenError::Other(error.to_string())),
        };
        result.map_err(|error| self.client.error(roundtrip, error, token))
    }

    /// A hook for [`on_discard`](crate::state::RefreshStateBuilder::on_discard) and
    /// [`on_sign_out`](crate::state::RefreshStateBuilder::on_sign_out). It revokes the tokens it
    /// is given, in one try; the state calls it again if that fails, unless the server itself
    /// refuses to revoke these tokens (a 4xx; RFC 7009, section 2.2.1).
    pub fn hook(
        &self,
    ) -> impl Fn(Tokens) -> BoxFuture<'static, Result<(), RefreshError>>
    + Clone
    + Send
    + Sync
    + 'static
    + use<> {
        let this = self.clone();
        move |tokens| {
            let this = this.clone();
            Box::pin(async move {
                this.revoke(&tokens).await.map_err(|error| {
                    tracing::debug!(%error, "tokens were not revoked");
                    error.of_revocation()
                })
            })
        }
    }
}

impl fmt::Debug for Revoker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revoker")
            .field("endpoint", &format_args!("{}", self.endpoint))
            .finish_non_exhaustive()
    }
}
