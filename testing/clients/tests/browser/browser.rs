//! A browser for each test, and its tabs.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fantoccini::{
    Client, ClientBuilder,
    error::CmdError,
    wd::{WebDriverCompatibleCommand, WindowHandle},
};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use testing::BrowserDriver;
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit};

use super::until;

/// So many browsers at once: each is a dozen processes.
static PLACES: Semaphore = Semaphore::const_new(3);

pub(crate) fn driver() -> &'static BrowserDriver {
    static DRIVER: OnceLock<BrowserDriver> = OnceLock::new();
    DRIVER.get_or_init(BrowserDriver::start)
}

/// A browser with a profile of its own. It ends when it is dropped.
pub(crate) struct Browser {
    shared: Arc<Shared>,
    first: Tab,
    // After the browser itself.
    _place: SemaphorePermit<'static>,
}

struct Shared {
    client: Client,
    session: String,
    /// The tab that commands go to. There is one at a time.
    current: AsyncMutex<WindowHandle>,
}

impl Drop for Shared {
    /// Waits, so that the next one has the processor. A test that fails ends its browser, too.
    fn drop(&mut self) {
        let address = driver().url().trim_start_matches("http://");
        let request = format!(
            "DELETE /session/{} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n",
            self.session
        );
        // The driver ends all of them with the process.
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = stream.write_all(request.as_bytes());
            let _ = stream.read(&mut [0; 64]);
        }
    }
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let place = PLACES.acquire().await.expect("it is never closed");
        let mut arguments =
            vec!["--headless=new", "--disable-dev-shm-usage", "--window-size=1200,1000"];
        if rustix::process::geteuid().is_root() {
            arguments.push("--no-sandbox");
        }
        let capabilities = json!({
            "goog:chromeOptions": { "args": arguments },
            "acceptInsecureCerts": true,
            // A tab that waits for a page can be told something.
            "pageLoadStrategy": "none",
        });
        let Value::Object(capabilities) = capabilities else { unreachable!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities).connect(driver().url()).await;
        let client = client.expect("a browser");
        let session = client.session_id().await.unwrap().expect("it has one");
        let handle = client.window().await.unwrap();
        let current = AsyncMutex::new(handle.clone());
        let shared = Arc::new(Shared { client, session, current });
        let first = Tab { shared: Arc::clone(&shared), handle };
        Self { shared, first, _place: place }
    }

    /// The tab that it began with.
    pub(crate) fn first(&self) -> &Tab {
        &self.first
    }

    /// Another one.
    pub(crate) async fn tab(&self) -> Tab {
        let _current = self.shared.current.lock().await;
        let handle = self.shared.client.new_window(true).await.unwrap().handle;
        Tab { shared: Arc::clone(&self.shared), handle }
    }
}

/// A tab of it.
#[derive(Clone)]
pub(crate) struct Tab {
    shared: Arc<Shared>,
    handle: WindowHandle,
}

/// What a page does meanwhile.
pub(crate) struct Work {
    tab: Tab,
    id: usize,
}

/// DevTools' protocol, by way of the driver.
#[derive(Debug)]
struct DevTools(Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.0.to_string()))
    }
}

impl Tab {
    /// Does this while commands go to this tab.
    async fn with<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, CmdError>,
    ) -> Result<T, CmdError> {
        let mut current = self.shared.current.lock().await;
        if *current != self.handle {
            self.shared.client.switch_to_window(self.handle.clone()).await?;
            *current = self.handle.clone();
        }
        work(&self.shared.client).await
    }

    async fn execute(&self, script: &str) -> Result<Value, CmdError> {
        self.with(async |client| client.execute(script, Vec::new()).await).await
    }

    /// What the script returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.execute(script).await.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until this expression is true; between two pages, too.
    pub(crate) async fn until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        let last = Mutex::new(String::new());
        let is_so = async || match self.execute(&script).await {
            Ok(value) => value == true,
            Err(error) => {
                *last.lock().unwrap() = error.to_string();
                false
            }
        };
        let what = format!("{expression} in a tab");
        until(&what, is_so).await;
    }

    /// Goes there, and waits for that page or the one that it leads to.
    pub(crate) async fn open(&self, url: &str) {
        // The page before is told from the next one.
        let _ = self.execute("window.isBefore = true").await;
        self.with(async |client| client.goto(url).await).await.unwrap();
        self.until("!window.isBefore && document.readyState == 'complete'").await;
    }

    /// Goes back, as by the button.
    pub(crate) async fn back(&self) {
        self.with(async |client| client.back().await).await.unwrap();
    }

    /// Clicks on the first element that this selector finds.
    pub(crate) async fn click(&self, selector: &str) {
        self.run(&format!("document.querySelector({selector:?}).click()")).await;
    }

    /// What a user reads.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a user reads this.
    pub(crate) async fn shows(&self, text: &str) {
        self.until(&format!("document.body && document.body.innerText.includes({text:?})")).await;
    }

    /// Begins with the body of an `async` function.
    pub(crate) async fn start(&self, script: &str) -> Work {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let id = NUMBER.fetch_add(1, Ordering::Relaxed);
        let script = format!(
            "window.works ??= {{}};
             (async () => {{ {script} }})().then(
                 value => window.works[{id}] = {{ value: value ?? null }},
                 error => window.works[{id}] = {{ error: String(error) }})"
        );
        self.run(&script).await;
        Work { tab: self.clone(), id }
    }

    /// What such a function returns in the end.
    pub(crate) async fn wait(&self, script: &str) -> Value {
        self.start(script).await.end().await
    }

    /// Fetches: the status.
    pub(crate) async fn status(&self, method: &str, path: &str) -> Value {
        self.wait(&format!("return (await fetch('{path}', {{ method: '{method}' }})).status")).await
    }

    /// A command of DevTools.
    pub(crate) async fn devtools(&self, name: &str, params: Value) -> Value {
        let command = DevTools(json!({ "cmd": name, "params": params }));
        self.with(async |client| client.issue_cmd(command).await).await.unwrap()
    }

    /// The cookies that this page's requests have.
    pub(crate) async fn cookies(&self) -> Vec<Value> {
        let all = self.devtools("Network.getCookies", json!({})).await;
        all["cookies"].as_array().cloned().unwrap_or_default()
    }

    /// The cookie of this name.
    pub(crate) async fn cookie(&self, name: &str) -> Option<Value> {
        self.cookies().await.into_iter().find(|cookie| cookie["name"] == name)
    }

    /// A picture of it, in this file.
    pub(crate) async fn picture(&self, file: &Path) {
        let bytes = self.with(async |client| client.screenshot().await).await.unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    pub(crate) async fn close(self) {
        self.with(async |client| client.close_window().await).await.unwrap();
    }
}

impl Work {
    /// What it returns, once it does.
    pub(crate) async fn end(self) -> Value {
        let Self { tab, id } = self;
        tab.until(&format!("window.works?.[{id}]")).await;
        let end = tab.run(&format!("return window.works[{id}]")).await;
        match end.get("value") {
            Some(value) => value.clone(),
            None => panic!("the page has failed: {end}"),
        }
    }

    /// Whether it has returned.
    pub(crate) async fn is_over(&self) -> bool {
        self.tab.run(&format!("return Boolean(window.works?.[{}])", self.id)).await == true
    }
}
