//! OpenDAL, here on WebDAV, with a token for every request of a storage service: twenty files are written at the same time
//! with a token that has just expired. One refresh, and each is written once, whole.
//!
//! It is for services that are configured without credentials; those of the clouds sign by themselves.

use std::{process::ExitCode, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header::AUTHORIZATION};
use opendal::{
    Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, OperationContext, Operator,
    services::Webdav,
};
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use tower_refresh::{Credential, RefreshState};

// ---- What a user writes: a transport over another, whose tokens are kept alive.
struct Refreshing<T> {
    transport: T,
    state: Arc<RefreshState>,
}

impl<T: HttpTransport> HttpTransport for Refreshing<T> {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (head, body) = request.into_parts();
        let call = |credential: Credential| {
            let mut request = Request::from_parts(head.clone(), body.clone());
            if let Some(bearer) = credential.bearer() {
                request.headers_mut().insert(AUTHORIZATION, bearer);
            }
            self.transport.fetch(request)
        };
        let refused = |outcome: &opendal::Result<Response<HttpBody>>| {
            outcome.as_ref().is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED)
        };
        self.state.attempt(call, refused).await.unwrap_or_else(|error| {
            let denied = Error::new(ErrorKind::PermissionDenied, error.failure().to_string());
            Err(denied.set_source(error.failure().clone()))
        })
    }
}

fn operator(endpoint: &str, state: Arc<RefreshState>) -> opendal::Result<Operator> {
    let transport = Refreshing { transport: HttpTransporter::default(), state };
    let context = OperationContext::new().with_http_transport(HttpTransporter::new(transport));
    Ok(Operator::new(Webdav::default().endpoint(endpoint))?.with_context(context))
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::options().latency(Duration::from_millis(10)).serve(webdav).await?;
    let operator = operator(&format!("{}/dav", servers.address()), scenery::credential(&servers)?)?;

    let ok = scenery::at_once(&servers, |number| {
        let operator = operator.clone();
        async move { write(&operator, number).await.is_ok() }
    });
    let ok = ok.await;
    let files = servers.bodies();
    let whole = (0..CALLS).filter(|number| files.iter().any(|file| *file == content(*number)));
    let outcome = Outcome::of(&servers, CALLS, ok.min(whole.count()).min(files.len()));

    scenery::end_session(&servers);
    Ok(outcome.report_error(write(&operator, 99).await))
}

async fn write(operator: &Operator, number: usize) -> opendal::Result<()> {
    operator.write(&format!("order-{number}"), content(number)).await.map(drop)
}

fn content(number: usize) -> String {
    format!("order {number}; ").repeat(1000)
}

/// Takes files, and says that every folder is there.
async fn webdav(
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    match request.uri().path() {
        path if !path.starts_with("/dav") => servers.answer(request).await,
        _ if !servers.judge(request.headers()).await => loopback::challenge(),
        _ if request.method() == Method::PUT => match servers.strict(request).await.status() {
            StatusCode::OK => loopback::empty(StatusCode::CREATED),
            refused => loopback::empty(refused),
        },
        _ => loopback::text(StatusCode::MULTI_STATUS, FOLDER),
    }
}

const FOLDER: &str = "<multistatus xmlns='DAV:'><response><href>/dav/</href><propstat><prop>\
    <resourcetype><collection/></resourcetype>\
    <getlastmodified>Sat, 28 Nov 2026 12:00:00 GMT</getlastmodified>\
    </prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>";
