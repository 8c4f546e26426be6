//! A server in a process of its own, which ends with the one that has started it, even if that is
//! killed.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::process::Pid;

/// Waits until its standard input ends, as it does when the process that started it is gone, and
/// then sends the server a signal. The folder stays only if the word `keep` came before. Only
/// the server holds the output after the first line, so that the output ends with it.
const WRAPPER: &str = r#"
folder=$1; signal=$2; shift 2
"$@" 2>&1 & server=$!
echo "pid $server"
exec >&-
read word || word=
kill -$signal $server
wait $server
[ "$word" = keep ] || rm -rf "$folder"
"#;

pub(crate) struct ServerProcess {
    wrapper: Child,
    stdin: ChildStdin,
    pub(crate) pid: Pid,
}

impl ServerProcess {
    /// Starts this command, with a folder that is gone with it, and a signal that ends it. It writes
    /// a line when it is ready. `None`: it ended before.
    pub(crate) fn start(
        server: &Command,
        folder: &Path,
        signal: &str,
        is_ready: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", WRAPPER, "sh"]).arg(folder).arg(signal);
        command.arg(server.get_program()).args(server.get_args());
        // With pipes of its own, it does not end with the terminal's Ctrl-C first.
        let mut wrapper = command
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let stdin = wrapper.stdin.take().expect("it was asked for");
        let stdout = wrapper.stdout.take().expect("it was asked for");
        // The shell's line and those of the server come in any order.
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let (mut pid, mut ready) = (None, false);
        while pid.is_none() || !ready {
            let Some(line) = lines.next() else { break };
            let found = line.strip_prefix("pid ").and_then(|pid| pid.parse().ok());
            pid = pid.or(found.and_then(Pid::from_raw));
            ready |= is_ready(&line);
        }
        let process = Self { wrapper, stdin, pid: pid.expect("the shell says it") };
        if !ready {
            process.end(true);
            return None;
        }
        // What it says is read to its end, or it would have to wait for a reader.
        thread::spawn(move || lines.for_each(drop));
        Some(process)
    }

    /// `keep`: the folder.
    pub(crate) fn end(mut self, keep: bool) {
        if keep {
            // If the shell is gone, so is the server.
            let _ = self.stdin.write_all(b"keep\n");
        }
        drop(self.stdin);
        let _ = self.wrapper.wait();
    }
}

/// For a folder of this kind of server: no other of this process, or of another one, has it.
pub(crate) fn folder_name(kind: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("tower-refresh-{kind}-{}-{number}", std::process::id())
}

/// One that nobody has at this moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("it is bound").port()
}
