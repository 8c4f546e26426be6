//! The two grants that a program can use while its user is away.

use std::fmt;

use ::oauth2::{RefreshToken, Scope};

use super::{
    client::{Client, RequestError, Settings},
    error::Error,
    response::{TokenResponse, tokens},
    transport::Roundtrip,
};
use crate::{
    refresher::{BoxFuture, RefreshError, RefreshRequest, Refresher},
    tokens::Tokens,
};

/// Redeems the refresh token (RFC 6749, section 6). Made by
/// [`Client::refresh_token_grant`].
///
/// Tokens without a refresh token are [rejected](RefreshError::rejected), and nothing is sent.
///
/// # A refresher around it
///
/// A [`Refresher`] of your own may pass its request on to this one. This example logs what each
/// refresh was for and how it ended. Return the error as it came: a new error would know neither the
/// server's `Retry-After` nor whether the refresh token was spent.
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use tower_refresh::{
///     BoxFuture, RefreshError, RefreshState, Refresher, Tokens, refresher::RefreshRequest,
/// };
/// # use http_body_util::Full;
/// # use tower_refresh::{BoxError, oauth2::Client};
///
/// struct Logged<R> {
///     refresher: R,
///     log: Arc<Mutex<Vec<String>>>,
/// }
///
/// impl<R: Refresher> Refresher for Logged<R> {
///     fn refresh(&self, request: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
///         Box::pin(async move {
///             let trigger = request.trigger;
///             let result = self.refresher.refresh(request).await;
///             let outcome = match &result {
///                 Ok(_) => "renewed".to_owned(),
///                 Err(error) if error.is_rejected() => "rejected".to_owned(),
///                 Err(error) => format!("again in {:?}", error.retry_after()),
///             };
///             self.log.lock().unwrap().push(format!("{trigger}: {outcome}"));
///             result
///         })
///     }
///
///     fn needs_tokens(&self) -> bool {
///         self.refresher.needs_tokens()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), BoxError> {
/// # let responses = Mutex::new(vec![
/// #     (503, "{}"),
/// #     (200, r#"{"access_token":"new","refresh_token":"rotated","token_type":"Bearer"}"#),
/// # ]);
/// # let responses = Arc::new(responses);
/// # let http = tower::service_fn(move |_: http::Request<Full<bytes::Bytes>>| {
/// #     let (status, body) = responses.lock().unwrap().pop().unwrap();
/// #     let response = http::Response::builder().status(status).header("retry-after", "7");
/// #     std::future::ready(response.body(Full::<bytes::Bytes>::from(body)))
/// # });
/// # let client = Client::builder("https://auth.example.com/token", "my-client")?.over(http);
/// let log = Arc::default();
/// let refresher = Logged { refresher: client.refresh_token_grant(), log: Arc::clone(&log) };
/// let state = RefreshState::builder(refresher)
///     .tokens(Tokens::new("access").with_refresh_token("refresh"))
///     .build();
///
/// assert_eq!(state.refresh().await?.access_token(), Some("new"));
/// // The server is overloaded now: 503, `Retry-After: 7`.
/// assert!(state.refresh().await.unwrap_err().retry_at().is_some());
/// assert_eq!(*log.lock().unwrap(), ["requested: renewed", "requested: again in Some(7s)"]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RefreshTokenGrant(pub(super) Client);

/// Gets tokens for the client itself (RFC 6749, section 4.4). Made by
/// [`Client::client_credentials_grant`].
///
/// ```
/// use tower_refresh::{RefreshState, oauth2};
///
/// let client = oauth2::Client::builder("http://localhost:8080/token", "my-service")?
///     .client_secret_basic("hush")
///     .build()?;
/// // The first request fetches the first token.
/// let state = RefreshState::builder(client.client_credentials_grant()).build();
/// # let _ = state;
/// # Ok::<_, tower_refresh::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ClientCredentialsGrant(pub(super) Client);

impl Client {
    /// A refresher that redeems the refresh token (RFC 6749, section 6).
    #[must_use]
    pub fn refresh_token_grant(&self) -> RefreshTokenGrant {
        RefreshTokenGrant(self.clone())
    }

    /// A refresher that gets tokens for the client itself (RFC 6749, section 4.4). It needs no
    /// tokens to begin with: the first token is fetched on first use.
    #[must_use]
    pub fn client_credentials_grant(&self) -> ClientCredentialsGrant {
        ClientCredentialsGrant(self.clone())
    }

    /// The tokens in the response to a request that has sent `token`, or why it failed.
    fn granted(
        &self,
        roundtrip: Roundtrip<'_>,
        result: Result<TokenResponse, RequestError>,
        token: &str,
    ) -> Result<Tokens, Error> {
        match result {
            Ok(response) => Ok(tokens(&response, self.0.settings.scope.as_deref())),
            Err(error) => Err(self.error(roundtrip, error, token)),
        }
    }
}

/// Adds the configured parameters to a request for either grant. A macro, because the oauth2
/// crate has a type and no trait for each.
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
        let result = request.request_async(&roundtrip).await;
        client.granted(roundtrip, result, refresh_token)
    }
}

impl ClientCredentialsGrant {
    async fn mint(&self) -> Result<Tokens, Error> {
        let Self(client) = self;
        let settings = &client.0.settings;
        let request = with_params!(settings.messages.exchange_client_credentials(), settings);
        let roundtrip = client.roundtrip(&settings.endpoint);
        let result = request.request_async(&roundtrip).await;
        client.granted(roundtrip, result, "")
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

    fn minted_for(&self) -> Option<String> {
        Some(self.0.0.settings.minted_for())
    }
}

impl Refresher for ClientCredentialsGrant {
    fn refresh(&self, _: RefreshRequest) -> BoxFuture<'_, Result<Tokens, RefreshError>> {
        Box::pin(async move { Ok(self.mint().await?) })
    }

    fn needs_tokens(&self) -> bool {
        false
    }

    fn minted_for(&self) -> Option<String> {
        Some(self.0.0.settings.minted_for())
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
