//! The tests that need what is expensive to build: reqwest, tonic,
//! axum, TLS, Redis, files. They stand apart so that nothing else waits for them.
//!
//! The examples of the documentation that need one of these are compiled here, too.

#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../../src/body/tonic.md")]
struct FixedBodyType;

#[cfg(doctest)]
#[doc = include_str!("../../../src/grpc/status/tonic.md")]
struct GrpcStatus;

#[cfg(doctest)]
#[doc = include_str!("../../../src/metrics.md")]
struct Metrics;
