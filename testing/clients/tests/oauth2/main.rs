//! The OAuth 2.0 grants and revocation against token endpoints on real sockets.

mod assertion;
mod clocks;
mod endpoint;
mod errors;
mod grants;
mod hostile;
mod https;
mod odd_answers;
mod refusals;
mod revocation;
mod unspent;
