//! What the documents name is there: links, paths, examples.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

const DOCUMENTS: &[&str] =
    &["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "src/guide"];

/// Where a path in backticks begins that is one of this project's.
const FOLDERS: &[&str] = &[
    "benches/",
    "ecosystem/",
    "examples/",
    "findings/",
    "scripts/",
    "src/",
    "testing/",
    "tests/",
    "xtask/",
];

/// All that is named and is not there, one a line.
pub(crate) fn dead() -> io::Result<Vec<String>> {
    let mut dead = Vec::new();
    let in_rustdoc = fs::read_to_string("src/guide/mod.rs")?;
    for file in documents()? {
        let text = prose(&fs::read_to_string(&file)?);
        let mut missing = |what: &str| dead.push(format!("{}: {what}", file.display()));
        for target in between(&text, "](", ")") {
            let is_file = !target.contains("://") && !target.starts_with('#') && is_path(target);
            if is_file && !file.with_file_name(target).exists() {
                missing(target);
            }
        }
        for path in between(&text, "`", "`").filter(|path| is_path(path)) {
            if FOLDERS.iter().any(|folder| path.starts_with(folder)) && !Path::new(path).exists() {
                missing(path);
            }
        }
        // "[`name`]: target": to the source on a code host, and to the item in rustdoc.
        let lines = text.lines().filter_map(|line| line.strip_prefix("[`")?.split_once("`]: "));
        for (name, target) in lines.filter(|(name, _)| !name.contains('`')) {
            if !file.with_file_name(target).exists() {
                missing(target);
            }
            if !in_rustdoc.contains(&format!("\"{name}\" ")) {
                missing(&format!("`{name}` in src/guide/mod.rs"));
            }
        }
        for rest in text.split("--example ").skip(1) {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let name: String = rest.chars().take_while(|letter| is_name(*letter)).collect();
            let is_there = name.is_empty()
                || Path::new("examples").join(&name).exists()
                || Path::new("examples").join(format!("{name}.rs")).exists();
            if !is_there {
                missing(&name);
            }
        }
    }
    Ok(dead)
}

fn documents() -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for document in DOCUMENTS.iter().map(Path::new) {
        if document.is_dir() {
            for entry in fs::read_dir(document)? {
                files.push(entry?.path());
            }
        } else {
            files.push(document.to_owned());
        }
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    Ok(files)
}

/// Without its blocks of code.
fn prose(text: &str) -> String {
    let outside = text.split("```").step_by(2);
    outside.collect::<Vec<_>>().join("\n")
}

/// A pattern, a command or an item of Rust is none.
fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', ' ', '<', '\n', ':', '('])
}

fn between<'a>(text: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(open)?;
        let (inner, after) = after.split_once(close)?;
        rest = after;
        Some(inner)
    })
}
