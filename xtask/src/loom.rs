//! What several threads share without more than a lock or an atomic, in every order of their steps.

use std::process::Stdio;

use crate::tools;

/// Runs the tests of every `interleavings.rs`, with loom in place of the standard library's locks.
pub(crate) fn run() -> Result<(), String> {
    let mut cargo = tools::cargo().map_err(|error| error.to_string())?;
    let target = tools::target().map_err(|error| error.to_string())?;
    cargo
        .args(["test", "--lib", "--release", "--locked", "interleavings"])
        .env("RUSTFLAGS", "--cfg tower_refresh_loom")
        // In a folder of its own: with other flags everything is built anew.
        .env("CARGO_TARGET_DIR", target.join("loom"))
        .stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| error.to_string())?;
    let told = String::from_utf8_lossy(&output.stdout);
    print!("{told}");
    match output.status {
        status if !status.success() => Err(status.to_string()),
        // cargo does not mind a filter that leaves nothing.
        _ if told.contains("running 0 tests") => Err("there are no such tests".to_owned()),
        _ => Ok(()),
    }
}
