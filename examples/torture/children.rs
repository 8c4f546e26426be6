//! Processes that end with the one that started them.

use std::{env, io, process::Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{ChildStdout, Command},
    sync::{oneshot, watch},
};
use tower_refresh::BoxError;

/// A child that is killed when this is dropped, and leaves by itself when its parent is
/// killed: its standard input is a pipe that closes then.
pub(crate) struct Child {
    pub(crate) id: u64,
    process: tokio::process::Child,
    pid: Pid,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    last: Option<watch::Receiver<String>>,
}

impl Child {
    pub(crate) fn start(id: u64, arguments: &[&str]) -> Result<Self, BoxError> {
        let mut process = Command::new(env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = process.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let lines = process.stdout.take().map(|output| BufReader::new(output).lines());
        Ok(Self { id, process, pid: pid.ok_or("it has ended")?, lines, last: None })
    }

    pub(crate) async fn first_line(&mut self) -> Result<String, BoxError> {
        let lines = self.lines.as_mut().ok_or("it has no output")?;
        Ok(lines.next_line().await?.ok_or("it has said nothing")?)
    }

    /// Keeps its last line from now on.
    pub(crate) fn follow(&mut self) {
        let (sender, receiver) = watch::channel(String::new());
        if let Some(mut lines) = self.lines.take() {
            tokio::spawn(async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    sender.send_replace(line);
                }
            });
        }
        self.last = Some(receiver);
    }

    pub(crate) fn last_line(&self) -> String {
        self.last.as_ref().map(|last| last.borrow().clone()).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BoxError> {
        Ok(kill_process(self.pid, signal)?)
    }

    /// How many bytes it may write to a file, as on a disk that is full.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) -> Result<(), BoxError> {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(self.pid), Resource::Fsize, limit)?;
        Ok(())
    }

    pub(crate) async fn killed(&mut self) -> Result<(), BoxError> {
        self.signal(Signal::KILL)?;
        self.process.wait().await?;
        Ok(())
    }

    /// Asks it to leave, and waits until it has.
    pub(crate) async fn leave(&mut self) -> Result<bool, BoxError> {
        drop(self.process.stdin.take());
        Ok(self.process.wait().await?.success())
    }
}

/// In a child: returns when its parent is gone, or wants it to leave.
pub(crate) async fn parent_is_gone() {
    let (gone, heard) = oneshot::channel();
    // A thread of its own: a runtime would wait for one of its threads.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = gone.send(());
    });
    let _ = heard.await;
}
