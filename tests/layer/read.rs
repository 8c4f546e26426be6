//! What a body gives, frame by frame.

use std::sync::Arc;

use bytes::Bytes;
use http_body::Body;
use testing::script_body::{Got, Wakes, hint_of, poll};

/// A frame, and what was said of all to come before it.
pub(crate) type Read<E> = (Got<E>, (u64, Option<u64>), bool);

/// Reads a body to its end or its error.
pub(crate) fn read<B>(body: &mut B) -> Vec<Read<B::Error>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let wakes = Arc::new(Wakes::default());
    let mut all = Vec::new();
    loop {
        let (hint, end) = (hint_of(body), body.is_end_stream());
        let got = poll(body, &wakes);
        let over = matches!(got, Got::End | Got::Failed(_));
        all.push((got, hint, end));
        if over {
            return all;
        }
    }
}
