//! A generated client over the layer, against a real tonic server on loopback.
//!
//! | module | what |
//! |---|---|
//! | `server` | the server: strict, and it notes what it sees |
//! | `calls` | the four kinds of calls, many at once, and their deadlines |
//! | `channel` | a channel of tonic that ends in this process, with the layer behind it |
//! | `crowd` | many calls over such a channel, and what they bring |
//! | `streams` | long streams: what is kept of them, and what is sent again |
//! | `late` | a server whose refusal comes after its head |

mod calls;
mod channel;
mod crowd;
mod late;
mod server;
mod streams;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::Request;
use testing::echo::{Chunk, echo_client::EchoClient};
use tokio::{sync::mpsc, time};
use tonic::{Status, Streaming, body::Body, transport::Channel};
use tower::{ServiceBuilder, util::MapRequest};
use tower_refresh::{RefreshLayer, body::ReplayBody, layer::Refresh};

type Plain<B> = MapRequest<Channel, fn(Request<B>) -> Request<Body>>;
type Client = EchoClient<Refresh<Plain<ReplayBody<Body>>>>;

fn channel(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn client(address: SocketAddr, layer: RefreshLayer) -> Client {
    let stack = ServiceBuilder::new()
        .layer(layer)
        .map_request((|request| request.map(Body::new)) as fn(Request<ReplayBody<Body>>) -> _)
        .service(channel(address));
    EchoClient::new(stack)
}

/// Not for ever, so that a test fails rather than hangs.
async fn done<T>(work: impl Future<Output = T>) -> T {
    time::timeout(Duration::from_secs(120), work).await.expect("it hangs")
}

fn chunk(number: u64) -> Chunk {
    Chunk { number, data: Bytes::from(format!("chunk {number}")) }
}

/// A stream that the test writes.
fn written() -> (mpsc::UnboundedSender<Chunk>, impl Stream<Item = Chunk> + Send + 'static) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    (sender, futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)))
}

/// The numbers of all chunks, each of which has to be whole.
async fn numbers(stream: Streaming<Chunk>) -> Result<Vec<u64>, Status> {
    let all: Vec<_> = stream.collect().await;
    all.into_iter()
        .map(|got| {
            let got = got?;
            assert_eq!(got, chunk(got.number));
            Ok(got.number)
        })
        .collect()
}
