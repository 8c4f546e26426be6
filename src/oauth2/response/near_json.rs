//! What is JSON (RFC 8259) but for slips that do not touch the fields' bounds: NaN and
//! Infinity, raw control characters, commas too many, escapes that there are none of.
//!
//! Where the bounds themselves are damaged, [`find`] still has what stands behind a name that is
//! there once.

use serde_json::Value;

use super::fields::{Fields, value};

/// It cannot be read on from here.
struct Lost;

/// Deeper than any server's answer; each level is a call.
const MAX_DEPTH: usize = 200;

/// The fields of the object that the text begins with, as far as they can be told apart, and
/// what comes after the object, if it has an end.
pub(super) fn fields(text: &str) -> (Fields, Option<&str>) {
    let mut fields = Fields::default();
    let mut reader = Reader { text, at: 0 };
    let end = reader.object(0, &mut |name, raw| {
        let name = match value(name) {
            Some(Value::String(name)) => name,
            _ => name.to_owned(),
        };
        fields.0.insert(name, raw.to_owned());
    });
    (fields, end.is_ok().then(|| &text[reader.at..]))
}

/// The value behind this name wherever it stands in the text, if it is one value and whole.
pub(super) fn find<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let name = format!("\"{name}\"");
    let mut found = None;
    for (at, _) in text.match_indices(&name) {
        let Some(raw) = value_at(text, at + name.len()) else { continue };
        if found.is_some_and(|before| before != raw) {
            return None;
        }
        found = Some(raw);
    }
    found
}

fn value_at(text: &str, at: usize) -> Option<&str> {
    let mut reader = Reader { text, at };
    reader.expect(b':').ok()?;
    let raw = match reader.peek()? {
        b'{' | b'[' => return None,
        _ => reader.value(0).ok()?,
    };
    reader.is_apart(b'}').is_ok().then_some(raw)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.at += space;
        rest.get(space).copied()
    }

    fn expect(&mut self, byte: u8) -> Result<(), Lost> {
        if self.peek() != Some(byte) {
            return Err(Lost);
        }
        self.at += 1;
        Ok(())
    }

    /// Goes over an object, and tells each field's name and value.
    fn object(&mut self, depth: usize, tell: &mut dyn FnMut(&'a str, &'a str)) -> Result<(), Lost> {
        self.expect(b'{')?;
        loop {
            self.commas();
            match self.peek() {
                Some(b'}') => return self.expect(b'}'),
                Some(b'"') => {}
                _ => return Err(Lost),
            }
            let name = self.string()?;
            self.expect(b':')?;
            let raw = self.value(depth + 1)?;
            self.is_apart(b'}')?;
            tell(name, raw);
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Lost> {
        self.expect(b'[')?;
        loop {
            self.commas();
            if self.peek() == Some(b']') {
                return self.expect(b']');
            }
            self.value(depth + 1)?;
            self.is_apart(b']')?;
        }
    }

    fn commas(&mut self) {
        while self.expect(b',').is_ok() {}
    }

    /// Whether a value has ended here. Otherwise it may be only a part of what was meant.
    fn is_apart(&mut self, end: u8) -> Result<(), Lost> {
        match self.peek() {
            None | Some(b',') => Ok(()),
            Some(byte) if byte == end => Ok(()),
            Some(_) => Err(Lost),
        }
    }

    /// The value that begins here, as it is written.
    fn value(&mut self, depth: usize) -> Result<&'a str, Lost> {
        if depth > MAX_DEPTH {
            return Err(Lost);
        }
        let byte = self.peek().ok_or(Lost)?;
        let begun = self.at;
        match byte {
            b'"' => drop(self.string()?),
            b'{' => self.object(depth, &mut |_, _| {})?,
            b'[' => self.array(depth)?,
            _ => self.word()?,
        }
        Ok(&self.text[begun..self.at])
    }

    /// The string that begins here, with its quotes.
    fn string(&mut self) -> Result<&'a str, Lost> {
        let begun = self.at;
        let mut is_escaped = false;
        for (at, byte) in self.text.bytes().enumerate().skip(begun + 1) {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    self.at = at + 1;
                    return Ok(&self.text[begun..self.at]);
                }
                _ => {}
            }
        }
        Err(Lost)
    }

    /// A number, a word, or what JavaScript and Python write for them.
    fn word(&mut self) -> Result<(), Lost> {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._".contains(byte);
        let length = self.text.as_bytes()[self.at..].iter().take_while(|it| is_part(it)).count();
        // One that ends with the text may go on.
        if length == 0 || self.at + length == self.text.len() {
            return Err(Lost);
        }
        self.at += length;
        Ok(())
    }
}
