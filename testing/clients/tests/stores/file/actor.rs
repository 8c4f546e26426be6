//! Other processes. A child is this program again, told by its environment which part it plays
//! in which test; a line that begins with `@` is its word to the parent.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

pub(super) const PART: &str = "TOWER_REFRESH_TEST_PART";
pub(super) const FILE: &str = "TOWER_REFRESH_TEST_FILE";

/// A process that ends with the test.
pub(super) struct Actor {
    child: Child,
    said: BufReader<ChildStdout>,
    told: ChildStdin,
}

impl Actor {
    /// One that plays this part in that test.
    pub(super) fn new(part: &str, child: &str, file: &Path) -> Self {
        Self::with(part, child, file, &[])
    }

    pub(super) fn with(part: &str, child: &str, file: &Path, told: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.envs(told.iter().copied());
        Self::begin(command, part, child, file)
    }

    /// One that is run by this command, as root of a namespace perhaps.
    pub(super) fn through(mut command: Command, part: &str, child: &str, file: &Path) -> Self {
        command.arg(env::current_exe().unwrap());
        Self::begin(command, part, child, file)
    }

    fn begin(mut command: Command, part: &str, child: &str, file: &Path) -> Self {
        let mut child = command
            .args([child, "--exact", "--nocapture"])
            .env(PART, part)
            .env(FILE, file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let told = child.stdin.take().unwrap();
        Self { child, said, told }
    }

    /// Its next word. `None`: it has ended.
    pub(super) fn word(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(word) = line.strip_prefix('@') {
                return Some(word.trim_end().to_owned());
            }
        }
    }

    #[track_caller]
    pub(super) fn says(&mut self, word: &str) {
        assert_eq!(self.word().as_deref(), Some(word));
    }

    pub(super) fn tell(&mut self) {
        self.told.write_all(b"\n").unwrap();
    }

    /// SIGKILL. When this returns, the process is gone.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn end(&mut self) -> ExitStatus {
        while self.word().is_some() {}
        self.child.wait().unwrap()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{word}").unwrap();
    out.flush().unwrap();
}

/// Waits for a line, or for the parent's end.
pub(super) fn listen() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}
