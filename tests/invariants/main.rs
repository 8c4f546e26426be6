//! The fifteen invariants of this crate, by number: what each promises, held still
//! at the moment where it could break.
//!
//! | module | invariants |
//! |---|---|
//! | `flight` | 1 one redeem, 2 late challenges, 3 a flight outlives its callers, 7 everyone hears |
//! | `saving` | 4 save, then publish; 5 fence; 15 nothing lost on the way out |
//! | `failing` | 6 kinds of failure, 9 brake, 14 isolation |
//! | `request` | 8 one replay, 10 bodies, 11 transparent, 12 tower's contract, 13 secrets |

mod failing;
mod flight;
mod request;
mod saving;
