//! A browser: one cookie jar, and tabs.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_refresh::session::SessionBody;

use super::{Body, Replica, full};

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub text: String,
}

/// A browser with one cookie jar, whose order says nothing. Clones are tabs.
#[derive(Clone, Default)]
pub struct Browser {
    /// Its cookies of ours, as it sends them.
    pub cookie: Arc<Mutex<Option<String>>>,
}

impl Browser {
    /// One that was nowhere yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that has a copy of this one's jar, as it is now.
    pub fn copy(&self) -> Self {
        Self { cookie: Arc::new(Mutex::new(self.cookie())) }
    }

    /// Its cookies of ours.
    pub fn cookie(&self) -> Option<String> {
        self.cookie.lock().unwrap().clone()
    }

    /// A request of the application's own page.
    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "app.test")
            .header("sec-fetch-site", "same-origin")
            .header("sec-fetch-mode", "cors");
        match self.cookie() {
            Some(cookie) => request.header("cookie", format!("a=1; {cookie}; b=2")),
            None => request,
        }
    }

    /// Fetches.
    pub async fn get(&self, replica: &Replica, path: &str) -> Answer {
        self.send(replica, self.request(Method::GET, path)).await
    }

    /// Posts.
    pub async fn post(&self, replica: &Replica, path: &str) -> Answer {
        self.send(replica, self.request(Method::POST, path)).await
    }

    /// Signs in.
    pub async fn sign_in(&self, replica: &Replica, user: &str) -> Answer {
        self.send(replica, self.request(Method::POST, "/sign_in").header("user", user)).await
    }

    /// Sends this.
    pub async fn send(&self, replica: &Replica, request: http::request::Builder) -> Answer {
        let (response, body) = self.begin(replica, request).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: response.status, headers: response.headers, text }
    }

    /// Up to the head of the response. What that sets is set.
    pub async fn begin(
        &self,
        replica: &Replica,
        request: http::request::Builder,
    ) -> Response<SessionBody<Body>> {
        let request = request.body(full("")).unwrap();
        let response = replica.app.clone().oneshot(request).await.unwrap();
        self.take(response.headers());
        response
    }

    /// As a browser does.
    pub fn take(&self, headers: &http::HeaderMap) {
        for field in headers.get_all("set-cookie") {
            let field = field.to_str().unwrap();
            let (name, value) = field.split(';').next().unwrap().split_once('=').unwrap();
            if name.starts_with("__Host-Http-sid") {
                assert!(name.len() + value.len() <= 4096, "a browser would drop it");
                let is_cleared = field.contains("Max-Age=0");
                let jar = self.cookie().unwrap_or_default();
                let others = jar.split("; ").filter(|it| it.split('=').next() != Some(name));
                let ours = (!is_cleared).then(|| format!("{name}={value}"));
                let all = others.filter(|it| !it.is_empty()).map(str::to_owned).chain(ours);
                let all = all.collect::<Vec<_>>().join("; ");
                *self.cookie.lock().unwrap() = (!all.is_empty()).then_some(all);
            }
        }
    }
}

/// A signed-in browser.
pub async fn signed_in(replica: &Replica, user: &str) -> Browser {
    let browser = Browser::new();
    browser.sign_in(replica, user).await;
    assert!(browser.cookie().is_some());
    browser
}
