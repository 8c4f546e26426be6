//! What the user of a Redis server has to be allowed to do, and the words for what it is not.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::script::Script;

/// Every command that a store sends, and every one that a script calls, is in one of these. The
/// docs of `RedisStores` say them, too.
const CATEGORIES: &str = "+@read +@write +@scripting +@pubsub";

/// Those that the client sends besides, if its URL asks for them.
const EXTRAS: [&str; 6] = ["select", "cluster", "readonly", "ping", "asking", "hello"];

/// The rights that the stores of one prefix need, as `ACL SETUSER` takes them.
#[derive(Clone)]
pub(super) struct Rights(String);

impl Rights {
    pub(super) fn new(prefix: &str) -> Self {
        // Up to Redis 6.2 a new user has all channels, and is given some only after a reset.
        Self(format!("{CATEGORIES} ~{prefix}:* resetchannels &{prefix}:*"))
    }

    /// What was refused, if that is what the error is about, and the rights that are needed.
    pub(super) fn refusal(&self, error: &RedisError, script: Option<&Script>) -> Option<String> {
        let said = error.to_string();
        let refused = if let Some(command) = between(&said, "permissions to run the '", "'") {
            command.to_owned()
        } else if let Some(place) = said.rfind("user_script:").filter(|_| is_refusal(&said)) {
            // The server does not say which command, but in which line.
            let line = said[place..].chars().skip_while(|c| !c.is_ascii_digit());
            let line: String = line.take_while(char::is_ascii_digit).collect();
            script?.commands(line.parse().unwrap_or(0)).join(" or ").to_lowercase()
        } else if error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) {
            let what = if said.contains("channel") { "its channels" } else { "its keys" };
            return Some(format!("the Redis user may not use {what}: it needs {}", self.0));
        } else {
            return None;
        };
        let more = EXTRAS.iter().find(|extra| refused.split('|').next() == Some(extra));
        let more = more.map_or_else(String::new, |_| format!(" +{refused}"));
        Some(format!("the Redis user may not run {refused}: it needs {}{more}", self.0))
    }
}

/// Redis 6 and 7 within scripts. Redis 8 names the command.
fn is_refusal(said: &str) -> bool {
    said.contains("can't run this command") || said.contains("ACL failure in script")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}
