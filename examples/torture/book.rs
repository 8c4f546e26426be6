//! Whether a refresh token that comes again is the client's fault: what was done to the
//! processes, beside the authorization server's own book.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use testing::loopback::{Book, Verdict};
use tokio::time::Instant;

/// Access tokens live so long.
pub(crate) const LIFE: Duration = Duration::from_millis(50);

/// What the server notes besides.
#[derive(Default)]
pub(crate) struct Notes {
    /// A process that is stalled for so long loses its lease. `None`: never.
    patience: Option<Duration>,
    /// Whether the current pair was seen in use, which is to say that it was saved.
    seen: bool,
    /// The redeems of this session, by the number of the token that was spent.
    redeems: HashMap<u64, Redeem>,
    /// The sessions that ended because a token came again, and those of which a client has
    /// said that it knew that the token may be spent.
    ended: HashSet<u64>,
    told: HashSet<u64>,
    killed: HashSet<u64>,
    stalls: Vec<Stall>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

struct Redeem {
    at: Instant,
    by: u64,
    answer_lost: bool,
}

struct Stall {
    who: u64,
    from: Instant,
    until: Option<Instant>,
}

impl Notes {
    pub(crate) fn new(patience: Option<Duration>) -> Self {
        Self { patience, ..Self::default() }
    }

    pub(crate) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_default() += 1;
    }

    pub(crate) fn signed_in(&mut self) {
        self.count("sign_ins");
        self.redeems.clear();
        self.seen = false;
    }

    /// An access token was brought.
    pub(crate) fn brought(&mut self, book: &Book, token: &str) {
        // Even one that is late: a process that has it has saved it.
        self.seen |= book.is_alive() && book.is_current(token);
    }

    /// A refresh token was brought by this process, and this was the verdict.
    /// `answer_lost`: the process will not hear it.
    pub(crate) fn redeemed(&mut self, book: &Book, verdict: &Verdict, by: u64, answer_lost: bool) {
        match verdict {
            Verdict::Renewed(_) => {
                self.count("redeems");
                let redeem = Redeem { at: Instant::now(), by, answer_lost };
                self.redeems.insert(book.number() - 1, redeem);
                self.seen = false;
            }
            Verdict::Again(_) => self.count("graces"),
            Verdict::Reused(number) => self.reused(book, *number),
            Verdict::Over => {}
            Verdict::Unknown => self.count("unknown"),
        }
    }

    /// It came a second time: the session has ended.
    fn reused(&mut self, book: &Book, number: u64) {
        self.ended.insert(book.session());
        let excuse = self.excuse(book, number);
        match excuse {
            Some(_) => self.count("unavoidable"),
            None => {
                self.count("reuse");
                self.count("lost");
            }
        }
        let after = self.redeems.get(&number).map(|redeem| redeem.at.elapsed().as_millis());
        eprintln!(
            "session {} ends: refresh token {number} came again after {} ms; {}",
            book.session(),
            after.unwrap_or_default(),
            excuse.unwrap_or("there is no excuse"),
        );
    }

    /// Why no process has the pair that was given for it, if that is so and no client could
    /// help it.
    fn excuse(&self, book: &Book, number: u64) -> Option<&'static str> {
        let redeem = self.redeems.get(&number)?;
        if number + 1 != book.number() || self.seen {
            return None;
        }
        let stalled = |stall: &Stall| {
            let until = stall.until.unwrap_or_else(Instant::now);
            // Even while it lasts: a process that was stalled for less has no excuse.
            let lost = self.patience.is_some_and(|patience| until - stall.from >= patience);
            stall.who == redeem.by && until >= redeem.at && lost
        };
        if redeem.answer_lost {
            Some("the first answer was cut off")
        } else if self.killed.contains(&redeem.by) {
            Some("the process that redeemed it was killed")
        } else if self.stalls.iter().any(stalled) {
            Some("the process that redeemed it was stopped for too long")
        } else {
            None
        }
    }

    pub(crate) fn told(&mut self, session: u64) {
        self.count("told");
        self.told.insert(session);
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
