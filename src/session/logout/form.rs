//! The form that a provider posts.

use std::pin::pin;

use bytes::{Buf, Bytes};
use http_body::Body;

/// A logout token is some hundred bytes.
const MAX_BODY: usize = 64 * 1024;

/// All of it, if it is not too long.
pub(super) async fn read(body: impl Body) -> Option<Bytes> {
    let (mut body, mut all) = (pin!(body), Vec::new());
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        if let Ok(mut data) = frame.ok()?.into_data() {
            if all.len() + data.remaining() > MAX_BODY {
                return None;
            }
            all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
    }
    Some(all.into())
}

/// A field of a form (`application/x-www-form-urlencoded`).
pub(super) fn field(form: &[u8], name: &[u8]) -> Option<String> {
    let mut fields = form.split(|byte| *byte == b'&');
    let value = fields.find_map(|field| field.strip_prefix(name)?.strip_prefix(b"="))?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [*bytes.next()?, *bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => *byte,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_as_it_is_written() {
        assert_eq!(field(b"logout_token=a.b-c_d", b"logout_token").as_deref(), Some("a.b-c_d"));
        assert_eq!(field(b"a=b&logout_token=a%2Eb+c&d", b"logout_token").as_deref(), Some("a.b c"));
        for wrong in
            [&b""[..], b"logout_token", b"xlogout_token=a", b"logout_token=%4", b"logout_token=%zz"]
        {
            assert_eq!(field(wrong, b"logout_token"), None);
        }
    }
}
