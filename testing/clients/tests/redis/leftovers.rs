//! What is left of a name that was never written: it may be made up.

use redis::Commands;
use testing::{Auth, kind};
use tower_refresh::{
    FailureKind, Generation, RefreshState,
    store::{OpenCause, OpenRedeem},
};

use super::{
    LEASE, NAME, RECORD, RedisServer, brief, lease, lease_is_there, open, record, sign_in, soon,
    until,
};

fn keys(connection: &mut redis::Connection) -> Vec<String> {
    connection.keys("*").unwrap()
}

#[tokio::test]
async fn a_look_at_a_name_that_was_never_written_leaves_no_key() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let none: Vec<String> = Vec::new();
    lease(&open(&server), 0).await.release(None).await;
    assert_eq!(keys(&mut connection), none);

    let auth = Auth::new();
    let state = RefreshState::builder(auth.refresher()).store(open(&server)).build();
    assert_eq!(kind(soon(state.token()).await), FailureKind::SignedOut);
    soon(state.drain()).await;
    assert_eq!(auth.count(), 0);
    assert_eq!(keys(&mut connection), none);
}

#[tokio::test]
async fn a_holder_that_ends_before_it_writes_leaves_no_key_for_long() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = brief(&server).build().unwrap().store(NAME);
    drop(lease(&store, 0).await);
    assert!(lease_is_there(&mut connection));
    until("gone", || keys(&mut connection).is_empty()).await;
}

/// As long as it lives, what tells it from other holders is kept.
#[tokio::test]
async fn a_living_holder_of_an_unwritten_name_is_still_the_holder() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = brief(&server).build().unwrap().store(NAME);
    let mut holder = lease(&store, 0).await;
    for taken_back in [false, true] {
        if taken_back {
            let _: () = connection.del(LEASE).unwrap();
        }
        let (mut renewals, mut before) = (0, i64::MAX);
        until("renewed", || {
            let now: i64 = connection.pttl(RECORD).unwrap();
            assert!((1..=2000).contains(&now), "{now} ms");
            renewals += usize::from(now > before);
            before = now;
            renewals == 3
        })
        .await;
    }
    holder.intend(Generation::ZERO).await.unwrap();
    holder.save(Generation::ZERO, record(1)).await.unwrap();
}

/// It is no look: the next holder has to know.
#[tokio::test]
async fn an_open_redeem_of_an_unwritten_name_is_kept_as_long_as_a_record() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    let is_kept = |connection: &mut redis::Connection| {
        let seconds: i64 = connection.ttl(RECORD).unwrap();
        assert!(seconds > 89 * 24 * 60 * 60, "{seconds} s");
    };
    let mut holder = lease(&store, 0).await;
    holder.intend(Generation::ZERO).await.unwrap();
    is_kept(&mut connection);
    let left = OpenRedeem::new(Generation::ZERO, OpenCause::AnswerLost);
    holder.release(Some(left)).await;
    is_kept(&mut connection);
    let next = lease(&store, 0).await;
    assert_eq!(next.open_redeem(), Some(left));
    is_kept(&mut connection);
    next.release(None).await;
    assert_eq!(keys(&mut connection), Vec::<String>::new());
}

/// A record without a time limit was given none on purpose.
#[tokio::test]
async fn a_lease_changes_no_record_s_time() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let store = open(&server);
    sign_in(&store).await;
    let _: () = connection.persist(RECORD).unwrap();
    let mut holder = lease(&store, 1).await;
    holder.intend(Generation::new(1)).await.unwrap();
    holder.release(None).await;
    assert_eq!(connection.ttl::<_, i64>(RECORD).unwrap(), -1);
}
