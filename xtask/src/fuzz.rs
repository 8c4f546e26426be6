//! The fuzz targets, each for a minute (`fuzz/`).

use std::{fs, io, path::Path, process::Command, thread};

use crate::tools;

const SECONDS: u32 = 60;

/// How many run at once.
const AT_ONCE: usize = 2;

/// The sanitizers are the nightly toolchain's, and there is no unsafe code to look at.
const STABLE: [&str; 2] = ["--sanitizer", "none"];

/// Runs every target, each of which has seeds. What it finds is in `fuzz/artifacts`, and its corpus grows in
/// `fuzz/corpus`.
pub(crate) fn run() -> Result<(), String> {
    tools::succeeds(&mut cargo_fuzz("build")?)?;
    let targets = targets().map_err(|error| error.to_string())?;
    if targets.is_empty() {
        return Err("there is no target".to_owned());
    }
    for targets in targets.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let runs: Vec<_> = targets.iter().map(|it| scope.spawn(|| run_target(it))).collect();
            let ends = runs.into_iter().map(|run| run.join().expect("it does not panic"));
            ends.collect::<Result<Vec<()>, String>>()
        })?;
    }
    Ok(())
}

fn targets() -> io::Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir("fuzz/fuzz_targets")? {
        let target = entry?.path().with_extension("");
        targets.extend(target.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    targets.sort();
    Ok(targets)
}

fn run_target(target: &str) -> Result<(), String> {
    let [corpus, seeds] = ["corpus", "seeds"].map(|it| Path::new("fuzz").join(it).join(target));
    if !seeds.is_dir() {
        return Err(format!("{target} has no seeds in {}", seeds.display()));
    }
    fs::create_dir_all(&corpus).map_err(|error| error.to_string())?;
    let mut command = cargo_fuzz("run")?;
    command.arg(target).args([corpus, seeds]).args(["--", "-max_len=4096", "-timeout=10"]);
    command.arg(format!("-max_total_time={SECONDS}"));
    // The same each time, so that a change is judged by itself and not by luck. What goes on looking is a run
    // by hand.
    command.arg("-seed=1");
    let output = command.output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{target}:\n{told}"));
    }
    let done = told.lines().find(|line| line.starts_with("Done ")).unwrap_or_default();
    println!("{target}: {done}");
    Ok(())
}

fn cargo_fuzz(verb: &str) -> Result<Command, String> {
    let (cargo, target) = (tools::cargo(), tools::target());
    let mut command = cargo.map_err(|error| error.to_string())?;
    command.args(["fuzz", verb]).args(STABLE).arg("--target-dir");
    command.arg(target.map_err(|error| error.to_string())?.join("fuzz"));
    Ok(command)
}
