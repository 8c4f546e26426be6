//! A replica of the application, until its parent is gone or says so.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{net::TcpListener, time::timeout};
use tower::ServiceBuilder;
use tower_refresh::{
    BoxError, FromExtensions, RefreshLayer, Renewal, Tokens, oauth2,
    session::{Identity, ProxyLayer, Session, SessionCookie, SessionSlot, Sessions},
};

use super::{TRANSIT, keys, open};
use crate::children;

#[derive(Clone)]
struct Provider {
    http: reqwest::Client,
    address: String,
}

impl Provider {
    /// The tokens of a new sign-in.
    async fn sign_in(&self, user: &str) -> Result<Tokens, BoxError> {
        let answer = self.http.post(format!("{}/login/{user}", self.address)).send().await?;
        let pair: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let text = |name: &str| pair[name].as_str().unwrap_or_default().to_owned();
        Ok(Tokens::new(text("access_token")).with_refresh_token(text("refresh_token")))
    }
}

pub(crate) async fn run(arguments: &[String]) -> Result<bool, BoxError> {
    let [id, address, mode, place] = arguments else {
        return Err("a replica takes four arguments".into());
    };
    let client = oauth2::Client::builder(&format!("{address}/token"), "torture")?
        .param("worker", id)?
        .timeout(Duration::from_secs(5))
        .build()?;
    let revoker = client.revoker(&format!("{address}/revoke"))?;
    let renewal = Renewal::builder(client.refresh_token_grant())
        .on_sign_out(revoker.hook())
        .on_discard(revoker.hook())
        .cool_down(Duration::from_millis(20), Duration::from_millis(200))
        // Tokens this short-lived are refused brand-new on a slow machine.
        .brake(usize::MAX, Duration::from_secs(1), Duration::ZERO)
        .deadline(Duration::from_secs(5));
    let stores = open(place)?;
    let sessions = match &**mode {
        "sealed" => Sessions::sealed(renewal, keys()).transit(TRANSIT).remember(stores),
        _ => Sessions::builder(renewal, stores),
    };
    let sessions = sessions.cookie(SessionCookie::insecure_for_development("sid")?).build()?;
    let proxy = ServiceBuilder::new()
        .layer(ProxyLayer::to(address)?)
        .layer(RefreshLayer::per_request(FromExtensions).allow_origin(address)?.map_body(Body::new))
        .service(Client::builder(TokioExecutor::new()).build_http::<Body>());
    let app = Router::new()
        .route_service("/api", proxy)
        .route("/me", get(async |session: Session| session.identity().subject().to_owned()))
        .route("/sign_out", post(sign_out))
        .route_layer(sessions.layer().required())
        .route("/sign_in", post(sign_in))
        .with_state(Provider { http: reqwest::Client::new(), address: address.clone() })
        .layer(sessions.layer());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    children::parent_is_gone().await;
    timeout(Duration::from_secs(10), sessions.drain()).await?;
    Ok(true)
}

async fn sign_in(
    State(provider): State<Provider>,
    Query(query): Query<std::collections::HashMap<String, String>>,
    slot: SessionSlot,
) -> Response {
    let user = query.get("user").map(String::as_str).unwrap_or_default();
    let Ok(tokens) = provider.sign_in(user).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    // Which of the server's families it is, for the books.
    let family = tokens.access_token().split('.').nth(1).unwrap_or_default().to_owned();
    match slot.sign_in(tokens, Identity::new("torture", user)).await {
        Ok(_) => family.into_response(),
        Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn sign_out(session: Session) -> StatusCode {
    match session.sign_out().await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
