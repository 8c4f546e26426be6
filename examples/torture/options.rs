//! The command line.

use std::time::Duration;

pub(crate) const HELP: &str = "\
usage: torture [OPTIONS]
       torture sessions [OPTIONS]      browser sessions; see torture sessions --help

Processes that share one credential are killed, stopped and cut off. Ends with a table and
  requests=... redeems=... token_reuse=... sessions_lost=... unavoidable=...
and exits with 1 if a refresh token came twice or a session was lost without need.

  --store file|redis   what they share it in                     [file]
  --processes N        how many processes                        [4]
  --tasks N            how many tasks in each                    [64]
  --seconds N          how long                                  [60]
  --grace MS           for so long the previous refresh token gets the same pair again;
                       0: it revokes the session at once         [0]
  --faults LIST        of kill,stop,lost,burst,disk,redis        [all]
                         kill   SIGKILL to a process, and a new one
                         stop   SIGSTOP to a process, for longer than a lease
                         lost   the server's answers are cut off, before it acts or after
                         burst  503 for a while
                         disk   nothing can be written for a while
                         redis  SIGKILL to Redis, and start it again
  --seed N             for the same faults in the same order     [at random]

`unavoidable` counts losses that no client can help: the process that redeemed was killed,
stalled past its lease or had no answer, between the server's commit and the save, and the
server has no grace period.
";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    File,
    Redis,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) store: Kind,
    pub(crate) processes: usize,
    pub(crate) tasks: usize,
    pub(crate) time: Duration,
    pub(crate) grace: Duration,
    pub(crate) faults: Vec<&'static str>,
    pub(crate) seed: u64,
}

const FAULTS: [&str; 6] = ["kill", "stop", "lost", "burst", "disk", "redis"];

impl Options {
    /// `None`: help was asked for.
    pub(crate) fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            store: Kind::File,
            processes: 4,
            tasks: 64,
            time: Duration::from_secs(60),
            grace: Duration::ZERO,
            faults: FAULTS.to_vec(),
            seed: fastrand::u64(..1_000_000),
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{value} is no number"));
            match name.as_str() {
                "--store" => options.store = store(value)?,
                "--processes" => options.processes = number()?.clamp(1, 64) as usize,
                "--tasks" => options.tasks = number()?.clamp(1, 10_000) as usize,
                "--seconds" => options.time = Duration::from_secs(number()?),
                "--grace" => options.grace = Duration::from_millis(number()?),
                "--faults" => options.faults = faults(value)?,
                "--seed" => options.seed = number()?,
                _ => return Err(format!("there is no option {name}")),
            }
        }
        if options.store == Kind::File {
            options.faults.retain(|fault| *fault != "redis");
        }
        Ok(Some(options))
    }
}

fn store(name: &str) -> Result<Kind, String> {
    match name {
        "file" => Ok(Kind::File),
        "redis" => Ok(Kind::Redis),
        _ => Err(format!("there is no store {name}")),
    }
}

fn faults(list: &str) -> Result<Vec<&'static str>, String> {
    let known = |name: &str| {
        let found = FAULTS.into_iter().find(|fault| *fault == name);
        found.ok_or_else(|| format!("there is no fault {name}"))
    };
    match list {
        "all" => Ok(FAULTS.to_vec()),
        "none" => Ok(Vec::new()),
        list => list.split(',').map(known).collect(),
    }
}
