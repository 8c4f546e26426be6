//! What is sent, and what becomes of the response.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::service_fn;
use tower_refresh::{
    BoxError, FailureKind, RefreshState, Refresher, Tokens,
    oauth2::{Client, ClientBuilder},
    store::{MemoryStore, TokenStore},
};

use super::endpoint::{Endpoint, Seen, json, rotated, state_of, tokens};

const BARE: &str = r#"{"access_token":"access-2","token_type":"Bearer"}"#;

/// The request that a refresh with this client makes.
async fn sent(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Seen {
    let endpoint = Endpoint::start([json(200, BARE)]).await;
    let client = configure(endpoint.client()).build().unwrap();
    let state = state_of(&client);
    state.refresh().await.unwrap();
    endpoint.seen().remove(0)
}

#[tokio::test]
async fn a_public_client_names_itself() {
    let seen = sent(|client| client).await;
    assert_eq!(seen.head[0], "POST /token HTTP/1.1");
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    assert_eq!(seen.header("authorization"), None);
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "refresh-1"),
        ("client_id", "my client"),
    ];
    assert_eq!(seen.form, fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn client_secret_post_is_in_the_body() {
    let seen = sent(|client| client.client_secret_post("hu&sh")).await;
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.field("client_id"), Some("my client"));
    assert_eq!(seen.field("client_secret"), Some("hu&sh"));
}

#[tokio::test]
async fn client_secret_basic_is_in_the_header_and_encoded() {
    let seen = sent(|client| client.client_secret_basic("hu:sh")).await;
    // `my+client:hu%3Ash`, as RFC 6749 has it in section 2.3.1.
    assert_eq!(seen.header("authorization"), Some("Basic bXkrY2xpZW50Omh1JTNBc2g="));
    assert_eq!(seen.field("client_id"), None);
    assert_eq!(seen.field("client_secret"), None);
}

/// For servers that do not decode what RFC 6749, section 2.3.1 has encoded.
#[tokio::test]
async fn client_secret_basic_can_be_sent_unencoded() {
    let seen = sent(|client| client.client_secret_basic_unencoded("hu:sh ü+").unwrap()).await;
    // `my client:hu:sh ü+`, as RFC 7617 has it.
    assert_eq!(seen.header("authorization"), Some("Basic bXkgY2xpZW50Omh1OnNoIMO8Kw=="));
    assert_eq!(seen.field("client_id"), None);
    // What was set last counts.
    let seen = sent(|client| {
        client.client_secret_basic_unencoded("hu:sh").unwrap().client_secret_basic("hu:sh")
    })
    .await;
    assert_eq!(seen.header("authorization"), Some("Basic bXkrY2xpZW50Omh1JTNBc2g="));
    let seen = sent(|client| {
        client.client_secret_basic_unencoded("hu:sh").unwrap().client_secret_post("hu:sh")
    })
    .await;
    assert_eq!(seen.header("authorization"), None);
}

/// Once, whatever the way to authenticate, and for every kind of request.
#[tokio::test]
async fn the_clients_id_can_be_in_the_body_beside_the_header() {
    let ways: [fn(ClientBuilder) -> ClientBuilder; 4] = [
        |client| client.client_secret_basic("hush").client_id_in_body(),
        |client| client.client_id_in_body().client_secret_basic_unencoded("hush").unwrap(),
        |client| client.client_secret_post("hush").client_id_in_body(),
        |client| client.client_id_in_body(),
    ];
    for authenticate in ways {
        let endpoint = Endpoint::start([json(200, BARE), json(200, BARE), json(200, "{}")]).await;
        let client = authenticate(endpoint.client()).build().unwrap();
        client.refresh_token_grant().refresh(tokens(1).into()).await.unwrap();
        client.client_credentials_grant().refresh(tokens(1).into()).await.unwrap();
        client.revoker(&endpoint.uri("/revoke")).unwrap().revoke(&tokens(1)).await.unwrap();
        for seen in endpoint.seen() {
            assert_eq!(seen.all("client_id"), ["my client"]);
        }
    }
}

/// The request goes to the proxy whole, as the client that is used sends it.
#[tokio::test]
async fn a_client_of_the_users_may_go_through_a_proxy() {
    let proxy = Endpoint::start([json(200, BARE)]).await;
    let http = reqwest::Client::builder().proxy(reqwest::Proxy::http(proxy.uri("")).unwrap());
    let http = http.build().unwrap();
    let service = service_fn(move |request: Request<reqwest::Body>| {
        let http = http.clone();
        async move { http.execute(request.try_into()?).await.map(Response::from) }
    });
    let client = Client::builder_allowing_http("http://auth.invalid/token", "id").unwrap();
    let state = state_of(&client.over(service));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    assert_eq!(proxy.seen()[0].head[0], "POST http://auth.invalid/token HTTP/1.1");
}

/// Those of the machine itself, and any other if the user says so.
#[tokio::test]
async fn http_endpoints_by_other_names_of_loopback() {
    let endpoint = Endpoint::start([rotated(2), rotated(3), rotated(4), json(200, "{}")]).await;
    let port = endpoint.uri("").rsplit_once(':').unwrap().1.to_owned();
    for host in ["localhost.", "auth.localhost", "[::ffff:127.0.0.1]"] {
        let uri = format!("http://{host}:{port}/token");
        let client = Client::builder(&uri, "id").unwrap().build().unwrap();
        state_of(&client).refresh().await.unwrap_or_else(|failure| panic!("{host}: {failure}"));
    }
    let client = Client::builder_allowing_http("http://auth/token", "id").unwrap();
    let revoker = client.build().unwrap().revoker(&endpoint.uri("/revoke")).unwrap();
    revoker.revoke(&tokens(1)).await.unwrap();
}

#[tokio::test]
async fn scope_resource_audience_and_other_parameters() {
    let seen = sent(|client| {
        client
            .scope("read write")
            .resource("https://one.example.com/")
            .unwrap()
            .resource("urn:two")
            .unwrap()
            .audience("someone")
            .param("tenant", "t&1")
            .unwrap()
    })
    .await;
    assert_eq!(seen.field("scope"), Some("read write"));
    assert_eq!(seen.all("resource"), ["https://one.example.com/", "urn:two"]);
    assert_eq!(seen.field("audience"), Some("someone"));
    assert_eq!(seen.field("tenant"), Some("t&1"));
}

#[test]
fn what_cannot_be_used_is_refused() {
    let client = || Client::builder("https://auth.example.com/token", "id").unwrap();
    assert!(Client::builder("http://auth.example.com/token", "id").is_err());
    for resource in ["", "/relative", "https://one.example.com/#part"] {
        assert!(client().resource(resource).is_err(), "{resource}");
    }
    for name in [
        "grant_type",
        "refresh_token",
        "client_id",
        "client_secret",
        "scope",
        "token",
        "token_type_hint",
    ] {
        assert!(client().param(name, "x").is_err(), "{name}");
    }
    let over = client().over(service_fn(answer_nothing));
    assert!(over.revoker("http://auth.example.com/revoke").is_err());
    let allowing = Client::builder_allowing_http("http://auth/token", "a:b").unwrap();
    let allowing = allowing.over(service_fn(answer_nothing));
    assert!(allowing.revoker("http://auth.example.com/revoke").is_ok());
    assert!(Client::builder_allowing_http("ftp://auth/token", "id").is_err());
    let colon = Client::builder("https://auth.example.com/token", "a:b").unwrap();
    assert!(colon.client_secret_basic_unencoded("hush").is_err());
}

async fn answer_nothing(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    Ok(Response::default())
}

#[tokio::test]
async fn a_response_without_a_refresh_token_keeps_the_old_one() {
    let endpoint = Endpoint::start([json(200, BARE), rotated(3), rotated(4)]).await;
    let client = endpoint.client().build().unwrap();
    let store = Arc::new(MemoryStore::with_tokens(tokens(1)));
    let state =
        RefreshState::builder(client.refresh_token_grant()).store(Arc::clone(&store)).build();
    state.token().await.unwrap();
    for stored in ["refresh-1", "refresh-3", "refresh-4"] {
        state.refresh().await.unwrap();
        let record = store.load().await.unwrap();
        assert_eq!(record.tokens.unwrap().refresh_token(), Some(stored));
    }
    // A refresh token that was rotated away is not sent again.
    let brought: Vec<_> = endpoint
        .seen()
        .iter()
        .map(|seen| seen.field("refresh_token").unwrap().to_owned())
        .collect();
    assert_eq!(brought, ["refresh-1", "refresh-1", "refresh-3"]);
}

#[tokio::test]
async fn an_empty_refresh_token_is_none() {
    let body = r#"{"access_token":"access-2","refresh_token":"","token_type":"Bearer"}"#;
    let endpoint = Endpoint::start([json(200, body), rotated(3)]).await;
    let client = endpoint.client().build().unwrap();
    let state = state_of(&client);
    state.refresh().await.unwrap();
    state.refresh().await.unwrap();
    assert_eq!(endpoint.seen()[1].field("refresh_token"), Some("refresh-1"));
}

#[tokio::test]
async fn an_end_is_believed_and_never_guessed() {
    let endpoint = Endpoint::start([rotated(2), json(200, BARE)]).await;
    let client = endpoint.client().build().unwrap();
    let state = state_of(&client);
    let before = SystemTime::now();
    let end = state.refresh().await.unwrap().expires_at().unwrap();
    assert!(end > before + Duration::from_secs(3590));
    assert!(end < before + Duration::from_secs(3700));
    assert_eq!(state.refresh().await.unwrap().expires_at(), None);
}

#[tokio::test]
async fn other_fields_and_a_narrower_scope_are_readable() {
    let first =
        r#"{"access_token":"a","token_type":"Bearer","scope":"read","id_token":"id","n":7}"#;
    let endpoint = Endpoint::start([json(200, first), json(200, BARE)]).await;
    let client = endpoint.client().scope("read write").build().unwrap();
    let state = state_of(&client);
    let credential = state.refresh().await.unwrap();
    assert_eq!(credential.extra("scope"), Some("read"));
    assert_eq!(credential.extra("id_token"), Some("id"));
    assert_eq!(credential.extra("n"), Some("7"));
    assert_eq!(credential.extra("token_type"), Some("bearer"));
    // Without `scope`, it is what was asked for; other fields that do not come again are kept.
    let credential = state.refresh().await.unwrap();
    assert_eq!(credential.extra("scope"), Some("read write"));
    assert_eq!(credential.extra("id_token"), Some("id"));
}

#[tokio::test]
async fn a_scope_that_was_not_asked_for_is_what_was_granted_before() {
    let first = r#"{"access_token":"a","token_type":"Bearer","scope":"read"}"#;
    let endpoint = Endpoint::start([json(200, first), json(200, BARE)]).await;
    let client = endpoint.client().build().unwrap();
    let state = state_of(&client);
    state.refresh().await.unwrap();
    assert_eq!(state.refresh().await.unwrap().extra("scope"), Some("read"));
}

#[tokio::test]
async fn client_credentials_are_fetched_on_first_use() {
    let endpoint = Endpoint::start([json(200, BARE)]).await;
    let client = endpoint.client().client_secret_post("hush").scope("read").build().unwrap();
    let state = RefreshState::builder(client.client_credentials_grant()).build();
    assert_eq!(endpoint.seen().len(), 0);
    let credential = state.token().await.unwrap();
    assert_eq!(credential.access_token(), Some("access-2"));
    assert_eq!(credential.extra("scope"), Some("read"));
    let seen = endpoint.seen().remove(0);
    assert_eq!(seen.field("grant_type"), Some("client_credentials"));
    assert_eq!(seen.field("refresh_token"), None);
    assert_eq!(seen.field("client_secret"), Some("hush"));
}

#[tokio::test]
async fn without_a_refresh_token_nothing_is_sent() {
    let endpoint = Endpoint::start([]).await;
    let client = endpoint.client().build().unwrap();
    let state =
        RefreshState::builder(client.refresh_token_grant()).tokens(Tokens::new("access-1")).build();
    assert_eq!(state.refresh().await.unwrap_err().kind(), FailureKind::Rejected);
    assert_eq!(endpoint.seen().len(), 0);
}

#[tokio::test]
async fn a_service_of_the_users_is_used() {
    type Asked = Arc<Mutex<Vec<(Request<()>, Bytes)>>>;
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Full<Bytes>>| {
        let seen = Arc::clone(&seen);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            seen.lock().unwrap().push((Request::from_parts(parts, ()), body));
            Ok::<_, BoxError>(Response::new(Full::new(Bytes::from_static(BARE.as_bytes()))))
        }
    });
    let client = Client::builder("https://auth.example.com:8443/token?tenant=1", "id")
        .unwrap()
        .client_secret_basic("hush")
        .over(service);
    let state = state_of(&client);
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-2"));
    let (request, body) = asked.lock().unwrap().remove(0);
    assert_eq!(request.uri(), "https://auth.example.com:8443/token?tenant=1");
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(body, "grant_type=refresh_token&refresh_token=refresh-1");
}

/// Two APIs behind one sign-in: each would send the other's token, and get a final 401.
#[tokio::test]
async fn states_that_ask_for_other_targets_do_not_use_each_others_tokens() {
    let endpoint = Endpoint::start([json(200, BARE)]).await;
    let store = Arc::new(MemoryStore::new());
    let asks_for = |resource: Option<&str>| {
        let client = match resource {
            Some(resource) => endpoint.client().resource(resource).unwrap(),
            None => endpoint.client(),
        };
        let grant = client.build().unwrap().refresh_token_grant();
        RefreshState::builder(grant).store(Arc::clone(&store)).build()
    };
    let one = asks_for(Some("https://one.example.com/"));
    // What a program signs in with is for what it asks for, too.
    one.set(tokens(1)).await.unwrap();
    for resource in [Some("https://two.example.com/"), None] {
        let other = asks_for(resource);
        let failure = other.token().await.unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Store);
        let words = std::error::Error::source(&failure).unwrap().to_string();
        assert!(words.contains("another resource or audience"), "{words}");
        assert!(words.contains("name of its own"), "{words}");
        assert_eq!(other.current().access_token(), None);
    }
    // After a refresh as well, and for who asks for the same.
    one.refresh().await.unwrap();
    let same = asks_for(Some("https://one.example.com/"));
    assert_eq!(same.token().await.unwrap().access_token(), Some("access-2"));
    asks_for(None).token().await.unwrap_err();
    assert_eq!(endpoint.seen().len(), 1);
}
