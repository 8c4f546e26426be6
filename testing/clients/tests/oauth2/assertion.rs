//! Clients that authenticate by a JWT (RFC 7523). What they sign is verified by ring, which has
//! the signatures as a JWS has them.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData};
use ring::{hmac, rsa, signature};
use serde_json::{Value, json};
use tower_refresh::{
    Refresher,
    oauth2::{ClientAssertion, ClientBuilder},
};

use super::endpoint::{Endpoint, Reply, Seen, cause, json, rotated, state_of, tokens};

/// For these tests only.
const RSA_KEY: &str = include_str!("rsa_key.pem");

/// A JWT's header, its claims, what is signed, and the signature.
fn parts(jwt: &str) -> (Value, Value, &str, Vec<u8>) {
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let read = |text: &str| serde_json::from_slice(&decode(text)).unwrap();
    (read(header), read(claims), signed, decode(signature))
}

async fn sent(configure: impl FnOnce(ClientBuilder) -> ClientBuilder) -> (Endpoint, Vec<Seen>) {
    let endpoint = Endpoint::start([rotated(2), rotated(3), json(200, "{}")]).await;
    let client = configure(endpoint.client()).build().unwrap();
    client.refresh_token_grant().refresh(tokens(1).into()).await.unwrap();
    client.client_credentials_grant().refresh(tokens(1).into()).await.unwrap();
    client.revoker(&endpoint.uri("/revoke")).unwrap().revoke(&tokens(1)).await.unwrap();
    let seen = endpoint.seen();
    (endpoint, seen)
}

#[tokio::test]
async fn each_request_has_an_assertion_of_its_own() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let assertion = ClientAssertion::client_secret_jwt("hush").key_id("k-1");
    // What was set before does not count.
    let configure = |client: ClientBuilder| {
        client.client_secret_basic("other").client_secret_post("other").client_assertion(assertion)
    };
    let (endpoint, seen) = sent(configure).await;
    let mut ids = Vec::new();
    for seen in &seen {
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(
            (seen.field("client_secret"), seen.field("client_id")),
            (None, Some("my client"))
        );
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        assert_eq!(seen.all("client_assertion_type"), [kind]);
        let (header, claims, signed, signature) = parts(seen.field("client_assertion").unwrap());
        assert_eq!(header, json!({ "alg": "HS256", "typ": "JWT", "kid": "k-1" }));
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"hush");
        hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
        let issued = claims["iat"].as_u64().unwrap();
        assert!(issued >= before);
        let id = claims["jti"].as_str().unwrap();
        ids.push(id.to_owned());
        let expected = json!({
            "iss": "my client",
            "sub": "my client",
            "aud": endpoint.uri("/token"),
            "jti": id,
            "iat": issued,
            "exp": issued + 60,
        });
        assert_eq!(claims, expected);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

/// An algorithm's name, a key and its public half, what verifies, and whether PSS is asked for.
type Case<'a> = (&'a str, (String, Vec<u8>), &'a dyn signature::VerificationAlgorithm, bool);

/// With each kind of key, and by the algorithm that goes with it.
#[tokio::test]
async fn a_private_key_signs() {
    let of = |algorithm| KeyPair::generate_for(algorithm).unwrap();
    let rsa_der = KeyPair::from_pem(RSA_KEY).unwrap().serialize_der();
    let rsa = rsa::KeyPair::from_pkcs8(&rsa_der).unwrap().public().as_ref().to_vec();
    let (p256, p384, ed25519) =
        (of(&PKCS_ECDSA_P256_SHA256), of(&PKCS_ECDSA_P384_SHA384), of(&PKCS_ED25519));
    let raw = |key: &KeyPair| (key.serialize_pem(), key.der_bytes().to_vec());
    let pem = || (RSA_KEY.to_owned(), rsa.clone());
    let cases: [Case<'_>; 5] = [
        ("ES256", raw(&p256), &signature::ECDSA_P256_SHA256_FIXED, false),
        ("ES384", raw(&p384), &signature::ECDSA_P384_SHA384_FIXED, false),
        ("EdDSA", raw(&ed25519), &signature::ED25519, false),
        ("RS256", pem(), &signature::RSA_PKCS1_2048_8192_SHA256, false),
        ("PS256", pem(), &signature::RSA_PSS_2048_8192_SHA256, true),
    ];
    for (name, (pem, public), algorithm, pss) in cases {
        let mut assertion =
            ClientAssertion::private_key_jwt(pem).unwrap().audience("https://issuer.example.com");
        if pss {
            assertion = assertion.rsa_pss().unwrap();
        }
        // Often enough to meet numbers with zeros at their beginning.
        for _ in 0..100 {
            let configured = assertion.clone();
            let (_, seen) = sent(|client| client.client_assertion(configured)).await;
            for seen in seen {
                let (header, claims, signed, signature) =
                    parts(seen.field("client_assertion").unwrap());
                assert_eq!(header, json!({ "alg": name, "typ": "JWT" }));
                assert_eq!(claims["aud"], "https://issuer.example.com");
                let key = signature::UnparsedPublicKey::new(algorithm, &public);
                key.verify(signed.as_bytes(), &signature).unwrap();
            }
            if name != "ES256" {
                break;
            }
        }
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused_and_not_shown() {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let broken = "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n";
    for pem in ["", "SECRET", broken, &certificate.cert.pem()] {
        let error = ClientAssertion::private_key_jwt(pem).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("PEM") && !shown.contains("SECRET"), "{shown}");
    }
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    assert!(ClientAssertion::private_key_jwt(p256).unwrap().rsa_pss().is_err());
    assert!(ClientAssertion::client_secret_jwt("SECRET").rsa_pss().is_err());
    let shown = format!("{:?}", ClientAssertion::client_secret_jwt("SECRET"));
    assert!(!shown.contains("SECRET"), "{shown}");
}

/// Some servers quote what they were sent.
#[tokio::test]
async fn an_assertion_is_not_echoed() {
    let endpoint = Endpoint::start([Reply::Echo("client_assertion")]).await;
    let client = endpoint
        .client()
        .client_assertion(ClientAssertion::client_secret_jwt("a secret"))
        .build()
        .unwrap();
    let failure = state_of(&client).refresh().await.unwrap_err();
    let sent = endpoint.seen()[0].field("client_assertion").unwrap().to_owned();
    assert!(sent.len() > 100);
    assert_eq!(cause(&failure).description(), Some("bad assertion: [redacted]"));
}
