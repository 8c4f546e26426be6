//! A provider at another site: users sign in there, and out.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, Request},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Redirect},
    routing::get,
};
use http_body_util::BodyExt;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use testing::{Provider, logout, sessions::ISSUER};
use tower_refresh::{
    BoxError,
    session::{BackChannelLogout, Sessions},
};

use super::{
    app::{App, elsewhere, page},
    logout::verify,
};

const CLIENT_ID: &str = "app";

/// Where an application hears of it.
pub(crate) const BACK_CHANNEL: &str = "/logout/back-channel";

/// A provider that knows everybody, and answers by a redirect or by a page with a link.
pub(crate) async fn provider() -> String {
    let authorize = get(async |Query(query): Query<Vec<(String, String)>>| {
        let field = |name: &str| {
            let found = query.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let back = field("back");
        match &*field("by") {
            "link" => Html(page("", &format!("<a id=go href={back:?}>go on</a>"))).into_response(),
            _ => Redirect::to(&back).into_response(),
        }
    });
    elsewhere(Router::new().route("/authorize", authorize)).await
}

/// Publishes its keys: where they are.
pub(crate) async fn keys(provider: &Provider) -> String {
    let keys = provider.keys();
    let origin = elsewhere(Router::new().route("/keys", get(async || Json(keys)))).await;
    format!("{origin}/keys")
}

/// The application's side of it: who has signed is checked by these.
pub(crate) fn back_channel(sessions: &Sessions, keys: String) -> BackChannelLogout {
    sessions.back_channel_logout(ISSUER, CLIENT_ID, async move |token: String| {
        let keys = body(Request::get(keys).body(Body::empty())?).await?;
        verify(&serde_json::from_slice(&keys)?, &token)
    })
}

impl App {
    /// The provider signs this user out: it posts a logout token to this application.
    pub(crate) async fn signed_out_by_the_provider(&self, user: &str) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let id = format!("logout-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut claims = logout(ISSUER, CLIENT_ID, &id);
        claims["sub"] = user.into();
        let request = Request::post(self.url(BACK_CHANNEL))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(format!("logout_token={}", self.signer.sign(&claims))));
        body(request.unwrap()).await.unwrap();
    }
}

/// The body of a good answer.
async fn body(request: Request) -> Result<Bytes, BoxError> {
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
    match status {
        StatusCode::OK => Ok(body),
        _ => Err(format!("{status}: {body:?}").into()),
    }
}
