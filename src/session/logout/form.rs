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
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(16 * high + low).ok()?
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
        for wrong in ["", "logout_token", "xlogout_token=a"] {
            assert_eq!(field(wrong.as_bytes(), b"logout_token"), None, "{wrong}");
        }
        for wrong in ["%4", "%zz", "%+4", "%", "%ff"] {
            let form = format!("logout_token={wrong}");
            assert_eq!(field(form.as_bytes(), b"logout_token"), None, "{wrong}");
        }
    }
}
