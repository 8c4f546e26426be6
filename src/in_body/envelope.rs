//! [`Connect`] and [`GrpcWeb`]: protocols whose messages have five bytes before them (flags and a
//! length), and whose status is a last such message.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::rule::{Head, Judge, Reader, Rule, Said};
use crate::{
    grpc::protocol,
    layer::{Verdict, judge_call},
};

/// Streams of the Connect protocol: one that ends with an error before its first message is judged
/// by the error's code like a call of gRPC by its status: `unauthenticated` is a
/// [challenge](Verdict::Challenge).
///
/// It looks at content types that begin with `application/connect+`. A unary call needs no rule: the
/// server says 401. An error after a message goes to the caller, since the server had begun to answer.
/// So does a compressed one.
///
/// ```
/// use tower_refresh::in_body::{Connect, InBodyLayer};
///
/// let layer = InBodyLayer::new().rule(Connect::new());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Connect(());

/// Calls of gRPC-Web whose status comes before the first message, in the body instead of the
/// head: they are judged like those of gRPC, `UNAUTHENTICATED` (16) being a
/// [challenge](Verdict::Challenge).
///
/// It looks at content types that begin with `application/grpc-web`, also at those of the text form,
/// `application/grpc-web-text`, which is in base64. A status after a message goes to the caller.
///
/// ```
/// use tower_refresh::in_body::{GrpcWeb, InBodyLayer};
///
/// let layer = InBodyLayer::new().rule(GrpcWeb::new());
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct GrpcWeb(());

impl Connect {
    /// The rule. There is nothing to set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl GrpcWeb {
    /// The rule. There is nothing to set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl From<Connect> for Rule {
    fn from(rule: Connect) -> Self {
        Self::new("Connect", rule)
    }
}

impl From<GrpcWeb> for Rule {
    fn from(rule: GrpcWeb) -> Self {
        Self::new("GrpcWeb", rule)
    }
}

impl Judge for Connect {
    fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>> {
        let looks = starts_with(head.content_type(), "application/connect+");
        looks.then(|| {
            let judge = |message: &[u8], _: &HeaderMap| connect(message);
            Box::new(EnvelopeReader::new(head, 0x02, judge)) as Box<dyn Reader>
        })
    }
}

impl Judge for GrpcWeb {
    fn begin(&self, head: &Head<'_>) -> Option<Box<dyn Reader>> {
        let content_type = head.content_type();
        if !starts_with(content_type, "application/grpc-web")
            || head.headers.contains_key(&protocol::STATUS)
        {
            return None;
        }
        let inner = EnvelopeReader::new(head, 0x80, grpc_web);
        Some(match starts_with(content_type, "application/grpc-web-text") {
            true => Box::new(TextReader { inner, quad: Vec::new() }),
            false => Box::new(inner),
        })
    }
}

fn starts_with(content_type: &str, prefix: &str) -> bool {
    let start = content_type.get(..prefix.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

type Message = fn(&[u8], &HeaderMap) -> Option<Verdict>;

/// Reads one message, if it is the last.
struct EnvelopeReader {
    bytes: Vec<u8>,
    /// What marks the last message, which has no other flag.
    last: u8,
    cap: usize,
    headers: HeaderMap,
    judge: Message,
}

/// Before each message: its flags, and its length in four bytes.
const PREFIX: usize = 5;

impl EnvelopeReader {
    fn new(head: &Head<'_>, last: u8, judge: Message) -> Self {
        Self { bytes: Vec::new(), last, cap: head.cap, headers: head.headers.clone(), judge }
    }
}

impl Reader for EnvelopeReader {
    fn read(&mut self, bytes: &[u8]) -> Said {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.first().is_some_and(|flags| *flags != self.last) {
            return Said::Nothing;
        }
        let Some((&[_, length @ ..], message)) = self.bytes.split_first_chunk::<PREFIX>() else {
            return Said::More;
        };
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        match message.get(..length) {
            Some(message) => {
                (self.judge)(message, &self.headers).map_or(Said::Nothing, Said::Found)
            }
            None if length > self.cap => Said::Nothing,
            None => Said::More,
        }
    }
}

/// Decodes base64, of which several pieces may follow one another, each padded by itself.
struct TextReader {
    inner: EnvelopeReader,
    quad: Vec<u8>,
}

impl Reader for TextReader {
    fn read(&mut self, text: &[u8]) -> Said {
        let mut decoded = Vec::new();
        for &byte in text {
            self.quad.push(byte);
            if self.quad.len() == 4 {
                let before = decoded.len();
                if STANDARD.decode_vec(&self.quad, &mut decoded).is_err() {
                    // What came before it counts, however the text was cut. What is left of it does not.
                    decoded.truncate(before);
                    let said = self.inner.read(&decoded);
                    return if said == Said::More { Said::Nothing } else { said };
                }
                self.quad.clear();
            }
        }
        self.inner.read(&decoded)
    }
}

/// The end of a stream of Connect: `{"error":{"code":"unauthenticated"}}`.
fn connect(message: &[u8]) -> Option<Verdict> {
    let end: Value = serde_json::from_slice(message).ok()?;
    match end.pointer("/error/code")?.as_str()? {
        "unauthenticated" => Some(Verdict::Challenge),
        "unknown" | "deadline_exceeded" | "internal" | "unavailable" | "data_loss" => {
            Some(Verdict::Ignore)
        }
        _ => None,
    }
}

/// The trailers of gRPC-Web, which look like the head of HTTP/1.
fn grpc_web(message: &[u8], headers: &HeaderMap) -> Option<Verdict> {
    let mut all = headers.clone();
    for line in message.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            all.append(name, value);
        }
    }
    Some(judge_call(all.get(&protocol::STATUS)?, &all))
}
