//! A Redis server of its own: on a free port, in a temporary folder, gone at the end, even
//! if this process is killed. Every write is in a file before it is confirmed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::process::{Signal, kill_process};

use super::server_process::{ServerProcess, folder_name, free_port};

/// A running server, or one that was killed and can be started again.
pub struct RedisServer {
    kind: Kind,
    port: u16,
    folder: PathBuf,
    running: Option<ServerProcess>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Tls,
    Cluster,
    Sentinel,
}

impl RedisServer {
    /// Starts one that speaks plain TCP.
    ///
    /// # Panics
    ///
    /// It cannot be started; there is no `redis-server`.
    pub fn start() -> Self {
        Self::start_as(Kind::Plain)
    }

    /// Starts one that speaks TLS only, as `localhost`.
    pub fn start_tls() -> Self {
        Self::start_as(Kind::Tls)
    }

    /// Starts a cluster that has one node.
    pub fn start_cluster() -> Self {
        let server = Self::start_as(Kind::Cluster);
        let mut connection = server.connection();
        let slots: Vec<u16> = (0..16384).collect();
        let mut add = redis::cmd("CLUSTER");
        add.arg("ADDSLOTS").arg(slots).exec(&mut connection).expect("the slots are free");
        loop {
            let info: String =
                redis::cmd("CLUSTER").arg("INFO").query(&mut connection).expect("it answers");
            if info.contains("cluster_state:ok") {
                return server;
            }
            thread::yield_now();
        }
    }

    /// Starts a Sentinel, which watches nothing.
    pub fn start_sentinel() -> Self {
        Self::start_as(Kind::Sentinel)
    }

    fn start_as(kind: Kind) -> Self {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            panic!("there is no redis-server here: `apt-get install redis-server`");
        }
        let folder = new_folder(&folder_name("redis"));
        if kind == Kind::Tls {
            let names = ["localhost".to_owned()];
            let identity = rcgen::generate_simple_self_signed(names).expect("a certificate");
            let write = |name, pem: String| fs::write(folder.join(name), pem).expect("a file");
            write("cert.pem", identity.cert.pem());
            write("key.pem", identity.signing_key.serialize_pem());
        }
        let mut server = Self { kind, port: 0, folder, running: None };
        // Another process may be given the same port at the same moment.
        for _ in 0..10 {
            server.port = low_port();
            server.running = server.run();
            if server.running.is_some() {
                return server;
            }
        }
        panic!("redis-server does not start: see what `redis-server --port 0` says");
    }

    /// `None`: it ended before it was ready.
    fn run(&self) -> Option<ServerProcess> {
        let folder = self.folder.to_str().expect("a readable path");
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        if self.kind == Kind::Sentinel {
            // It keeps what it knows in there.
            let file = format!("{folder}/sentinel.conf");
            fs::write(&file, "").expect("a file");
            command.args([&file, "--sentinel"]);
        } else {
            command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
        }
        command.args(["--bind", "127.0.0.1", "--dir", folder, "--daemonize", "no"]);
        match self.kind {
            Kind::Sentinel => command.args(["--port", &port]),
            Kind::Plain => command.args(["--port", &port]),
            Kind::Tls => command
                .args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"])
                .args(["--tls-cert-file", &format!("{folder}/cert.pem")])
                .args(["--tls-key-file", &format!("{folder}/key.pem")])
                .args(["--tls-ca-cert-file", &format!("{folder}/cert.pem")]),
            Kind::Cluster => command
                .args(["--port", &port, "--cluster-enabled", "yes"])
                .args(["--cluster-announce-ip", "127.0.0.1"]),
        };
        ServerProcess::start(&command, &self.folder, "KILL", |line| {
            let ready = ["Ready to accept connections", "Sentinel ID is"];
            ready.iter().any(|ready| line.contains(ready))
        })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        match self.kind {
            Kind::Tls => format!("rediss://localhost:{}/", self.port),
            _ => format!("redis://127.0.0.1:{}/", self.port),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The certificate to trust, PEM.
    pub fn certificate(&self) -> String {
        fs::read_to_string(self.folder.join("cert.pem")).expect("a TLS server")
    }

    /// SIGKILL. What it has confirmed is on the disk.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.end(true);
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

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("a running server");
        kill_process(running.pid, signal).expect("it is there");
    }

    /// A connection of its own, to ask it what it has.
    pub fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("its own URL");
        client.get_connection().expect("it runs")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end(false);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// In memory if it can be, where files outlive their process all the same: a disk that other
/// processes keep busy makes a server late, and its leases run out.
fn new_folder(name: &str) -> PathBuf {
    let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
    let made = places.into_iter().filter(|place| place.is_dir()).find_map(|place| {
        let folder = place.join(name);
        fs::create_dir_all(&folder).is_ok().then_some(folder)
    });
    made.expect("a temporary folder")
}

/// One that leaves room for the port of a cluster's bus, which is 10000 further up.
fn low_port() -> u16 {
    loop {
        let port = free_port();
        if port < 55_000 {
            return port;
        }
    }
}
