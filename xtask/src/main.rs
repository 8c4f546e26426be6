//! `cargo xtask`: every check of this project. `cargo xtask NAME` runs one of them,
//! `cargo xtask bench` the benchmarks, `cargo xtask release` what else is looked at before a release.
//! With `--no-install` nothing is installed that is missing: it says what, and fails.

mod ecosystem;
mod fuzz;
mod links;
mod loom;
mod release;
mod tools;

use std::{
    env, io,
    num::NonZero,
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread::available_parallelism,
    time::Instant,
};

use tools::Tool;

/// A check: its name, and what it does.
type Check = (&'static str, Step);

enum Step {
    /// Runs cargo with these arguments.
    Cargo(&'static str),
    /// The same, with warnings of rustdoc as errors.
    Doc(&'static str),
    /// The same, with more tests at once than there are processors: those of stores wait for
    /// leases to run out, and use none.
    Test(&'static str),
    /// Runs an example that is built already, with these arguments.
    Example(&'static str),
    /// Runs a program that is no part of cargo, with its arguments.
    Program(&'static str),
    /// Does this, of which more than one line is to be said.
    Own(&'static str, fn() -> Result<(), String>),
}

use Step::{Cargo, Doc, Example, Own, Program, Test};

/// In an order in which one step has built what the next needs. Every set of features is
/// looked at by clippy, as a build without code; only the tests and the examples are built,
/// all of them with the same features.
const CHECKS: &[Check] = &[
    ("format", Cargo("fmt --all --check")),
    ("links", Own("what the documents name", links::check)),
    ("clippy", Cargo("clippy --workspace --all-targets --all-features --locked -- -D warnings")),
    ("quickstart-alone", Cargo("clippy --example quickstart --locked -- -D warnings")),
    ("examples-alone", Cargo("clippy -p examples --examples --locked -- -D warnings")),
    ("default-build", Cargo("clippy --lib --locked -- -D warnings")),
    ("default-docs", Doc("doc --no-deps --lib --locked")),
    ("oauth2-build", Cargo("clippy --lib --locked --features oauth2 -- -D warnings")),
    ("oauth2-docs", Doc("doc --no-deps --lib --locked --features oauth2")),
    ("oauth2-client-build", Cargo("clippy --lib --locked --features oauth2-client -- -D warnings")),
    (
        "oauth2-client-ring-build",
        Cargo("clippy --lib --locked --features oauth2-client,ring -- -D warnings"),
    ),
    ("oauth2-jwt-build", Cargo("clippy --lib --locked --features oauth2-jwt -- -D warnings")),
    ("reqwest-build", Cargo("clippy --lib --locked --features reqwest -- -D warnings")),
    ("reqwest-docs", Doc("doc --no-deps --lib --locked --features reqwest")),
    (
        "reqwest-middleware-build",
        Cargo("clippy --lib --locked --features reqwest-middleware -- -D warnings"),
    ),
    (
        "oauth2-reqwest-build",
        Cargo("clippy --lib --locked --features oauth2,reqwest-middleware -- -D warnings"),
    ),
    ("in-body-build", Cargo("clippy --lib --locked --features in-body -- -D warnings")),
    ("in-body-docs", Doc("doc --no-deps --lib --locked --features in-body")),
    (
        "in-body-reqwest-build",
        Cargo("clippy --lib --locked --features in-body,reqwest -- -D warnings"),
    ),
    ("metrics-build", Cargo("clippy --lib --locked --features metrics -- -D warnings")),
    ("seal-build", Cargo("clippy --lib --locked --features seal -- -D warnings")),
    ("file-build", Cargo("clippy --lib --locked --features file -- -D warnings")),
    ("file-docs", Doc("doc --no-deps --lib --locked --features file")),
    ("postgres-build", Cargo("clippy --lib --locked --features postgres -- -D warnings")),
    ("postgres-docs", Doc("doc --no-deps --lib --locked --features postgres")),
    ("redis-build", Cargo("clippy --lib --locked --features redis -- -D warnings")),
    ("redis-tls-build", Cargo("clippy --lib --locked --features redis-tls -- -D warnings")),
    (
        "redis-tls-ring-build",
        Cargo("clippy --lib --locked --features redis-tls,ring -- -D warnings"),
    ),
    ("redis-cluster-build", Cargo("clippy --lib --locked --features redis-cluster -- -D warnings")),
    ("session-build", Cargo("clippy --lib --locked --features session -- -D warnings")),
    ("session-docs", Doc("doc --no-deps --lib --locked --features session")),
    ("session-proxy-build", Cargo("clippy --lib --locked --features session-proxy -- -D warnings")),
    ("axum-build", Cargo("clippy --lib --locked --features axum -- -D warnings")),
    ("serde-build", Cargo("clippy --lib --locked --features serde -- -D warnings")),
    ("tonic-build", Cargo("clippy --lib --locked --features tonic -- -D warnings")),
    ("file-redis-build", Cargo("clippy --lib --locked --features file,redis -- -D warnings")),
    ("full-build", Cargo("clippy --lib --locked --features full -- -D warnings")),
    ("docs", Doc("doc --no-deps --all-features --locked")),
    ("tests", Test("test --workspace --all-features --locked")),
    (BUILD, Cargo("build --workspace --examples --all-features --locked")),
    ("quickstart", Example("quickstart")),
    ("quickstart-late", Example("quickstart --requests 1000 --late")),
    ("hyper_client", Example("hyper_client")),
    ("axum_gateway", Example("axum_gateway")),
    ("beside_tower_sessions", Example("beside_tower_sessions")),
    ("bff", Example("bff --check")),
    ("bff-sealed", Example("bff --check --mode sealed --stores redis --replicas 3")),
    ("bff-redis", Example("bff --check --stores redis --replicas 3")),
    ("client_credentials", Example("client_credentials")),
    ("custom_refresher", Example("custom_refresher")),
    ("exec_credential", Example("exec_credential")),
    ("json_endpoint", Example("json_endpoint")),
    ("login", Example("login")),
    ("reqwest_client", Example("reqwest_client")),
    ("shared_file", Example("shared_file")),
    ("token_file", Example("token_file")),
    ("tonic_client", Example("tonic_client")),
    ("replicas", Example("replicas")),
    ("torture-file", Example("torture --seconds 15")),
    ("torture-sessions", Example("torture sessions --seconds 15 --store redis")),
    ("torture-sealed", Example("torture sessions --seconds 15 --mode sealed --store redis")),
    ("torture-redis", Example("torture --seconds 15 --store redis --grace 2000")),
    ("ecosystem", Own("the programs in ecosystem/", ecosystem::check)),
    ("loom", Own("what threads share, in every order of steps", loom::run)),
    ("fuzz", Own("each fuzz target for a minute", fuzz::run)),
];

/// What the examples need, one of them or all.
const BUILD: &str = "examples";

const BENCHES: &[Check] = &[
    ("hot_path", Cargo("bench -p benches --bench hot_path --locked")),
    (
        "hot_path-as-users-build",
        Cargo("bench -p benches --bench hot_path --profile as-users-build --locked"),
    ),
    ("many", Cargo("bench -p benches --bench many --locked")),
    ("herd", Cargo("bench -p benches --bench herd --locked")),
    ("end_to_end", Cargo("bench -p benches --bench end_to_end --locked")),
    ("reqwest", Cargo("bench -p benches --bench reqwest --features reqwest --locked")),
    ("sessions", Cargo("bench -p benches --bench sessions --features sessions --locked")),
    ("seal", Cargo("bench -p benches --bench seal --features sessions --locked")),
    ("doubt", Cargo("bench -p benches --bench doubt --locked")),
    ("wake", Cargo("bench -p benches --bench wake --features redis --locked")),
];

/// Before a release, besides all of the above.
const RELEASE: &[Check] = &[
    ("typos", Program("typos")),
    ("deny", Cargo("deny --all-features --locked check licenses bans sources")),
    ("msrv", Own("the library's dependencies and its rust-version", release::msrv)),
    ("external-types", Own("other crates' types in the API", release::external_types)),
    ("semver", Own("the API and that of the last release", release::semver)),
    ("package", Own("what is packed, and its doctests", release::package)),
    (
        "pairs",
        Cargo(
            "hack check --quiet --lib --feature-powerset --depth 2 --exclude-features default,full --locked",
        ),
    ),
];

/// Debian packages, the checks that need them, and how to see that they are there.
const PACKAGES: &[(&str, &[&str], IsThere)] = &[
    ("cmake", &["ecosystem"], || works("cmake", &["--version"])),
    (
        "redis-server",
        &[
            "tests",
            "bff-redis",
            "bff-sealed",
            "replicas",
            "torture-redis",
            "torture-sealed",
            "torture-sessions",
            "sessions",
            "wake",
        ],
        || works("redis-server", &["--version"]),
    ),
    ("postgresql", &["tests", "ecosystem"], || {
        // Debian has the programs of each version in a folder of its own, which is not on the path.
        let versions = Path::new("/usr/lib/postgresql").read_dir().into_iter().flatten().flatten();
        versions.map(|version| version.path().join("bin/initdb")).any(|initdb| initdb.exists())
            || works("initdb", &["--version"])
    }),
    ("nats-server", &["ecosystem"], || works("nats-server", &["--version"])),
    // alloy's transport over hyper takes no TLS but OpenSSL's.
    ("pkg-config", &["ecosystem"], || works("pkg-config", &["--version"])),
    ("libssl-dev", &["ecosystem"], || works("pkg-config", &["--exists", "openssl"])),
    ("chromium", &["tests"], || works("chromium", &["--version"])),
    ("chromium-driver", &["tests"], || works("chromedriver", &["--version"])),
    // libFuzzer is written in C++.
    ("g++", &["fuzz"], || works("c++", &["--version"])),
    // It moves a process's wall clock.
    ("libfaketime", &["tests"], || {
        let mut folders = ["x86_64-linux-gnu/", "aarch64-linux-gnu/", ""].into_iter();
        folders.any(|folder| {
            Path::new("/usr/lib").join(folder).join("faketime/libfaketime.so.1").exists()
        })
    }),
];

type IsThere = fn() -> bool;

/// Programs from crates.io, and the checks that need them.
const TOOLS: &[Tool] = &[
    ("cargo-fuzz", "0.13.2", &["fuzz"]),
    ("typos-cli", "1.52.0", &["typos"]),
    ("cargo-deny", "0.20.2", &["deny"]),
    ("cargo-hack", "0.6.46", &["pairs"]),
    ("cargo-check-external-types", "0.5.0", &["external-types"]),
    ("cargo-semver-checks", "0.51.0", &["semver"]),
];

fn main() -> ExitCode {
    let (flags, words): (Vec<_>, Vec<_>) = env::args().skip(1).partition(|it| it.starts_with("--"));
    let installs = match flags.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => true,
        ["--no-install"] => false,
        _ => {
            eprintln!("there is no option but --no-install");
            return ExitCode::FAILURE;
        }
    };
    if words.len() > 1 {
        eprintln!("one check at a time, or all of them");
        return ExitCode::FAILURE;
    }
    let wanted = words.into_iter().next();
    let checks: Vec<&Check> = match wanted.as_deref() {
        None => CHECKS.iter().collect(),
        Some("bench") => BENCHES.iter().collect(),
        Some("release") => RELEASE.iter().collect(),
        Some(wanted) => {
            let all = || CHECKS.iter().chain(BENCHES).chain(RELEASE);
            let found: Vec<&Check> = all().filter(|(name, _)| *name == wanted).collect();
            let is_example = matches!(found[..], [(_, Example(_))]);
            let build = all().filter(|(name, _)| is_example && *name == BUILD);
            build.chain(found).collect()
        }
    };
    if checks.is_empty() {
        let all = CHECKS.iter().chain(BENCHES).chain(RELEASE);
        let names = all.map(|(name, _)| *name).collect::<Vec<_>>();
        eprintln!("there is no such check; there are: bench, release, {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    // Before the first release there is nothing to compare, and no need of what compares.
    let is_due = |name: &str| name != "semver" || matches!(release::last(), Ok(Some(_)));
    let is_needed = |needed_by: &[&str]| {
        checks.iter().any(|(name, _)| needed_by.contains(name) && is_due(name))
    };
    let mut missing = Vec::new();
    for (package, needed_by, is_there) in PACKAGES {
        let is_needed = is_needed(needed_by);
        if is_needed && !is_there() && !(installs && install(package) && is_there()) {
            missing.push(*package);
        }
    }
    if !missing.is_empty() {
        eprintln!("these are not here: `apt-get install {}`", missing.join(" "));
        return ExitCode::FAILURE;
    }
    for tool in TOOLS.iter().filter(|(_, _, needed_by)| is_needed(needed_by)) {
        if !(tools::is_there(tool) || installs && tools::install(tool)) {
            eprintln!("{} is not here: `{}`", tool.0, tools::command_line(tool));
            return ExitCode::FAILURE;
        }
    }
    for (name, step) in checks {
        println!("== {name}: {}", step.line());
        #[allow(clippy::disallowed_methods, reason = "there is no clock to pause here")]
        let began = Instant::now();
        if let Err(why) = run(step) {
            eprintln!("== {name}: FAILED ({why})");
            return ExitCode::FAILURE;
        }
        println!("== {name}: passed in {} s\n", began.elapsed().as_secs());
    }
    ExitCode::SUCCESS
}

impl Step {
    fn line(&self) -> String {
        match self {
            Cargo(words) | Doc(words) | Test(words) => format!("cargo {words}"),
            Example(words) | Program(words) | Own(words, _) => (*words).to_owned(),
        }
    }
}

/// What has failed, if something has.
fn run(step: &Step) -> Result<(), String> {
    let words = match step {
        Own(_, check) => return check(),
        Cargo(words) | Doc(words) | Test(words) | Example(words) | Program(words) => words,
    };
    tools::succeeds(&mut command(step, words).map_err(|error| error.to_string())?)
}

fn command(step: &Step, words: &str) -> io::Result<Command> {
    let mut words = words.split_whitespace();
    let mut command = match step {
        // They lie beside this program.
        Example(_) => {
            let folder = env::current_exe()?.with_file_name("examples");
            Command::new(folder.join(words.next().unwrap_or_default()))
        }
        Program(_) => tools::program(words.next().unwrap_or_default())?,
        _ => tools::cargo()?,
    };
    command.args(words);
    match step {
        Doc(_) => command.env("RUSTDOCFLAGS", "-D warnings"),
        Test(_) => command.env("RUST_TEST_THREADS", tests_at_once().to_string()),
        _ => &mut command,
    };
    Ok(command)
}

fn tests_at_once() -> usize {
    4 * available_parallelism().map_or(1, NonZero::get)
}

/// Whether a program does what it is told.
fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Installs a package where that can be done: on Debian.
fn install(package: &str) -> bool {
    if !works("apt-get", &["--version"]) {
        return false;
    }
    println!("== {package} is installed: apt-get install {package}");
    // As root, or as a user who may become root without being asked for a password.
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    let apt = |arguments: &[&str]| match root {
        true => works("apt-get", arguments),
        false => works("sudo", &[&["-n", "apt-get"], arguments].concat()),
    };
    let install = || apt(&["install", "-y", package]);
    // A fresh machine does not know of any package yet.
    install() || (apt(&["update"]) && install())
}
