//! Counts by valgrind: this binary runs itself again under it.
//!
//! Instructions are those of callgrind, allocations those of memcheck's summary. The
//! binary needs no allocator of its own for this, which would count among the
//! instructions. Each count is taken with `N` and with `2 N` iterations; the
//! difference divided by `N` is what one iteration costs, without the start.

use std::process::Command;

/// What one iteration costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Instructions.
    pub instructions: f64,
    /// Allocations.
    pub allocations: f64,
    /// Bytes allocated.
    pub bytes: f64,
}

/// What a whole run costs.
struct Total {
    instructions: u64,
    allocations: u64,
    bytes: u64,
}

/// Whether there is a valgrind, and a word to the user if not.
pub fn is_here() -> bool {
    let here = Command::new("valgrind").arg("--version").output().is_ok();
    if !here {
        println!("No valgrind, so no counts of instructions and allocations. To have them:");
        println!("    apt-get install valgrind\n");
    }
    here
}

/// The instructions, and with `allocations` these too, of one iteration of what this
/// binary does when called with `args` and a number of iterations.
pub fn cost(args: &[&str], iterations: u64, allocations: bool) -> Cost {
    let [once, twice] = [iterations, 2 * iterations].map(|count| total(args, count, allocations));
    let each = |once: u64, twice: u64| (twice as f64 - once as f64) / iterations as f64;
    Cost {
        instructions: each(once.instructions, twice.instructions),
        allocations: each(once.allocations, twice.allocations),
        bytes: each(once.bytes, twice.bytes),
    }
}

fn total(args: &[&str], iterations: u64, allocations: bool) -> Total {
    let log = run(&["--tool=callgrind", "--callgrind-out-file=/dev/null"], args, iterations);
    let instructions = number_after(&log, "Collected : ");
    if !allocations {
        return Total { instructions, allocations: 0, bytes: 0 };
    }
    let log = run(&["--tool=memcheck", "--undef-value-errors=no"], args, iterations);
    Total {
        instructions,
        allocations: number_after(&log, "total heap usage: "),
        bytes: number_after(&log, " frees, "),
    }
}

fn run(tool: &[&str], args: &[&str], iterations: u64) -> String {
    let this = std::env::current_exe().expect("the path of this binary");
    let output = Command::new("valgrind")
        .args(tool)
        .arg(this)
        .args(args)
        .arg(iterations.to_string())
        .output()
        .expect("valgrind runs");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "valgrind failed:\n{log}");
    log
}

fn number_after(log: &str, word: &str) -> u64 {
    let (_, rest) = log.split_once(word).unwrap_or_else(|| panic!("no {word:?} in:\n{log}"));
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',');
    digits.filter(char::is_ascii_digit).collect::<String>().parse().expect("a number")
}
