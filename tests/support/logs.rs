//! What is logged while a test runs.

#![allow(dead_code)] // each test binary uses its part

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::format::FmtSpan;

/// Everything that is logged by this thread, at `TRACE`, with spans and fields.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    pub(crate) fn capture() -> (Self, DefaultGuard) {
        let logs = Self::default();
        let sink = logs.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// The lines that have all of these in them.
    pub(crate) fn count(&self, parts: &[&str]) -> usize {
        self.text().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    #[track_caller]
    pub(crate) fn assert_told(&self, parts: &[&str]) {
        assert!(self.count(parts) > 0, "no line with {parts:?} in\n{}", self.text());
    }

    /// This library's lines were there, and no token was in any.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let text = self.text();
        assert!(text.contains("tower_refresh"), "nothing was captured: {text}");
        if let Some(line) = text.lines().find(|line| line.contains("SECRET")) {
            panic!("a token was logged: {line}");
        }
    }
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
