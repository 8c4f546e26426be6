//! `tonic_channel` when many calls share its connection: none of them is in the way of another, and what
//! they bring passes whole.

use std::{
    future::{pending, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, future::join_all, stream};
use http::{HeaderMap, HeaderName, Request};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use testing::echo::{
    Chunk, Sum,
    echo_client::EchoClient,
    echo_server::{Echo, EchoServer},
};
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task,
};
use tonic::{
    Code, Response, Status, Streaming,
    body::Body,
    metadata::{MetadataMap, MetadataValue},
    transport::Channel,
};
use tower::{BoxError, Layer, Service, ServiceExt, limit::ConcurrencyLimit, service_fn};
use tower_refresh::{RefreshLayer, RefreshState, Tokens, refresher_fn, tonic_channel};

use crate::{chunk, done, server::Strict, written};

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

/// A service in this process, without a server.
#[derive(Clone)]
struct Here;

/// What `Here` does with the call of this number. It echoes all others.
const HANGS: u64 = 1000;
const REFUSES: u64 = 1001;

/// More than the 16 KiB that an HTTP/2 connection of hyper takes if it is not told.
const MUCH_METADATA: usize = 40_000;

const MIB: usize = 1 << 20;

#[tonic::async_trait]
impl Echo for Here {
    type CountStream = Chunks;
    type ChatStream = Chunks;

    async fn unary(&self, request: tonic::Request<Chunk>) -> Result<Response<Chunk>, Status> {
        let metadata = request.metadata().clone();
        let chunk = request.into_inner();
        match chunk.number {
            HANGS => pending().await,
            REFUSES => {
                let details = Bytes::from_static(&[0, 1, 255]);
                let (code, message) = (Code::FailedPrecondition, "not now");
                Err(Status::with_details_and_metadata(code, message, details, metadata))
            }
            _ => {
                let mut response = Response::new(chunk);
                *response.metadata_mut() = metadata;
                Ok(response)
            }
        }
    }

    /// Reads one message, and no more of a stream that begins with `HANGS`.
    async fn collect(
        &self,
        request: tonic::Request<Streaming<Chunk>>,
    ) -> Result<Response<Sum>, Status> {
        let mut chunks = request.into_inner();
        if chunks.message().await?.is_some_and(|chunk| chunk.number == HANGS) {
            pending::<()>().await;
        }
        Ok(Response::new(Sum::default()))
    }

    async fn count(&self, request: tonic::Request<Chunk>) -> Result<Response<Chunks>, Status> {
        let chunks = (0..request.into_inner().number).map(|number| Ok(large(number)));
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    async fn chat(
        &self,
        request: tonic::Request<Streaming<Chunk>>,
    ) -> Result<Response<Chunks>, Status> {
        Ok(Response::new(Box::pin(request.into_inner())))
    }
}

fn large(number: u64) -> Chunk {
    Chunk { number, data: vec![7; 64 * 1024].into() }
}

fn here() -> EchoClient<Channel> {
    EchoClient::new(tonic_channel(EchoServer::new(Here)))
}

/// So that what is under way gets as far as it can.
async fn all_others() {
    for _ in 0..1000 {
        task::yield_now().await;
    }
}

/// Ten streams, of 60 MiB each.
#[tokio::test]
async fn answers_that_are_not_read_hold_up_no_other_call() {
    let mut client = here();
    let mut unread = Vec::new();
    for _ in 0..10 {
        unread.push(done(client.count(chunk(1000))).await.unwrap());
    }
    all_others().await;
    assert_eq!(done(client.unary(large(1))).await.unwrap().into_inner(), large(1));
}

#[tokio::test]
async fn uploads_that_are_not_read_hold_up_no_other_call() {
    let mut client = here();
    let unread = (0..10).map(|_| {
        let mut client = client.clone();
        let endless = stream::repeat_with(|| large(HANGS));
        tokio::spawn(async move { client.collect(endless).await })
    });
    let unread: Vec<_> = unread.collect();
    all_others().await;
    assert_eq!(done(client.unary(large(1))).await.unwrap().into_inner(), large(1));
    assert!(unread.iter().all(|call| !call.is_finished()));
}

#[test]
fn an_answer_that_is_read_slowly_is_not_kept_in_memory() {
    let allocated = allocation_counter::measure(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut answer = done(here().count(chunk(1000))).await.unwrap().into_inner();
            for _ in 0..10 {
                done(answer.message()).await.unwrap();
                all_others().await;
            }
        });
    });
    assert!(allocated.bytes_max < 2 * MIB as u64, "{} bytes", allocated.bytes_max);
}

/// The connection's other end clones the service for each call. It can be held up there.
struct HeldUp<S> {
    inner: S,
    is_held: Arc<AtomicBool>,
}

impl<S: Clone> Clone for HeldUp<S> {
    fn clone(&self) -> Self {
        while self.is_held.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        Self { inner: self.inner.clone(), is_held: Arc::clone(&self.is_held) }
    }
}

impl<S: Service<R>, R> Service<R> for HeldUp<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.inner.call(request)
    }
}

struct Told(mpsc::UnboundedSender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// They are begun and dropped before the connection's other end has seen them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_dropped_at_once_end_no_other_call() {
    let is_held = Arc::new(AtomicBool::new(false));
    let service = HeldUp { inner: EchoServer::new(Here), is_held: Arc::clone(&is_held) };
    let mut client = EchoClient::new(tonic_channel(service));
    let (sender, sent) = written();
    let mut lives_on = done(client.chat(sent)).await.unwrap().into_inner();

    is_held.store(true, Ordering::SeqCst);
    let (tell, mut told) = mpsc::unbounded_channel();
    let calls = (0..100).map(|_| {
        let mut client = client.clone();
        let told_when_dropped = Told(tell.clone());
        let hangs = stream::poll_fn(move |_| {
            let _ = told_when_dropped.0.send(());
            Poll::Pending
        });
        tokio::spawn(async move { client.collect(hangs).await })
    });
    let calls: Vec<_> = calls.collect();
    for _ in &calls {
        done(told.recv()).await;
    }
    all_others().await;
    calls.iter().for_each(task::JoinHandle::abort);
    for _ in &calls {
        done(told.recv()).await;
    }
    all_others().await;
    is_held.store(false, Ordering::SeqCst);

    done(client.unary(chunk(1))).await.unwrap();
    sender.send(chunk(2)).unwrap();
    assert_eq!(done(lives_on.message()).await.unwrap(), Some(chunk(2)));
}

#[tokio::test]
async fn metadata_passes_whole_each_way() {
    let mut client = here();
    let mut sent = MetadataMap::new();
    sent.insert("much", "m".repeat(MUCH_METADATA).parse().unwrap());
    sent.insert_bin("some-bin", MetadataValue::from_bytes(&[0, 1, 255]));
    let request =
        |number| tonic::Request::from_parts(sent.clone(), Default::default(), chunk(number));
    let whole = |got: &MetadataMap| {
        got.get("much") == sent.get("much") && got.get_bin("some-bin") == sent.get_bin("some-bin")
    };

    assert!(whole(done(client.unary(request(1))).await.unwrap().metadata()));
    let status = done(client.unary(request(REFUSES))).await.unwrap_err();
    assert!(whole(status.metadata()));
    assert_eq!(status.details(), [0, 1, 255]);
    assert_eq!(status.message(), "not now");
}

/// In a trailer, too, and nothing is added to what the service says.
#[tokio::test]
async fn a_response_passes_as_it_is() {
    let trailers = HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), "0".parse().unwrap()),
        ("much".parse::<HeaderName>().unwrap(), "m".repeat(MUCH_METADATA).parse().unwrap()),
    ]);
    let sent = trailers.clone();
    let service = service_fn(move |_: Request<Body>| {
        let frames = [Frame::data(Bytes::from("ab")), Frame::trailers(sent.clone())];
        let body = StreamBody::new(stream::iter(frames.map(Ok::<_, BoxError>)));
        ready(Ok::<_, BoxError>(http::Response::new(Body::new(body))))
    });
    let mut channel = tonic_channel(service);
    let call = done(channel.ready()).await.unwrap().call(Request::new(Body::empty()));
    let response = done(call).await.unwrap();
    assert!(response.headers().is_empty(), "{:?}", response.headers());
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers(), Some(&trailers));
    assert_eq!(body.to_bytes(), "ab");
}

/// Callers drop their calls, and another's deadline passes, while the token is refreshed.
#[tokio::test]
async fn calls_that_end_during_a_refresh_do_not_end_it() {
    let server = Strict::start().await;
    server.auth.sign_in();
    let (began, mut refreshes) = mpsc::unbounded_channel();
    let (go, gate) = watch::channel(false);
    let refresher = refresher_fn(move || {
        let mut gate = gate.clone();
        let _ = began.send(());
        async move {
            let _ = gate.wait_for(|open| *open).await;
            Ok(Tokens::new("access-1-1"))
        }
    });
    let state = RefreshState::builder(refresher).tokens(Tokens::new("expired")).build();
    let layer = RefreshLayer::new(state).allow_relative().map_body(Body::new);
    let mut client = EchoClient::new(tonic_channel(layer.layer(crate::channel(server.address))));
    let other = client.clone();
    let call = |number| {
        let mut client = other.clone();
        tokio::spawn(async move { client.unary(chunk(number)).await })
    };

    let first = call(0);
    done(refreshes.recv()).await;
    let calls: Vec<_> = (0..100).map(call).collect();
    all_others().await;
    first.abort();
    calls[..50].iter().for_each(task::JoinHandle::abort);
    let mut request = tonic::Request::new(chunk(1));
    request.set_timeout(Duration::from_millis(1));
    assert_eq!(done(client.unary(request)).await.unwrap_err().message(), "Timeout expired");
    go.send(true).unwrap();
    let kept = calls.into_iter().skip(50);
    assert!(done(join_all(kept)).await.into_iter().all(|call| call.unwrap().is_ok()));
    assert!(refreshes.try_recv().is_err(), "a second refresh");
}

/// The service takes one call at a time. Those that wait for it may be dropped.
#[tokio::test]
async fn a_service_that_is_not_ready_is_waited_for() {
    let one_at_a_time = ConcurrencyLimit::new(EchoServer::new(Here), 1);
    let client = EchoClient::new(tonic_channel(one_at_a_time));
    let call = |number| {
        let mut client = client.clone();
        tokio::spawn(async move { client.unary(chunk(number)).await })
    };
    let first = call(HANGS);
    all_others().await;
    let (dropped, kept): (Vec<_>, Vec<_>) = (0..50).map(|_| (call(1), call(2))).unzip();
    all_others().await;
    dropped.iter().chain([&first]).for_each(task::JoinHandle::abort);
    assert!(done(join_all(kept)).await.into_iter().all(|call| call.unwrap().is_ok()));
}

/// As the threads of OpenTelemetry's exporters do.
#[test]
fn threads_outside_of_the_runtime_make_calls() {
    let runtime =
        runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = {
        let _inside = runtime.enter();
        here()
    };
    thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = client.clone();
            scope.spawn(move || {
                for number in 0..100 {
                    let mut request = tonic::Request::new(chunk(number));
                    request.set_timeout(Duration::from_secs(120));
                    let answer = block_on(client.unary(request)).unwrap();
                    assert_eq!(answer.into_inner(), chunk(number));
                }
            });
        }
    });
}

/// Of no runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unparks(Thread);

    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unparks(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Instead of a call that hangs for ever.
#[test]
fn a_channel_whose_runtime_is_gone_says_so() {
    let runtime = || runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let mut client = first.block_on(async { here() });
    first.block_on(client.unary(chunk(1))).unwrap();
    drop(first);
    assert!(runtime().block_on(done(client.unary(chunk(2)))).is_err());
}
