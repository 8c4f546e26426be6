//! [`ReplayBody`](tower_refresh::body::ReplayBody).
//!
//! | module | what |
//! |---|---|
//! | `cases` | case by case |
//! | `properties` | against a plain model, step by step |

mod cases;
mod properties;
