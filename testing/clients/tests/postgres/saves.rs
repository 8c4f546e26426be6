//! Saves whose outcome is not known: the answer is lost, or the connection is ended by the server.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tower_refresh::{
    Generation,
    store::{PostgresStore, SaveError, TokenStore},
};

use super::{NAME, Place, access, lease, millis, record, shared, sign_in, soon, until};

/// A way to the shared server that loses answers.
struct Way {
    port: u16,
    /// So many answers are lost, each with its connection.
    lose: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Way {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let lose = Arc::new(AtomicUsize::new(0));
        let losing = Arc::clone(&lose);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let losing = Arc::clone(&losing);
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", shared().port())).await.unwrap();
                    let (mut asks, mut hears) = client.into_split();
                    let (mut answers, mut asked) = server.into_split();
                    let asking = tokio::spawn(async move { copy(&mut asks, &mut asked).await });
                    let mut answer = [0; 4096];
                    while let Ok(read @ 1..) = answers.read(&mut answer).await {
                        let lost =
                            losing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                                left.checked_sub(1)
                            });
                        if lost.is_ok() || hears.write_all(&answer[..read]).await.is_err() {
                            break;
                        }
                    }
                    asking.abort();
                });
            }
        });
        Self { port, lose, task }
    }

    fn store(&self, place: &Place) -> PostgresStore {
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", self.port);
        place.builder_at(&url).build().unwrap().store(NAME)
    }

    fn lose(&self, count: usize) {
        self.lose.store(count, Ordering::SeqCst);
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Nobody notices: the statement is sent again, and finds what it has done.
#[tokio::test]
async fn a_statement_whose_answer_is_lost_is_sent_again() {
    let (place, way) = (Place::new().await, Way::new().await);
    let sight = place.sight().await;
    let store = way.store(&place);
    assert_eq!(store.load().await.unwrap().generation, Generation::ZERO);
    way.lose(1);
    store.save(Generation::ZERO, record(1)).await.unwrap();
    way.lose(1);
    let mut holder = lease(&store, 1).await;
    let row = sight.row().await.unwrap();
    assert!(row.is_leased());
    way.lose(1);
    holder.intend(Generation::new(1)).await.unwrap();
    way.lose(1);
    holder.save(Generation::new(1), record(2)).await.unwrap();
    assert!(!sight.is_leased().await);
    let holder = lease(&store, 2).await;
    way.lose(1);
    holder.release(None).await;
    assert!(!sight.is_leased().await);
    assert_eq!(access(&store.load().await.unwrap().tokens), Some("access-2"));
}

/// It fails, since it cannot be told; the same call again finds its own write.
#[tokio::test]
async fn a_save_that_is_made_again_finds_its_own_write() {
    let (place, way) = (Place::new().await, Way::new().await);
    let store = way.store(&place);
    store.load().await.unwrap();
    // The second one is lost while it connects anew.
    way.lose(2);
    let saved = store.save(Generation::ZERO, record(1)).await;
    assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
    assert_eq!(place.open().load().await.unwrap().generation, Generation::new(1));
    store.save(Generation::ZERO, record(1)).await.unwrap();

    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    way.lose(2);
    let saved = holder.save(Generation::new(1), record(2)).await;
    assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
    holder.save(Generation::new(1), record(2)).await.unwrap();
    assert!(!holder.is_held());
    // Another's write is not its own.
    let other = store
        .save(
            Generation::new(1),
            tower_refresh::store::Record::new(Generation::new(2), testing::tokens(7)),
        )
        .await;
    assert!(matches!(other, Err(SaveError::Conflict)), "{other:?}");
}

/// A second one would find no tokens to be revoked.
#[tokio::test]
async fn a_delete_is_never_sent_again() {
    let (place, way) = (Place::new().await, Way::new().await);
    let store = way.store(&place);
    sign_in(&store).await;
    // A connection that has broken before is not noticed.
    way.lose(1);
    let deleted = store.delete().await.unwrap();
    assert_eq!(access(&deleted.tokens), Some("access-1"));
}

/// `pg_terminate_backend` while a save waits for a row that somebody else has locked.
#[tokio::test]
async fn a_save_whose_connection_is_ended_by_the_server_is_sent_again() {
    let place = Place::new().await;
    let (locker, sight) = (place.sight().await, place.sight().await);
    sign_in(&place.open()).await;
    let store = place.builder().build().unwrap().store(NAME);
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    locker.run("BEGIN; SELECT FROM records FOR UPDATE").await;
    let saving = tokio::spawn(async move {
        holder.save(Generation::new(1), record(2)).await.unwrap();
    });
    let waits = format!(
        "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%a sign-in%{}_%'",
        place.prefix
    );
    let count = format!("SELECT count(*) {waits}");
    until("it waits", async || sight.number(&count).await == 1).await;
    sight.number(&format!("SELECT count(pg_terminate_backend(pid)) {waits}")).await;
    until("it waits again", async || sight.number(&count).await == 1).await;
    locker.run("COMMIT").await;
    soon(saving).await.unwrap();
    assert_eq!(access(&store.load().await.unwrap().tokens), Some("access-2"));
}

/// Somebody has locked the row for longer than a statement may take: it is given up in the server,
/// too, and the connections stay few.
#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up() {
    let place = Place::new().await;
    let (locker, sight) = (place.sight().await, place.sight().await);
    let stores = place.builder().timeout(millis(200)).build().unwrap();
    let store = stores.store(NAME);
    sign_in(&store).await;
    locker.run("BEGIN; SELECT FROM records FOR UPDATE").await;
    let waits = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{}_%'",
        place.prefix
    );
    for _ in 0..3 {
        let save = store.save(Generation::new(1), record(2));
        let seen = until("it waits", async || sight.number(&waits).await > 0);
        let (saved, ()) = tokio::join!(save, seen);
        assert!(matches!(saved, Err(SaveError::Failed(_))), "{saved:?}");
        // Who only reads does not wait.
        assert_eq!(store.load().await.unwrap().generation, Generation::new(1));
    }
    until("given up", async || sight.number(&waits).await == 0).await;
    locker.run("COMMIT").await;
    assert_eq!(store.load().await.unwrap().generation, Generation::new(1));
    store.save(Generation::new(1), record(2)).await.unwrap();
}

/// Futures that are dropped at any moment: the write is there whole or not at all, and the store
/// goes on.
#[tokio::test]
async fn a_dropped_save_is_whole_or_not_there() {
    let place = Place::new().await;
    let store = place.builder().max_connections(1).build().unwrap().store(NAME);
    sign_in(&store).await;
    let mut generation = 1;
    for round in 0..60 {
        let save = store.save(Generation::new(generation), record(generation + 1));
        let moment = std::time::Duration::from_micros(round * 40);
        let _ = tokio::time::timeout(moment, save).await;
        // What is on its way arrives, or does not.
        let found = store.load().await.unwrap();
        assert!(found == record(generation) || found == record(generation + 1), "{found:?}");
        let saved = store.save(found.generation, record(found.generation.get() + 1)).await;
        if let Err(error) = saved {
            assert!(matches!(error, SaveError::Conflict), "{error:?}");
        }
        generation = store.load().await.unwrap().generation.get();
    }
}
