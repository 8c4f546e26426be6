//! What the server does in one step: a script each. Its answer begins with a word.

use std::sync::OnceLock;

use redis::{Cmd, Value};

use crate::store::StoreError;

/// Takes the lease, or gives a later record, or says for how long another holder has it.
pub(super) static ACQUIRE: Script = Script::new(include_str!("acquire.lua"));
pub(super) static INTEND: Script = Script::new(include_str!("intend.lua"));
pub(super) static RENEW: Script = Script::new(include_str!("renew.lua"));
pub(super) static SAVE: Script = Script::new(include_str!("save.lua"));
pub(super) static KEEP: Script = Script::new(include_str!("keep.lua"));
pub(super) static DELETE: Script = Script::new(include_str!("delete.lua"));
pub(super) static RELEASE: Script = Script::new(include_str!("release.lua"));

pub(super) struct Script {
    text: &'static str,
    /// What a server that has run it calls it.
    hash: OnceLock<String>,
}

/// A script with its keys and arguments.
pub(super) struct Invocation<'a> {
    pub(super) script: &'a Script,
    pub(super) keys: &'a [&'a str],
    pub(super) arguments: &'a [&'a [u8]],
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self { text, hash: OnceLock::new() }
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| redis::Script::new(self.text).get_hash().to_owned())
    }

    /// The commands that this line calls, or those of the whole script if it calls none.
    pub(super) fn commands(&self, line: usize) -> Vec<&'static str> {
        let line = line.checked_sub(1).and_then(|before| self.text.lines().nth(before));
        let called = line.map(calls).unwrap_or_default();
        if called.is_empty() { calls(self.text) } else { called }
    }
}

fn calls(text: &'static str) -> Vec<&'static str> {
    let mut commands = Vec::new();
    for call in text.split("call('").skip(1) {
        if let Some((command, _)) = call.split_once('\'') {
            if !commands.contains(&command) {
                commands.push(command);
            }
        }
    }
    commands
}

impl Invocation<'_> {
    /// For a server that has run the script since it was started.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", self.script.hash())
    }

    /// For one that has not. `SCRIPT LOAD` would be a right more, and in a cluster every node's
    /// business.
    pub(super) fn whole(&self) -> Cmd {
        self.command("EVAL", self.script.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = Cmd::new();
        command.arg(name).arg(script).arg(self.keys.len()).arg(self.keys).arg(self.arguments);
        command
    }
}

/// An answer, read by hand: the errors of the client's own conversions quote what they cannot
/// read, and that may be a document.
pub(super) struct Answer(std::vec::IntoIter<Value>);

impl Answer {
    pub(super) fn new(value: Value) -> Self {
        Self(match value {
            Value::Array(values) => values.into_iter(),
            value => vec![value].into_iter(),
        })
    }

    /// The next part. `None`: it is nil, or there are no more parts.
    pub(super) fn bytes(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.0.next() {
            Some(Value::Nil) | None => Ok(None),
            Some(Value::BulkString(bytes)) => Ok(Some(bytes)),
            Some(Value::SimpleString(text)) => Ok(Some(text.into_bytes())),
            Some(_) => Err(unknown()),
        }
    }

    pub(super) fn text(&mut self) -> Result<Option<String>, StoreError> {
        self.bytes()?.map(|bytes| String::from_utf8(bytes).map_err(|_| unknown())).transpose()
    }

    pub(super) fn number(&mut self) -> Result<i64, StoreError> {
        match self.0.next() {
            Some(Value::Int(number)) => Ok(number),
            _ => Err(unknown()),
        }
    }
}

/// The error for an answer that none of the scripts gives.
pub(super) fn unknown() -> StoreError {
    StoreError::new("the server's answer is not understood: the keys hold something else")
}
