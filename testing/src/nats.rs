//! A NATS server of its own: on a free port, in a temporary folder, gone at the end, even if this
//! process is killed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
};

use rustix::process::{Signal, kill_process};

use super::server_process::{ServerProcess, folder_name, free_port};

/// A running server. The user `shop` has the password that was set last, the user `admin` the
/// password `admin`.
pub struct NatsServer {
    port: u16,
    config: PathBuf,
    running: Option<ServerProcess>,
}

impl NatsServer {
    /// Starts one, whose user `shop` has this password.
    ///
    /// # Panics
    ///
    /// It cannot be started; there is no `nats-server`.
    pub fn start(password: &str) -> Self {
        let folder = std::env::temp_dir().join(folder_name("nats"));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let config = folder.join("nats.conf");
        fs::write(&config, settings(password)).expect("a file");
        // Another process may be given the same port at the same moment.
        for _ in 0..10 {
            let port = free_port();
            let mut server = Command::new("nats-server");
            server.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c"]).arg(&config);
            let is_ready = |line: &str| line.contains("Server is ready");
            let running = ServerProcess::start(&server, &folder, "TERM", is_ready);
            if running.is_some() {
                return Self { port, config, running };
            }
        }
        panic!("nats-server does not start: is it there? `apt-get install nats-server`");
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The user `shop` has another password from now on. Connections that were made with the one before
    /// are ended.
    ///
    /// # Panics
    ///
    /// The server is gone.
    pub fn set_password(&self, password: &str) {
        fs::write(&self.config, settings(password)).expect("a file");
        let server = self.running.as_ref().expect("a running server").pid;
        kill_process(server, Signal::HUP).expect("it is there");
        while !self.accepts(password) {
            thread::yield_now();
        }
    }

    fn accepts(&self, password: &str) -> bool {
        let mut stream = TcpStream::connect(self.address()).expect("it listens");
        let greeting = format!(r#"CONNECT {{"user":"shop","pass":"{password}"}}"#);
        // It may have hung up before it has read that.
        let _ = stream.write_all(format!("{greeting}\r\nPING\r\n").as_bytes());
        BufReader::new(stream).lines().map_while(Result::ok).any(|line| line == "PONG")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.end(false);
        }
    }
}

fn settings(password: &str) -> String {
    let user =
        |name: &str, password: &str| format!(r#"{{user: "{name}", password: "{password}"}}"#);
    format!("authorization: {{users: [{}, {}]}}\n", user("admin", "admin"), user("shop", password))
}
