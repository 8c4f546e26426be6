//! The lease in Redis: what its scripts are given, and what they answer.

use std::time::{Duration, SystemTime};

use super::{
    record::RedisRecord,
    script::{ACQUIRE, Answer, INTEND, RELEASE, RENEW, Script, unknown},
    shared::millis,
    wake::Listener,
};
use crate::{
    store::{
        OpenRedeem, Record, SaveError, StoreError,
        timed_lease::{Acquired, Held, Keeper, Times, open_cause},
    },
    time::Time,
    tokens::Generation,
};

/// Stands in the record, in the place of an [`OpenCause`](crate::store::OpenCause), while the holder
/// that noted its intent has neither saved nor said how the redeem ended.
const OPEN: &str = "open";

impl Keeper for RedisRecord {
    const SERVER: &'static str = "Redis";

    type Fence = String;
    type Listener = Listener;

    fn times(&self) -> Times {
        self.shared.times
    }

    async fn acquire(
        &self,
        known: Generation,
        owner: &str,
        begun: Time,
    ) -> Result<Acquired<String>, StoreError> {
        let Times { lease, intent, .. } = self.shared.times;
        let keys = [self.keys.record(), &*self.keys.lease()];
        let (known, first) = (known.get().to_string(), first_fence(begun.wall));
        let arguments = [known, owner.to_owned(), millis(lease), millis(intent), first];
        let mut answer = Answer::new(self.run(&ACQUIRE, &keys, &arguments).await?);
        match answer.text()?.as_deref() {
            Some("newer") => {
                let generation = answer.text()?;
                Ok(Acquired::Newer(self.read(generation, answer.bytes()?)?))
            }
            Some("wait") => {
                // `PTTL` is -2 without a key and -1 without an expiry: not known, so poll.
                let left = u64::try_from(answer.number()?).ok().map(Duration::from_millis);
                Ok(Acquired::Wait(left))
            }
            Some("held") => {
                let fence = answer.text()?.ok_or_else(unknown)?;
                let open_redeem = answer.text()?.and_then(|text| parse_open_redeem(&text));
                Ok(Acquired::Held { fence, open_redeem })
            }
            _ => Err(unknown()),
        }
    }

    async fn renew(&self, held: &Held<String>, time: Duration) -> Result<bool, StoreError> {
        let intent = self.shared.times.intent;
        self.is_held(held, &RENEW, &[millis(time), millis(intent)]).await
    }

    async fn intend(
        &self,
        held: &Held<String>,
        generation: Generation,
    ) -> Result<bool, StoreError> {
        let open = format!("{generation} {OPEN}");
        let (intent, ttl) = (self.shared.times.intent, self.shared.ttl);
        self.is_held(held, &INTEND, &[open, millis(intent), millis(ttl)]).await
    }

    async fn save(
        &self,
        held: &Held<String>,
        expected: Generation,
        record: &Record,
    ) -> Result<(), SaveError> {
        self.save_as(&held.fence, expected, record).await
    }

    async fn release(
        &self,
        held: &Held<String>,
        open_redeem: Option<OpenRedeem>,
    ) -> Result<(), StoreError> {
        let open_redeem = open_redeem.map_or_else(String::new, |open| {
            format!("{} {}", open.generation, open.cause.as_str())
        });
        let keys = [self.keys.record(), &*self.keys.lease()];
        let (owner, fence) = (held.owner.clone(), held.fence.clone());
        let arguments = [owner, fence, open_redeem, self.keys.wake()];
        self.run(&RELEASE, &keys, &arguments).await.map(drop)
    }

    fn listen(&self) -> Listener {
        self.shared.wakes.listen(&self.keys.wake())
    }
}

impl RedisRecord {
    /// Runs a script that says whether the lease is held.
    async fn is_held(
        &self,
        held: &Held<String>,
        script: &Script,
        rest: &[String],
    ) -> Result<bool, StoreError> {
        let keys = [self.keys.record(), &*self.keys.lease()];
        let arguments = [&[held.owner.clone(), held.fence.clone()], rest].concat();
        let answer = self.run(script, &keys, &arguments).await?;
        match Answer::new(answer).text()?.as_deref() {
            Some("held") => Ok(true),
            Some("lost") => Ok(false),
            _ => Err(unknown()),
        }
    }
}

/// Where the fences of a name begin: at nanoseconds since the epoch, by the client's clock, since
/// the server's is a right more. What counts is that no fence comes twice, and even a clock that
/// is behind does not stand at the same nanosecond again.
fn first_fence(wall: SystemTime) -> String {
    let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Redis counts with 63 bits: these 62 leave room for as many leases, whatever the clock says.
    (since.as_nanos() % (1 << 62)).to_string()
}

/// The open redeem in a record.
fn parse_open_redeem(text: &str) -> Option<OpenRedeem> {
    let (generation, word) = text.split_once(' ')?;
    Some(OpenRedeem::new(Generation::new(generation.parse().ok()?), open_cause(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_begin_where_redis_can_count_on() {
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 36);
        for wall in [SystemTime::UNIX_EPOCH - Duration::from_secs(1), SystemTime::now(), far] {
            let first: i64 = first_fence(wall).parse().unwrap();
            assert!(first.checked_add(1 << 62).is_some(), "{first}");
        }
    }
}
