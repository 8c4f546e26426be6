//! The programs in `ecosystem/`: each is run, and its row in the documentation is compared with what it is and
//! what it said.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use crate::tools;

const FOLDER: &str = "ecosystem";
const PAGE: &str = "src/guide/ecosystem.md";

/// What stands for it in the page's rows: the reason is the same in nearly all of them.
const WHY: (&str, &str) = (
    "{why}",
    "the refresh token was rejected (invalid_grant): http://127.0.0.1/token: rejected (400 Bad Request): \
     invalid_grant: the session is over",
);

/// A program's row: its crate and version, its lines, and what its caller sees on failure.
type Row = (String, String, String);

/// What is not as it should be, if something is not.
pub(crate) fn check() -> Result<(), String> {
    match wrong().map_err(|error| error.to_string())? {
        wrong if wrong.is_empty() => Ok(()),
        wrong => Err(format!("not as it should be:\n{}", wrong.join("\n"))),
    }
}

fn wrong() -> io::Result<Vec<String>> {
    if !cargo(&["fmt", "--all", "--check"])? {
        return Ok(vec!["`cargo fmt --all` in ecosystem/ is left to do".into()]);
    }
    if !cargo(&["build", "--workspace", "--locked", "--target-dir", "target"])? {
        return Ok(vec!["they do not build".into()]);
    }
    let lock = fs::read_to_string(format!("{FOLDER}/Cargo.lock"))?;
    let page = fs::read_to_string(PAGE)?;
    let mut wrong = Vec::new();
    if !page.contains(&format!("`{}` is\n`{}`", WHY.0, WHY.1)) {
        wrong.push(format!("{PAGE} says of {} what it is not", WHY.0));
    }
    let page = rows(&page);
    let programs = programs()?;
    let stale = page.keys().filter(|program| !programs.contains(program));
    wrong.extend(stale.map(|program| format!("{program} is in {PAGE}, and is no program")));
    for program in programs {
        println!("-- {program}");
        let found = match (run(&program)?, page.get(&program)) {
            (Err(why), _) => vec![why],
            (Ok(_), None) => vec![format!("it has no row in {PAGE}")],
            (Ok(on_failure), Some(row)) => unlike(row, &lock, &program, &on_failure)?,
        };
        wrong.extend(found.into_iter().map(|what| format!("{program}: {what}")));
    }
    Ok(wrong)
}

/// What its row says otherwise.
fn unlike(row: &Row, lock: &str, program: &str, on_failure: &str) -> io::Result<Vec<String>> {
    let (version, lines, failure) = row;
    let mut unlike = Vec::new();
    for (what, says, is) in [
        ("on failure", failure, on_failure.replace(WHY.1, WHY.0)),
        ("lines", lines, lines_of_user(program)?.to_string()),
    ] {
        if *says != is {
            unlike.push(format!("{what}: the page says `{says}`, it is `{is}`"));
        }
    }
    if !locked(lock, version) {
        unlike.push(format!("{version} is not what Cargo.lock has"));
    }
    Ok(unlike)
}

/// Whether cargo succeeds with these words.
fn cargo(words: &[&str]) -> io::Result<bool> {
    Ok(tools::cargo()?.args(words).current_dir(FOLDER).status()?.success())
}

/// The packages that have a program.
fn programs() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(FOLDER)? {
        let entry = entry?;
        if entry.path().join("src/main.rs").exists() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// What its caller saw on failure, or why the program failed.
fn run(program: &str) -> io::Result<Result<String, String>> {
    // As it was built: `cargo run` would build it again, with the features that it alone needs.
    let program = Path::new(FOLDER).join("target/debug").join(program);
    // What they say is less than a pipe takes, so that it can be read afterwards.
    let mut running = Command::new(program).stdout(Stdio::piped()).spawn()?;
    let Some(status) = wait(&mut running)? else { return Ok(Err("it hangs".to_owned())) };
    let said = running.stdout.take().map_or(Ok(String::new()), io::read_to_string)?;
    print!("{said}");
    Ok(match on_failure(&said) {
        Some(failure) if status.success() => Ok(failure.to_owned()),
        _ => Err(format!("{status}, and not the lines that a program ends in")),
    })
}

/// How it ended. `None`: it did not, for two minutes.
fn wait(running: &mut Child) -> io::Result<Option<ExitStatus>> {
    for _ in 0..1200 {
        if let Some(status) = running.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(100));
    }
    running.kill()?;
    Ok(None)
}

/// What a program's caller saw, if its last line is as it should be.
fn on_failure(said: &str) -> Option<&str> {
    let mut lines = said.lines().rev();
    let last = lines.next()?;
    let calls = last.strip_prefix("calls=")?.split(' ').next()?;
    let is_good = last == format!("calls={calls} ok={calls} refreshes=1 token_reuse=0");
    lines.next()?.strip_prefix("on failure: ").filter(|_| is_good && calls != "0")
}

/// `| `program` | crate version | lines | `failure` |`
fn rows(page: &str) -> BTreeMap<String, Row> {
    let cells = |line: &str| {
        let mut cells = line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`']).to_owned());
        Some((cells.next()?, (cells.next()?, cells.next()?, cells.next()?)))
    };
    page.lines().filter(|line| line.starts_with("| `")).filter_map(cells).collect()
}

/// The lines between the marks of what a user writes.
fn lines_of_user(program: &str) -> io::Result<usize> {
    let text = fs::read_to_string(format!("{FOLDER}/{program}/src/main.rs"))?;
    let section = text.lines().skip_while(|line| !line.contains("---- What a user writes"));
    Ok(section.take_while(|line| !line.contains("---- That is all")).skip(1).count())
}

/// Whether this is among what is locked: "crate 1.2.3", or several with commas between.
fn locked(lock: &str, versions: &str) -> bool {
    versions.split(", ").all(|each| {
        each.split_once(' ').is_some_and(|(name, version)| {
            lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\""))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_has_to_end_in_its_two_lines() {
        let good = "calls=20 ok=20 refreshes=1 token_reuse=0";
        assert_eq!(on_failure(&format!("hello\non failure: 401\n{good}\n")), Some("401"));
        for bad in [
            "calls=0 ok=0 refreshes=1 token_reuse=0",
            "calls=20 ok=19 refreshes=1 token_reuse=0",
            "calls=20 ok=20 refreshes=2 token_reuse=0",
            "calls=20 ok=20 refreshes=1 token_reuse=1",
        ] {
            assert_eq!(on_failure(&format!("on failure: 401\n{bad}\n")), None);
        }
        assert_eq!(on_failure(&format!("401\n{good}\n")), None);
        assert_eq!(on_failure(good), None);
    }
}
