//! The programs in `ecosystem/`: each is run, and its row in the documentation is compared with what it is and
//! what it said.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

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
    if !cargo(&["fmt", "--all", "--check"]).status()?.success() {
        return Ok(vec!["`cargo fmt --all` in ecosystem/ is left to do".into()]);
    }
    if !cargo(&["build", "--workspace", "--locked", "--target-dir", "target"]).status()?.success() {
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
        match run(&program)? {
            Err(why) => wrong.push(format!("{program}: {why}")),
            Ok(on_failure) => {
                let Some((version, lines, failure)) = page.get(&program) else {
                    wrong.push(format!("{program} has no row in {PAGE}"));
                    continue;
                };
                let told = [
                    ("on failure", failure.clone(), on_failure.replace(WHY.1, WHY.0)),
                    ("lines", lines.clone(), lines_of_user(&program)?.to_string()),
                ];
                for (what, says, is) in told.into_iter().filter(|(_, says, is)| says != is) {
                    wrong.push(format!("{program}, {what}: the page says `{says}`, it is `{is}`"));
                }
                if !locked(&lock, version) {
                    wrong.push(format!("{program}: {version} is not what Cargo.lock has"));
                }
            }
        }
    }
    Ok(wrong)
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(words).current_dir(FOLDER);
    cargo
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
    let calls = lines.next()?.strip_prefix("calls=")?.split(' ').next()?;
    let last = format!("calls={calls} ok={calls} refreshes=1 token_reuse=0");
    let is_good = calls != "0" && said.lines().next_back() == Some(&last);
    lines.next()?.strip_prefix("on failure: ").filter(|_| is_good)
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
