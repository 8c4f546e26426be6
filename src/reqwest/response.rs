//! [`BorrowedResponse`]: a response that the layer sees, and its caller gets back.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt, Url};

use super::origin::FromOtherOrigin;
use crate::peek::Peeked;

/// The body of the `http::Response` that the layer sees. It has the whole of reqwest's
/// response, without its head, until the layer reads it.
pub(super) struct BorrowedResponse {
    body: Lent,
}

enum Lent {
    Whole(Response),
    /// Of the response it has its URL besides, which a head has no place for.
    Read(Body, Url),
}

/// The response as the layer sees it.
pub(super) type LentResponse = http::Response<BorrowedResponse>;

impl BorrowedResponse {
    #[inline]
    pub(super) fn lend(mut response: Response) -> LentResponse {
        let mut lent = http::Response::new(());
        *lent.status_mut() = response.status();
        *lent.version_mut() = response.version();
        *lent.headers_mut() = mem::take(response.headers_mut());
        *lent.extensions_mut() = mem::take(response.extensions_mut());
        lent.map(|()| Self { body: Lent::Whole(response) })
    }

    /// A response that was looked into. If nothing was taken of it for that, it is as it was.
    pub(super) fn looked_into(response: http::Response<Peeked<Self>>) -> LentResponse {
        response.map(|peeked| {
            peeked.untouched().unwrap_or_else(|peeked| {
                let url = peeked.get_ref().url().clone();
                Self { body: Lent::Read(Body::wrap(peeked), url) }
            })
        })
    }

    #[inline]
    pub(super) fn give_back(lent: LentResponse) -> Response {
        let (mut parts, Self { body }) = lent.into_parts();
        parts.extensions.remove::<FromOtherOrigin>();
        match body {
            Lent::Whole(mut response) => {
                *response.headers_mut() = parts.headers;
                *response.extensions_mut() = parts.extensions;
                response
            }
            Lent::Read(body, url) => put_together(parts, body, url),
        }
    }

    fn url(&self) -> &Url {
        match &self.body {
            Lent::Whole(response) => response.url(),
            Lent::Read(_, url) => url,
        }
    }
}

/// A response of reqwest that is none any more: all that it had is in these.
fn put_together(mut parts: http::response::Parts, body: Body, url: Url) -> Response {
    // Its URL has no other way in. Cannot fail: a builder without a header has nothing to refuse.
    let marked = http::response::Builder::new().url(url).body(()).expect("no header");
    parts.extensions.extend(marked.into_parts().0.extensions);
    http::Response::from_parts(parts, body).into()
}

impl http_body::Body for BorrowedResponse {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        loop {
            match &mut self.body {
                Lent::Read(body, _) => return Pin::new(body).poll_frame(cx),
                Lent::Whole(response) => {
                    let url = response.url().clone();
                    let made_up = Response::from(http::Response::new(Body::default()));
                    let response = mem::replace(response, made_up);
                    self.body = Lent::Read(response.into(), url);
                }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Lent::Whole(response) => {
                response.content_length().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Lent::Read(body, _) => body.size_hint(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Lent::Whole(_) => false,
            Lent::Read(body, _) => body.is_end_stream(),
        }
    }
}
