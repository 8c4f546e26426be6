//! What the application answers, and the API behind it.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Service, ServiceExt};
use tower_refresh::{
    body::ReplayBody,
    session::{Ended, Identity, SessionSlot},
};

use super::{Body, ISSUER, World};

/// The API.
pub(super) async fn answer(
    world: World,
    request: Request<ReplayBody<Empty<Bytes>>>,
) -> Result<Response<Body>, Infallible> {
    let authorization = request.headers().get(header::AUTHORIZATION);
    let accepted = authorization.is_some_and(|it| world.server.accepts(it.to_str().unwrap()));
    world.upstream.lock().unwrap().push(request.headers().clone());
    let response = Response::builder()
        .header("set-cookie", "__Host-Http-sid=theirs; Path=/")
        .header("set-cookie", "theirs=1")
        .header("cache-control", "public, max-age=60");
    Ok(match accepted {
        true => response.body(full("data")).unwrap(),
        false => response
            .status(StatusCode::UNAUTHORIZED)
            .header("www-authenticate", "Bearer error=\"invalid_token\"")
            .body(full("refused"))
            .unwrap(),
    })
}

/// A body.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

fn header(request: &Request<Body>, name: &str) -> Option<String> {
    request.headers().get(name).map(|it| it.to_str().unwrap().to_owned())
}

/// The application.
pub(super) async fn handle(
    world: World,
    api: impl Service<Request<Empty<Bytes>>, Response = Response<Body>, Error = Infallible>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let slot = request.extensions().get::<SessionSlot>().unwrap().clone();
    let (user, sid) = (header(&request, "user"), header(&request, "sid"));
    let text = |status: StatusCode, text: String| {
        Response::builder().status(status).body(full(text)).unwrap()
    };
    let path = request.uri().path().to_owned();
    Ok(match &*path {
        "/" => {
            let name = slot.session().map(|it| it.identity().subject().to_owned());
            text(StatusCode::OK, name.unwrap_or_else(|| "anonymous".to_owned()))
        }
        "/held" => {
            world.held.pass().await;
            text(StatusCode::OK, "held".to_owned())
        }
        "/asset" => Response::builder()
            .header("cache-control", "public, max-age=60")
            .body(full("asset"))
            .unwrap(),
        "/uri" => text(StatusCode::OK, request.uri().to_string()),
        "/sign_in" => {
            let identity = Identity::new(ISSUER, user.unwrap());
            let identity = sid.into_iter().fold(identity, Identity::sid);
            match slot.sign_in(world.server.sign_in(), identity).await {
                Ok(_) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, "a cookie on any status".to_owned())
                }
                Err(error) => text(StatusCode::BAD_GATEWAY, error.to_string()),
            }
        }
        "/sign_out" => match slot.session().unwrap().sign_out().await {
            Ok(()) => text(StatusCode::NO_CONTENT, String::new()),
            Err(_) => text(StatusCode::BAD_GATEWAY, String::new()),
        },
        "/others" => {
            let count = slot.session().unwrap().end_others().await.unwrap();
            text(StatusCode::OK, count.to_string())
        }
        "/ended" => text(StatusCode::OK, slot.ended().map_or("-", Ended::as_str).to_owned()),
        "/refresh" => {
            // Its head is sent, and then it refreshes.
            let session = slot.session().unwrap();
            let refreshed = futures_util::stream::once(async move {
                let refreshed = session.state().refresh().await;
                let text = refreshed.map_or_else(|it| it.kind().as_str(), |_| "refreshed");
                Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(text)))
            });
            let body = http_body_util::StreamBody::new(refreshed).boxed_unsync();
            Response::new(body)
        }
        "/events" => {
            let quiet = http_body_util::StreamBody::new(futures_util::stream::pending());
            Response::builder()
                .header("content-type", "text/event-stream; charset=utf-8")
                .body(quiet.boxed_unsync())
                .unwrap()
        }
        path => {
            let uri = format!("http://api.test{path}").parse().unwrap();
            let (mut parts, _) = request.into_parts();
            parts.uri = uri;
            api.oneshot(Request::from_parts(parts, Empty::new())).await?
        }
    })
}
