//! What a sealed cookie costs: opened and sealed anew, and how long it is.
//!
//! ```text
//! cargo bench -p benches --bench seal --features sessions
//! ```
//!
//! - **Open and re-seal** of 2 KiB with three keys in the ring, of which the first or the last has sealed
//!   it, beside what `cookie`'s `PrivateJar` does (AES-256-GCM, one key), and what iron-session 8 does
//!   for the same bytes: two keys by PBKDF2 of one iteration, AES-256-CBC, HMAC-SHA-256, base64url. That
//!   work is written here anew with the crates of RustCrypto, as iron-session is JavaScript.
//! - **Bytes of the cookie** for the same tokens: two JWTs, 2 KiB together. Beside it nextjs-auth0 4 and
//!   Auth.js 5, counted by their formats: a JWE (`dir`, A256GCM and A256CBC-HS512) of the JSON of the
//!   session, in chunks, with names.
//!
//! Times are the least of several rounds in which the contestants take turns.

use std::hint::black_box;

use aes::Aes256;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use benches::time::{least, thread_cpu};
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::Pkcs7};
use cookie::{Cookie, CookieJar, Key};
use hmac::{Hmac, Mac};
use http::{Request, Response, header::SET_COOKIE};
use sha1::Sha1;
use sha2::Sha256;
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{
    RefreshError, Renewal, Tokens,
    seal::Keyring,
    session::{Identity, SessionSlot, Sessions},
    store::MemoryStores,
};

const ROUNDS: usize = 15;
const TIMES: usize = 2_000;

fn main() {
    // What `cargo test --benches` and the like pass is of no meaning here.
    times();
    bytes();
}

fn text() -> Vec<u8> {
    (0..2048).map(|_| b"ABCDEFGHabcdefgh01234567-_"[fastrand::usize(..26)]).collect()
}

fn times() {
    let text = text();
    let keys = [[1; 32], [2; 32], [3; 32]];
    let ring = Keyring::new(keys[0]).also_opens(keys[1]).also_opens(keys[2]);
    let by_first = ring.seal("session", &text).expect("there is randomness");
    let by_last = Keyring::new(keys[2]).seal("session", &text).expect("there is randomness");
    let reseal = |sealed: &str| {
        let text = ring.open("session", sealed).expect("it was sealed by one of these");
        black_box(ring.seal("session", &*text).expect("there is randomness"));
    };
    let key = Key::generate();
    let value = String::from_utf8(text.clone()).expect("it is ASCII");
    let mut jar = CookieJar::new();
    jar.private_mut(&key).add(Cookie::new("session", value));
    let private = jar.get("session").expect("it was put there").clone();
    let private_jar = || {
        let mut jar = CookieJar::new();
        jar.add_original(private.clone());
        let opened = jar.private(&key).get("session").expect("it was sealed by this");
        jar.private_mut(&key).add(opened);
        black_box(jar.get("session").map(Cookie::value).map(str::len));
    };
    let ironed = iron::seal(&text);
    let iron = || {
        black_box(iron::seal(&iron::open(&ironed)));
    };
    let contestants: [(&str, &dyn Fn()); 4] = [
        ("cookie 0.18, PrivateJar", &private_jar),
        ("this crate, by the first of three keys", &|| reseal(&by_first)),
        ("this crate, by the last of three keys", &|| reseal(&by_last)),
        ("iron-session 8's work", &iron),
    ];
    let mut times = [(); 4].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        for ((_, run), times) in contestants.iter().zip(&mut times) {
            let begun = thread_cpu();
            (0..TIMES).for_each(|_| run());
            times.push((thread_cpu() - begun).as_secs_f64());
        }
    }
    let times = times.map(least);
    println!("open and re-seal of 2 KiB:");
    for ((name, _), time) in contestants.iter().zip(times) {
        let each = time * 1e6 / TIMES as f64;
        println!("  {name:40} {each:7.2} us  {:5.2}", time / times[0]);
    }
}

/// The sealed format of iron-webcrypto, as far as it costs time.
mod iron {
    use super::*;

    const PASSWORD: &[u8] = b"a password of at least thirty-two letters";

    fn derived(salt: &[u8]) -> [u8; 32] {
        pbkdf2::pbkdf2_hmac_array::<Sha1, 32>(PASSWORD, salt, 1)
    }

    fn tag(salt: &[u8], text: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&derived(salt)).expect("any length will do");
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    fn random<const N: usize>() -> String {
        let bytes: [u8; N] = std::array::from_fn(|_| fastrand::u8(..));
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn seal(text: &[u8]) -> String {
        let (salt, mac_salt, iv) = (random::<32>(), random::<32>(), [fastrand::u8(..); 16]);
        let cipher = cbc::Encryptor::<Aes256>::new(&derived(salt.as_bytes()).into(), &iv.into());
        let sealed = cipher.encrypt_padded_vec_mut::<Pkcs7>(text);
        let base64 = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let base = format!("Fe26.2**{salt}*{}*{}*", base64(&iv), base64(&sealed));
        let tag = tag(mac_salt.as_bytes(), &base);
        format!("{base}*{mac_salt}*{}", base64(&tag))
    }

    pub(super) fn open(sealed: &str) -> Vec<u8> {
        let fields: Vec<_> = sealed.split('*').collect();
        let [_, _, salt, iv, text, _, mac_salt, mac] = fields[..] else { panic!("eight fields") };
        let base = sealed.len() - mac_salt.len() - mac.len() - 2;
        let bytes = |text| BASE64_URL_SAFE_NO_PAD.decode(text).expect("it was encoded");
        assert_eq!(tag(mac_salt.as_bytes(), &sealed[..base]), bytes(mac));
        let iv: [u8; 16] = bytes(iv).try_into().expect("sixteen bytes");
        let cipher = cbc::Decryptor::<Aes256>::new(&derived(salt.as_bytes()).into(), &iv.into());
        cipher.decrypt_padded_vec_mut::<Pkcs7>(&bytes(text)).expect("it was sealed by this")
    }
}

/// A token of three parts, of about this length.
fn jwt(len: usize) -> String {
    let part = |len: usize| {
        let bytes: Vec<u8> = (0..len).map(|_| fastrand::u8(..)).collect();
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    };
    format!("{}.{}.{}", part(48), part(len * 3 / 4 - 48 - 96), part(96))
}

fn bytes() {
    let (access, refresh) = (jwt(1200), jwt(848));
    let name = "Alice Example";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ours = runtime.expect("there is a runtime").block_on(ours(&access, &refresh, name));
    let jwe = |header: &str, tag: usize, block: usize, json: &str| {
        let base64 = |len: usize| (len * 4).div_ceil(3);
        let sealed = if block > 1 { (json.len() / block + 1) * block } else { json.len() };
        let iv = if block > 1 { 16 } else { 12 };
        base64(header.len()) + ".".len() * 4 + base64(iv) + base64(sealed) + base64(tag)
    };
    // With the names of the cookies, and `=`; chunks of what each cuts into.
    let header_of = |name: &str, len: usize, chunk: usize| match len.div_ceil(chunk) {
        1 => name.len() + 1 + len,
        count => len + count * (name.len() + "__0=; ".len()),
    };
    let auth0 = format!(
        r#"{{"user":{{"sub":"auth0|248289761001","name":"{name}"}},"tokenSet":{{"accessToken":"{access}","scope":"openid profile offline_access","expiresAt":1790000000,"refreshToken":"{refresh}"}},"internal":{{"sid":"0123456789abcdef0123456789abcdef","createdAt":1790000000}},"iat":1790000000,"exp":1790000000}}"#
    );
    let auth_js = format!(
        r#"{{"name":"{name}","sub":"auth0|248289761001","access_token":"{access}","refresh_token":"{refresh}","expires_at":1790000000,"iat":1790000000,"exp":1790000000,"jti":"01234567-89ab-cdef-0123-456789abcdef"}}"#
    );
    let gcm = jwe(r#"{"enc":"A256GCM","alg":"dir"}"#, 16, 1, &auth0);
    let thumbprint = "x".repeat(86);
    let header = format!(r#"{{"alg":"dir","enc":"A256CBC-HS512","kid":"{thumbprint}"}}"#);
    let cbc = jwe(&header, 32, 16, &auth_js);
    println!("bytes of cookie for two JWTs of {} bytes:", access.len() + refresh.len());
    for (name, len) in [
        ("this crate", ours),
        ("nextjs-auth0 4", header_of("__session", gcm, 3500)),
        ("Auth.js 5", header_of("__Secure-authjs.session-token", cbc, 3936)),
    ] {
        println!("  {name:40} {len:7}");
    }
}

/// As the browser sends it once it has the tokens for good: under one name. Until then it sends those of
/// two generations, or a new session's under both names.
async fn ours(access: &str, refresh: &str, name: &str) -> usize {
    let renewal =
        Renewal::builder(async |_: Tokens| Err::<Tokens, _>(RefreshError::transient("never")));
    let sessions = Sessions::sealed(renewal, Keyring::new([7; 32])).remember(MemoryStores::new());
    let tokens = Tokens::new(access)
        .with_refresh_token(refresh)
        .with_expires_in(std::time::Duration::from_secs(3600))
        .with_extra("scope", "openid profile offline_access");
    let identity = Identity::new("https://example.eu.auth0.com/", "auth0|248289761001")
        .sid("0123456789abcdef0123456789abcdef")
        .claim("name", name);
    let layer = sessions.build().expect("nothing is out of range").layer();
    let app = layer.layer(service_fn(move |request: Request<String>| {
        let (tokens, identity) = (tokens.clone(), identity.clone());
        async move {
            let slot = request.extensions().get::<SessionSlot>().expect("there is a layer");
            slot.sign_in(tokens, identity).await.expect("it fits");
            Ok::<_, std::convert::Infallible>(Response::new(String::new()))
        }
    }));
    let response = app.oneshot(Request::new(String::new())).await.expect("it cannot fail");
    let set = response.headers().get_all(SET_COOKIE).iter().filter_map(|it| it.to_str().ok());
    let pairs: Vec<_> =
        set.filter(|it| !it.contains("Max-Age=0")).filter_map(|it| it.split(';').next()).collect();
    // Once the browser has the tokens for good they stand under one name.
    pairs.join("; ").len() / pairs.len()
}
