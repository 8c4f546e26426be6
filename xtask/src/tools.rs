//! Programs from crates.io that checks need, each in the version that is named here. They go into a
//! folder of their own in the target folder; nothing else of the machine changes.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Name, version, and the checks that need it.
pub(crate) type Tool = (&'static str, &'static str, &'static [&'static str]);

/// Runs it. What has failed, if something has.
pub(crate) fn succeeds(command: &mut Command) -> Result<(), String> {
    match command.status().map_err(|error| format!("it cannot be started: {error}"))? {
        status if status.success() => Ok(()),
        status => Err(status.to_string()),
    }
}

/// The target folder, which this program is in.
pub(crate) fn target() -> io::Result<PathBuf> {
    let program = env::current_exe()?;
    program.ancestors().nth(2).map(Path::to_owned).ok_or(io::ErrorKind::NotFound.into())
}

fn folder() -> io::Result<PathBuf> {
    Ok(target()?.join("tools"))
}

/// One of them.
pub(crate) fn program(name: &str) -> io::Result<Command> {
    Ok(Command::new(folder()?.join("bin").join(name)))
}

/// cargo, which finds them before others of their names.
pub(crate) fn cargo() -> io::Result<Command> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = [folder()?.join("bin")].into_iter().chain(env::split_paths(&path));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.env("PATH", env::join_paths(folders).map_err(io::Error::other)?);
    Ok(command)
}

/// Whether it is there, in its version.
pub(crate) fn is_there((name, version, _): &Tool) -> bool {
    let installed = folder().and_then(|folder| fs::read_to_string(folder.join(".crates.toml")));
    installed.is_ok_and(|installed| installed.contains(&format!("\"{name} {version} ")))
}

pub(crate) fn install(tool: &Tool) -> bool {
    println!("== {} is installed: {}", tool.0, command_line(tool));
    let Ok(folder) = folder() else { return false };
    let Ok(mut command) = cargo() else { return false };
    let name = format!("{}@{}", tool.0, tool.1);
    command.args(["install", "--locked", "--quiet", &name, "--root"]).arg(&folder);
    // Its own build is not the project's.
    command.arg("--target-dir").arg(folder.join("build"));
    let is_installed = command.status().is_ok_and(|status| status.success());
    let _ = fs::remove_dir_all(folder.join("build"));
    is_installed
}

/// What a user has to say to install it by hand.
pub(crate) fn command_line((name, version, _): &Tool) -> String {
    format!("cargo install --locked {name}@{version} --root target/tools")
}
