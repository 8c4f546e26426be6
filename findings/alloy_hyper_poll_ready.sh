#!/bin/sh
# alloy: the transport over hyper calls the service below it without asking whether it is ready.
#
# `HyperClient::layer` and `with_service` put tower layers before the client of alloy's HTTP transport. tower's
# contract is that `poll_ready` comes before each `call`; a service may panic otherwise. What becomes of one
# request through
#
#   no layer              an error: the connection is refused, as it is
#   ConcurrencyLimit(1)   a panic: "max requests in-flight; poll_ready must be called first"
#
# So no limit can stand beside our layer there. The layer itself does not mind: hyper's client is always ready.
#
# Expected, and not seen: the same error in both lines.
#
# Pinned: alloy =2.5.0, tower =0.5.2.
#
# Needs cargo, and pkg-config and libssl-dev, which alloy's feature `hyper` takes. Runs without tower-refresh, in a
# folder of its own. Fails if the behaviour is another one by now.
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
alloy = { version = "=2.5.0", default-features = false, features = ["hyper", "rpc-client", "std"] }
tokio = { version = "1", features = ["macros", "rt"] }
tower = { version = "=0.5.2", features = ["limit"] }
TOML
cat >"$folder/src/main.rs" <<'RUST'
use alloy::{
    rpc::client::RpcClient,
    transports::http::{Http, HyperClient},
};
use tower::limit::ConcurrencyLimitLayer;

/// `None`: it has panicked.
async fn outcome(client: RpcClient) -> Option<bool> {
    tokio::spawn(async move { client.request_noparams::<String>("net_version").await.is_ok() }).await.ok()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    std::panic::set_hook(Box::new(|panic| println!("{panic}")));
    let url = || "http://127.0.0.1:9/".parse().unwrap();
    let plain = HyperClient::new();
    println!("plain: {:?}", outcome(RpcClient::new(Http::with_client(plain, url()), false)).await);
    let limited = HyperClient::new().layer(ConcurrencyLimitLayer::new(1));
    println!("limited: {:?}", outcome(RpcClient::new(Http::with_client(limited, url()), false)).await);
}
RUST
said=$(CARGO_TARGET_DIR="$folder/target" cargo run --quiet --manifest-path "$folder/Cargo.toml" | grep -v "^panicked")
echo "$said"
was='plain: Some(false)
max requests in-flight; poll_ready must be called first
limited: None'
[ "$said" = "$was" ] || { echo "it was: $was"; exit 1; }
