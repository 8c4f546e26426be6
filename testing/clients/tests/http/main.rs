//! The layer in HTTP stacks, over real sockets.
//!
//! | module | what |
//! |---|---|
//! | `loopback` | the servers themselves |
//! | `sockets` | hyper-util's client, HTTP/1 and HTTP/2 |
//! | `reqwest` | [`RefreshMiddleware`](tower_refresh::RefreshMiddleware) |
//! | `reqwest_service` | [`ReqwestLayer`](tower_refresh::ReqwestLayer) |
//! | `axum` | on a router that forwards |
//! | `metrics` | what is counted, as a real exporter for Prometheus writes it |
//! | `order` | above and below other layers |
//! | `redirects` | around tower-http's layer that follows redirects |
//! | `stacks` | a thousand requests at once through each of them, and through tonic |

mod axum;
mod loopback;
mod metrics;
mod order;
mod redirects;
mod reqwest;
mod reqwest_service;
mod sockets;
mod stacks;
