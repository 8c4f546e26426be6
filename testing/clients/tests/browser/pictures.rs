//! Pictures of the example's page, to be looked at. They are in the target folder, under `tmp/browser`.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::browser::{Browser, driver};

/// Builds the example as the checks do, so that they need not build it again, and starts it. It ends with
/// its handle, and if the test is killed with the browsers.
async fn bff() -> (Child, String) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--workspace", "--all-features", "--locked", "--example", "bff"];
    let mut build = Command::new(cargo);
    build.args(arguments).stdin(Stdio::null());
    // What cargo tells this test of its package is not for another build: some would begin anew.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            build.env_remove(&name);
        }
    }
    assert!(build.status().await.unwrap().success(), "the example is not built");
    // This program is in `deps`, and the folder of the examples beside that.
    let program = std::env::current_exe().unwrap();
    let program: PathBuf = program.parent().unwrap().with_file_name("examples").join("bff");
    let mut child = Command::new(program)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(driver().group())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let words = line.strip_prefix("open ").and_then(|rest| rest.split(' ').next());
        if let Some(address) = words {
            return (child, address.to_owned());
        }
    }
    panic!("the example does not say where it is");
}

#[tokio::test]
async fn the_page_of_the_example_at_rest_and_in_a_herd() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    std::fs::create_dir_all(&folder).unwrap();
    let browser = Browser::start().await;
    let (_bff, address) = bff().await;
    let tab = browser.first();
    tab.open(&address).await;
    tab.shows("Not signed in").await;
    tab.picture(&folder.join("signed_out.png")).await;
    tab.open(&format!("{address}/login")).await;
    tab.shows("Who are you?").await;
    tab.click("button").await;
    tab.shows("Signed in as alice").await;
    tab.until("document.querySelector('#count-done')?.textContent == '0'").await;
    tab.picture(&folder.join("rest.png")).await;
    let count = |name: &str, count: usize| {
        format!("document.querySelector('#count-{name}').textContent == {count}")
    };
    // The server takes its time, and a picture less.
    tab.click("#slow").await;
    tab.until("document.querySelector('#slow').getAttribute('aria-pressed') == 'true'").await;
    tab.click("#fan-out").await;
    tab.until(&count("refused", 100)).await;
    tab.picture(&folder.join("herd.png")).await;
    tab.until(&count("done", 100)).await;
    tab.picture(&folder.join("after.png")).await;
    tab.until(&count("refresh", 1)).await;
    tab.click("#sign-out").await;
    tab.shows("You have signed out.").await;
    tab.picture(&folder.join("ended.png")).await;
    tab.open(&format!("{address}/login")).await;
    tab.click("button").await;
    tab.shows("Signed in as alice").await;
    tab.click("#elsewhere").await;
    tab.shows("Your session was ended elsewhere.").await;
}
