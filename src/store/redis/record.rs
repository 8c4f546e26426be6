//! One name's record in Redis: which keys are its own, and how it is read and written.

use std::{sync::Arc, time::SystemTime};

use redis::{Cmd, Value};

use super::{
    script::{Answer, DELETE, KEEP, SAVE, Script, unknown},
    shared::{Shared, millis},
};
use crate::{
    store::{
        Deleted, KeptUntil, Record, SaveError, StoreError,
        format::{Format, end_millis_of},
    },
    tokens::Generation,
};

/// One name in one Redis.
pub(super) struct RedisRecord {
    pub(super) shared: Arc<Shared>,
    pub(super) keys: RecordKeys,
    format: Format,
}

/// The keys of one name. All of them have the same hash tag, so that they are at the same
/// node of a cluster.
pub(super) struct RecordKeys {
    /// A hash: generation `g`, document `d`, fence `f`, the open redeem `i`, the record's own end
    /// `u`.
    record: Box<str>,
}

impl RecordKeys {
    fn new(prefix: &str, name: &str) -> Self {
        Self { record: format!("{prefix}:{{{}}}", hash_tag(name)).into() }
    }

    pub(super) fn record(&self) -> &str {
        &self.record
    }

    /// The holder's own token, with a time limit.
    pub(super) fn lease(&self) -> String {
        format!("{}:lease", self.record)
    }

    /// The channel of those who wait.
    pub(super) fn wake(&self) -> String {
        format!("{}:wake", self.record)
    }
}

/// A name as a hash tag. A brace would end it, and an empty one is none.
fn hash_tag(name: &str) -> String {
    match name {
        "" => "%".to_owned(),
        name => name.replace('%', "%25").replace('{', "%7B").replace('}', "%7D"),
    }
}

impl RedisRecord {
    pub(super) fn new(shared: Arc<Shared>, name: &str) -> Self {
        let keys = RecordKeys::new(&shared.prefix, name);
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
        command.arg("HMGET").arg(self.keys.record()).arg("g").arg("d");
        let mut answer = Answer::new(self.shared.connection.read(&command).await?);
        let generation = answer.text()?;
        self.read(generation, answer.bytes()?)
    }

    /// One round trip, and only the generation, while that is `known`.
    pub(super) async fn changed(&self, known: Generation) -> Result<Option<Record>, StoreError> {
        let mut command = Cmd::new();
        command.arg("HGET").arg(self.keys.record()).arg("g");
        let mut answer = Answer::new(self.shared.connection.read(&command).await?);
        let generation = match answer.text()? {
            Some(generation) => generation.parse().map_err(|_| unknown())?,
            None => 0,
        };
        if Generation::new(generation) == known {
            return Ok(None);
        }
        let record = self.load().await?;
        Ok((record.generation != known).then_some(record))
    }

    /// The record, from the fields of its hash.
    pub(super) fn read(
        &self,
        generation: Option<String>,
        document: Option<Vec<u8>>,
    ) -> Result<Record, StoreError> {
        let Some(generation) = generation else {
            return Ok(Record::default());
        };
        let generation = Generation::new(generation.parse().map_err(|_| unknown())?);
        self.format.read(generation, document.as_deref())
    }

    /// Saves for the holder of a lease, whose fence is given, and ends the lease; or for a
    /// sign-in: then the fence is empty.
    pub(super) async fn save_as(
        &self,
        fence: &str,
        expected: Generation,
        record: &Record,
    ) -> Result<(), SaveError> {
        let Shared { connection, ttl, tombstone_ttl, .. } = &*self.shared;
        let (document, ttl) = match &record.tokens {
            Some(_) => (Some(self.format.write(record, None)?), ttl),
            None => (None, tombstone_ttl),
        };
        let (expected, generation) =
            (expected.get().to_string(), record.generation.get().to_string());
        let (ttl, wake) = (millis(*ttl), self.keys.wake());
        let arguments: [&[u8]; 6] = [
            fence.as_bytes(),
            expected.as_bytes(),
            generation.as_bytes(),
            document.as_ref().map_or(&[], |document| document),
            ttl.as_bytes(),
            wake.as_bytes(),
        ];
        let keys = [self.keys.record(), &*self.keys.lease()];
        let answer = connection.run(&SAVE, &keys, &arguments).await?;
        match Answer::new(answer).text()?.as_deref() {
            Some("saved") => Ok(()),
            Some("conflict") => Err(SaveError::Conflict),
            Some("lost") => Err(SaveError::LeaseLost),
            _ => Err(unknown().into()),
        }
    }

    pub(super) async fn keep_until(&self, end: SystemTime) -> Result<KeptUntil, StoreError> {
        let end = end_millis_of(end).to_string();
        let keys = [self.keys.record()];
        let answer = self.shared.connection.run(&KEEP, &keys, &[end.as_bytes()]).await?;
        match Answer::new(answer).text()?.as_deref() {
            Some("kept") => Ok(KeptUntil::Kept),
            Some("none") => Ok(KeptUntil::NoTokens),
            _ => Err(unknown()),
        }
    }

    pub(super) async fn delete(&self) -> Result<Deleted, StoreError> {
        let Shared { connection, tombstone_ttl, .. } = &*self.shared;
        // A second delete would find no tokens to revoke, so the script is sent once only. A
        // connection that has broken meanwhile is found out by a command that only reads.
        let mut command = Cmd::new();
        command.arg("HGET").arg(self.keys.record()).arg("g");
        connection.read(&command).await?;
        let first = Generation::ZERO.next_at(SystemTime::now()).to_string();
        let (ttl, wake) = (millis(*tombstone_ttl), self.keys.wake());
        let arguments = [ttl.as_bytes(), wake.as_bytes(), first.as_bytes()];
        let answer = connection.run_once(&DELETE, &[self.keys.record()], &arguments).await?;
        let mut answer = Answer::new(answer);
        let generation = answer.text()?.and_then(|text| text.parse().ok()).ok_or_else(unknown)?;
        let deleted = self.format.deleted_tokens(answer.bytes()?.as_deref());
        Ok(Deleted::new(Generation::new(generation), deleted))
    }
}
