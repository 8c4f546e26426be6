//! Tells callers that wait for a lease when to look again. All of them, for however many
//! names, share one connection, which is made when the first one waits.
//!
//! A message says no more than "look". A subscription that has just begun counts as one,
//! because what was published before it was not heard. Without a subscription a waiting
//! caller looks from time to time.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::{Future, poll_fn},
    mem,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::Poll,
    time::Duration,
};

use futures_util::StreamExt;
use redis::{Client, RedisResult, aio::PubSubSink};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    time::{sleep, timeout},
};

use super::rights::Rights;
use crate::store::timed_lease::Listens;

/// How long a connection may be silent before it is asked whether it is still there.
const MAX_SILENCE: Duration = Duration::from_secs(10);
/// The longest pause before connecting anew.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The connection, and the callers that wait.
pub(super) struct Wakes {
    /// Any one of them will do: a cluster passes every message on to all of its nodes.
    nodes: Vec<Client>,
    limit: Duration,
    rights: Rights,
    board: Arc<Board>,
}

#[derive(Default)]
struct Board(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    channels: HashMap<Arc<str>, Channel>,
    /// To the task that has the connection. `None`: there is no task.
    requests: Option<UnboundedSender<Request>>,
}

struct Channel {
    wake: watch::Sender<()>,
    listeners: usize,
    subscribed: bool,
}

enum Request {
    Subscribe(Arc<str>),
    Unsubscribe(Arc<str>),
}

/// One caller that waits.
pub(super) struct Listener {
    board: Arc<Board>,
    channel: Arc<str>,
    wake: watch::Receiver<()>,
}

impl Wakes {
    pub(super) fn new(nodes: Vec<Client>, limit: Duration, rights: Rights) -> Self {
        Self { nodes, limit, rights, board: Arc::default() }
    }

    /// Listens to this channel. The listener is woken once when its subscription begins, which
    /// is some time after this returns.
    pub(super) fn listen(&self, channel: &str) -> Listener {
        let channel: Arc<str> = channel.into();
        let mut inner = self.board.lock();
        if inner.requests.as_ref().is_none_or(UnboundedSender::is_closed) {
            // There was no task, or its runtime is gone.
            let (requests, asked) = unbounded_channel();
            inner.requests = Some(requests);
            inner.channels.values_mut().for_each(|channel| channel.subscribed = false);
            let board = Arc::downgrade(&self.board);
            let (nodes, rights) = (self.nodes.clone(), self.rights.clone());
            tokio::spawn(run(nodes, self.limit, rights, board, asked));
        }
        let wake = match inner.channels.entry(Arc::clone(&channel)) {
            Entry::Occupied(mut entry) => {
                let entry = entry.get_mut();
                entry.listeners += 1;
                let mut wake = entry.wake.subscribe();
                if entry.subscribed {
                    wake.mark_changed();
                }
                wake
            }
            Entry::Vacant(entry) => {
                let (sender, wake) = watch::channel(());
                entry.insert(Channel { wake: sender, listeners: 1, subscribed: false });
                inner.ask(Request::Subscribe(Arc::clone(&channel)));
                wake
            }
        };
        drop(inner);
        Listener { board: Arc::clone(&self.board), channel, wake }
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
        if let Some(channel) = inner.channels.get_mut(&self.channel) {
            channel.listeners -= 1;
            if channel.listeners == 0 {
                inner.channels.remove(&self.channel);
                inner.ask(Request::Unsubscribe(Arc::clone(&self.channel)));
            }
        }
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, channel: &str) {
        if let Some(channel) = self.lock().channels.get(channel) {
            channel.wake.send_replace(());
        }
    }

    fn subscribed(&self, channel: &str) {
        if let Some(channel) = self.lock().channels.get_mut(channel) {
            channel.subscribed = true;
            channel.wake.send_replace(());
        }
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.lock().channels.keys().cloned().collect()
    }

    /// The connection is gone. Says whether a listener needs another one; if none does, the
    /// task ends.
    fn lost(&self) -> bool {
        let mut inner = self.lock();
        inner.channels.values_mut().for_each(|channel| channel.subscribed = false);
        if inner.channels.is_empty() {
            inner.requests = None;
        }
        inner.requests.is_some()
    }
}

impl Inner {
    fn ask(&self, request: Request) {
        if let Some(requests) = &self.requests {
            // It fails if the task's runtime is gone. The next listener starts another task.
            let _ = requests.send(request);
        }
    }
}

/// Keeps the connection for as long as there may be listeners.
async fn run(
    nodes: Vec<Client>,
    limit: Duration,
    rights: Rights,
    board: Weak<Board>,
    mut requests: UnboundedReceiver<Request>,
) {
    let mut pause = Duration::ZERO;
    let mut told = false;
    for node in nodes.iter().cycle() {
        if let Err(error) = serve(node, limit, &board, &mut requests, &mut pause).await {
            match rights.refusal(&error, None) {
                Some(refusal) if !mem::replace(&mut told, true) => {
                    tracing::warn!(refusal, "no wake-up calls from Redis: waiters look instead");
                }
                _ => tracing::debug!(error = error.category(), "no wake-up calls from Redis"),
            }
        }
        if !board.upgrade().is_some_and(|board| board.lost()) {
            return;
        }
        pause = (pause * 2).clamp(Duration::from_millis(50), MAX_PAUSE);
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }
}

enum Event {
    Message(Option<redis::Msg>),
    Request(Option<Request>),
    Silence,
}

/// One connection, from its beginning to its end.
async fn serve(
    node: &Client,
    limit: Duration,
    board: &Weak<Board>,
    requests: &mut UnboundedReceiver<Request>,
    pause: &mut Duration,
) -> RedisResult<()> {
    let (mut sink, mut messages) = within(limit, node.get_async_pubsub()).await?.split();
    for name in board.upgrade().map(|board| board.names()).unwrap_or_default() {
        subscribe(&mut sink, limit, board, &name).await?;
    }
    *pause = Duration::ZERO;
    loop {
        let event = {
            let mut silence = pin!(sleep(MAX_SILENCE));
            poll_fn(|cx| {
                if let Poll::Ready(message) = messages.poll_next_unpin(cx) {
                    return Poll::Ready(Event::Message(message));
                }
                if let Poll::Ready(request) = requests.poll_recv(cx) {
                    return Poll::Ready(Event::Request(request));
                }
                silence.as_mut().poll(cx).map(|()| Event::Silence)
            })
            .await
        };
        match event {
            Event::Message(Some(message)) => {
                if let Some(board) = board.upgrade() {
                    board.wake(message.get_channel_name());
                }
            }
            Event::Request(Some(Request::Subscribe(name))) => {
                subscribe(&mut sink, limit, board, &name).await?;
            }
            Event::Request(Some(Request::Unsubscribe(name))) => {
                within(limit, sink.unsubscribe(&*name)).await?;
            }
            // Any answer is a sign of life. `PING` would be a right more.
            Event::Silence => within(limit, sink.unsubscribe("")).await?,
            Event::Message(None) | Event::Request(None) => return Ok(()),
        }
    }
}

async fn subscribe(
    sink: &mut PubSubSink,
    limit: Duration,
    board: &Weak<Board>,
    name: &str,
) -> RedisResult<()> {
    within(limit, sink.subscribe(name)).await?;
    if let Some(board) = board.upgrade() {
        board.subscribed(name);
    }
    Ok(())
}

async fn within<T>(limit: Duration, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}
