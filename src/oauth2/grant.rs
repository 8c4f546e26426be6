//! The two grants that a program can use without its user.

use std::fmt;

use ::oauth2::{RefreshToken, Scope};

use super::{
    client::{Client, RequestError, Settings},
    error::Error,
    response::{TokenResponse, tokens},
    transport::Roundtrip,
};
use crate::{
    error::RefreshError,
    refresher::{BoxFuture, RefreshRequest, Refresher},
    tokens::Tokens,
};

/// Redeems the refresh token (RFC 6749, section 6). Made by
/// [`Client::refresh_token_grant`].
///
/// Tokens without a refresh token are [rejected](RefreshError::rejected): there is
/// nothing to redeem.
#[derive(Clone)]
pub struct RefreshTokenGrant(pub(super) Client);

/// Gets tokens for the client itself (RFC 6749, section 4.4). Made by
/// [`Client::client_credentials_grant`].
#[derive(Clone)]
pub struct ClientCredentialsGrant(pub(super) Client);

impl Client {
    /// A refresher that redeems the refresh token (RFC 6749, section 6).
    #[must_use]
    pub fn refresh_token_grant(&self) -> RefreshTokenGrant {
        RefreshTokenGrant(self.clone())
    }

    /// A refresher that gets tokens for the client itself (RFC 6749, section 4.4). The
    /// first one is fetched on first use; no refresh token is needed.
    #[must_use]
    pub fn client_credentials_grant(&self) -> ClientCredentialsGrant {
        ClientCredentialsGrant(self.clone())
    }

    /// The tokens in the answer to a request that has brought `token`, or what went
    /// wrong.
    fn granted(
        &self,
        roundtrip: Roundtrip<'_>,
        answer: Result<TokenResponse, RequestError>,
        token: &str,
    ) -> Result<Tokens, Error> {
        match answer {
            Ok(answer) => Ok(tokens(&answer, self.0.settings.scope.as_deref())),
            Err(error) => Err(self.error(roundtrip, &error, token)),
        }
    }
}

/// Adds the configured parameters to a request of either kind.
macro_rules! with_params {
    ($request:expr, $settings:expr) => {{
        let Settings { scope, params, .. } = $settings;
        let mut request = $request;
        if let Some(scope) = scope {
            request = request.add_scope(Scope::new(scope.clone()));
        }
        for (name, value) in params {
            request = request.add_extra_param(name, value);
        }
        request
    }};
}

impl RefreshTokenGrant {
    async fn redeem(&self, refresh_token: &str) -> Result<Tokens, Error> {
        let Self(client) = self;
        let settings = &client.0.settings;
        let token = RefreshToken::new(refresh_token.to_owned());
        let request = with_params!(settings.messages.exchange_refresh_token(&token), settings);
        let roundtrip = client.roundtrip(&settings.endpoint);
        let answer = request.request_async(&roundtrip).await;
        client.granted(roundtrip, answer, refresh_token)
    }
}

impl ClientCredentialsGrant {
    async fn mint(&self) -> Result<Tokens, Error> {
        let Self(client) = self;
        let settings = &client.0.settings;
        let request = with_params!(settings.messages.exchange_client_credentials(), settings);
        let roundtrip = client.roundtrip(&settings.endpoint);
        let answer = request.request_async(&roundtrip).await;
        client.granted(roundtrip, answer, "")
    }
}

impl Refresher for RefreshTokenGrant {
    fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(async move {
            match request.tokens.as_ref().and_then(Tokens::refresh_token) {
                Some(refresh_token) => Ok(self.redeem(refresh_token).await?),
                None => Err(RefreshError::rejected("there is no refresh token")),
            }
        })
    }
}

impl Refresher for ClientCredentialsGrant {
    fn refresh(&self, _: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(async move { Ok(self.mint().await?) })
    }

    fn needs_tokens(&self) -> bool {
        false
    }
}

impl fmt::Debug for RefreshTokenGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RefreshTokenGrant").field(&self.0).finish()
    }
}

impl fmt::Debug for ClientCredentialsGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCredentialsGrant").field(&self.0).finish()
    }
}
