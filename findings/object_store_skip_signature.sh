#!/bin/sh
# object_store: a store at Google that is told to sign nothing asks for a token all the same when it puts.
#
# `with_skip_signature(true)` is for buckets that are public, or whose requests are signed by what lies below
# the store (an `HttpConnector`). No credential is looked for then, and none goes on a request. What a store
# without credentials in its surroundings does, whose HTTP client notes what it is sent:
#
#   get                      the object is asked for, without `Authorization`
#   put, MicrosoftAzure      the object is sent, without `Authorization`
#   put, GoogleCloudStorage  http://metadata.google.internal/... is asked for a token, and nothing is sent
#
# So a layer in that client which puts a token on each request sends it to the metadata service as well, unless it
# is told of the origins that may have it (`RefreshLayer::allow_origin`); and the put fails, or hangs outside of
# Google's machines.
#
# Expected, and not seen: the last line like the one before.
#
# Pinned: object_store =0.14.2.
#
# Needs cargo. Runs without tower-refresh, in a folder of its own, without a network. Fails if the behaviour is
# another one by now.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
async-trait = "0.1"
http = "1"
object_store = { version = "=0.14.2", default-features = false, features = ["azure", "gcp"] }
tokio = { version = "1", features = ["macros", "rt"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use std::io;

use object_store::{
    azure::MicrosoftAzureBuilder,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    gcp::GoogleCloudStorageBuilder,
    ClientOptions, ObjectStore, ObjectStoreExt, Result,
};

#[derive(Clone, Copy, Debug)]
struct Notes;

impl HttpConnector for Notes {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Notes))
    }
}

#[async_trait::async_trait]
impl HttpService for Notes {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let signed = request.headers().contains_key("authorization");
        print!("{} {}, signed: {signed}; ", request.method(), request.uri().host().unwrap_or_default());
        Err(HttpError::new(HttpErrorKind::Unknown, io::Error::other("there is no network here")))
    }
}

async fn look(name: &str, store: impl ObjectStore) {
    for put in [false, true] {
        print!("{name} {}: ", if put { "put" } else { "get" });
        let _ = match put {
            true => store.put(&"object".into(), "".into()).await.map(drop),
            false => store.get(&"object".into()).await.map(drop),
        };
        println!();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let azure = MicrosoftAzureBuilder::new()
        .with_account("account")
        .with_container_name("container")
        .with_http_connector(Notes)
        .with_skip_signature(true);
    look("azure", azure.build().unwrap()).await;
    let google = GoogleCloudStorageBuilder::new()
        .with_bucket_name("bucket")
        .with_http_connector(Notes)
        .with_skip_signature(true);
    look("google", google.build().unwrap()).await;
}
RUST
said=$(env -u GOOGLE_APPLICATION_CREDENTIALS HOME="$folder" CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" \
    RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" CARGO_TARGET_DIR="$folder/target" \
    cargo run --quiet --manifest-path "$folder/Cargo.toml")
said=$(echo "$said" | sed 's/; $//')
echo "$said"
was='azure get: GET account.blob.core.windows.net, signed: false
azure put: PUT account.blob.core.windows.net, signed: false
google get: GET storage.googleapis.com, signed: false
google put: GET metadata.google.internal, signed: false; GET 169.254.169.254, signed: false'
[ "$said" = "$was" ] || { echo "it was: $was"; exit 1; }
