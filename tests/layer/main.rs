//! The layer and its service.
//!
//! | module | what |
//! |---|---|
//! | `attach` | what goes on a request: the token, where it may go, and whose it is |
//! | `gate` | requests that wait for a token before they are sent |
//! | `doubt` | refusals that are not about the token |
//! | `doubt_corners` | the same, where two things meet |
//! | `good_and_bad` | the server that these have in common |
//! | `error_on_refusal` | an error instead of the server's refusal |
//! | `replay` | what a response means, and which requests are sent again |
//! | `response` | the refused response's body: read to its end, or the caller's |
//! | `service` | the service between requests: readiness, errors, clones |
//! | `body` | the request's body, which may be sent twice |
//! | `own_body` | services below that take one type of body |
//! | `grpc` | deadlines, and a status that comes late |
//! | `in_body` | refusals that only a response's body tells |
//! | `read` | what a body gives, for those that look at bodies |
//! | `tower_stack` | above and below the other layers of a tower stack |
//! | `invariants` | those that are about one request, by number |
//! | `secrets` | no token in what is logged or printed |
//! | `adversary` | what a hostile peer, or a thread at the wrong moment, can do |
//! | `autotrait` | what is `Send`, `Sync` and `Unpin` |

mod adversary;
mod attach;
mod autotrait;
mod body;
mod doubt;
mod doubt_corners;
mod error_on_refusal;
mod gate;
mod good_and_bad;
mod grpc;
#[cfg(feature = "in-body")]
mod in_body;
mod invariants;
mod own_body;
mod read;
mod replay;
mod response;
mod secrets;
mod service;
mod tower_stack;

use std::sync::Arc;

use testing::{Auth, MockHandle, Request, answer, next, tokens};
use tower_refresh::{RefreshLayer, RefreshState};

fn state(auth: &Auth) -> Arc<RefreshState> {
    RefreshState::builder(auth.refresher()).tokens(tokens(1)).build()
}

fn layer(auth: &Auth) -> RefreshLayer {
    RefreshLayer::new(state(auth))
}

/// Answers each request in turn with these statuses; the requests.
async fn serve(handle: &mut MockHandle, statuses: &[u16]) -> Vec<Request> {
    let mut seen = Vec::new();
    for status in statuses {
        let (request, respond) = next(handle).await;
        seen.push(request);
        respond.send_response(answer(*status));
    }
    seen
}
