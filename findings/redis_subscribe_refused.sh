#!/bin/sh
# redis-rs: a subscription that the server has refused is reported as made.
#
# A user of a Redis 7 has no channels unless they are given (`&channel`). SUBSCRIBE is answered
# with `-NOPERM`, and what the client says is:
#
#   redis 1.2.2 (the last for Rust 1.85)   async Ok(()), sync Ok(())
#   redis 1.8.1                            async Err,    sync Ok(())
#
# After the sync one, `get_message` reads the error, drops it, and waits for messages that never
# come. So a program cannot tell a channel that is silent from one that it may not hear. Our
# waiters look from time to time as well, for which this makes no difference.
#
# Expected, and not seen: an error from `subscribe` in all four cases.
#
# Pinned: redis =1.2.2 and =1.8.1, tokio =1.54.1; seen with redis-server 7.0.15.
#
# Needs cargo, redis-server 7.0 or later and redis-cli. Runs without tower-refresh, in a folder of
# its own. Fails if the behaviour is another one by now.
set -eu
folder=$(mktemp -d)
redis-server --port 0 --unixsocket "$folder/socket" --save "" --dir "$folder" >"$folder/log" &
server=$!
trap 'kill $server; wait $server || true; rm -rf "$folder"' EXIT
until redis-cli -s "$folder/socket" ping >/dev/null 2>&1; do kill -0 $server; done
redis-cli -s "$folder/socket" acl setuser few on '>password' '~*' resetchannels +@all >/dev/null

mkdir "$folder/src"
cat >"$folder/src/main.rs" <<'RUST'
fn said<T>(outcome: redis::RedisResult<T>) -> &'static str {
    if outcome.is_ok() { "Ok" } else { "Err" }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let client = redis::Client::open(std::env::args().nth(1).unwrap()).unwrap();
    let mut messages = client.get_async_pubsub().await.unwrap();
    let first = said(messages.subscribe("news").await);
    let mut connection = client.get_connection().unwrap();
    let mut messages = connection.as_pubsub();
    let second = said(messages.subscribe("news"));
    messages.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    let timed_out = messages.get_message().err().is_some_and(|error| error.is_timeout());
    println!("async {first}, sync {second}, get_message timed out: {timed_out}");
}
RUST

seen() {
    cat >"$folder/Cargo.toml" <<TOML
[package]
name = "probe"
version = "0.0.0"
edition = "2021"
[workspace]
[dependencies]
redis = { version = "=$1", default-features = false, features = ["aio", "tokio-comp"] }
tokio = { version = "=1.54.1", features = ["macros", "rt"] }
TOML
    rm -f "$folder/Cargo.lock"
    CARGO_TARGET_DIR="$folder/target" cargo run --quiet --manifest-path "$folder/Cargo.toml" -- \
        "redis+unix://$folder/socket?user=few&pass=password"
}

check() {
    said=$(seen "$1")
    echo "redis $1: $said"
    [ "$said" = "$2" ] || { echo "it was: $2"; exit 1; }
}

check 1.2.2 "async Ok, sync Ok, get_message timed out: true"
check 1.8.1 "async Err, sync Ok, get_message timed out: true"
