//! Refusals that only the body of a response shows, in a 200 or in a 5xx: the [`InBodyLayer`] finds
//! them.
//!
//! | rule | what it knows |
//! |---|---|
//! | [`GraphQl`] | errors with a code or a message |
//! | [`Trpc`] | errors of tRPC 11: in one call, a batch, a streamed batch, a subscription |
//! | [`Connect`] | streams that end before they begin |
//! | [`GrpcWeb`] | a status in the body's first frame |
//! | [`JsonPointer`] | APIs that have a place of their own for an error's word |
//!
//! For gRPC itself there is [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer), and for refusals
//! that a status or a redirect shows [`Refusals`](crate::layer::Refusals).

// `look.rs` gives the bytes of a body to the rules, `rule.rs` is what they have in common, one
// file each is a rule. `json.rs` and `events.rs` find the ends of documents and events.

mod envelope;
mod events;
mod graphql;
mod json;
mod look;
mod pointer;
mod rule;
mod trpc;

use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

#[cfg(feature = "reqwest")]
pub(crate) use self::look::BodyLook;
pub use self::{
    envelope::{Connect, GrpcWeb},
    graphql::GraphQl,
    pointer::JsonPointer,
    rule::Rule,
    trpc::Trpc,
};
use crate::peek::HOLD;
pub use crate::peek::{PeekFuture, Peeked, Peeking, Watched};

/// A tower layer for below a [`RefreshLayer`](crate::RefreshLayer): it looks at the beginning of a
/// response's body for a refusal, by the rules that it was given, and puts a
/// [`Verdict`](crate::layer::Verdict) into the response's extensions. The
/// [default classifier](crate::layer::classify()) and [`Refusals`](crate::layer::Refusals) read it
/// first, and judge a challenge like a 401. Head and body stay as they are.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_refresh::{
///     RefreshLayer, RefreshState, Tokens,
///     body::ReplayBody,
///     in_body::{GraphQl, InBodyLayer, Watched},
/// };
///
/// # let refused = r#"{"errors":[{"message":"The token has expired","extensions":{"code":"UNAUTHENTICATED"}}]}"#;
/// let state = RefreshState::builder(async |_spent: Tokens| Ok(Tokens::new("new")))
///     .tokens(Tokens::new("old"))
///     .build();
///
/// let client = ServiceBuilder::new()
///     .layer(RefreshLayer::new(state))
///     .layer(InBodyLayer::new().rule(GraphQl::new()))
///     .service(service_fn(async |request: Request<Watched<ReplayBody<Full<Bytes>>>>| {
///         let good = request.headers()["authorization"] == "Bearer new";
///         let answer = if good { r#"{"data":{"me":"Alice"}}"# } else { refused };
///         Response::builder()
///             .header("content-type", "application/json")
///             .body(Full::<Bytes>::from(answer))
///     }));
///
/// let request = Request::post("/graphql").body(Full::from(r#"{"query":"{me}"}"#))?;
/// let response = client.oneshot(request).await?;
/// assert!(response.extensions().get::<tower_refresh::layer::Verdict>().is_none());
/// # use http_body_util::BodyExt;
/// # assert_eq!(response.into_body().collect().await?.to_bytes(), r#"{"data":{"me":"Alice"}}"#);
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # What is looked at
///
/// Responses with a content type of the rules and a status from 200 to 299 or from 400 to 599,
/// except for 401, which needs no look, and 204 to 206. A response with a `Content-Encoding` passes
/// unseen (except `identity`, and the `none` of graphql-yoga's event streams), so put a layer that
/// decompresses below this one.
///
/// # What waits
///
/// A head waits until one rule has found a refusal, or all rules have found that there is none, but
/// never longer than [`hold`](Self::hold), and for no more than [`cap`](Self::cap) bytes. A JSON
/// document may be a refusal until its end, unless it begins with a name that the rule does not
/// know. A stream of messages or events is decided by its first one. While the request's body is
/// being sent, no head waits, and the layer looks only at what is there with the head. A head that
/// passes unseen is judged by itself.
///
/// # Bodies
///
/// Every frame is given on as it came, in order. The request's body becomes [`Watched`], the
/// response's [`Peeked`]. The response's body has to be `Unpin`. A client with a fixed body type
/// takes one line between: `.map_request(|request: Request<Watched<ReplayBody<Body>>>| request.map(Body::new))`,
/// as for [`GrpcStatusLayer`](crate::grpc::GrpcStatusLayer).
///
/// # What was carried out in part
///
/// If a part of what was asked for was carried out and a part was refused, the verdict is
/// [`RefreshOnly`](crate::layer::Verdict::RefreshOnly), and the request is not replayed. A client
/// that sends only queries can have it replayed all the same:
///
/// ```
/// use tower_refresh::{RefreshLayer, RefreshState, layer::{ResponseHead, Verdict, classify}};
///
/// # fn layers(state: std::sync::Arc<RefreshState>) {
/// let layer = RefreshLayer::new(state).classify(|head: &ResponseHead<'_>| match classify(head) {
///     Verdict::RefreshOnly => Verdict::Challenge,
///     verdict => verdict,
/// });
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct InBodyLayer {
    rules: Arc<Vec<Rule>>,
    cap: usize,
    hold: Duration,
}

/// A service whose responses tell in their extensions what their bodies begin with. Made by
/// [`InBodyLayer`].
pub type InBody<S> = Peeking<S, InBodyLayer>;

/// The response of an [`InBody`].
pub type InBodyFuture<F, ResBody> = PeekFuture<F, ResBody, InBodyLayer>;

impl InBodyLayer {
    /// A layer without rules, which looks at nothing.
    pub fn new() -> Self {
        Self { rules: Arc::default(), cap: 64 << 10, hold: HOLD }
    }

    /// Adds a rule. If several rules find something, the first one counts.
    pub fn rule(mut self, rule: impl Into<Rule>) -> Self {
        Arc::make_mut(&mut self.rules).push(rule.into());
        self
    }

    /// How many bytes of a body the layer looks at, at most. A longer JSON document is no refusal. For
    /// a moment the layer may keep that much twice: for the reader, and for each rule. Default: 64 KiB.
    pub fn cap(mut self, bytes: usize) -> Self {
        self.cap = bytes;
        self
    }

    /// Holds the head of a response for so long at most. With zero nothing is held, and a refusal
    /// is seen only if it is there with the head. Default: 50 ms.
    ///
    /// # Panics
    ///
    /// The service's futures panic if they have to hold a head, for longer than zero, outside
    /// of a tokio runtime with its time driver enabled.
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = hold;
        self
    }
}

impl Default for InBodyLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for InBodyLayer {
    type Service = InBody<S>;

    fn layer(&self, inner: S) -> InBody<S> {
        Peeking::new(inner, self.clone())
    }
}
