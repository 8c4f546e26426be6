//! An application with browser sessions, its authorization server, its stores and its browsers.

/// Each of these tests over sessions in a store, and over sealed ones: what both modes promise alike.
#[macro_export]
macro_rules! in_both_modes {
    ([$test:meta] $($name:ident),+ $(,)?) => {
        mod opaque {
            $(#[$test]
            async fn $name() {
                super::$name($crate::sessions::World::new()).await;
            })+
        }

        mod sealed {
            $(#[$test]
            async fn $name() {
                super::$name($crate::sessions::World::sealed()).await;
            })+
        }
    };
}

mod app;
mod browser;
mod place;
mod server;
mod world;

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tower::util::BoxCloneSyncService;
use tower_refresh::session::SessionBody;

pub use self::{
    app::full,
    browser::{Answer, Browser, signed_in},
    place::{Control, Place},
    server::Server,
    world::{Mode, Replica, World},
};

/// Of requests and responses.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;
type App = BoxCloneSyncService<Request<Body>, Response<SessionBody<Body>>, Infallible>;

/// Who signs in.
pub const ISSUER: &str = "https://id.test";

/// Lets everything that is under way come to an end.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
