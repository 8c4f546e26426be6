//! Auto traits are API: what is `Send`, `Sync` and `Unpin` stays so, whatever the
//! types behind it.

use std::{
    convert::Infallible,
    future::{Future, Ready},
    marker::PhantomPinned,
    pin::Pin,
    sync::{Arc, mpsc},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::Service;
use tower_refresh::{
    ConfigError, Credential, FailureKind, FromExtensions, Generation, RefreshError, RefreshFailure,
    RefreshLayer, RefreshState, Refresher, Tokens,
    body::{BodyError, BodyErrorKind, Budget, CloneBody, NotReplayable, Replay, ReplayBody, Tee},
    grpc::{GrpcStatus, GrpcStatusFuture, GrpcStatusLayer, Peeked, Watched},
    layer::{Attempt, CredentialSource, Refresh, ResponseFuture, Verdict},
    refresher::{RefresherFn, Trigger},
    state::{
        Counts, Drained, FailureEvent, Health, KeepFresh, PastFailure, RefreshStateBuilder,
        Revocation, SignedOut, Status, WhileUnsaved,
    },
    store::{MemoryStore, MemoryStores, Record, SaveError, StoreError, Stores, TokenStore},
};

const fn send<T: Send>() {}
const fn sync<T: Sync>() {}
const fn unpin<T: Unpin>() {}
const fn clone<T: Clone>() {}
const fn owned<T: Send + Sync + Unpin + 'static>() {}
const fn error<T: std::error::Error + Send + Sync + Unpin + 'static>() {}

/// A body that is `Send` and no more, as bodies made of streams are.
struct SendBody(mpsc::Receiver<Bytes>);

impl Body for SendBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.try_recv().ok().map(|data| Ok(Frame::data(data))))
    }
}

/// A service that is `Clone` and `Send` and not `Sync`, as tower's `Buffer` was and
/// many boxed ones are. Its future may not be moved once it is polled.
#[derive(Clone)]
struct SendService(std::cell::Cell<()>);

struct SendFuture(std::cell::Cell<()>, PhantomPinned);

impl Future for SendFuture {
    type Output = Result<http::Response<SendBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(http::Response::new(SendBody(mpsc::channel().1))))
    }
}

impl<B> Service<http::Request<B>> for SendService {
    type Response = http::Response<SendBody>;
    type Error = Infallible;
    type Future = SendFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> SendFuture {
        SendFuture(self.0.clone(), PhantomPinned)
    }
}

/// One whose future is `Unpin` and `Sync`.
#[derive(Clone)]
struct PlainService;

impl<B> Service<http::Request<B>> for PlainService {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        std::future::ready(Ok(http::Response::default()))
    }
}

// What a connection pool or axum asks of a service, with nothing but `Send` inside.

const _: () = {
    send::<Refresh<SendService>>();
    sync::<Refresh<PlainService>>();
    clone::<Refresh<SendService>>();
    unpin::<Refresh<SendService>>();
    send::<Refresh<SendService, CloneBody>>();
    owned::<Refresh<PlainService>>();

    send::<ResponseFuture<SendService, SendBody, SendBody>>();
    send::<ResponseFuture<SendService, Full<Bytes>, Full<Bytes>>>();
    unpin::<ResponseFuture<PlainService, SendBody, SendBody>>();
    unpin::<ResponseFuture<PlainService, Full<Bytes>, Full<Bytes>>>();
};

const _: () = {
    owned::<RefreshLayer>();
    owned::<RefreshLayer<CloneBody>>();
    clone::<RefreshLayer<Tee>>();
    owned::<RefreshState>();
    owned::<Arc<RefreshState>>();
    send::<RefreshStateBuilder>();
    unpin::<RefreshStateBuilder>();
};

const _: () = {
    // The handle and the attempt share the source, under a lock: `Send` is enough.
    send::<ReplayBody<SendBody>>();
    unpin::<ReplayBody<SendBody>>();
    send::<Replay<SendBody>>();
    unpin::<Replay<SendBody>>();
    owned::<ReplayBody<Full<Bytes>>>();
    owned::<Replay<Full<Bytes>>>();
    owned::<Budget>();
    owned::<Tee>();
    owned::<CloneBody>();
};

const _: () = {
    owned::<GrpcStatusLayer>();
    clone::<GrpcStatusLayer>();
    send::<GrpcStatus<SendService>>();
    clone::<GrpcStatus<SendService>>();
    owned::<GrpcStatus<PlainService>>();
    send::<GrpcStatusFuture<SendFuture, SendBody>>();
    unpin::<GrpcStatusFuture<Ready<()>, SendBody>>();
    send::<Watched<SendBody>>();
    unpin::<Watched<SendBody>>();
    owned::<Watched<Full<Bytes>>>();
    send::<Peeked<SendBody>>();
    unpin::<Peeked<SendBody>>();
    owned::<Peeked<Full<Bytes>>>();
    #[cfg(feature = "in-body")]
    in_body();
};

const _: () = {
    owned::<Attempt>();
    owned::<BodyErrorKind>();
    owned::<Counts>();
    owned::<Credential>();
    owned::<FailureKind>();
    owned::<FromExtensions>();
    owned::<RefresherFn<fn()>>();
    owned::<Generation>();
    owned::<KeepFresh>();
    owned::<MemoryStore>();
    clone::<MemoryStore>();
    owned::<MemoryStores>();
    clone::<MemoryStores>();
    owned::<Record>();
    owned::<tower_refresh::store::Deleted>();
    owned::<Status>();
    owned::<FailureEvent>();
    clone::<FailureEvent>();
    owned::<Health>();
    owned::<PastFailure>();
    owned::<SignedOut>();
    clone::<SignedOut>();
    owned::<Drained>();
    owned::<Revocation>();
    owned::<Tokens>();
    owned::<Trigger>();
    owned::<Verdict>();
    owned::<WhileUnsaved>();
    owned::<Box<dyn Refresher>>();
    owned::<Box<dyn TokenStore>>();
    owned::<Box<dyn Stores>>();
    owned::<Box<dyn CredentialSource>>();
    send::<Box<dyn tower_refresh::store::Lease>>();
};

#[cfg(feature = "reqwest-middleware")]
const _: () = {
    owned::<tower_refresh::RefreshMiddleware>();
    clone::<tower_refresh::RefreshMiddleware>();
};

#[cfg(feature = "redis")]
const _: () = {
    use tower_refresh::store::{RedisStore, RedisStores, RedisStoresBuilder};
    owned::<RedisStore>();
    clone::<RedisStore>();
    owned::<RedisStores>();
    clone::<RedisStores>();
    owned::<RedisStoresBuilder>();
};

const _: () = {
    error::<BodyError>();
    error::<ConfigError>();
    error::<NotReplayable>();
    error::<RefreshError>();
    error::<RefreshFailure>();
    error::<SaveError>();
    error::<StoreError>();
    clone::<RefreshFailure>();
    clone::<NotReplayable>();
};

#[cfg(feature = "file")]
const _: () = {
    owned::<tower_refresh::store::FileStore>();
    owned::<tower_refresh::store::FileStores>();
    clone::<tower_refresh::store::FileStores>();
};

#[cfg(feature = "seal")]
const _: () = {
    use tower_refresh::seal::{Keyring, Plaintext, SealError, SealErrorKind};
    owned::<Keyring>();
    clone::<Keyring>();
    owned::<Plaintext>();
    error::<SealError>();
    owned::<SealErrorKind>();
};

#[cfg(feature = "oauth2")]
const _: () = {
    use tower_refresh::oauth2::{
        Client, ClientBuilder, ClientCredentialsGrant, Error, ErrorKind, RefreshTokenGrant, Revoker,
    };
    owned::<Client>();
    owned::<ClientBuilder>();
    owned::<ClientCredentialsGrant>();
    error::<Error>();
    owned::<ErrorKind>();
    owned::<RefreshTokenGrant>();
    owned::<Revoker>();
};

fn is_send<T: Send>(value: T) -> T {
    value
}

/// The futures of the state's own API can be spawned, and so can a request's.
#[tokio::test]
async fn every_future_can_be_spawned() {
    let auth = testing::Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(testing::tokens(1)).build();
    is_send(state.token()).await.unwrap();
    is_send(state.refresh()).await.unwrap();
    is_send(state.challenged(Generation::ZERO)).await.unwrap();
    is_send(state.set(testing::tokens(9))).await.unwrap();
    is_send(state.clear()).await.unwrap();
    is_send(state.drain()).await;

    let service = tower::Layer::layer(&RefreshLayer::new(state), SendService(Default::default()));
    let request = http::Request::new(SendBody(mpsc::channel().1));
    tokio::spawn(tower::ServiceExt::oneshot(service, request)).await.unwrap().unwrap();
}

/// The state can be used where boxed, cloneable, shareable services are wanted.
#[test]
fn it_fits_into_boxed_services() {
    let auth = testing::Auth::new();
    let state = RefreshState::builder(auth.refresher()).tokens(testing::tokens(1)).build();
    let layer = RefreshLayer::new(state);
    let _: tower::util::BoxCloneService<http::Request<SendBody>, _, _> =
        tower::util::BoxCloneService::new(tower::Layer::layer(
            &layer,
            SendService(Default::default()),
        ));
    let _: tower::util::BoxCloneSyncService<http::Request<SendBody>, _, _> =
        tower::util::BoxCloneSyncService::new(tower::Layer::layer(&layer, PlainService));
}

#[cfg(feature = "in-body")]
const fn in_body() {
    use tower_refresh::in_body::{
        Connect, GraphQl, GrpcWeb, InBody, InBodyFuture, InBodyLayer, JsonPointer, Rule, Trpc,
    };

    owned::<InBodyLayer>();
    clone::<InBodyLayer>();
    owned::<Rule>();
    owned::<(GraphQl, Trpc, Connect, GrpcWeb, JsonPointer)>();
    owned::<InBody<()>>();
    send::<InBodyFuture<Ready<Result<http::Response<SendBody>, Infallible>>, SendBody>>();
    owned::<InBodyFuture<Ready<Result<http::Response<Full<Bytes>>, Infallible>>, Full<Bytes>>>();
}
