//! A web application whose users are axum-login's, with a credential for each of them at another API: a user's browser
//! sends twenty requests at the same time when the token has just expired. One refresh, and each is answered.

use std::{
    collections::HashMap,
    convert::Infallible,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::StatusCode,
    routing::{get, post},
};
use axum_login::{AuthManagerLayerBuilder, AuthUser, AuthnBackend, login_required};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use scenery::{AnyError, Loopback};
use tokio::net::TcpListener;
use tower_refresh::{
    FromExtensions, RefreshLayer, RefreshMiddleware, RefreshState, Renewal, Tokens,
};
use tower_sessions::{MemoryStore, SessionManagerLayer};

// ---- What a user writes: users that have a credential, one however many sessions they have.
#[derive(Clone, Debug)]
struct User {
    id: u64,
    credential: Arc<RefreshState>,
}

impl AuthUser for User {
    type Id = u64;

    fn id(&self) -> u64 {
        self.id
    }

    fn session_auth_hash(&self) -> &[u8] {
        b"what changes when the user's sessions have to end"
    }
}

#[derive(Clone)]
struct Users {
    renewal: Renewal,
    all: Arc<Mutex<HashMap<u64, User>>>,
}

impl AuthnBackend for Users {
    type User = User;
    type Credentials = (u64, Tokens);
    type Error = Infallible;

    async fn authenticate(&self, (id, tokens): (u64, Tokens)) -> Result<Option<User>, Infallible> {
        let known = self.get_user(&id).await?;
        let user = known.unwrap_or_else(|| User { id, credential: self.renewal.in_memory(None) });
        // The newest sign-in wins over a refresh that is under way.
        if user.credential.set(tokens).await.is_err() {
            return Ok(None);
        }
        self.all.lock().unwrap_or_else(PoisonError::into_inner).insert(id, user.clone());
        Ok(Some(user))
    }

    async fn get_user(&self, id: &u64) -> Result<Option<User>, Infallible> {
        Ok(self.all.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned())
    }
}

fn client() -> ClientWithMiddleware {
    let refresh = RefreshMiddleware::new(RefreshLayer::per_request(FromExtensions));
    ClientBuilder::new(reqwest::Client::new()).with(refresh.error_on_refusal()).build()
}
// ---- That is all.

type AuthSession = axum_login::AuthSession<Users>;

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let users = Users { renewal: scenery::renewal(&servers)?, all: Arc::default() };
    let address = serve(servers.clone(), users).await?;

    scenery::as_a_browser(&servers, &address).await
}

async fn serve(servers: Loopback, users: Users) -> Result<String, AnyError> {
    let (api, client) = (servers.api(), client());
    let orders = async move |session: AuthSession| {
        let Some(user) = session.user else {
            return Err((StatusCode::UNAUTHORIZED, String::new()));
        };
        let sent = client.get(api).with_extension(user.credential).send().await;
        sent.map(|answer| (StatusCode::OK, answer.status().to_string()))
            .map_err(|error| (StatusCode::UNAUTHORIZED, scenery::in_one_line(&error)))
    };
    let callback = async move |mut session: AuthSession| {
        let user = session.authenticate((7, servers.sign_in())).await;
        let Ok(Some(user)) = user else { return StatusCode::SERVICE_UNAVAILABLE };
        session.login(&user).await.map_or(StatusCode::SERVICE_UNAVAILABLE, |()| StatusCode::OK)
    };
    let sessions = SessionManagerLayer::new(MemoryStore::default());
    let app = Router::new()
        .route("/orders", get(orders))
        .route_layer(login_required!(Users))
        .route("/sign_in", post(callback))
        .layer(AuthManagerLayerBuilder::new(users, sessions).build());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
