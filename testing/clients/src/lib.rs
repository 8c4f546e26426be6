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

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/many.md")]
struct PageMany;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/oauth2.md")]
struct PageOauth2;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/operating.md")]
struct PageOperating;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/questions.md")]
struct PageQuestions;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/refreshers.md")]
struct PageRefreshers;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/sessions.md")]
struct PageSessions;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/stacks.md")]
struct PageStacks;

#[cfg(doctest)]
#[doc = include_str!("../../../src/guide/stores.md")]
struct PageStores;
