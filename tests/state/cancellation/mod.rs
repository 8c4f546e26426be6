//! Every point at which a caller, a runtime or user code that panics can go away. Afterwards
//! no caller hangs, and later ones work.
//!
//! | module | what | invariants |
//! |---|---|---|
//! | `callers` | leader, waiter, all of them | 3, beside `invariants::flight` |
//! | `panics` | refresher, store, attacher, classifier, hook | 7, beside `invariants::flight` |
//! | `runtimes` | the runtime of a flight | 7 and 15, beside `invariants::saving` |

mod callers;
mod panics;
mod runtimes;
