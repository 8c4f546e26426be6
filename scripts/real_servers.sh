#!/bin/sh
# Runs the tests of `in_body` against real servers: Apollo Server, tRPC and connect-node. Outside
# of CI, for it takes node, npm and the network. The servers are those of
# findings/refused_inside_a_200.sh.
set -eu
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
mkfifo "$folder/stdin"
findings/refused_inside_a_200.sh --serve <"$folder/stdin" >"$folder/addresses" &
servers=$!
# They serve for as long as this is open.
exec 3>"$folder/stdin"
trap 'exec 3>&-; wait $servers || true; rm -rf "$folder"' EXIT
until grep -q ready "$folder/addresses"; do
    kill -0 $servers
    sleep 1
done
REAL_SERVERS="$folder/addresses" cargo test -p clients --test http -- --ignored real_servers --nocapture
