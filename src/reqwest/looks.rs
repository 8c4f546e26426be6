//! [`Looks`]: the layers that look into responses, for reqwest's.

use std::{sync::Arc, time::Duration};

use bytes::Buf;
use http::Response;
use http_body::Frame;

#[cfg(feature = "in-body")]
use crate::in_body::{BodyLook, InBodyLayer};
use crate::{
    grpc::{GrpcStatusLayer, StatusLook},
    peek::{Look, Next, Peek},
};

/// Which layers look into responses: at least one.
#[derive(Clone, Default)]
pub(super) struct Looks {
    pub(super) grpc_status: Option<GrpcStatusLayer>,
    #[cfg(feature = "in-body")]
    pub(super) in_body: Option<InBodyLayer>,
}

/// A look by one of them: none is of interest to both.
pub(super) enum OneLook {
    GrpcStatus(StatusLook),
    #[cfg(feature = "in-body")]
    InBody(BodyLook),
}

impl Peek for Arc<Looks> {
    type Look = OneLook;

    fn begin<B>(&self, head: &Response<B>) -> Option<OneLook> {
        // gRPC-Web, too, has content types that begin like those of gRPC.
        #[cfg(feature = "in-body")]
        if let Some(look) = self.in_body.as_ref().and_then(|layer| layer.begin(head)) {
            return Some(OneLook::InBody(look));
        }
        Some(OneLook::GrpcStatus(self.grpc_status.as_ref()?.begin(head)?))
    }
}

impl Look for OneLook {
    fn frame<D: Buf>(&mut self, frame: &Frame<D>) -> Next {
        match self {
            Self::GrpcStatus(look) => look.frame(frame),
            #[cfg(feature = "in-body")]
            Self::InBody(look) => look.frame(frame),
        }
    }

    fn conclude<B>(self, response: &mut Response<B>) {
        match self {
            Self::GrpcStatus(look) => look.conclude(response),
            #[cfg(feature = "in-body")]
            Self::InBody(look) => look.conclude(response),
        }
    }

    fn hold(&self) -> Duration {
        match self {
            Self::GrpcStatus(look) => look.hold(),
            #[cfg(feature = "in-body")]
            Self::InBody(look) => look.hold(),
        }
    }
}
