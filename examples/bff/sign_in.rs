//! The sign-in: OpenID Connect's code flow with PKCE, by the crate `openidconnect`.
//!
//! What has to be known again at the callback is in one cookie of the browser for some minutes, sealed.
//! One for all tabs: with one for each sign-in that is begun and left, cookies pile up until servers
//! refuse their size. Two tabs that begin at once are told apart by `state`, and the later one wins.

use std::{io, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header::COOKIE};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::jwk::JwkSet;
use openidconnect::{
    AdditionalClaims, AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdToken, IssuerUrl,
    Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse,
    core::{
        CoreAuthenticationFlow, CoreClient, CoreGenderClaim, CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm, CoreProviderMetadata,
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tower_refresh::{BoxError, BoxFuture, Tokens, seal::Keyring, session::Identity};

/// How long a user may take at the provider.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long the provider may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A browser takes 4096 bytes for a cookie, and a path is the only part whose length others decide.
const MAX_RETURN_TO: usize = 1024;

/// The endpoints that discovery has found: for authorization, and perhaps for tokens and for user info.
type OidcClient = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// An ID token with the claim that names the provider's own session.
type IdTokenWithSid =
    IdToken<Sid, CoreGenderClaim, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm>;

#[derive(Debug, Deserialize, Serialize)]
struct Sid {
    sid: Option<String>,
}

impl AdditionalClaims for Sid {}

/// The application as the provider knows it.
pub(crate) struct SignIn {
    client: OidcClient,
    http: Http,
    keys: Keyring,
    cookie: String,
    token_endpoint: String,
    provider_keys: Arc<JwkSet>,
}

/// What is known of a sign-in that has begun.
#[derive(Deserialize, Serialize)]
struct Pending {
    state: CsrfToken,
    nonce: Nonce,
    verifier: PkceCodeVerifier,
    return_to: String,
}

/// What the provider sends the browser back with (RFC 6749, section 4.1.2).
#[derive(Deserialize)]
pub(crate) struct Callback {
    state: String,
    code: Option<String>,
    error: Option<String>,
}

/// Somebody has signed in.
pub(crate) struct SignedIn {
    pub(crate) tokens: Tokens,
    pub(crate) identity: Identity,
    pub(crate) return_to: String,
}

/// Nobody has.
pub(crate) enum NotSignedIn {
    /// This browser has not begun it, or too long ago, or has begun another one since.
    Stale,
    /// The provider says so.
    Refused(String),
    Failed(BoxError),
}

impl<E: Into<BoxError>> From<E> for NotSignedIn {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl SignIn {
    /// Asks the provider for its endpoints and its keys. A program that runs longer than these live asks
    /// again now and then.
    pub(crate) async fn discover(
        issuer: &str,
        (id, secret): (&str, &str),
        redirect_uri: &str,
        (keys, cookie): (Keyring, String),
    ) -> Result<Self, BoxError> {
        let http = Http(Client::builder(TokioExecutor::new()).build_http());
        let issuer = IssuerUrl::new(issuer.to_owned())?;
        let provider = CoreProviderMetadata::discover_async(issuer, &http).await?;
        let token_endpoint = provider.token_endpoint().ok_or("the provider gives no tokens")?;
        let token_endpoint = token_endpoint.to_string();
        let provider_keys = serde_json::from_value(serde_json::to_value(provider.jwks())?)?;
        let provider_keys = Arc::new(provider_keys);
        let (id, secret) = (ClientId::new(id.to_owned()), ClientSecret::new(secret.to_owned()));
        let client = CoreClient::from_provider_metadata(provider, id, Some(secret))
            .set_redirect_uri(RedirectUrl::new(redirect_uri.to_owned())?);
        Ok(Self { client, http, keys, cookie, token_endpoint, provider_keys })
    }

    /// Where refresh tokens are redeemed.
    pub(crate) fn token_endpoint(&self) -> &str {
        &self.token_endpoint
    }

    /// What it signs is checked by these.
    pub(crate) fn provider_keys(&self) -> Arc<JwkSet> {
        Arc::clone(&self.provider_keys)
    }

    /// Where the browser goes to sign in, and the cookie that it takes with it.
    pub(crate) fn begin(&self, return_to: &str) -> Result<(String, HeaderValue), BoxError> {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (url, state, nonce) = self
            .client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .add_scope(Scope::new("profile".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        let return_to = if return_to.len() > MAX_RETURN_TO { "/" } else { return_to };
        let pending = Pending { state, nonce, verifier, return_to: return_to.to_owned() };
        let sealed = self.keys.seal(&self.cookie, serde_json::to_vec(&pending)?)?;
        Ok((url.into(), self.set_cookie(&sealed, PATIENCE)?))
    }

    /// `Lax`, since the provider is another site and the browser comes back from there. No priority: if
    /// a site has too many cookies, the session's is the one to stay.
    fn set_cookie(&self, value: &str, age: Duration) -> Result<HeaderValue, BoxError> {
        let (name, age) = (&self.cookie, age.as_secs());
        let text = format!("{name}={value}; Max-Age={age}; HttpOnly; Secure; SameSite=Lax; Path=/");
        Ok(HeaderValue::from_str(&text)?)
    }

    /// Takes that cookie away, once it was of use.
    pub(crate) fn clear_cookie(&self) -> Result<HeaderValue, BoxError> {
        self.set_cookie("", Duration::ZERO)
    }

    /// Redeems the code, and checks who it is.
    pub(crate) async fn finish(
        &self,
        callback: Callback,
        headers: &HeaderMap,
    ) -> Result<SignedIn, NotSignedIn> {
        let pending = self.pending(headers).filter(|it| *it.state.secret() == callback.state);
        let Some(pending) = pending else { return Err(NotSignedIn::Stale) };
        let Some(code) = callback.code else {
            let error = callback.error.unwrap_or_else(|| "there is no code".to_owned());
            return Err(NotSignedIn::Refused(error));
        };
        let response = self
            .client
            .exchange_code(AuthorizationCode::new(code))?
            .set_pkce_verifier(pending.verifier)
            .request_async(&self.http)
            .await?;
        // Read again, with the claim that `openidconnect` does not know by itself.
        let id_token = response.id_token().ok_or("the provider has sent no ID token")?;
        let id_token: IdTokenWithSid = id_token.to_string().parse()?;
        let claims = id_token.claims(&self.client.id_token_verifier(), &pending.nonce)?;
        let mut identity = Identity::new(claims.issuer().as_str(), claims.subject().as_str())
            .issued_at(claims.issue_time().into());
        if let Some(sid) = &claims.additional_claims().sid {
            identity = identity.sid(sid);
        }
        if let Some(name) = claims.preferred_username() {
            identity = identity.claim("name", name.as_str());
        }
        Ok(SignedIn { tokens: Tokens::from(&response), identity, return_to: pending.return_to })
    }

    fn pending(&self, headers: &HeaderMap) -> Option<Pending> {
        let fields = headers.get_all(COOKIE).into_iter().filter_map(|field| field.to_str().ok());
        let mut pairs =
            fields.flat_map(|field| field.split(';')).filter_map(|it| it.split_once('='));
        let (_, sealed) = pairs.find(|(name, _)| name.trim() == self.cookie)?;
        let pending = self.keys.open(&self.cookie, sealed.trim()).ok()?;
        serde_json::from_slice(&pending).ok()
    }
}

/// Sends the requests of `openidconnect`. Redirects are not followed, as it asks for. A type of its
/// own: with a closure the compiler cannot tell that the future of a handler is `Send`.
struct Http(Client<HttpConnector, Full<Bytes>>);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = io::Error;
    type Future = BoxFuture<'c, Result<HttpResponse, io::Error>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        let response = self.0.request(request.map(Full::from));
        let answer = async {
            let (parts, body) = response.await?.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            Ok::<_, BoxError>(HttpResponse::from_parts(parts, body))
        };
        Box::pin(async {
            match timeout(TIMEOUT, answer).await {
                Ok(answer) => answer.map_err(io::Error::other),
                Err(late) => Err(late.into()),
            }
        })
    }
}
