//! Logout tokens that a provider has really signed, and others: what the handler answers to each, with the
//! example's check of the signature.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use http::{Request, StatusCode, header};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_refresh::session::{BackChannelLogout, Sessions};

use testing::{
    Provider, logout,
    sessions::{Browser, ISSUER, Replica, World, full, signed_in},
};

/// As it is copied.
#[path = "../../../../examples/bff/logout.rs"]
mod example;

const CLIENT_ID: &str = "app";

/// Good, but for what a test changes.
fn claims(id: &str) -> Value {
    let mut claims = logout(ISSUER, CLIENT_ID, id);
    claims["sub"] = "alice".into();
    claims
}

/// An application of this provider, and the browser that is signed in.
struct Scene {
    provider: Provider,
    replica: Replica,
    logout: BackChannelLogout,
    browser: Browser,
}

impl Scene {
    async fn new() -> Self {
        let (provider, replica) = (Provider::new(), World::new().replica());
        let logout = service(&replica.sessions, &provider);
        let browser = signed_in(&replica, "alice").await;
        Self { provider, replica, logout, browser }
    }

    /// What the provider is told, and who is signed in afterwards.
    async fn post(&self, token: &str) -> (StatusCode, Value, String) {
        let request = Request::post("/").body(full(format!("logout_token={token}"))).unwrap();
        let response = self.logout.clone().oneshot(request).await.unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let text = response.body();
        let told = if text.is_empty() { Value::Null } else { serde_json::from_str(text).unwrap() };
        let user = self.browser.get(&self.replica, "/").await.text;
        (response.status(), told, user)
    }

    /// It ends nothing, and the provider is told why.
    async fn refuses(&self, token: &str, why: &str) {
        let (status, told, user) = self.post(token).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{why}");
        assert_eq!(told["error"], "invalid_request", "{why}");
        let said = told["error_description"].as_str().unwrap();
        assert!(said.contains(why), "{said:?}, and not {why:?}");
        assert_eq!(user, "alice", "{why}");
    }

    async fn takes(&self, token: &str) {
        let answer = self.post(token).await;
        assert_eq!(answer, (StatusCode::OK, Value::Null, "anonymous".to_owned()));
    }
}

fn service(sessions: &Sessions, provider: &Provider) -> BackChannelLogout {
    let keys = serde_json::from_value(provider.keys()).unwrap();
    sessions.back_channel_logout(ISSUER, CLIENT_ID, async move |token: String| {
        example::verify(&keys, &token)
    })
}

/// Otherwise the tests below prove nothing.
#[tokio::test]
async fn a_token_that_the_provider_has_signed_ends_the_session_once() {
    let mut scene = Scene::new().await;
    let token = scene.provider.sign(&claims("j1"));
    scene.takes(&token).await;
    scene.browser = signed_in(&scene.replica, "alice").await;
    scene.refuses(&token, "used before").await;
    // It is the id that counts, and not the letters.
    let mut same = claims("j1");
    same["iat"] = json!(same["iat"].as_u64().unwrap() - 1);
    scene.refuses(&scene.provider.sign(&same), "used before").await;
    scene.takes(&scene.provider.sign(&claims("j2"))).await;
}

#[tokio::test]
async fn a_token_that_the_provider_has_not_signed_ends_nothing() {
    let scene = Scene::new().await;
    let (provider, claims) = (&scene.provider, claims("j1"));
    let token = provider.sign(&claims);
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("{token}") };
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let other_body = part(json!({ "sub": "bob", "iss": ISSUER }));
    let key = &provider.keys()["keys"][0];
    let coordinate = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap());
    let point = [vec![4], coordinate("x").unwrap(), coordinate("y").unwrap()].concat();
    let as_secret = |secret: &[u8]| {
        provider.sign_as(Algorithm::HS256, &EncodingKey::from_secret(secret), &claims)
    };
    for (what, forged) in [
        ("another key, of the same name", Provider::new().sign(&claims)),
        (
            "a name that no key has",
            format!("{}.{body}.{signature}", part(json!({ "alg": "ES256", "kid": "2" }))),
        ),
        ("no name", format!("{}.{body}.{signature}", part(json!({ "alg": "ES256" })))),
        ("no algorithm", format!("{}.{body}.", part(json!({ "alg": "none", "kid": "1" })))),
        (
            "no algorithm, in other letters",
            format!("{}.{body}.", part(json!({ "alg": "nOnE", "kid": "1" }))),
        ),
        (
            "no algorithm, with a signature",
            format!("{}.{body}.{signature}", part(json!({ "alg": "none", "kid": "1" }))),
        ),
        ("the public key as a secret", as_secret(&point)),
        ("its text as a secret", as_secret(key.to_string().as_bytes())),
        ("nothing as a secret", as_secret(b"")),
        ("no signature", format!("{head}.{body}.")),
        ("another body", format!("{head}.{other_body}.{signature}")),
        ("claims alone", claims.to_string()),
        ("two parts", format!("{head}.{body}")),
    ] {
        assert_ne!(forged, token, "{what}");
        scene.refuses(&forged, "signature").await;
    }
    scene.takes(&token).await;
}

#[tokio::test]
async fn a_signed_token_that_is_no_logout_for_this_application_now_ends_nothing() {
    let scene = Scene::new().await;
    let now = claims("j1")["iat"].as_u64().unwrap();
    for (name, value, why) in [
        ("iss", json!("https://other.test"), "another issuer"),
        ("aud", json!("another-app"), "another audience"),
        ("aud", json!(["another-app", "app2"]), "another audience"),
        ("aud", Value::Null, "a claim is missing"),
        ("iat", json!(now + 3600), "of the future"),
        ("exp", json!(now - 3600), "run out"),
        ("nonce", json!("n"), "a nonce"),
        ("events", Value::Null, "a claim is missing"),
        ("events", json!({}), "no logout event"),
        (
            "events",
            json!({ "http://schemas.openid.net/event/backchannel-logout": 1 }),
            "no logout event",
        ),
        ("jti", Value::Null, "a claim is missing"),
        ("sub", Value::Null, "whose session"),
    ] {
        let mut claims = claims("j1");
        claims[name] = value;
        // None at all, and not one that is `null`.
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        scene.refuses(&scene.provider.sign(&claims), why).await;
    }
    let mut old = claims("j1");
    old["iat"] = json!(now - 3600);
    old.as_object_mut().unwrap().remove("exp");
    scene.refuses(&scene.provider.sign(&old), "run out").await;
    // None of them has used it up.
    scene.takes(&scene.provider.sign(&claims("j1"))).await;
}
