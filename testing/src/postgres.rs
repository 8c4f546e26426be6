//! A PostgreSQL server of its own: on a free port, in a temporary folder, gone at the end, even
//! if this process is killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::server_process::{ServerProcess, folder_name, free_port};

/// A running server, or one that was killed and can be started again.
pub struct PostgresServer {
    programs: PathBuf,
    port: u16,
    folder: PathBuf,
    running: Option<ServerProcess>,
}

impl PostgresServer {
    /// Starts one that trusts everybody.
    ///
    /// # Panics
    ///
    /// It cannot be started; there is no PostgreSQL.
    pub fn start() -> Self {
        let programs = programs()
            .unwrap_or_else(|| panic!("there is no PostgreSQL here: `apt-get install postgresql`"));
        let folder = std::env::temp_dir().join(folder_name("postgres"));
        fs::create_dir_all(&folder).expect("a temporary folder");
        if geteuid().is_root() {
            let chown = Command::new("chown").arg("postgres").arg(&folder).status();
            assert!(chown.expect("chown").success(), "the user postgres is there");
        }
        let mut server = Self { programs, port: 0, folder, running: None };
        let made = server
            .program("initdb")
            .args(["--no-sync", "--auth=trust", "--username=postgres"])
            .args(["--encoding=UTF8", "--locale=C", "-D"])
            .arg(server.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("initdb").success(), "initdb has failed");
        // Another process may be given the same port at the same moment.
        for _ in 0..10 {
            server.port = free_port();
            server.running = server.run();
            if server.running.is_some() {
                return server;
            }
        }
        panic!("PostgreSQL does not start");
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of its programs, run as a user that it accepts: it refuses to work for root.
    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match geteuid().is_root() {
            false => Command::new(program),
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
                command.arg(program);
                command
            }
        };
        command.current_dir(&self.folder);
        command
    }

    /// `None`: it ended before it was ready.
    fn run(&self) -> Option<ServerProcess> {
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.data()).arg("-p").arg(self.port.to_string());
        server.arg("-k").arg(&self.folder).args(["-h", "127.0.0.1"]);
        // What is in the kernel's hands outlives a server that is killed.
        for setting in ["fsync=off", "max_connections=200", "shared_buffers=16MB"] {
            server.args(["-c", setting]);
        }
        // Immediately: all that it does not write is what it writes at a shutdown.
        ServerProcess::start(&server, &self.folder, "QUIT", |line| {
            line.contains("ready to accept connections")
        })
    }

    /// The URL of its database, for this user.
    pub fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// The URL of its database.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An immediate shutdown, as good as a crash: the next start recovers what was committed.
    pub fn kill(&mut self) {
        self.end(true);
    }

    fn end(&mut self, keep: bool) {
        if let Some(running) = self.running.take() {
            // A server that is stopped hears nothing.
            let _ = kill_process(running.pid, Signal::CONT);
            running.end(keep);
        }
    }

    /// Starts it on the same port, with the same data, after [`kill`](Self::kill).
    pub fn start_again(&mut self) {
        self.kill();
        self.running = Some(self.run().expect("its port is still free"));
    }

    /// SIGSTOP: its connections stay, and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// To the server, and to the processes that it has for its connections.
    fn signal(&self, signal: Signal) {
        let server = self.running.as_ref().expect("a running server").pid;
        kill_process(server, signal).expect("it is there");
        let pid = server.as_raw_nonzero();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("Linux");
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // It may have ended meanwhile.
            let _ = Pid::from_raw(child).map(|child| kill_process(child, signal));
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.end(false);
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where its programs are: Debian has them in a folder for each version, and not on the path.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all: Vec<PathBuf> = debian.collect();
    // The latest version first.
    all.sort();
    all.reverse();
    all.extend(std::env::split_paths(&path));
    all.into_iter().find(|folder| folder.join("initdb").exists())
}
