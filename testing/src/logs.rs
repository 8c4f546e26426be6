//! What is logged while a test runs.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    dispatcher::DefaultGuard,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::fmt::format::FmtSpan;

/// Everything that is logged by this thread, at `TRACE`, with spans and fields.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Captures until the guard is dropped.
    pub fn capture() -> (Self, DefaultGuard) {
        let logs = Self::default();
        let sink = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        (logs, listen(&Dispatch::new(subscriber)))
    }

    /// All of it.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// How many lines have all of these in them.
    pub fn count(&self, parts: &[&str]) -> usize {
        self.text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    /// There is a line that has all of these in it.
    ///
    /// # Panics
    ///
    /// There is none.
    #[track_caller]
    pub fn assert_told(&self, parts: &[&str]) {
        assert!(self.count(parts) > 0, "no line with {parts:?} in\n{}", self.text());
    }

    /// This library's lines were there, and no token (they begin with `SECRET`) was in any.
    ///
    /// # Panics
    ///
    /// Otherwise.
    #[track_caller]
    pub fn assert_clean(&self) {
        let text = self.text();
        assert!(text.contains("tower_refresh"), "nothing was captured: {text}");
        if let Some(line) = text.lines().find(|line| line.contains("SECRET")) {
            panic!("a token was logged: {line}");
        }
    }
}

/// Everything that this thread does is told to `subscriber` until the guard is dropped.
///
/// As long as a process has one subscriber, `tracing` takes a thread that comes to a line
/// first at its word, and this thread's line is off if that one had no subscriber. With a
/// second one, which never goes away, every subscriber is asked about every line.
pub fn listen(subscriber: &Dispatch) -> DefaultGuard {
    static SECOND: OnceLock<Dispatch> = OnceLock::new();
    SECOND.get_or_init(|| Dispatch::new(Curious));
    tracing::callsite::rebuild_interest_cache();
    tracing::dispatcher::set_default(subscriber)
}

/// Wants to be asked about every line, and is told of none: it is not the default of any
/// thread.
struct Curious;

impl Subscriber for Curious {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, _: &Metadata<'_>) -> bool {
        false
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
