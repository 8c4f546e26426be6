//! Refusals that only a response's body tells.
//!
//! | module | what |
//! |---|---|
//! | `answers` | what real servers answered, in `answers.txt`; cut in any way |
//! | `rules` | what a rule says of what no server has answered yet |
//! | `waiting` | what is held, and for how long; bounds |
//! | `whole` | with [`RefreshLayer`](tower_refresh::RefreshLayer) above |

mod answers;
mod rules;
mod waiting;
mod whole;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use testing::{
    post,
    script_body::{Script, Step},
};
use tower::{Layer, ServiceExt, service_fn};
use tower_refresh::{
    in_body::{Connect, GraphQl, GrpcWeb, InBodyLayer, JsonPointer, Peeked, Trpc, Watched},
    layer::{ResponseHead, Verdict, classify},
};

/// The message of the servers that send no code.
const EXPIRED: &str = "The token has expired";

/// All rules at once, that hold nothing.
fn all_rules() -> InBodyLayer {
    InBodyLayer::new()
        .hold(Duration::ZERO)
        .rule(GraphQl::new().also_message(EXPIRED))
        .rule(Trpc::new())
        .rule(Connect::new())
        .rule(GrpcWeb::new())
        .rule(JsonPointer::new("/error", ["token_expired", "invalid_auth"]).unwrap())
}

fn response<B>(status: u16, content_type: &str, body: B) -> Response<B> {
    let builder = Response::builder().status(status).header("content-type", content_type);
    builder.body(body).unwrap()
}

/// Sends a request through the layer to a service that answers at once, and has read the
/// request.
async fn through<B>(layer: InBodyLayer, response: Response<B>) -> Response<Peeked<B>>
where
    B: Body + Unpin,
{
    let mut response = Some(response);
    let service = layer.layer(service_fn(move |request: Request<Watched<Full<Bytes>>>| {
        let response = response.take().unwrap();
        async move {
            request.into_body().collect().await.unwrap();
            Ok::<_, Infallible>(response)
        }
    }));
    service.oneshot(post("hello")).await.unwrap()
}

/// What the default classifier says of a response that has come through the layer.
fn judge(layer: InBodyLayer, response: Response<Script>) -> Verdict {
    let response = tokio_test::block_on(through(layer, response));
    classify(&ResponseHead::of(&response))
}

/// A body that is there as a whole.
fn script(body: impl Into<Bytes>) -> Script {
    Script::new([Step::Data(body.into())])
}

/// What all rules say of a body.
fn verdict(status: u16, content_type: &str, body: impl Into<Bytes>) -> Verdict {
    judge(all_rules(), response(status, content_type, script(body)))
}
