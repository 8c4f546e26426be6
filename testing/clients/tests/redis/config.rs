//! Settings that cannot be used: a `ConfigError` that says what they have to be.

use std::{error::Error, time::Duration};

use tower_refresh::{
    ConfigError,
    store::{Keyring, RedisStores, RedisStoresBuilder},
};

use super::{KEY, millis};

fn at(url: &str) -> RedisStoresBuilder {
    RedisStores::builder(url, Keyring::new(KEY))
}

#[track_caller]
fn refused(builder: RedisStoresBuilder, words: &[&str]) -> ConfigError {
    let error = builder.build().unwrap_err();
    let said = error.to_string();
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    error
}

#[test]
fn an_error_names_the_setting_and_its_bounds() {
    let good = || at("redis://127.0.0.1/");
    assert!(good().build().is_ok());
    refused(good().prefix("a{b"), &["prefix", "brace"]);
    refused(good().prefix("}"), &["prefix", "brace"]);
    refused(good().lease(millis(99)), &["lease", "100 ms"]);
    let short = Duration::from_micros(999);
    for builder in [
        good().ttl(short),
        good().tombstone_ttl(short),
        good().poll(short),
        good().timeout(Duration::ZERO),
    ] {
        refused(builder, &["time", "1 ms"]);
    }
}

/// What the client's own error says is its source, where that quotes nothing of the URL.
#[test]
fn an_error_about_a_url_shows_how_one_looks_and_not_this_one() {
    for (url, source) in [
        ("SECRET", "did not parse"),
        ("http://:SECRET@127.0.0.1/", "did not parse"),
        ("redis://:SECRET@/", "did not parse"),
        ("redis://:SECRET@0.0.0.0/", "wildcard"),
        ("redis://:SECRET@127.0.0.1/not-a-number", "database"),
    ] {
        let error = refused(at(url), &["URL", "redis://", "rediss://"]);
        let reason = error.source().unwrap();
        assert!(reason.to_string().contains(source), "{url}: {reason}");
        assert!(!format!("{error} {error:?} {reason} {reason:?}").contains("SECRET"));
    }
}

#[test]
fn certificates_must_be_pem() {
    let pem = "-----BEGIN CERTIFICATE-----\nSECRET?\n-----END CERTIFICATE-----\n";
    let error = refused(at("rediss://localhost/").root_certificates(pem), &["certificates", "PEM"]);
    let reason = error.source().unwrap();
    assert!(!format!("{error} {error:?} {reason} {reason:?}").contains("SECRET"));
}

#[test]
fn the_nodes_of_a_cluster_go_together() {
    let cluster = |urls: &[&str]| RedisStores::cluster(urls.to_vec(), Keyring::new(KEY));
    assert!(cluster(&["redis://:SECRET@a/", "redis://:SECRET@b/"]).build().is_ok());
    refused(cluster(&[]), &["cluster", "no URL"]);
    let error = refused(cluster(&["redis://:SECRET1@a/", "redis://:SECRET2@b/"]), &["cluster"]);
    let reason = error.source().unwrap();
    assert!(reason.to_string().contains("password"), "{reason}");
    assert!(!format!("{error} {error:?} {reason} {reason:?}").contains("SECRET"));
}
