//! [`BorrowedResponse`]: a response that the layer sees, and its caller gets back.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use reqwest::{Body, Response};

use super::origin::FromOtherOrigin;

/// The body of the `http::Response` that the layer sees. It has the whole of reqwest's
/// response, without its head, until the layer reads it.
pub(super) struct BorrowedResponse {
    whole: Option<Response>,
    body: Body,
}

impl BorrowedResponse {
    pub(super) fn lend(mut response: Response) -> http::Response<Self> {
        let mut lent = http::Response::new(());
        *lent.status_mut() = response.status();
        *lent.version_mut() = response.version();
        *lent.headers_mut() = mem::take(response.headers_mut());
        *lent.extensions_mut() = mem::take(response.extensions_mut());
        lent.map(|()| Self { whole: Some(response), body: Body::default() })
    }

    pub(super) fn give_back(lent: http::Response<Self>) -> Response {
        let (mut parts, Self { whole, body }) = lent.into_parts();
        parts.extensions.remove::<FromOtherOrigin>();
        let Some(mut response) = whole else {
            // Not reached: a response that the layer reads is one that it throws away.
            return http::Response::from_parts(parts, body).into();
        };
        *response.headers_mut() = parts.headers;
        *response.extensions_mut() = parts.extensions;
        response
    }
}

impl http_body::Body for BorrowedResponse {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        if let Some(response) = self.whole.take() {
            self.body = response.into();
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }
}
