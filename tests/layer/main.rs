//! The layer and its service.
//!
//! | module | what |
//! |---|---|
//! | `attach` | what goes on a request: the token, where it may go, and whose it is |
//! | `gate` | requests that wait for a token before they are sent |
//! | `replay` | what a response means, and which requests are sent again |
//! | `response` | the refused response's body: read to its end, or the caller's |
//! | `service` | the service between requests: readiness, errors, clones |

mod attach;
mod gate;
mod replay;
mod response;
mod service;

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
