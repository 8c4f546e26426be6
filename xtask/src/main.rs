//! `cargo xtask`: every check of this project. `cargo xtask NAME` runs one of them,
//! `cargo xtask bench` the benchmarks.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// A check's name, the environment it needs, and its command line.
type Check = (&'static str, &'static [(&'static str, &'static str)], &'static str);

const DENY: &[(&str, &str)] = &[("RUSTFLAGS", "-D warnings")];

const CHECKS: &[Check] = &[
    ("format", &[], "fmt --all --check"),
    ("clippy", &[], "clippy --workspace --all-targets --all-features --locked -- -D warnings"),
    ("docs", &[("RUSTDOCFLAGS", "-D warnings")], "doc --no-deps --all-features --locked"),
    ("default-docs", &[("RUSTDOCFLAGS", "-D warnings")], "doc --no-deps --lib --locked"),
    (
        "oauth2-docs",
        &[("RUSTDOCFLAGS", "-D warnings")],
        "doc --no-deps --lib --features oauth2 --locked",
    ),
    (
        "file-docs",
        &[("RUSTDOCFLAGS", "-D warnings")],
        "doc --no-deps --lib --features file --locked",
    ),
    ("default-build", DENY, "check --lib --locked"),
    ("oauth2-build", DENY, "check --lib --locked --features oauth2"),
    ("oauth2-client-build", DENY, "check --lib --locked --features oauth2-client"),
    ("oauth2-client-ring-build", DENY, "check --lib --locked --features oauth2-client,ring"),
    ("reqwest-build", DENY, "check --lib --locked --features reqwest-middleware"),
    ("oauth2-reqwest-build", DENY, "check --lib --locked --features oauth2,reqwest-middleware"),
    ("seal-build", DENY, "check --lib --locked --features seal"),
    ("file-build", DENY, "check --lib --locked --features file"),
    ("redis-build", DENY, "check --lib --locked --features redis"),
    ("redis-tls-build", DENY, "check --lib --locked --features redis-tls"),
    ("redis-tls-ring-build", DENY, "check --lib --locked --features redis-tls,ring"),
    ("redis-cluster-build", DENY, "check --lib --locked --features redis-cluster"),
    ("file-redis-build", DENY, "check --lib --locked --features file,redis"),
    ("full-build", DENY, "check --lib --locked --features full"),
    ("tests", &[], "test --all-features --locked"),
    ("quickstart", &[], "run --example quickstart --locked"),
    ("quickstart-late", &[], "run --example quickstart --locked -- --requests 1000 --late"),
    ("hyper_client", &[], "run --example hyper_client --features oauth2-client --locked"),
    ("axum_gateway", &[], "run --example axum_gateway --features oauth2-client --locked"),
    (
        "client_credentials",
        &[],
        "run --example client_credentials --features oauth2-client --locked",
    ),
    ("custom_refresher", &[], "run --example custom_refresher --locked"),
    (
        "reqwest_client",
        &[],
        "run --example reqwest_client --features oauth2,reqwest-middleware --locked",
    ),
    ("shared_file", &[], "run --example shared_file --features file,oauth2-client --locked"),
    ("tonic_client", &[], "run --example tonic_client --locked"),
    ("replicas", &[], "run --example replicas --features oauth2-client,redis --locked"),
    (
        "torture-file",
        &[],
        "run --example torture --features file,oauth2-client,redis --locked -- --seconds 15",
    ),
    (
        "torture-redis",
        &[],
        "run --example torture --features file,oauth2-client,redis --locked -- --seconds 15 --store redis --grace 2000",
    ),
];

const BENCHES: &[Check] = &[
    ("hot_path", &[], "bench --bench hot_path --locked"),
    ("herd", &[], "bench --bench herd --locked"),
    ("end_to_end", &[], "bench --bench end_to_end --locked"),
    ("wake", &[], "bench --bench wake --features redis --locked"),
];

/// Those that start a Redis server.
const NEED_REDIS: &[&str] = &["tests", "replicas", "torture-redis", "wake"];

fn main() -> ExitCode {
    let wanted = env::args().nth(1);
    let checks: Vec<&Check> = match wanted.as_deref() {
        None => CHECKS.iter().collect(),
        Some("bench") => BENCHES.iter().collect(),
        Some(name) => CHECKS.iter().chain(BENCHES).filter(|(known, ..)| *known == name).collect(),
    };
    if checks.is_empty() {
        let names = CHECKS.iter().chain(BENCHES).map(|(name, ..)| *name).collect::<Vec<_>>();
        eprintln!("there is no such check; there are: bench, {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    if checks.iter().any(|(name, ..)| NEED_REDIS.contains(name)) && !has_redis() {
        eprintln!("there is no redis-server here: `apt-get install redis-server`");
        return ExitCode::FAILURE;
    }
    for (name, variables, arguments) in checks {
        println!("== {name}: cargo {arguments}");
        #[allow(clippy::disallowed_methods, reason = "there is no clock to pause here")]
        let began = Instant::now();
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(arguments.split_whitespace())
            .envs(variables.iter().copied())
            .status();
        match status {
            Ok(status) if status.success() => {
                println!("== {name}: passed in {} s\n", began.elapsed().as_secs());
            }
            Ok(status) => {
                eprintln!("== {name}: FAILED ({status})");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("== {name}: cargo cannot be started: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Whether there is a Redis server to be started. On Debian it is installed if need be.
fn has_redis() -> bool {
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let is_there = || works("redis-server", &["--version"]);
    if is_there() || !works("apt-get", &["--version"]) {
        return is_there();
    }
    println!("== redis-server is installed: apt-get install redis-server");
    // As root, or as somebody who may become root without being asked for a password.
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let apt = |arguments: &[&str]| match root {
        true => works("apt-get", arguments),
        false => works("sudo", &[&["-n", "apt-get"], arguments].concat()),
    };
    let install = || apt(&["install", "-y", "redis-server"]);
    // A fresh machine does not know of any package yet.
    (install() || (apt(&["update"]) && install())) && is_there()
}
