//! What the two servers answer.

use std::{
    sync::{PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use tower_refresh::BoxError;

use super::{CLIENT_ID, CLIENT_SECRET, Event, LIFE, Loopback, Pair, Verdict};

/// The grant type of RFC 8628, section 3.4.
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The body of their responses.
pub type ResponseBody = BoxBody<Bytes, BoxError>;

/// The fields of a form.
#[derive(Clone, Debug)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// The first field of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| &**value)
    }
}

/// The form that a request carries. `None`: it has ended before its time.
pub async fn read_form(request: Request<Incoming>) -> Option<Form> {
    let body = request.into_body().collect().await.ok()?.to_bytes();
    Some(Form(form_urlencoded::parse(&body).into_owned().collect()))
}

/// A response with this body.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(Full::new(body.into()).map_err(|no| match no {}).boxed());
    *response.status_mut() = status;
    response
}

/// A response with this document.
pub fn json(status: StatusCode, document: String) -> Response<ResponseBody> {
    let mut response = text(status, document);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response<ResponseBody> {
    text(status, Bytes::new())
}

/// 401: the access token is not accepted.
pub fn challenge() -> Response<ResponseBody> {
    let mut response = empty(StatusCode::UNAUTHORIZED);
    let challenge = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

fn refuse(error: &str, description: &str) -> Response<ResponseBody> {
    let words = format!(r#"{{"error":"{error}","error_description":"{description}"}}"#);
    json(StatusCode::BAD_REQUEST, words)
}

/// What goes with every access token.
fn kind_and_life(life: Option<Duration>) -> String {
    let life = life.map(|life| format!(r#","expires_in":{}"#, life.as_secs()));
    format!(r#""token_type":"Bearer"{}"#, life.unwrap_or_default())
}

impl Verdict {
    /// What the token endpoint says of it, and of the access token's life.
    pub fn response(self, life: Option<Duration>) -> Response<ResponseBody> {
        match self {
            Verdict::Renewed(Pair { access, refresh })
            | Verdict::Again(Pair { access, refresh }) => {
                let rest = kind_and_life(life);
                json(
                    StatusCode::OK,
                    format!(r#"{{"access_token":"{access}","refresh_token":"{refresh}",{rest}}}"#),
                )
            }
            Verdict::Reused(_) => refuse("invalid_grant", "the refresh token was used before"),
            Verdict::Over => refuse("invalid_grant", "the session is over"),
            Verdict::Unknown => refuse("invalid_grant", "the refresh token is not known"),
        }
    }
}

impl Loopback {
    /// What the two servers answer to any request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let path = request.uri().path();
        if let Some(rest) = path.strip_prefix("/api") {
            let rest = rest.to_owned();
            return self.api_answer(&rest, request).await;
        }
        match (request.method(), path) {
            (&Method::POST, "/token") => self.token_answer(request).await,
            (&Method::POST, "/device") => json(
                StatusCode::OK,
                format!(
                    r#"{{"device_code":"device-1","user_code":"WDJB-MJHT","interval":1,"expires_in":600,"verification_uri":"{}/activate"}}"#,
                    self.address(),
                ),
            ),
            (&Method::POST, "/revoke") => match read_form(request).await {
                Some(form) => {
                    self.lock().revoke(form.get("token").unwrap_or_default());
                    empty(StatusCode::OK)
                }
                None => empty(StatusCode::BAD_REQUEST),
            },
            (_, "/stream") => match self.accepts(request.headers()) {
                true => Response::new(request.into_body().map_err(Into::into).boxed()),
                false => challenge(),
            },
            _ => empty(StatusCode::NOT_FOUND),
        }
    }

    /// A handler that reads the whole body, and keeps it if the token is good.
    pub async fn strict(self, request: Request<Incoming>) -> Response<ResponseBody> {
        let good = self.accepts(request.headers());
        let Ok(body) = request.into_body().collect().await else {
            return empty(StatusCode::BAD_REQUEST);
        };
        if !good {
            return text(StatusCode::UNAUTHORIZED, "the token has expired");
        }
        let mut bodies = self.shared.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.push(body.to_bytes());
        text(StatusCode::OK, "thank you")
    }

    async fn api_answer(&self, path: &str, request: Request<Incoming>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let body = body.to_bytes();
        if self.judge(&head.headers).await {
            self.tell(Event::Accepted { path, body: &body });
            return text(StatusCode::OK, body);
        }
        self.tell(Event::Refused { path, late: head.headers.contains_key("x-late") });
        challenge()
    }

    async fn token_answer(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let Some(form) = read_form(request).await else {
            return empty(StatusCode::BAD_REQUEST);
        };
        self.pause().await;
        match (form.get("grant_type"), form.get("refresh_token")) {
            (Some("refresh_token"), Some(token)) => {
                let verdict = self.lock().redeem(token);
                if let Verdict::Renewed(_) = verdict {
                    self.tell(Event::Redeemed);
                }
                verdict.response(Some(LIFE))
            }
            (Some(DEVICE_CODE), None) if form.get("device_code") == Some("device-1") => {
                if self.shared.device_asked.swap(true, Ordering::Relaxed) {
                    let pair = self.lock().sign_in();
                    return Verdict::Renewed(pair).response(Some(LIFE));
                }
                refuse("authorization_pending", "the user has not typed it in yet")
            }
            (Some("client_credentials"), None) => {
                let client = (form.get("client_id"), form.get("client_secret"));
                if client != (Some(CLIENT_ID), Some(CLIENT_SECRET)) {
                    return refuse("invalid_client", "no such client");
                }
                let access = self.lock().grant();
                json(
                    StatusCode::OK,
                    format!(r#"{{"access_token":"{access}",{}}}"#, kind_and_life(Some(LIFE))),
                )
            }
            _ => refuse("unsupported_grant_type", "there are three kinds"),
        }
    }
}
