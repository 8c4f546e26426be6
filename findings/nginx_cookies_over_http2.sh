#!/bin/sh
# nginx: what it takes of a site's cookies is four times as much over HTTP/2, and one byte more closes the
# connection under all other requests.
#
# Both protocols are bounded by `large_client_header_buffers`, 4 of 8 KiB, and refuse with "400 Request Header
# Or Cookie Too Large". A browser sends all cookies of a site in one header field over HTTP/1.1, which has to
# fit into one buffer, and each in a field of its own over HTTP/2, where the sum is bounded. So the same
# browser with the same cookies:
#
#   cookies of 4000 bytes | HTTP/1.1 | HTTP/2 | another response that is under way over the same connection
#   ----------------------+----------+--------+--------------------------------------------------------------
#   2                     | 200      | 200    | goes on
#   3                     | 400      | 200    | goes on
#   9                     | 400      | none   | broken off (GOAWAY, ENHANCE_YOUR_CALM, and the end)
#
# Expected, and not seen: a 400 in the last line, too, for this request alone; the connection has done nothing
# wrong. A page in Chromium sees "Failed to fetch", for whatever was under way.
#
# Pinned: nginx 1.22.1-9+deb12u11 (Debian 12).
#
# Needs Debian 12 with apt-get and dpkg-deb, openssl and node. Runs without tower-refresh, in a folder of its own. Fails if the behaviour is
# another one by now.
set -eu
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill $server; wait $server || true; }; rm -rf "$folder"' EXIT
cd "$folder"
apt-get download -q nginx=1.22.1-9+deb12u11 >/dev/null 2>&1
dpkg-deb -x nginx_*.deb nginx
nginx=$folder/nginx/usr/sbin/nginx
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
    -keyout key.pem -out cert.pem -subj /CN=localhost 2>/dev/null
# Its workers are another user's if it is started by root.
chmod 755 "$folder"
head -c 2000000 /dev/zero >slow
port=$(node -e 'const s = require("net").createServer().listen(0, () => {
    console.log(s.address().port); s.close() })')
cat >nginx.conf <<NGINX
daemon off;
pid $folder/pid;
error_log $folder/error.log;
events {}
http {
    access_log off;
    client_body_temp_path $folder/body;
    server {
        listen 127.0.0.1:$port ssl http2;
        ssl_certificate $folder/cert.pem;
        ssl_certificate_key $folder/key.pem;
        root $folder;
        location = / { return 200 "ok"; }
        location = /slow { limit_rate 1000k; }
    }
}
NGINX
"$nginx" -c "$folder/nginx.conf" 2>/dev/null &
server=$!

cat >probe.mjs <<'NODE'
import http2 from 'node:http2';
import https from 'node:https';

const origin = `https://127.0.0.1:${process.argv[2]}`;
const cookies = count =>
  Array.from({ length: count }, (_, n) => `c${n}=` + 'x'.repeat(4000 - `c${n}=`.length));

// As a browser does: in one field.
const over1 = count => new Promise((done, failed) => {
  const options = { headers: { cookie: cookies(count).join('; ') }, rejectUnauthorized: false };
  https.get(origin, options, answer => done(answer.resume().statusCode)).on('error', failed);
});

// And here in a field each, while another response is under way.
const over2 = count => new Promise((done, failed) => {
  const session = http2.connect(origin, { rejectUnauthorized: false });
  session.on('error', failed);
  let status = 'none';
  let length = 0;
  const other = session.request({ ':path': '/slow' });
  other.once('data', () => {
    const request = session.request({ ':path': '/', cookie: cookies(count) });
    request.on('response', headers => { status = headers[':status'] });
    request.on('error', () => {});
    request.resume();
  });
  other.on('data', data => { length += data.length });
  other.on('error', () => {});
  other.on('close', () => {
    done(`${status}, the other ${length === 2000000 ? 'goes on' : 'is broken off'}`);
    session.destroy();
  });
});

for (const count of [2, 3, 9])
  console.log(`${count}: ${await over1(count)}, ${await over2(count)}`);
NODE

until node -e "require('net').connect($port, '127.0.0.1').on('error', () => process.exit(1))
    .on('connect', () => process.exit(0))"; do kill -0 $server; done
seen=$(node probe.mjs "$port")
echo "$seen"
[ "$seen" = "2: 200, 200, the other goes on
3: 400, 200, the other goes on
9: 400, none, the other is broken off" ]
