//! Server-sent events that come in pieces (the HTML standard, "Server-sent events", section
//! "Interpreting an event stream").

use std::mem;

/// Events, cut in any way.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    after_cr: bool,
    event: Event,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) name: Vec<u8>,
    pub(super) data: Vec<u8>,
}

impl Events {
    /// Takes bytes; gives each event that has ended and has data to `found`, until that says to
    /// stop.
    pub(super) fn feed(&mut self, bytes: &[u8], mut found: impl FnMut(Event) -> bool) {
        for &byte in bytes {
            let after_cr = mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = mem::take(&mut self.line);
                    if !line.is_empty() {
                        self.event.field(&line);
                        continue;
                    }
                    let mut event = mem::take(&mut self.event);
                    if event.data.pop().is_some() && !event.data.is_empty() && !found(event) {
                        return;
                    }
                }
                byte => self.line.push(byte),
            }
        }
    }
}

impl Event {
    fn field(&mut self, line: &[u8]) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"event" => self.name = value.to_owned(),
            b"data" => {
                self.data.extend_from_slice(value);
                // The last one is taken away again.
                self.data.push(b'\n');
            }
            _ => {}
        }
    }
}
