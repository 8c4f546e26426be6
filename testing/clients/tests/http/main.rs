//! The layer in HTTP stacks, over real sockets.
//!
//! | module | what |
//! |---|---|
//! | `loopback` | the servers themselves |
//! | `sockets` | hyper-util's client, HTTP/1 and HTTP/2 |
//! | `reqwest` | [`RefreshMiddleware`](tower_refresh::RefreshMiddleware) |
//! | `reqwest_service` | [`ReqwestLayer`](tower_refresh::ReqwestLayer) |
//! | `in_body` | looks into bodies, under hyper-util's client and inside reqwest's |
//! | `axum` | on a router that forwards |
//! | `metrics` | what is counted, as a real exporter for Prometheus writes it |
//! | `order` | above and below other layers |
//! | `real_servers` | servers that are not ours, outside of CI |
//! | `redirects` | around tower-http's layer that follows redirects |
//! | `stacks` | a thousand requests at once through each of them, and through tonic |

mod axum;
mod in_body;
mod loopback;
mod metrics;
mod order;
mod real_servers;
mod redirects;
mod reqwest;
mod reqwest_service;
mod sockets;
mod stacks;
