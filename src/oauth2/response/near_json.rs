//! What is JSON (RFC 8259) but for slips that do not touch the fields' bounds: NaN and
//! Infinity, raw control characters, commas too many, escapes that there are none of.
//!
//! Where the bounds themselves are damaged, [`find`] still has what stands behind a name, if it is
//! there once, behind all that was read, and inside no other object.

use serde_json::Value;

use super::fields::{Fields, value};

/// It cannot be read on from here.
struct Lost;

/// Deeper than any server's answer; each level is a call.
const MAX_DEPTH: usize = 200;

/// An object, as far as it can be read.
pub(super) struct Object<'a> {
    pub(super) fields: Fields,
    /// What comes after the last field that was read.
    pub(super) unread: &'a str,
    /// How many braces are open in the texts that were read: one of them may have been left too early.
    pub(super) open: isize,
    /// What comes after the object, if it has an end.
    pub(super) rest: Option<&'a str>,
}

/// The object that the text begins with. If it begins with something else, nothing is read, and
/// what comes after the first brace is unread: all of a list's objects are only parts of it.
pub(super) fn object(text: &str) -> Object<'_> {
    let mut fields = Fields::default();
    let mut reader = Reader { text, at: 0 };
    let begin = text.find('{').filter(|at| !text[..*at].trim_end().ends_with('['));
    let mut read_to = begin.map_or(text.len(), |at| at + 1);
    let end = reader.object(0, &mut |name, raw, at| {
        read_to = at;
        let name = match value(name) {
            Some(Value::String(name)) => name,
            _ => name.to_owned(),
        };
        fields.0.insert(name, raw.to_owned());
    });
    let rest = end.is_ok().then(|| &text[reader.at..]);
    let open = begin.map_or(0, |begin| depth_of(&text[begin + 1..read_to]));
    Object { fields, unread: &text[read_to..], open, rest }
}

/// The value behind this name in what was not read of an object, if it is one value and whole.
/// Behind a brace that is open it would be a guess: it may be a field of another object. A list has
/// no names, so that its bracket says nothing. `open`: so many braces may have been open before.
pub(super) fn find<'a>(unread: &'a str, open: isize, name: &str) -> Option<&'a str> {
    let name = format!("\"{name}\"");
    let at_top = value_of(unread, 0, &name);
    // A text that was left too early has opened a brace that is closed in what comes after it.
    let after_text = || value_of(unread, -open, &name).filter(|_| open > 0);
    at_top.or_else(after_text)?.ok()
}

/// The value behind this name at this depth. `Err`: there are several.
fn value_of<'a>(unread: &'a str, wanted: isize, name: &str) -> Option<Result<&'a str, Lost>> {
    let mut found = None;
    let (mut depth, mut counted_to) = (0, 0);
    for (at, _) in unread.match_indices(name) {
        depth += depth_of(&unread[counted_to..at]);
        counted_to = at;
        let raw = value_at(unread, at + name.len()).filter(|_| depth == wanted);
        let Some(raw) = raw else { continue };
        if found.is_some_and(|before| before != raw) {
            return Some(Err(Lost));
        }
        found = Some(raw);
    }
    found.map(Ok)
}

/// How many braces are open behind it. By count alone: what is a text and what is not cannot be
/// told any more.
fn depth_of(text: &str) -> isize {
    let step = |byte| match byte {
        b'{' => 1,
        b'}' => -1,
        _ => 0,
    };
    text.bytes().map(step).sum()
}

/// The text, number or word behind the name that ends here.
pub(super) fn value_at(text: &str, at: usize) -> Option<&str> {
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

    /// Goes over an object, and tells each field's name, its value and where it ends.
    fn object(
        &mut self,
        depth: usize,
        tell: &mut dyn FnMut(&'a str, &'a str, usize),
    ) -> Result<(), Lost> {
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
            tell(name, raw, self.at);
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
            b'{' => self.object(depth, &mut |_, _, _| {})?,
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
