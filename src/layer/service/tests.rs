//! What the service copies, and what it shares.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    rc::Rc,
    time::Duration,
};

use http::{HeaderName, request::Parts};
use http_body::{Frame, SizeHint};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower_layer::Layer;

use super::*;
use crate::{
    body::{Budget, NotReplayable},
    layer::{FromExtensions, RefreshLayer, head},
    state::RefreshState,
    tokens::Tokens,
};

/// Three bytes that count their clones.
struct Counted(Rc<Cell<usize>>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.set(self.0.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl Body for Counted {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(3)
    }
}

/// Says how often it was called, and in the header `x-copied` whether this thread's block
/// was in use then.
#[derive(Clone, Default)]
struct Inner {
    calls: Rc<Cell<usize>>,
    label: &'static str,
}

impl<B> Service<Request<B>> for Inner {
    type Response = Response<http_body_util::Empty<bytes::Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.calls.set(self.calls.get() + 1);
        let refused = request.headers().contains_key("x-refuse") && self.calls.get() == 1;
        let response = Response::builder()
            .status(if refused { 401 } else { 200 })
            .header("x-copied", head::spare().is_none().to_string())
            .header("x-label", self.label)
            .body(http_body_util::Empty::new());
        ready(Ok(response.expect("a valid response")))
    }
}

fn state(life: Duration) -> Arc<RefreshState> {
    RefreshState::builder(async |_: Tokens| std::future::pending().await)
        .tokens(Tokens::new("token").with_refresh_token("r").with_expires_in(life))
        .build()
}

/// Neither head nor body, wherever the token goes, and whether it is at hand or not.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_left_alone_is_not_copied() {
    const HOUR: Duration = Duration::from_secs(3600);
    let key = HeaderName::from_static("x-api-key");
    for (life, at_hand) in [(HOUR, true), (Duration::ZERO, false)] {
        let one = || RefreshLayer::new(state(life));
        for (layer, own) in [
            (one(), "authorization"),
            (one().attach_header(key.clone()), "authorization"),
            (one().attach_header(key.clone()), "x-api-key"),
            (one().attach_with(|_, _| panic!("left alone")), "authorization"),
            (RefreshLayer::per_request(FromExtensions), "authorization"),
            (RefreshLayer::per_request(|_: &Parts| None), "x-other"),
            (one().allow_origin("https://example.com").unwrap(), "x-other"),
        ] {
            // So that there is a spare.
            let parts = Request::builder().header("accept", "a").body(()).unwrap().into_parts().0;
            drop(head::Head::save(&parts, None));
            let mut service = layer.clone_bodies().layer(Inner::default());
            let clones = Rc::new(Cell::new(0));
            let request = Request::post("/").header(own, "mine").extension(state(life));
            let call = service.call(request.body(Counted(Rc::clone(&clones))).unwrap());
            let response = assert_ready_ok!(task::spawn(call).poll());
            assert_eq!(response.headers()["x-copied"], "false", "{own} {at_hand}");
            assert_eq!(clones.get(), 0, "{own} {at_hand}");
        }

        // One that is not left alone is.
        let mut service = one().clone_bodies().layer(Inner::default());
        let clones = Rc::new(Cell::new(0));
        let request = Request::post("/").body(Counted(Rc::clone(&clones))).unwrap();
        let mut call = task::spawn(service.call(request));
        match at_hand {
            true => assert_eq!(assert_ready_ok!(call.poll()).headers()["x-copied"], "true"),
            false => assert_pending!(call.poll()),
        }
        assert_eq!((clones.get(), head::spare()), (1, None), "{at_hand}");
    }
}

#[tokio::test(start_paused = true)]
async fn layers_that_share_a_budget_keep_no_more_than_it_together() {
    let kept = 3 + 64; // a body and its bookkeeping
    let budget = Budget::new(kept);
    let layer = || RefreshLayer::new(state(Duration::from_secs(3600))).clone_bodies();
    let [mut one, mut two] =
        [layer(), layer()].map(|layer| layer.replay_budget(budget.clone()).layer(Inner::default()));
    let request = || Request::post("/").header("x-refuse", "1").body(Counted(Rc::default()));

    let first = one.call(request().unwrap());
    assert_eq!(budget.used(), kept);
    let response = two.call(request().unwrap()).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&NotReplayable::OverBudget));
    drop(first);
    assert_eq!(budget.used(), 0);
}

/// Not the token, which is attached when it is known whether the head is to be copied.
#[tokio::test(start_paused = true)]
async fn a_predicate_sees_the_head_that_the_caller_has_made() {
    for life in [Duration::from_secs(3600), Duration::ZERO] {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let names = Arc::clone(&seen);
        let layer = RefreshLayer::new(state(life)).replay_if(move |parts| {
            names.lock().unwrap().extend(parts.headers.keys().cloned());
            true
        });
        let request = Request::post("/").header("accept", "a").body(Counted(Rc::default()));
        drop(layer.layer(Inner::default()).call(request.unwrap()));
        assert_eq!(*seen.lock().unwrap(), ["accept"]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_get_mut_changes_is_changed_for_the_replay_and_for_later_clones_too() {
    let minted = async |_: Tokens| Ok(Tokens::new("minted"));
    let state =
        RefreshState::builder(minted).tokens(Tokens::new("token").with_refresh_token("r")).build();
    let mut service = RefreshLayer::new(state).layer(Inner::default());
    let request = || Request::post("/").header("x-refuse", "1").body(Counted(Rc::default()));
    let mut before = service.clone();
    service.get_mut().label = "changed";
    assert_eq!(service.get_ref().label, "changed");
    for mut service in [service.clone(), service.clone().clone(), service] {
        service.get_ref().calls.set(0);
        let response = service.call(request().unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-label"], "changed");
        assert_eq!(service.get_ref().calls.get(), 2, "replayed");
        assert_eq!(service.into_inner().label, "changed");
    }
    let response = before.call(request().unwrap()).await.unwrap();
    assert_eq!(response.headers()["x-label"], "");
}
