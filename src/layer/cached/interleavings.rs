//! The token that a service keeps, while the state gets another, in every order of their steps.

use std::sync::Arc;

use loom::{model, thread};

use super::CachedToken;
use crate::{
    layer::attach::Attach,
    state::interleavings::{publish, signed_in},
};

#[test]
fn a_token_is_not_taken_for_current_once_there_is_another() {
    model(|| {
        let state = signed_in();
        let publishes = thread::spawn({
            let state = Arc::clone(&state);
            move || publish(&state, 5)
        });
        let mut slot = None;
        let _ = CachedToken::usable(&mut slot, &Attach::BEARER, &state, false);
        publishes.join().unwrap();
        let cached = CachedToken::usable(&mut slot, &Attach::BEARER, &state, false);
        assert!(cached.is_none_or(|it| it.credential.generation() == state.current().generation()));
    });
}
