//! The servers that tests start end with them, whatever becomes of them.

use std::{
    env,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use super::{PostgresServer, until};

const CHILD: &str = "TOWER_REFRESH_TEST_CHILD";

/// Does nothing unless it is the process that the test below starts.
#[test]
fn a_process_that_is_to_be_killed() {
    if env::var_os(CHILD).is_some() {
        let server = PostgresServer::start();
        println!("\nserver {} {}", server.port(), server.folder().display());
        loop {
            thread::park();
        }
    }
}

#[tokio::test]
async fn a_server_does_not_outlive_a_process_that_is_killed() {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "ends::a_process_that_is_to_be_killed", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find_map(|line| {
        let (port, folder) = line.strip_prefix("server ")?.split_once(' ')?;
        Some((port.parse::<u16>().ok()?, PathBuf::from(folder)))
    });
    let (port, folder) = line.expect("the child says where it is");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    until("gone", async || TcpStream::connect(("127.0.0.1", port)).is_err()).await;
    until("removed", async || !folder.exists()).await;
}

/// Otherwise a test would wait for it for good.
#[test]
#[should_panic(expected = "its port is still free")]
fn a_server_that_cannot_start_is_noticed() {
    let mut server = PostgresServer::start();
    server.kill();
    let _taken = TcpListener::bind(("127.0.0.1", server.port())).unwrap();
    server.start_again();
}
