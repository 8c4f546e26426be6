//! Browser sessions: [`SessionLayer`](tower_refresh::session::SessionLayer) and what is around it, in
//! process. Real browsers, servers and stores are in `testing/clients`.
//!
//! | module | what |
//! |---|---|
//! | `app` | an application, its authorization server, its stores and its browsers |
//! | `invariants` | S1 to S20, by number |
//! | `endings` | why sessions end, and who is told |
//! | `cookies` | bad input |
//! | `races` | what other tabs and replicas do meanwhile |
#![cfg(feature = "session")]

mod app;
mod cookies;
mod endings;
mod invariants;
mod races;
