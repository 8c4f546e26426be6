//! The token traits of the clouds' SDKs, over one credential: `TokenCredential` and the challenge hook of `azure_core`,
//! `CredentialsProvider` of `google-cloud-auth`, `ProvideToken` of `aws-credential-types`. Sixty calls at the same
//! time with a token that is refused, twenty by each. One refresh, and each is answered.
//!
//! The SDKs ask their provider ahead of a token's expiry. What happens when a token is refused before is theirs to say: Azure's has
//! a hook, by which the request is sent again. With the two others a refused call is the caller's, who makes it again: that is
//! `attempt`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use aws_credential_types::{
    Token,
    provider::{error::TokenError, future, token::ProvideToken},
};
use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    error::ErrorKind,
    http::{
        ClientMethodOptions, ClientOptions, Context, Method, Pipeline, Request, StatusCode,
        Transport, Url,
        headers::{AUTHORIZATION, Headers},
        policies::auth::{Authorizer, BearerTokenAuthorizationPolicy, OnChallenge},
    },
    time::OffsetDateTime,
};
use google_cloud_auth::{
    credentials::{CacheableResource, Credentials, CredentialsProvider, EntityTag},
    errors::CredentialsError,
};
use http::{Extensions, HeaderMap, HeaderValue};
use scenery::{AnyError, CALLS, Loopback, Outcome};
use tokio::task::JoinSet;
use tower_refresh::{FailureKind, RefreshState};

// ---- What a user writes: the SDKs' traits for a credential. None of them keeps a token for longer than a call.
#[derive(Clone, Debug)]
struct Kept(Arc<RefreshState>);

#[async_trait]
impl TokenCredential for Kept {
    async fn get_token(
        &self,
        _: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let credential = self
            .0
            .token()
            .await
            .map_err(|failure| azure_core::Error::new(ErrorKind::Credential, failure))?;
        let token = credential.access_token().unwrap_or_default().to_owned();
        Ok(AccessToken::new(token, OffsetDateTime::now_utc()))
    }
}

#[async_trait]
impl OnChallenge for Kept {
    async fn on_challenge(
        &self,
        _: &Context,
        request: &mut Request,
        authorizer: &dyn Authorizer,
        _: &Headers,
    ) -> azure_core::Result<()> {
        let current = self.0.current();
        let sent = request
            .headers()
            .get_optional_str(&AUTHORIZATION)
            .and_then(|it| it.strip_prefix("Bearer "));
        // Another request may have had it refreshed meanwhile.
        if sent == current.access_token() {
            let newer = self.0.challenged(current.generation()).await;
            newer.map_err(|failure| azure_core::Error::new(ErrorKind::Credential, failure))?;
        }
        authorizer.authorize(request, &[], TokenRequestOptions::default()).await
    }
}

impl CredentialsProvider for Kept {
    async fn headers(
        &self,
        _: Extensions,
    ) -> Result<CacheableResource<HeaderMap>, CredentialsError> {
        let credential = self.0.token().await.map_err(|failure| {
            CredentialsError::from_source(failure.kind() != FailureKind::Rejected, failure)
        })?;
        let bearer = credential.bearer().map(|bearer| (http::header::AUTHORIZATION, bearer));
        Ok(CacheableResource::New {
            entity_tag: EntityTag::new(),
            data: bearer.into_iter().collect(),
        })
    }

    async fn universe_domain(&self) -> Option<String> {
        None
    }
}

impl ProvideToken for Kept {
    fn provide_token<'a>(&'a self) -> future::ProvideToken<'a>
    where
        Self: 'a,
    {
        future::ProvideToken::new(async {
            let credential = self.0.token().await.map_err(TokenError::provider_error)?;
            let token = credential.access_token().unwrap_or_default();
            Ok(Token::new(token, credential.expires_at()))
        })
    }
}
// ---- That is all.

/// The pipeline that Azure's clients send by.
fn azure(kept: &Kept, http: reqwest::Client) -> Pipeline {
    let policy = BearerTokenAuthorizationPolicy::new(Arc::new(kept.clone()), ["scope"])
        .with_on_challenge(Arc::new(kept.clone()));
    let transport = Some(Transport::new(Arc::new(ToLoopback(http))));
    let options = ClientOptions { transport, ..ClientOptions::default() };
    Pipeline::new(None, None, options, vec![], vec![Arc::new(policy)], None)
}

/// Azure's policy wants `https`; the servers here have none.
#[derive(Debug)]
struct ToLoopback(reqwest::Client);

#[async_trait]
impl azure_core::http::HttpClient for ToLoopback {
    async fn execute_request(
        &self,
        request: &Request,
    ) -> azure_core::Result<azure_core::http::AsyncRawResponse> {
        let mut request = request.clone();
        let plain = request.url().as_str().replacen("https", "http", 1);
        *request.url_mut() = plain.parse()?;
        azure_core::http::HttpClient::execute_request(&self.0, &request).await
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let kept = Kept(scenery::credential(&servers)?);
    let http = reqwest::Client::new();
    let azure = azure(&kept, http.clone());
    let google = Credentials::from(kept.clone());

    servers.refuse_together(3 * CALLS);
    let mut running = JoinSet::<Result<bool, AnyError>>::new();
    for _ in 0..CALLS {
        let (azure, google, kept) = (azure.clone(), google.clone(), kept.clone());
        let (api, http) = (servers.api(), http.clone());
        let https = api.replacen("http", "https", 1);
        running.spawn(async move { Ok(by_azure(&azure, &https).await? == StatusCode::Ok) });
        let (this, uri, client) = (kept.clone(), api.clone(), http.clone());
        running.spawn(async move {
            let call = async |_| {
                let headers = match google.headers(Extensions::new()).await? {
                    CacheableResource::New { data, .. } => data,
                    CacheableResource::NotModified => HeaderMap::new(),
                };
                Ok::<_, AnyError>(client.get(&uri).headers(headers).send().await?.status() == 200)
            };
            this.0.attempt(call, |outcome| !matches!(outcome, Ok(true))).await?
        });
        running.spawn(async move {
            let call = async |_| {
                let token = kept.provide_token().await?;
                let bearer = HeaderValue::from_str(&format!("Bearer {}", token.token()))?;
                let sent = http.get(&api).header(http::header::AUTHORIZATION, bearer).send();
                Ok::<_, AnyError>(sent.await?.status() == 200)
            };
            kept.0.attempt(call, |outcome| !matches!(outcome, Ok(true))).await?
        });
    }
    let ok = running.join_all().await.into_iter().filter(|it| matches!(it, Ok(true))).count();
    let outcome = Outcome::of(&servers, 3 * CALLS, ok);

    scenery::end_session(&servers);
    Ok(outcome.report_error(by_azure(&azure, &servers.api().replacen("http", "https", 1)).await))
}

async fn by_azure(azure: &Pipeline, uri: &str) -> azure_core::Result<StatusCode> {
    let mut request = Request::new(Url::parse(uri)?, Method::Get);
    let options = ClientMethodOptions::default();
    Ok(azure.send(&options.context, &mut request, None).await?.status())
}
