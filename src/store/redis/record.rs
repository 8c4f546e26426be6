//! Where one record is, and how it is read and written.

use std::sync::Arc;

use redis::{Cmd, Script, Value};

use super::{
    Shared, millis,
    script::{Answer, DELETE, SAVE, unknown},
};
use crate::{
    error::{SaveError, StoreError},
    store::{Deleted, Record, format::Format},
    tokens::Generation,
};

/// The keys of one name. In a cluster all are at the same node.
pub(super) struct Keys {
    /// A hash: generation `g`, document `d`, fence `f`, what is left open `i`.
    pub(super) record: String,
    /// The holder's own token.
    pub(super) lease: String,
    /// A channel.
    pub(super) wake: String,
}

/// One name in one Redis.
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) keys: Keys,
    format: Format,
}

impl Keys {
    pub(super) fn new(prefix: &str, name: &str) -> Self {
        let record = format!("{prefix}:{{{}}}", tag(name));
        Self { lease: format!("{record}:lease"), wake: format!("{record}:wake"), record }
    }
}

/// A name as a hash tag: it ends at a brace, and an empty one is none.
fn tag(name: &str) -> String {
    match name {
        "" => "%".to_owned(),
        name => name.replace('%', "%25").replace('{', "%7B").replace('}', "%7D"),
    }
}

impl Place {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        let keys = Keys::new(&shared.prefix, name);
        let format = Format::new(name, Some(shared.keys.clone()));
        Self { shared, keys, format }
    }

    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[String],
    ) -> Result<Value, StoreError> {
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        self.shared.connection.run(script, keys, &arguments).await
    }

    pub(super) async fn load(&self) -> Result<Record, StoreError> {
        let mut command = Cmd::new();
        command.arg("HMGET").arg(&self.keys.record).arg("g").arg("d");
        let mut answer = Answer::new(self.shared.connection.read(&command).await?);
        let generation = answer.text()?;
        self.read(generation, answer.bytes()?)
    }

    /// The record, from what the server holds of it.
    pub(super) fn read(
        &self,
        generation: Option<String>,
        document: Option<Vec<u8>>,
    ) -> Result<Record, StoreError> {
        let Some(generation) = generation else {
            return Ok(Record::default());
        };
        let generation = Generation::new(generation.parse().map_err(|_| unknown())?);
        let Some(document) = document else {
            return Ok(Record::new(generation, None));
        };
        let written = self.format.parse(&document)?;
        if written.generation() != generation {
            return Err(StoreError::new("the record is damaged: it has two generations"));
        }
        self.format.open(written)
    }

    /// Without owner and fence it is a sign-in's.
    pub(super) async fn save(
        &self,
        owner: &str,
        fence: &str,
        expected: Generation,
        record: &Record,
    ) -> Result<(), SaveError> {
        let Shared { connection, ttl, tombstone_ttl, lease, .. } = &*self.shared;
        let (document, ttl) = match &record.tokens {
            Some(_) => (Some(self.format.write(record)?), ttl),
            None => (None, tombstone_ttl),
        };
        let (expected, generation) =
            (expected.get().to_string(), record.generation.get().to_string());
        let (ttl, lease) = (millis(*ttl), millis(*lease));
        let arguments: [&[u8]; 8] = [
            owner.as_bytes(),
            fence.as_bytes(),
            expected.as_bytes(),
            generation.as_bytes(),
            document.as_ref().map_or(&[], |document| document),
            ttl.as_bytes(),
            lease.as_bytes(),
            self.keys.wake.as_bytes(),
        ];
        let keys = [&*self.keys.record, &*self.keys.lease];
        let answer = connection.run(&SAVE, &keys, &arguments).await?;
        match Answer::new(answer).text()?.as_deref() {
            Some("saved") => Ok(()),
            Some("conflict") => Err(SaveError::Conflict),
            Some("lost") => Err(SaveError::LeaseLost),
            _ => Err(unknown().into()),
        }
    }

    pub(super) async fn delete(&self) -> Result<Deleted, StoreError> {
        let Shared { connection, tombstone_ttl, .. } = &*self.shared;
        // Done twice, it would lose the tokens. So the connection is tried first.
        let mut command = Cmd::new();
        command.arg("EXISTS").arg(&self.keys.record);
        connection.read(&command).await?;
        let ttl = millis(*tombstone_ttl);
        let arguments = [ttl.as_bytes(), self.keys.wake.as_bytes()];
        let answer = connection.run_once(&DELETE, &[&self.keys.record], &arguments).await?;
        let mut answer = Answer::new(answer);
        let generation = answer.text()?.and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
        let document = answer.bytes()?;
        let deleted = document.and_then(|document| {
            let written = self.format.parse(&document).ok()?;
            self.format.open(written).ok()?.tokens
        });
        Ok(Deleted::new(Generation::new(generation), deleted))
    }
}
