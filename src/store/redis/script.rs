//! What the server does in one step: a script each. Its answer begins with a word.

use std::sync::LazyLock;

use redis::{Script, Value};

use crate::store::StoreError;

/// Takes the lease, or gives a later record, or says for how long another holder has it.
pub(super) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("acquire.lua")));
pub(super) static INTEND: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("intend.lua")));
pub(super) static RENEW: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("renew.lua")));
pub(super) static SAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("save.lua")));
pub(super) static DELETE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("delete.lua")));
pub(super) static RELEASE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("release.lua")));

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
