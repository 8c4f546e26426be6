//! The command line.

use std::time::Duration;

pub(crate) const HELP: &str = "\
usage: bff [OPTIONS]

Starts an authorization server, an API and an application with browser sessions on loopback, and
prints the address of the application.

  --mode opaque|sealed                  where the tokens are: in the stores, or in the browser's
                     cookies, and in the stores what it may not have         [opaque]
  --stores memory|file|redis|postgres                                        [memory]
  --replicas N       how many processes the application would have           [1]
  --port N           where the application listens; 0: at a free port        [0]
  --life SECONDS     for how long an access token is good                    [300]
  --check            does it all without a browser, and ends in a line
                       tabs=... requests=... ok=... refreshes=... token_reuse=... sessions_lost=...
                     with exit code 1 if anything is not as it should be
  --tabs N           of the check: how many tabs the browser has             [4]
  --rounds N         of the check: how often the token runs out              [3]

Redis and PostgreSQL are started, and have to be installed: `apt-get install redis-server postgresql`.
";

const LIFE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Memory,
    File,
    Redis,
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    Opaque,
    Sealed,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) store: Kind,
    pub(crate) replicas: usize,
    pub(crate) port: u16,
    pub(crate) life: Duration,
    pub(crate) check: bool,
    pub(crate) tabs: usize,
    pub(crate) rounds: usize,
}

impl Options {
    /// `None`: help was asked for.
    pub(crate) fn read(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            mode: Mode::Opaque,
            store: Kind::Memory,
            replicas: 1,
            port: 0,
            life: LIFE,
            check: false,
            tabs: 4,
            rounds: 3,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            match name.as_str() {
                "--help" | "-h" => return Ok(None),
                "--check" => {
                    options.check = true;
                    continue;
                }
                "--mode" | "--stores" | "--replicas" | "--port" | "--life" | "--tabs"
                | "--rounds" => {}
                _ => return Err(format!("there is no option {name}")),
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = |least: u64, most: u64| match value.parse() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(format!("{name} takes a number from {least} to {most}, not {value}")),
            };
            match name.as_str() {
                "--mode" => options.mode = mode(value)?,
                "--stores" => options.store = kind(value)?,
                "--replicas" => options.replicas = number(1, 16)? as usize,
                "--port" => options.port = number(0, 65_535)? as u16,
                "--life" => options.life = Duration::from_secs(number(1, 86_400)?),
                "--tabs" => options.tabs = number(1, 16)? as usize,
                _ => options.rounds = number(1, 100)? as usize,
            }
        }
        if options.store == Kind::Memory && options.replicas > 1 {
            return Err("replicas share no memory: choose other --stores for more than one".into());
        }
        if options.check && options.life != LIFE {
            return Err("a check lets tokens run out itself, and takes no --life".into());
        }
        Ok(Some(options))
    }
}

fn mode(name: &str) -> Result<Mode, String> {
    match name {
        "opaque" => Ok(Mode::Opaque),
        "sealed" => Ok(Mode::Sealed),
        _ => Err(format!("there is no mode {name}")),
    }
}

fn kind(name: &str) -> Result<Kind, String> {
    match name {
        "memory" => Ok(Kind::Memory),
        "file" => Ok(Kind::File),
        "redis" => Ok(Kind::Redis),
        "postgres" => Ok(Kind::Postgres),
        _ => Err(format!("there are no stores {name}")),
    }
}
