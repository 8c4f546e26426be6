#!/bin/sh
# Servers that refuse an expired token inside a 200, or in a 500, and how differently one server
# says it.
#
#   tRPC 11.25.2          the same refusal is a 401, a 207 or a 200, as the client batches its
#                         calls (httpLink, httpBatchLink, httpBatchStreamLink, a subscription)
#   Apollo Server 5.5.1   the same error is a 200 from a resolver, and a 500 from the context
#   graphql-yoga 5.24.1   a 200 from both; its event streams have `Content-Encoding: none`, which
#                         no registry knows
#   mercurius 16.10.1     a 200 from a resolver, and from the context a 500 that is Fastify's, in
#                         which there is no `errors`
#   connect-node 2.1.2    a unary call of Connect is a 401, a stream and every call of gRPC-Web a
#                         200, whose first message is the error
#
# Expected, and not seen: that the status is the same for the same refusal.
#
# The answers are those in tests/layer/in_body/answers.txt, byte for byte, which are what the rules
# of `in_body` are tested with. (Strawberry's, which are Python's, are not asked for again.)
#
# Pinned: the versions above and those below; seen with Node 20.20.2. Needs node and npm. Runs
# without tower-refresh, in a folder of its own. Fails if the behaviour is another one by now.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$here/refused_inside_a_200.mjs" "$folder"
cd "$folder"
npm install --silent --no-audit --no-fund --save-exact @apollo/server@5.5.1 graphql@16.15.0 \
    graphql-yoga@5.24.1 mercurius@16.10.1 fastify@5.12.8 @trpc/server@11.25.2 superjson@2.2.7 \
    @connectrpc/connect@2.1.2 @connectrpc/connect-node@2.1.2 @bufbuild/protobuf@2.17.0

# With `--serve`: for scripts/real_servers.sh, until stdin ends.
if [ "${1-}" = --serve ]; then
    node refused_inside_a_200.mjs serve
    exit
fi

node refused_inside_a_200.mjs ask expired 2>/dev/null >expired
node refused_inside_a_200.mjs ask good 2>/dev/null >good
if grep -n "has expired" good; then
    echo "a good token was refused"
    exit 1
fi
sed '/^# Strawberry/,$d; /^> /d' "$here/../tests/layer/in_body/answers.txt" >before
diff before expired
echo "$(grep -c '^#' expired) answers as they were"
