//! Pages: how to begin, where tokens live, how to run it, and what is held by which test.
//!
//! | page | |
//! |---|---|
//! | [`stacks`], [`ecosystem`], [`oauth2`], [`refreshers`] | how to begin |
//! | [`stores`], [`many`], [`sessions`] | where tokens live |
//! | [`knobs`], [`operating`], [`questions`] | how to run it |
//! | [`guarantees`], [`torture`], [`limits`], [`performance`] | what is held |
//!
//! There is nothing in these modules but their documentation.

// The examples on these pages need more than this crate: `testing/clients` compiles them.

macro_rules! pages {
    ($($page:ident $file:literal)+) => {
        $(
            #[cfg_attr(not(doctest), doc = include_str!($file))]
            #[cfg_attr(doctest, doc = "A page.")]
            pub mod $page {}
        )+
    };
}

pages! {
    ecosystem "ecosystem.md"
    guarantees "guarantees.md"
    knobs "knobs.md"
    limits "limits.md"
    many "many.md"
    oauth2 "oauth2.md"
    operating "operating.md"
    performance "performance.md"
    questions "questions.md"
    refreshers "refreshers.md"
    sessions "sessions.md"
    stacks "stacks.md"
    stores "stores.md"
    torture "torture.md"
}
