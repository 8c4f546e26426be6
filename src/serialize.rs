//! What an operator may want to know, by `serde` (feature `serde`): words as their stable words,
//! durations in seconds, moments in seconds since the Unix epoch. No secret is in it, nor what a
//! refresher's or a store's own error says.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::SerializeStruct};

use crate::{
    refresher::Trigger,
    state::{Counts, FailureKind, Health, PastFailure, RefreshFailure, Revocation, Status},
    store::OpenCause,
    tokens::Generation,
};

/// A type whose values are words: all of them are listed.
macro_rules! words {
    ($type:ident: $($word:ident)*) => {
        const _: fn($type) = |word| match word {
            $($type::$word => {})*
        };

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                const WORDS: &[&str] = &[$($type::$word.as_str()),*];
                let text = String::deserialize(deserializer)?;
                let all = [$($type::$word),*];
                let found = all.into_iter().find(|word| word.as_str() == text);
                found.ok_or_else(|| D::Error::unknown_variant(&text, WORDS))
            }
        }
    };
}

words!(Trigger: FirstUse Early Expired Challenge Requested);
words!(FailureKind: Rejected ClientRefused Transient Panicked Store Unsaved Braked Doubted Unsendable
    SignedOut Deadline Shutdown NoResponseHead NoRuntime);
words!(Health: Unread Fresh Expired Refreshing CoolingDown Braked ClientRefused Unsaved Rejected
    SignedOut);
words!(Revocation: Nothing NotAsked Done Pending Failed Unknown);
words!(OpenCause: HolderEnded HolderSilent AnswerLost ServerFailed);

impl Serialize for Generation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = |duration: Option<Duration>| duration.map(|it| it.as_secs_f64());
        let mut fields = serializer.serialize_struct("Status", 10)?;
        fields.serialize_field("name", &self.name.as_deref())?;
        fields.serialize_field("health", &self.health)?;
        fields.serialize_field("generation", &self.generation)?;
        fields.serialize_field("signed_in", &self.signed_in)?;
        fields.serialize_field("expires_in", &seconds(self.expires_in))?;
        fields.serialize_field("in_flight", &self.in_flight)?;
        fields.serialize_field("retry_in", &seconds(self.retry_in))?;
        fields.serialize_field("last_failure", &self.last_failure)?;
        fields.serialize_field("unrevoked", &self.unrevoked)?;
        fields.serialize_field("counts", &self.counts)?;
        fields.end()
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let failures: Vec<&PastFailure> = self.all_failures().collect();
        let mut fields = serializer.serialize_struct("Counts", 4)?;
        fields.serialize_field("refreshes", &self.refreshes)?;
        fields.serialize_field("replays", &self.replays)?;
        fields.serialize_field("joined", &self.joined)?;
        fields.serialize_field("failures", &failures)?;
        fields.end()
    }
}

impl Serialize for PastFailure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("PastFailure", 4)?;
        fields.serialize_field("kind", &self.kind)?;
        fields.serialize_field("count", &self.count)?;
        fields.serialize_field("last_at", &since_epoch(self.last_at))?;
        fields.serialize_field("generation", &self.generation)?;
        fields.end()
    }
}

/// Without its source.
impl Serialize for RefreshFailure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("RefreshFailure", 4)?;
        fields.serialize_field("kind", &self.kind())?;
        fields.serialize_field("code", &self.code())?;
        fields.serialize_field("open_redeem", &self.open_redeem())?;
        fields.serialize_field("awaits_lease", &self.awaits_lease())?;
        fields.end()
    }
}

fn since_epoch(at: SystemTime) -> f64 {
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => since.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}
