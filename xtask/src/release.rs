//! What a maintainer looks at before a release, where one command does not say it.

use std::{collections::HashMap, fs, path::Path, process::Command};

use serde_json::Value;

use crate::tools::{self, succeeds};

/// The crate that is released.
const CRATE: &str = "tower-refresh";

/// The tag of the last release, if there is one. A clone without its history does not know.
pub(crate) fn last() -> Result<Option<String>, String> {
    let tags = git(&["tag", "--list", "v*", "--sort=-version:refname"])?;
    match tags.lines().next() {
        None if git(&["rev-parse", "--is-shallow-repository"])?.trim() != "false" => {
            Err("this clone is shallow: `git fetch --unshallow --tags`".to_owned())
        }
        tag => Ok(tag.map(str::to_owned)),
    }
}

fn git(words: &[&str]) -> Result<String, String> {
    let output = Command::new("git").args(words).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("git {}: {}", words.join(" "), output.status)),
    }
}

/// Compares the API with that of the last release.
pub(crate) fn semver() -> Result<(), String> {
    let Some(tag) = last()? else {
        println!("there is no release yet (a tag `v*`), and nothing to compare with");
        return Ok(());
    };
    let words = ["semver-checks", "--package", CRATE, "--all-features", "--baseline-rev", &tag];
    succeeds(cargo()?.args(words))
}

/// Whether everything that the library is built of allows its own `rust-version`: by what the
/// manifests say, and by that toolchain, where rustup has it.
pub(crate) fn msrv() -> Result<(), String> {
    let words = ["metadata", "--format-version", "1", "--all-features", "--locked"];
    let metadata = cargo()?.args(words).output().map_err(|error| error.to_string())?;
    let metadata: Value =
        serde_json::from_slice(&metadata.stdout).map_err(|error| error.to_string())?;
    let packages: HashMap<_, _> = by_id(&metadata["packages"]).collect();
    let nodes: HashMap<_, _> = by_id(&metadata["resolve"]["nodes"]).collect();
    let ours = packages.iter().find(|(_, package)| package["name"] == CRATE);
    let (root, ours) = ours.ok_or("the crate is not in its own workspace")?;
    let own = ours["rust_version"].as_str().ok_or("the crate has no rust-version")?;

    let (mut found, mut next) = (vec![*root], 0);
    while let Some(id) = found.get(next) {
        next += 1;
        for dependency in list(&nodes[id]["deps"]).filter(|it| is_built_in(it)) {
            let id = dependency["pkg"].as_str().unwrap_or_default();
            if !found.contains(&id) {
                found.push(id);
            }
        }
    }
    let packages: Vec<_> = found.iter().map(|id| packages[id]).collect();
    let newer = packages.iter().filter(|package| {
        package["rust_version"].as_str().is_some_and(|needed| number(needed) > number(own))
    });
    let newer: Vec<_> = newer
        .map(|it| format!("{} {} {}", it["name"], it["version"], it["rust_version"]))
        .collect();
    if !newer.is_empty() {
        return Err(format!("these need a Rust after {own}:\n{}", newer.join("\n")));
    }
    let silent = packages.iter().filter(|package| package["rust_version"].is_null()).count();
    println!(
        "{} packages, none of which needs a Rust after {own}; {silent} do not say",
        found.len()
    );
    with_that_toolchain(own)
}

fn with_that_toolchain(version: &str) -> Result<(), String> {
    let rustup = || {
        let mut command = Command::new("rustup");
        command.args(["run", version, "cargo"]).env_remove("RUSTUP_TOOLCHAIN");
        command
    };
    let is_there = rustup().arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        println!("rustup has no toolchain {version} to build with");
        return Ok(());
    }
    let target = tools::target().map_err(|error| error.to_string())?.join("msrv");
    let words = ["check", "--quiet", "--lib", "--all-features", "--locked"];
    // Its lints are not those of the toolchain that this is written with.
    let mut command = rustup();
    command.args(words).env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", "--cap-lints allow");
    succeeds(&mut command)
}

fn by_id(list_of: &Value) -> impl Iterator<Item = (&str, &Value)> {
    list(list_of).map(|it| (it["id"].as_str().unwrap_or_default(), it))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Not for tests alone.
fn is_built_in(dependency: &Value) -> bool {
    list(&dependency["dep_kinds"]).any(|kind| kind["kind"] != "dev")
}

/// Major, minor and patch: 1.85 is 1.85.0.
fn number(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    [(); 3].map(|()| parts.next().unwrap_or_default())
}

/// What must not be in the package: tests' ballast, and what is no user's.
const BALLAST: [&str; 8] =
    ["tests/", "fuzz/", "findings/", "testing/", "benches/", "xtask/", "scripts/", "proptest-"];

/// Packs the crate, builds what was packed, and runs its doctests.
pub(crate) fn package() -> Result<(), String> {
    let words = ["package", "--package", CRATE, "--locked", "--all-features"];
    let listed = cargo()?.args(words[..3].iter()).args(["--list", "--allow-dirty"]).output();
    let listed = listed.map_err(|error| error.to_string())?.stdout;
    let listed = String::from_utf8_lossy(&listed);
    let ballast = |file: &&str| BALLAST.iter().any(|folder| file.starts_with(folder));
    let ballast: Vec<_> = listed.lines().filter(ballast).collect();
    if !ballast.is_empty() {
        return Err(format!("these are in the package:\n{}", ballast.join("\n")));
    }
    let folder = tools::target().map_err(|error| error.to_string())?.join("package");
    // There may be one of another version.
    let _ = fs::remove_dir_all(&folder);
    // As it lies here: what is not committed yet is looked at, too.
    succeeds(cargo()?.args(words).arg("--allow-dirty"))?;
    let packed = fs::read_dir(&folder).map_err(|error| error.to_string())?.flatten();
    let packed = packed.map(|entry| entry.path()).find(|path| path.join("Cargo.toml").exists());
    let packed = packed.ok_or("nothing was packed")?;
    doctests(&packed)
}

fn doctests(packed: &Path) -> Result<(), String> {
    let words = ["test", "--doc", "--all-features", "--quiet"];
    succeeds(cargo()?.args(words).current_dir(packed))
}

/// Holds the types of other crates that the API names against the list in `Cargo.toml`.
pub(crate) fn external_types() -> Result<(), String> {
    // It reads what rustdoc writes as JSON, which only a nightly toolchain admits to.
    succeeds(cargo()?.args(["check-external-types", "--all-features"]).env("RUSTC_BOOTSTRAP", "1"))
}

fn cargo() -> Result<Command, String> {
    tools::cargo().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_patch_is_newer_than_none() {
        assert_eq!(number("1.85"), number("1.85.0"));
        assert!(number("1.85.1") > number("1.85"));
        assert!(number("1.100") > number("1.99.3"));
    }
}
