//! Services below that take one type of body.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use testing::{Auth, builder, get, token_of};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_refresh::{
    BoxError, RefreshLayer, RefreshState,
    body::{NotReplayable, ReplayBody},
};

/// A body as clients have them: bytes, which can be cloned, or a stream, which cannot.
#[derive(Debug)]
enum Native {
    Bytes(Full<Bytes>),
    Stream(Full<Bytes>),
}

impl Native {
    fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Bytes(bytes) => Some(Self::Bytes(bytes.clone())),
            Self::Stream(_) => None,
        }
    }
}

impl Body for Native {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (Self::Bytes(bytes) | Self::Stream(bytes)) = self.get_mut();
        Pin::new(bytes).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes(bytes) => bytes.size_hint(),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// A client that takes a `Request<Native>` and no other. It refuses the first token, and notes the
/// bodies that it was sent, by what they are.
#[derive(Clone, Default)]
struct Client(Arc<Mutex<Vec<String>>>);

impl Service<Request<Native>> for Client {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Native>) -> Self::Future {
        let token = request.headers().get("authorization").map(|it| it.to_str().unwrap());
        let good = token == Some("Bearer access-2");
        self.0.lock().unwrap().push(format!("{:?}", request.body()));
        let mut response = Response::new(Full::default());
        if !good {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        ready(Ok(response))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_can_be_cloned_stays_what_it_is() {
    let layer = |auth: &Auth| RefreshLayer::new(builder(auth).build());
    let hello = || Full::from("hello");
    for (layer, body, status, reason) in [
        (layer(&Auth::new()), Native::Bytes(hello()), 200, None),
        (layer(&Auth::new()), Native::Stream(hello()), 401, Some(NotReplayable::Uncloneable)),
        (
            layer(&Auth::new()).replay_cap(4),
            Native::Bytes(hello()),
            401,
            Some(NotReplayable::TooLarge),
        ),
        (
            layer(&Auth::new()).replay_budget(4),
            Native::Bytes(hello()),
            401,
            Some(NotReplayable::OverBudget),
        ),
        (
            layer(&Auth::new()).replay_if(|_| false),
            Native::Bytes(hello()),
            401,
            Some(NotReplayable::Forbidden),
        ),
        (layer(&Auth::new()), Native::Bytes(Full::default()), 200, None),
    ] {
        let client = Client::default();
        let service = layer.try_clone_bodies(Native::try_clone).layer(client.clone());
        let sent = format!("{body:?}");
        let response = service.oneshot(Request::new(body)).await.unwrap();
        assert_eq!(response.status(), status, "{sent}");
        assert_eq!(response.extensions().get(), reason.as_ref(), "{sent}");
        let seen = std::mem::take(&mut *client.0.lock().unwrap());
        assert_eq!(seen, vec![sent; if status == 200 { 2 } else { 1 }]);
    }
}

/// Since the body's type stays, the layer can be left out where there is no credential.
#[tokio::test(start_paused = true)]
async fn a_layer_that_keeps_the_bodys_type_may_be_optional() {
    let auth = Auth::new();
    for (state, status) in [(Some(builder(&auth).build()), 200), (None, 401)] {
        let layer =
            |state: Arc<RefreshState>| RefreshLayer::new(state).try_clone_bodies(Native::try_clone);
        let service =
            ServiceBuilder::new().option_layer(state.map(layer)).service(Client::default());
        let request = Request::new(Native::Bytes(Full::from("hello")));
        assert_eq!(service.oneshot(request).await.unwrap().status(), status);
    }
}

/// The one line that a client with a boxed body takes; no type is named in it.
#[tokio::test(start_paused = true)]
async fn a_body_is_made_what_the_client_takes() {
    type Boxed = UnsyncBoxBody<Bytes, BoxError>;
    fn boxed(body: ReplayBody<Boxed>) -> Boxed {
        body.map_err(Into::into).boxed_unsync()
    }
    let auth = Auth::new();
    let client = service_fn(async |request: Request<Boxed>| {
        let good = request.headers()["authorization"] == "Bearer access-2";
        let body = request.into_body().collect().await?.to_bytes();
        let status = if good { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        Ok::<_, BoxError>(Response::builder().status(status).body(Full::<Bytes>::from(body))?)
    });
    let client = ServiceBuilder::new()
        .layer(RefreshLayer::new(builder(&auth).build()).map_body(boxed))
        .service(client);
    let body = Full::from("hello").map_err(|never| match never {}).boxed_unsync();
    let response = client.oneshot(Request::new(body)).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(auth.count(), 1);
}

/// `try_clone_bodies`: "What is charged to the budget is the size that the body says it has at least."
/// A body that is empty by its own word costs nothing, and "can always be replayed"
/// (`ReplayBody::tee`), as it is by the layer without this.
///
/// Order: the budget is used up by others (here: it is 0); a GET is refused; the token is refreshed;
/// the GET is sent again.
#[tokio::test]
async fn a_request_without_a_body_is_replayed_whatever_the_budget() {
    let refuses_the_first = |token: Option<&str>| {
        let status = if token == Some("access-1") { 401 } else { 200 };
        Response::builder().status(status).body(Full::<Bytes>::default()).unwrap()
    };
    // As it is with bodies that are teed.
    let layer = RefreshLayer::new(builder(&Auth::new()).build()).replay_budget(0);
    let server = service_fn(move |request: Request<ReplayBody<Full<Bytes>>>| {
        std::future::ready(Ok::<_, Infallible>(refuses_the_first(token_of(&request))))
    });
    let teed = layer.layer(server).oneshot(get("http://api.example.com/")).await.unwrap();
    assert_eq!(teed.status(), 200);

    let layer = RefreshLayer::new(builder(&Auth::new()).build()).replay_budget(0);
    let layer = layer.try_clone_bodies(|body: &Full<Bytes>| Some(body.clone()));
    let server = service_fn(move |request: Request<Full<Bytes>>| {
        std::future::ready(Ok::<_, Infallible>(refuses_the_first(token_of(&request))))
    });
    let own = layer.layer(server).oneshot(get("http://api.example.com/")).await.unwrap();
    assert_eq!(own.extensions().get::<NotReplayable>(), None);
    assert_eq!(own.status(), 200);
}
