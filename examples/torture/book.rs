//! What the server knows: which tokens are good, what became of the others, and whether a
//! refresh token that comes again is the client's fault.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

/// Access tokens live so long.
const LIFE: Duration = Duration::from_millis(50);

#[derive(Default)]
pub(crate) struct Book {
    grace: Duration,
    /// A process that is stalled for so long loses its lease. `None`: never.
    patience: Option<Duration>,
    family: u64,
    dead: bool,
    /// The number of the current pair, when it was issued, and whether it was seen in use,
    /// which is to say that it was saved.
    number: u64,
    issued: Option<Instant>,
    seen: bool,
    /// The redeems of this family, by the number of the token that was spent.
    spent: HashMap<u64, Spent>,
    /// The sessions that ended so, and those of which a client has said that it knew that
    /// the token may be spent.
    ended: HashSet<u64>,
    told: HashSet<u64>,
    killed: HashSet<u64>,
    stalls: Vec<Stall>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

struct Spent {
    at: Instant,
    by: u64,
    answer_lost: bool,
}

struct Stall {
    who: u64,
    from: Instant,
    until: Option<Instant>,
}

/// What is answered to a redeem.
pub(crate) enum Verdict {
    Pair(String, String),
    InvalidGrant,
}

impl Book {
    pub(crate) fn new(grace: Duration, patience: Option<Duration>) -> Self {
        Self { grace, patience, ..Self::default() }
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    /// A new session. The one before ends.
    pub(crate) fn sign_in(&mut self) -> (String, String) {
        self.count("sign_ins");
        self.family += 1;
        self.dead = false;
        self.spent.clear();
        self.issue(1);
        self.pair()
    }

    fn issue(&mut self, number: u64) {
        self.number = number;
        self.issued = Some(Instant::now());
        self.seen = false;
    }

    fn pair(&self) -> (String, String) {
        (format!("access.{}.{}", self.family, self.number), self.current())
    }

    /// The refresh token that is good.
    pub(crate) fn current(&self) -> String {
        format!("refresh.{}.{}", self.family, self.number)
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether the API accepts this access token.
    pub(crate) fn accepts(&mut self, token: &str) -> bool {
        let current = parse(token, "access") == Some((self.family, self.number)) && !self.dead;
        // Even one that is late: whoever has it has saved it.
        self.seen |= current;
        let ok = current && self.issued.is_some_and(|issued| issued.elapsed() <= LIFE);
        self.count(if ok { "ok" } else { "refused" });
        ok
    }

    /// A refresh token is brought by this process. `answer_lost`: it will not hear.
    pub(crate) fn redeem(&mut self, token: &str, by: u64, answer_lost: bool) -> Verdict {
        let Some((family, number)) = parse(token, "refresh") else {
            self.count("unknown");
            return Verdict::InvalidGrant;
        };
        if family != self.family || self.dead {
            return Verdict::InvalidGrant;
        }
        if number == self.number {
            self.count("redeems");
            self.spent.insert(number, Spent { at: Instant::now(), by, answer_lost });
            self.issue(number + 1);
        } else if self.forgives(number) {
            self.count("graces");
        } else {
            // It came a second time: the session ends.
            self.dead = true;
            self.ended.insert(family);
            let excuse = self.excuse(number);
            match excuse {
                Some(_) => self.count("unavoidable"),
                None => {
                    self.count("reuse");
                    self.count("lost");
                }
            }
            let after = self.spent.get(&number).map(|spent| spent.at.elapsed().as_millis());
            eprintln!(
                "session {family} ends: refresh token {number} came again after {} ms; {}",
                after.unwrap_or_default(),
                excuse.unwrap_or("there is no excuse"),
            );
            return Verdict::InvalidGrant;
        }
        let (access, refresh) = self.pair();
        Verdict::Pair(access, refresh)
    }

    /// Within the grace period the previous token gets the same pair again.
    fn forgives(&self, number: u64) -> bool {
        let previous = self.spent.get(&number).filter(|_| number + 1 == self.number);
        previous.is_some_and(|spent| spent.at.elapsed() < self.grace)
    }

    /// Why nobody has the pair that was given for it, if that is so and no client could
    /// help it.
    fn excuse(&self, number: u64) -> Option<&'static str> {
        let spent = self.spent.get(&number)?;
        if number + 1 != self.number || self.seen {
            return None;
        }
        let stalled = |stall: &Stall| {
            let until = stall.until.unwrap_or_else(Instant::now);
            // Even while it lasts: who has been stalled for less than that has no excuse.
            let lost = self.patience.is_some_and(|patience| until - stall.from >= patience);
            stall.who == spent.by && until >= spent.at && lost
        };
        if spent.answer_lost {
            Some("the first answer was cut off")
        } else if self.killed.contains(&spent.by) {
            Some("the process that redeemed it was killed")
        } else if self.stalls.iter().any(stalled) {
            Some("the process that redeemed it was stopped for too long")
        } else {
            None
        }
    }

    pub(crate) fn told(&mut self, family: u64) {
        self.count("told");
        self.told.insert(family);
    }

    /// How many sessions ended because a token was brought again blindly.
    pub(crate) fn untold(&self) -> usize {
        self.ended.difference(&self.told).count()
    }

    pub(crate) fn killed(&mut self, who: u64) {
        self.killed.insert(who);
    }

    pub(crate) fn stopped(&mut self, who: u64) {
        self.stalls.push(Stall { who, from: Instant::now(), until: None });
    }

    pub(crate) fn continued(&mut self, who: u64) {
        for stall in self.stalls.iter_mut().filter(|stall| stall.who == who) {
            stall.until.get_or_insert_with(Instant::now);
        }
    }
}

fn parse(token: &str, kind: &str) -> Option<(u64, u64)> {
    let (family, number) = token.strip_prefix(kind)?.strip_prefix('.')?.split_once('.')?;
    Some((family.parse().ok()?, number.parse().ok()?))
}
