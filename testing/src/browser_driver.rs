//! chromedriver, in a process of its own that ends with the one that has started it, and so do the
//! browsers that it has started, even if the tests are killed.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

/// A browser does not end with its driver, but is in the same process group. This waits until its
/// standard input ends, as it does when the process that started it is gone, and ends the group then;
/// the folder goes once no process is left that may write to it. Not for ever, since where nobody buries
/// the dead they stay.
const WATCHMAN: &str = r#"
read group
read word
[ -z "$group" ] || kill -s KILL -- "-$group"
tries=50
while [ -n "$group" ] && [ $tries -gt 0 ] && kill -s 0 -- "-$group"; do
    sleep 0.1
    tries=$((tries - 1))
done
rm -rf "$1"
"#;

/// A running chromedriver.
#[derive(Debug)]
pub struct BrowserDriver {
    /// It waits at the pipe that this holds.
    _watchman: Child,
    driver: Child,
    url: String,
}

impl BrowserDriver {
    /// Starts one, at a free port.
    ///
    /// # Panics
    ///
    /// There is no chromedriver or no chromium; or it does not start.
    pub fn start() -> Self {
        for program in ["chromium", "chromedriver"] {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            if !command.status().is_ok_and(|status| status.success()) {
                panic!("there is no {program} here: `apt-get install chromium chromium-driver`");
            }
        }
        let folder = folder();
        let mut watchman = Command::new("sh")
            .args(["-c", WATCHMAN, "sh"])
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("a shell");
        // The profiles of its browsers are in the folder.
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .env("TMPDIR", &folder)
            .env("XDG_CONFIG_HOME", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver");
        let pipe = watchman.stdin.as_mut().expect("it was asked for");
        writeln!(pipe, "{}", driver.id()).expect("the shell reads");
        let stdout = driver.stdout.take().expect("it was asked for");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let port = port.expect("chromedriver says its port");
        // What it says is read to its end, or it would have to wait for a reader.
        thread::spawn(move || lines.for_each(drop));
        Self { _watchman: watchman, driver, url: format!("http://127.0.0.1:{port}") }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process group that ends with it, for what else has to.
    pub fn group(&self) -> i32 {
        i32::try_from(self.driver.id()).expect("an id of a process")
    }
}

/// A new one.
fn folder() -> PathBuf {
    let name = format!("tower-refresh-browser-{}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    // Of an earlier process with this id.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).expect("a folder for temporary files");
    folder
}
