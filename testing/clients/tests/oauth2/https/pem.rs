//! Certificates and keys that cannot be used: a `ConfigError` says which and why, and shows
//! nothing of a key.

use std::error::Error;

use tower_refresh::{
    ConfigError,
    oauth2::{Client, ClientBuilder},
};

use super::identity;

fn refused(builder: ClientBuilder) -> ConfigError {
    builder.build().expect_err("it cannot be used")
}

fn builder() -> ClientBuilder {
    Client::builder("https://auth.example.com/token", "id").unwrap()
}

/// Everything that can be printed of an error and its causes.
fn printed(error: &ConfigError) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        text += &format!("{error} {error:?} {error:#?}\n");
        next = error.source();
    }
    text
}

/// A section of this kind that holds four bytes of nothing.
fn section(kind: &str) -> String {
    format!("-----BEGIN {kind}-----\nAAAAAA==\n-----END {kind}-----\n")
}

#[test]
fn root_certificates_that_cannot_be_used_are_named() {
    let identity = identity();
    let (pem, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
    let none = "there is no certificate in the root certificates";
    let not_pem = "the root certificates are not PEM";
    let cases = [
        ("nothing", Vec::new(), none),
        ("white space", b" \n".to_vec(), none),
        ("a key", key.clone().into_bytes(), none),
        ("DER", identity.cert.der().to_vec(), not_pem),
        ("a path", b"/etc/ssl/roots.pem".to_vec(), not_pem),
        ("cut off", pem.as_bytes()[..pem.len() / 2].to_vec(), not_pem),
        ("one line", pem.replace('\n', "").into_bytes(), not_pem),
        ("a key in one line", key.replace('\n', "").into_bytes(), not_pem),
        ("not base64", pem.replace("MII", "M?I").into_bytes(), not_pem),
        (
            "not X.509",
            section("CERTIFICATE").into_bytes(),
            "a root certificate is not an X.509 certificate",
        ),
        (
            "a good one and one that is not",
            (pem + &section("CERTIFICATE")).into_bytes(),
            "a root certificate is not an X.509 certificate",
        ),
    ];
    for (name, pem, message) in cases {
        let error = refused(builder().root_certificates(pem));
        assert_eq!(error.to_string(), message, "{name}");
        assert_shows_nothing_of(&key, &error);
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_named() {
    let (identity, other) = (identity(), identity());
    let (chain, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
    let one_line = |pem: &str| pem.replace('\n', "");
    let no_chain = "there is no certificate in the client certificate's chain";
    let no_key = "there is no private key in the client certificate's key: it has to be PKCS #8, PKCS #1 or SEC 1, and not encrypted";
    let chain_not_pem = "the client certificate's chain is not PEM";
    let key_not_pem = "the client certificate's key is not PEM";
    let unfit = "the client certificate's key does not fit its chain";
    let not_x509 = "the client certificate is not an X.509 certificate";
    let unusable = "the client certificate's key cannot be used: it is damaged, or of a kind that the crypto provider does not have";
    let cases = [
        ("no chain", String::new(), key.clone(), no_chain),
        ("the key twice", key.clone(), key.clone(), no_chain),
        ("a path as chain", "/etc/ssl/client.pem".to_owned(), key.clone(), chain_not_pem),
        ("a chain in one line", one_line(&chain), key.clone(), chain_not_pem),
        ("no key", chain.clone(), String::new(), no_key),
        ("the chain twice", chain.clone(), chain.clone(), no_key),
        ("an encrypted key", chain.clone(), section("ENCRYPTED PRIVATE KEY"), no_key),
        ("a path as key", chain.clone(), "/etc/ssl/key.pem".to_owned(), key_not_pem),
        ("a key in one line", chain.clone(), one_line(&key), key_not_pem),
        ("half a key", chain.clone(), key[..key.len() / 2].to_owned(), key_not_pem),
        ("not base64", chain.clone(), key.replace("\nM", "\n?"), key_not_pem),
        ("another's key", other.cert.pem(), key.clone(), unfit),
        ("no X.509", section("CERTIFICATE"), key.clone(), not_x509),
        ("no PKCS #8", chain.clone(), section("PRIVATE KEY"), unusable),
    ];
    for (name, chain, broken_key, message) in cases {
        let roots = identity.cert.pem();
        let builder = builder().root_certificates(roots).client_certificate(chain, broken_key);
        assert!(!format!("{builder:?}").contains("PRIVATE"), "{name}");
        let error = refused(builder);
        assert_eq!(error.to_string(), message, "{name}");
        assert_shows_nothing_of(&key, &error);
    }
}

#[track_caller]
fn assert_shows_nothing_of(key: &str, error: &ConfigError) {
    let printed = printed(error);
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        let secret = &line[..16];
        // Bytes are printed as a list of numbers.
        let bytes = format!("{:?}", secret.as_bytes());
        for shown in [secret, bytes.trim_matches(['[', ']'])] {
            assert!(!printed.contains(shown), "{printed}");
        }
    }
}

/// What was set is checked, also where it is not needed.
#[test]
fn certificates_for_a_plain_endpoint_are_read() {
    let loopback = || Client::builder("http://127.0.0.1:1/token", "id").unwrap();
    assert!(loopback().root_certificates(identity().cert.pem()).build().is_ok());
    refused(loopback().root_certificates("none"));
    refused(loopback().client_certificate("none", "none"));
}
