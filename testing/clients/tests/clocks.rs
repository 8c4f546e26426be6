//! A machine that sleeps, and a wall clock that is set, for real: libfaketime moves the wall
//! clock of a process and leaves its monotonic clock alone, as a night's sleep does.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tower_refresh::{RefreshState, Tokens};

/// Where Debian puts the library, for one architecture or another.
const FOLDERS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime",
    "/usr/lib/aarch64-linux-gnu/faketime",
    "/usr/lib/faketime",
];

const HOUR: Duration = Duration::from_secs(3600);

/// Says which token it has: at each line that it reads, and (if it is to keep it fresh) when it
/// has another.
#[test]
#[ignore = "it is the process that the tests start"]
fn process() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let number = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(2));
        let state = RefreshState::builder(move |_: Tokens| {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                let tokens = Tokens::new(format!("access-{number}")).with_refresh_token("r");
                Ok(tokens.with_expires_in(HOUR))
            }
        })
        .tokens(Tokens::new("access-1").with_refresh_token("r").with_expires_in(HOUR))
        .early_refresh(Duration::ZERO)
        .build();
        if env::var_os("KEEP_FRESH").is_some() {
            let _fresh = state.keep_fresh();
            let mut changes = state.subscribe();
            println!("token: {}", state.token().await.unwrap().access_token().unwrap());
            changes.changed().await.unwrap();
            println!("token: {}", state.current().access_token().unwrap());
            return;
        }
        for line in std::io::stdin().lines() {
            line.unwrap();
            println!("token: {}", state.token().await.unwrap().access_token().unwrap());
        }
    });
}

/// A process whose wall clock can be moved.
struct Moved {
    child: Child,
    folder: tempfile::TempDir,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Moved {
    fn start(keep_fresh: bool) -> Self {
        let library = FOLDERS.map(|folder| Path::new(folder).join("libfaketime.so.1"));
        let library = library.into_iter().find(|path| path.exists());
        let library = library.expect("libfaketime is missing: `apt-get install libfaketime`");
        let folder = tempfile::tempdir().unwrap();
        let offset = folder.path().join("offset");
        fs::write(&offset, "+0").unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "process", "--ignored", "--nocapture"])
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", offset)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if keep_fresh {
            command.env("KEEP_FRESH", "1");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, folder, lines }
    }

    /// The wall clock is this much away from the real one.
    fn set(&self, offset: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, offset).unwrap();
        fs::rename(new, self.folder.path().join("offset")).unwrap();
    }

    fn ask(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.next()
    }

    /// The token that it names next.
    fn next(&mut self) -> String {
        let mut lines = self.lines.by_ref().map(Result::unwrap);
        // The test harness of the process writes to the same line before it.
        lines.find_map(|line| Some(line.split_once("token: ")?.1.to_owned())).unwrap()
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn after_a_nights_sleep_the_token_is_refreshed_before_it_is_used() {
    let mut process = Moved::start(false);
    assert_eq!(process.ask(), "access-1");
    process.set("+8h");
    assert_eq!(process.ask(), "access-2");
    assert_eq!(process.ask(), "access-2");
}

/// Forward and right again, or back and right again.
#[test]
fn a_wall_clock_that_is_set_costs_one_refresh_at_most() {
    for (offset, then) in [("+5h", "access-2"), ("-5h", "access-1")] {
        let mut process = Moved::start(false);
        assert_eq!(process.ask(), "access-1");
        for offset in [offset, "+0", offset, "+0"] {
            process.set(offset);
            assert_eq!(process.ask(), then);
        }
    }
}

/// It looks at the wall clock every half minute.
#[test]
fn keep_fresh_catches_up_after_a_nights_sleep() {
    let mut process = Moved::start(true);
    assert_eq!(process.next(), "access-1");
    process.set("+8h");
    assert_eq!(process.next(), "access-2");
}
