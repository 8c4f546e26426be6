//! JSON documents that come in pieces.

use std::mem;

use super::rule::Said;
use crate::layer::Verdict;

/// JSON objects and arrays, one after the other, cut in any way. Whether they are well-formed is
/// for the parser to say: here only their ends are found, and how the first one begins.
#[derive(Default)]
pub(super) struct Documents {
    /// Of the document that has begun, without space before it.
    bytes: Vec<u8>,
    depth: usize,
    in_string: bool,
    after_backslash: bool,
    start: Start,
}

/// How the first document begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    #[default]
    Empty,
    /// `[`, or `[{`
    InArray { in_object: bool },
    /// `{`
    InObject,
    /// `{"` or `[{"`, and what of the key has come.
    InKey { key: Vec<u8>, in_array: bool },
    /// `{"key"` or `[{"key"`
    Key { key: Vec<u8>, in_array: bool },
    /// An object or an array that begins otherwise.
    Other,
    /// Neither an object nor an array.
    NotOne,
}

/// No name that a rule knows is longer.
const LONGEST_KEY: usize = 32;

impl Documents {
    pub(super) fn start(&self) -> &Start {
        &self.start
    }

    /// Takes bytes; gives each document that has ended to `found`, until that says to stop.
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(&[u8]) -> bool) {
        if self.start == Start::NotOne {
            return;
        }
        for &byte in bytes {
            if self.depth == 0 && byte.is_ascii_whitespace() {
                continue;
            }
            self.begin(byte);
            if self.start == Start::NotOne {
                return;
            }
            self.bytes.push(byte);
            if self.in_string {
                self.in_string = self.after_backslash || byte != b'"';
                self.after_backslash = !self.after_backslash && byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth == 0 && !found(&mem::take(&mut self.bytes)) {
                return;
            }
        }
    }

    /// Notes how the first document begins.
    fn begin(&mut self, byte: u8) {
        let space = byte.is_ascii_whitespace();
        let next = match (&mut self.start, byte) {
            (Start::InKey { key, in_array }, b'"') => {
                Start::Key { key: mem::take(key), in_array: *in_array }
            }
            (Start::InKey { key, .. }, _) if key.len() < LONGEST_KEY => return key.push(byte),
            (Start::InKey { .. }, _) => Start::Other,
            _ if space => return,
            (Start::Empty, b'{') => Start::InObject,
            (Start::Empty, b'[') => Start::InArray { in_object: false },
            (Start::Empty, _) => Start::NotOne,
            (Start::InArray { in_object: false }, b'{') => Start::InArray { in_object: true },
            (Start::InObject, b'"') => Start::InKey { key: Vec::new(), in_array: false },
            (Start::InArray { in_object: true }, b'"') => {
                Start::InKey { key: Vec::new(), in_array: true }
            }
            (Start::InObject | Start::InArray { .. }, _) => Start::Other,
            // A later document, or the middle of the first.
            _ if self.depth == 0 && !matches!(byte, b'{' | b'[') => Start::NotOne,
            _ => return,
        };
        self.start = next;
    }
}

/// What of several answers in one response was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All that was asked for.
    Refused,
    /// Some of it.
    InPart,
    /// Nothing.
    Done,
}

impl Outcome {
    /// Of the answers in one response together. `None` if there are none.
    pub(super) fn of_all(outcomes: impl IntoIterator<Item = Self>) -> Option<Self> {
        outcomes.into_iter().reduce(|a, b| if a == b { a } else { Self::InPart })
    }

    /// What is said of the response.
    pub(super) fn said(self) -> Said {
        match self {
            Self::Refused => Said::Found(Verdict::Challenge),
            Self::InPart => Said::Found(Verdict::RefreshOnly),
            Self::Done => Said::Nothing,
        }
    }
}
