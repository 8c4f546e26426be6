//! Long streams: what is kept of them, and what is sent again.

use std::{net::SocketAddr, thread};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use testing::echo::{Chunk, echo_client::EchoClient};
use tokio::runtime;
use tonic::Code;
use tower_refresh::{RefreshLayer, RefreshState, Tokens};

use crate::{chunk, client, done, numbers, server::Strict, written};

const MESSAGES: u64 = 10_000;
const SIZE: usize = 1024;

/// What the connection and its windows need more or less from one run to the next. All
/// messages are five times that.
const NOISE: u64 = 2 << 20;

/// A server in a thread of its own, so that its memory is not the client's.
fn apart() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Strict::start().await;
            server.auth.sign_in();
            sender.send(server.address).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
}

fn large(number: u64) -> Chunk {
    Chunk { number, data: Bytes::from(vec![0; SIZE]) }
}

/// The most memory in use at any moment of a client's call, which has a good token.
fn peak<F>(cap: usize, call: impl FnOnce(SocketAddr, RefreshLayer) -> F) -> u64
where
    F: Future<Output = ()>,
{
    let address = apart();
    let state = RefreshState::builder(async |_: Tokens| unreachable!("the token is good"))
        .tokens(Tokens::new("access-1-1"))
        .build();
    let layer = RefreshLayer::new(state).replay_cap(cap);
    let allocated = allocation_counter::measure(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(done(call(address, layer)));
    });
    allocated.bytes_max
}

/// There is room for all of it, but the server has begun to answer.
#[test]
fn a_long_bidirectional_stream_is_not_kept() {
    let layered = peak(usize::MAX, |address, layer| async move {
        let mut client = client(address, layer);
        let sent = stream::iter((0..MESSAGES).map(large));
        let mut stream = client.chat(sent).await.unwrap().into_inner();
        for number in 0..MESSAGES {
            assert_eq!(stream.message().await.unwrap(), Some(large(number)));
        }
        assert_eq!(stream.message().await.unwrap(), None);
    });
    let plain = peak(0, |address, _| async move {
        let mut client = EchoClient::with_interceptor(crate::channel(address), good);
        let sent = stream::iter((0..MESSAGES).map(large));
        let stream = client.chat(sent).await.unwrap().into_inner();
        assert_eq!(stream.count().await as u64, MESSAGES);
    });
    assert!(layered <= plain + NOISE, "{layered} bytes, {plain} without the layer");
}

/// The server says nothing before it has read all: whether it will accept the stream is not known.
#[test]
fn a_long_upload_is_kept_up_to_the_cap() {
    const CAP: usize = 256 << 10;
    let layered = peak(CAP, |address, layer| async move {
        let sent = stream::iter((0..MESSAGES).map(large));
        let sum = client(address, layer).collect(sent).await.unwrap().into_inner();
        assert_eq!((sum.chunks, sum.bytes), (MESSAGES, MESSAGES * SIZE as u64));
    });
    let plain = peak(0, |address, _| async move {
        let mut client = EchoClient::with_interceptor(crate::channel(address), good);
        client.collect(stream::iter((0..MESSAGES).map(large))).await.unwrap();
    });
    assert!(layered <= plain + CAP as u64 + NOISE, "{layered} bytes, {plain} without");
}

fn good(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    request.metadata_mut().insert("authorization", "Bearer access-1-1".parse().unwrap());
    Ok(request)
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_from_its_first_message() {
    let server = Strict::patient(5).await;
    let mut client = client(server.address, RefreshLayer::new(server.state()));
    let (sender, sent) = written();
    (0..5).for_each(|number| sender.send(chunk(number)).unwrap());
    // Refused after the five, which it has read.
    let stream = done(client.chat(sent)).await.unwrap().into_inner();
    (5..20).for_each(|number| sender.send(chunk(number)).unwrap());
    drop(sender);
    assert_eq!(done(numbers(stream)).await.unwrap(), Vec::from_iter(0..20));
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].chunks, Vec::from_iter(0..5));
    assert_eq!(attempts[1].chunks, Vec::from_iter(0..20));
    assert_eq!(server.auth.refreshes(), 1);
}

#[tokio::test]
async fn a_refused_stream_that_was_too_long_to_keep_is_not_sent_again() {
    let server = Strict::patient(50).await;
    // Room for about twenty.
    let layer = RefreshLayer::new(server.state()).replay_cap(20 * SIZE);
    let mut client = client(server.address, layer);
    let (sender, sent) = written();
    (0..50).for_each(|number| sender.send(large(number)).unwrap());
    let status = done(client.chat(sent)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "the token has expired");
    let attempts = server.attempts();
    assert_eq!(attempts.len(), 1, "half a stream: {attempts:?}");
    assert_eq!(attempts[0].chunks, Vec::from_iter(0..50));
    // The next call has a good token.
    assert_eq!(done(client.unary(chunk(1))).await.unwrap().into_inner(), chunk(1));
    assert_eq!((server.refused(), server.auth.refreshes()), (1, 1));
}

/// Once the server has begun to answer, what was sent is not kept, and its status is the
/// caller's.
#[tokio::test]
async fn a_stream_that_was_accepted_is_not_sent_again() {
    let server = Strict::start().await;
    let mut client = client(server.address, RefreshLayer::new(server.state()));
    let (sender, sent) = written();
    sender.send(chunk(0)).unwrap();
    let mut stream = done(client.chat(sent)).await.unwrap().into_inner();
    assert_eq!(done(stream.message()).await.unwrap(), Some(chunk(0)));
    drop(sender);
    assert_eq!(done(stream.message()).await.unwrap(), None);
    assert_eq!((server.attempts().len(), server.auth.refreshes()), (2, 1));
}
