//! Tells callers that wait for a lease when to look again. All of them, for however many
//! names, share one connection, which is made when the first one waits, and ends when for some
//! time no caller waits.
//!
//! A message says no more than "look". Beginning to listen counts as one, because what was said
//! before it was not heard. Without a connection that listens, a waiting caller looks from time to time.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::{Future, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_postgres::{AsyncMessage, Config, NoTls};

use super::connection::told;
use crate::store::{StoreError, timed_lease::Listens};

/// How long a connection may be silent before it is asked whether it is still there.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// The longest pause before connecting anew.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The connection, and the callers that wait.
pub(super) struct Wakes {
    config: Config,
    channel: Arc<str>,
    limit: Duration,
    board: Arc<Board>,
}

#[derive(Default)]
struct Board(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    words: HashMap<String, Word>,
    /// Whether what is said is heard.
    listening: bool,
    /// The task that has the connection.
    task: Option<AbortHandle>,
}

struct Word {
    wake: watch::Sender<()>,
    listeners: usize,
}

/// One caller that waits.
pub(super) struct Listener {
    board: Arc<Board>,
    word: String,
    wake: watch::Receiver<()>,
}

impl Wakes {
    pub(super) fn new(config: Config, channel: &str, limit: Duration) -> Self {
        Self { config, channel: channel.into(), limit, board: Arc::default() }
    }

    pub(super) fn channel(&self) -> &str {
        &self.channel
    }

    /// Listens for this word. The listener is woken once when it can be heard, which is some time
    /// after this returns.
    pub(super) fn listen(&self, word: String) -> Listener {
        let mut inner = self.board.lock();
        if inner.task.as_ref().is_none_or(AbortHandle::is_finished) {
            // There was no task, or its runtime is gone.
            inner.listening = false;
            let board = Arc::downgrade(&self.board);
            let task = run(self.config.clone(), Arc::clone(&self.channel), self.limit, board);
            inner.task = Some(tokio::spawn(task).abort_handle());
        }
        let listening = inner.listening;
        let mut wake = match inner.words.entry(word.clone()) {
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                entry.listeners += 1;
                entry.wake.subscribe()
            }
            Entry::Vacant(entry) => {
                let (sender, wake) = watch::channel(());
                entry.insert(Word { wake: sender, listeners: 1 });
                wake
            }
        };
        if listening {
            wake.mark_changed();
        }
        drop(inner);
        Listener { board: Arc::clone(&self.board), word, wake }
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        if let Some(task) = self.board.lock().task.take() {
            task.abort();
        }
    }
}

impl Listens for Listener {
    /// A message that comes between two calls ends the second one at once.
    async fn woken(&mut self) {
        // Never an error: the sender is on the board for as long as there is a listener.
        let _ = self.wake.changed().await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        if let Some(word) = inner.words.get_mut(&self.word) {
            word.listeners -= 1;
            if word.listeners == 0 {
                inner.words.remove(&self.word);
            }
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, word: &str) {
        if let Some(word) = self.lock().words.get(word) {
            word.wake.send_replace(());
        }
    }

    fn listening(&self) {
        let mut inner = self.lock();
        inner.listening = true;
        for word in inner.words.values() {
            word.wake.send_replace(());
        }
    }

    fn deaf(&self) {
        self.lock().listening = false;
    }

    /// Whether a listener needs the connection. If none does, the task ends.
    fn is_needed(&self) -> bool {
        let mut inner = self.lock();
        if inner.words.is_empty() {
            inner.listening = false;
            inner.task = None;
        }
        inner.task.is_some()
    }
}

/// Keeps the connection for as long as there may be listeners.
async fn run(config: Config, channel: Arc<str>, limit: Duration, board: Weak<Board>) {
    let mut pause = Duration::ZERO;
    loop {
        if serve(&config, &channel, limit, &board, &mut pause).await.is_err() {
            tracing::debug!("no wake-up calls from PostgreSQL: waiters look instead");
        }
        let Some(strong) = board.upgrade() else { return };
        strong.deaf();
        if !strong.is_needed() {
            return;
        }
        drop(strong);
        pause = (pause * 2).clamp(Duration::from_millis(50), MAX_PAUSE);
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

/// One connection, from its beginning to its end.
async fn serve(
    config: &Config,
    channel: &str,
    limit: Duration,
    board: &Weak<Board>,
    pause: &mut Duration,
) -> Result<(), StoreError> {
    let (client, mut connection) = within(limit, config.connect(NoTls)).await?;
    // It ends when the client is dropped.
    let mut hearing = tokio::spawn({
        let board = Weak::clone(board);
        async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let (AsyncMessage::Notification(said), Some(board)) = (message, board.upgrade())
                {
                    board.wake(said.payload());
                }
            }
        }
    });
    // The channel has only letters, digits, `_` and `.`.
    within(limit, client.batch_execute(&format!("LISTEN \"{channel}\""))).await?;
    match board.upgrade() {
        Some(board) => board.listening(),
        None => return Ok(()),
    }
    *pause = Duration::ZERO;
    while timeout(MAX_SILENCE, &mut hearing).await.is_err() {
        if !board.upgrade().is_some_and(|board| board.is_needed()) {
            return Ok(());
        }
        // Any answer is a sign of life.
        within(limit, client.batch_execute("")).await?;
    }
    Ok(())
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StoreError> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(told),
        Err(_) => Err(StoreError::new("PostgreSQL did not answer in time")),
    }
}
