// The servers of refused_inside_a_200.sh, which has installed what they need. Each refuses every
// token but `good`, in the words that its documentation has for that.
//
//   node refused_inside_a_200.mjs ask TOKEN   asks them all, and prints their answers
//   node refused_inside_a_200.mjs serve       prints where they are, and serves until stdin ends
import http from 'node:http';
import { ApolloServer } from '@apollo/server';
import { startStandaloneServer } from '@apollo/server/standalone';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { connectNodeAdapter } from '@connectrpc/connect-node';
import { TRPCError, initTRPC } from '@trpc/server';
import { createHTTPServer } from '@trpc/server/adapters/standalone';
import Fastify from 'fastify';
import { GraphQLError } from 'graphql';
import { createSchema, createYoga } from 'graphql-yoga';
import mercurius from 'mercurius';
import superjson from 'superjson';

const EXPIRED = 'The token has expired';
const isGood = (authorization) => authorization === 'Bearer good';

async function listen(server) {
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return `http://127.0.0.1:${server.address().port}`;
}

// GraphQL

const typeDefs = `
  type Query { me: String, must: String!, deep: Deep, ok: String }
  type Deep { x: String! }
  type Mutation { add: Int, pay: Int }`;
const subscription = ' type Subscription { ticks: Int }';

function resolvers(check) {
  const guarded = (_, __, context) => {
    check(context.authorization);
    return 1;
  };
  return {
    Query: { me: guarded, must: guarded, deep: () => ({}), ok: () => 'ok' },
    Deep: { x: guarded },
    Mutation: { add: () => 1, pay: guarded },
  };
}

function withTicks(resolvers, check) {
  async function* ticks() {
    yield { ticks: 1 };
  }
  const guarded = (_, __, context) => {
    check(context.authorization);
    return ticks();
  };
  return { ...resolvers, Subscription: { ticks: { subscribe: guarded } } };
}

const coded = (authorization) => {
  if (!isGood(authorization)) throw new GraphQLError(EXPIRED, { extensions: { code: 'UNAUTHENTICATED' } });
};
const plain = (authorization) => {
  if (!isGood(authorization)) throw new Error(EXPIRED);
};

async function apollo(inContext) {
  const server = new ApolloServer({ typeDefs, resolvers: resolvers(coded), includeStacktraceInErrorResponses: false });
  const context = async ({ req: { headers } }) => {
    if (inContext) coded(headers.authorization);
    return headers;
  };
  const { url } = await startStandaloneServer(server, { context, listen: { port: 0, host: '127.0.0.1' } });
  return url;
}

async function yoga(inContext) {
  const schema = createSchema({ typeDefs: typeDefs + subscription, resolvers: withTicks(resolvers(coded), coded) });
  const context = ({ request }) => {
    const authorization = request.headers.get('authorization');
    if (inContext) coded(authorization);
    return { authorization };
  };
  const handler = createYoga({ schema, context, logging: false, batching: true });
  return `${await listen(http.createServer(handler))}/graphql`;
}

async function fastify(inContext) {
  const context = ({ headers }) => {
    if (inContext) plain(headers.authorization);
    return headers;
  };
  const server = Fastify();
  server.register(mercurius, { schema: typeDefs, resolvers: resolvers(plain), context });
  return `${await server.listen({ port: 0, host: '127.0.0.1' })}/graphql`;
}

// tRPC

async function trpc(transformer) {
  const t = initTRPC.context().create({ transformer, isDev: false });
  const check = (ctx) => {
    if (!isGood(ctx.authorization)) throw new TRPCError({ code: 'UNAUTHORIZED', message: EXPIRED });
  };
  const guarded = t.procedure.use(({ ctx, next }) => (check(ctx), next()));
  const later = (ms) => new Promise((done) => setTimeout(done, ms));
  const router = t.router({
    me: guarded.query(() => 1),
    ok: t.procedure.query(() => 'ok'),
    slow: t.procedure.query(() => later(200).then(() => 's')),
    gone: t.procedure.query(() => { throw new TRPCError({ code: 'NOT_FOUND' }); }),
    ticks: guarded.subscription(async function* () { yield 1; }),
    okTicks: t.procedure.subscription(async function* () { yield 1; }),
    late: t.procedure.subscription(async function* ({ ctx }) {
      yield 1;
      if (!isGood(ctx.authorization)) throw new TRPCError({ code: 'UNAUTHORIZED' });
    }),
  });
  return listen(createHTTPServer({ router, createContext: ({ req }) => req.headers }));
}

// Connect and gRPC-Web

const method = (name, serverStreaming) => ({ name, inputType: '.t.M', outputType: '.t.M', serverStreaming });
const service = createFileRegistry(create(FileDescriptorSetSchema, {
  file: [{
    name: 't.proto',
    package: 't',
    syntax: 'proto3',
    messageType: [{ name: 'M', field: [{ name: 'text', number: 1, type: 9, label: 1, jsonName: 'text' }] }],
    service: [{ name: 'S', method: [method('Unary', false), method('Stream', true), method('Late', true)] }],
  }],
})).getService('t.S');

async function connect(code) {
  const check = ({ requestHeader }) => {
    if (!isGood(requestHeader.get('authorization'))) throw new ConnectError(EXPIRED, code);
  };
  const routes = (router) => router.service(service, {
    unary: (_, context) => (check(context), { text: 'one' }),
    async *stream(_, context) {
      check(context);
      yield { text: 'one' };
    },
    async *late(_, context) {
      yield { text: 'one' };
      check(context);
    },
  });
  return `${await listen(http.createServer(connectNodeAdapter({ routes })))}/t.S`;
}

// Requests

const graphql = (query, accept = '*/*') => ({
  method: 'POST',
  headers: { 'content-type': 'application/json', accept },
  body: JSON.stringify(Array.isArray(query) ? query.map((query) => ({ query })) : { query }),
});
const queries = {
  null: '{me}',
  must: '{must}',
  'beside data': '{me ok}',
  below: '{deep{x}}',
  'mutation in part': 'mutation{add pay}',
  good: '{ok}',
};
const message = (text) => Buffer.concat([Buffer.from([0, 0, 0, 0, text.length]), Buffer.from(text)]);
const rpc = (type, body, headers) => ({ method: 'POST', headers: { 'content-type': `application/${type}`, ...headers }, body });

async function* requests() {
  let name = 'Apollo Server 5.5.1';
  let url = await apollo(false);
  for (const [what, query] of Object.entries(queries)) yield [name, what, url, graphql(query)];
  yield [name, 'graphql-response+json null', url, graphql('{me}', 'application/graphql-response+json')];
  url = await apollo(true);
  yield [name, 'context', url, graphql('{me}')];
  yield [name, 'graphql-response+json context', url, graphql('{me}', 'application/graphql-response+json')];

  name = 'graphql-yoga 5.24.1';
  url = await yoga(false);
  for (const [what, query] of Object.entries(queries)) yield [name, what, url, graphql(query)];
  yield [name, 'subscription', url, graphql('subscription{ticks}', 'text/event-stream')];
  yield [name, 'batch', url, graphql(['{me}', '{must}'])];
  yield [name, 'batch in part', url, graphql(['{me}', '{ok}'])];
  url = await yoga(true);
  yield [name, 'context null', url, graphql('{me}')];
  yield [name, 'context subscription', url, graphql('subscription{ticks}', 'text/event-stream')];

  name = 'mercurius 16.10.1';
  url = await fastify(false);
  for (const [what, query] of Object.entries(queries)) yield [name, what, url, graphql(query)];
  yield [name, 'context', await fastify(true), graphql('{me}')];

  for (const transformer of [undefined, superjson]) {
    name = `tRPC 11.25.2${transformer ? ' with superjson' : ''}`;
    url = await trpc(transformer);
    yield [name, 'alone', `${url}/me`, {}];
    yield [name, 'good', `${url}/ok`, {}];
    for (const calls of ['me,me', 'me,ok', 'me,gone', 'ok,ok']) yield [name, `batch ${calls}`, `${url}/${calls}?batch=1`, {}];
    const lines = { headers: { 'trpc-accept': 'application/jsonl' } };
    for (const calls of ['me', 'me,me', 'me,ok', 'ok,me', 'ok,ok', 'slow,me']) {
      yield [name, `streamed ${calls}`, `${url}/${calls}?batch=1`, lines];
    }
    const events = { headers: { accept: 'text/event-stream' } };
    for (const call of ['ticks', 'okTicks', 'late']) yield [name, `subscription ${call}`, `${url}/${call}`, events];
  }

  name = 'connect-node 2.1.2';
  url = await connect(Code.Unauthenticated);
  const gzip = { 'connect-protocol-version': '1', 'connect-accept-encoding': 'gzip' };
  const streams = [['connect+json', message('{}')], ['connect+proto', message('')]];
  const web = rpc('grpc-web+proto', message(''), { 'x-grpc-web': '1' });
  yield [name, 'Connect unary', `${url}/Unary`, rpc('json', '{}', { 'connect-protocol-version': '1' })];
  for (const call of ['Stream', 'Late']) {
    for (const [type, body] of streams) yield [name, `${type} ${call}`, `${url}/${call}`, rpc(type, body, gzip)];
  }
  for (const call of ['Unary', 'Stream', 'Late']) yield [name, `gRPC-Web ${call}`, `${url}/${call}`, web];
  url = await connect(Code.Unavailable);
  for (const [type, body] of streams) yield [name, `${type} Stream unavailable`, `${url}/Stream`, rpc(type, body, gzip)];
  yield [name, 'gRPC-Web Unary unavailable', `${url}/Unary`, web];
}

// Bytes that are no text, and ends of lines, as escapes.
const escaped = (bytes) => [...bytes].map((byte) => {
  if (byte === 10) return '\\n';
  if (byte === 13) return '\\r';
  if (byte === 92) return '\\\\';
  return byte < 32 || byte > 126 ? `\\x${byte.toString(16).padStart(2, '0')}` : String.fromCharCode(byte);
}).join('');

function ask(url, { method = 'GET', headers = {}, body }, token) {
  const options = { method, headers: { authorization: `Bearer ${token}`, ...headers }, agent: false };
  return new Promise((answered, failed) => {
    const request = http.request(url, options, async (response) => {
      const chunks = [];
      for await (const chunk of response) chunks.push(chunk);
      const encoding = response.headers['content-encoding'];
      const type = response.headers['content-type'] + (encoding ? ` (content-encoding: ${encoding})` : '');
      answered(`${response.statusCode} ${type}\n${escaped(Buffer.concat(chunks))}`);
    });
    request.on('error', failed).end(body);
  });
}

if (process.argv[2] === 'serve') {
  const all = { apollo: apollo(false), apollo_context: apollo(true), trpc: trpc(), connect: connect(Code.Unauthenticated) };
  for (const [name, url] of Object.entries(all)) console.log(`${name} ${await url}`);
  console.log('ready');
  for await (const _ of process.stdin);
} else {
  const answers = [];
  for await (const [name, what, url, request] of requests()) {
    answers.push(`# ${name}, ${what}\n${await ask(url, request, process.argv[3])}\n`);
  }
  console.log(answers.join('\n'));
}
process.exit(0);
