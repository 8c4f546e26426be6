//! A state over a file that fails, and comes back.

use std::{
    error::Error,
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use testing::{Auth, Play, kind, tokens};
use tokio_test::{assert_pending, task};
use tower_refresh::{
    FailureKind, RefreshState,
    store::{FileStore, OpenCause, Record, TokenStore},
};

use super::{Dir, assert_says, generation, lease, record, soon};

async fn opened(auth: &Auth, store: FileStore) -> Arc<RefreshState> {
    let state = RefreshState::builder(auth.refresher())
        .store(store)
        .cool_down(Duration::from_millis(1), Duration::from_millis(20))
        .build();
    soon(state.token()).await.unwrap();
    state
}

/// The minted pair is kept while the store cannot take it, and saved when it can: one
/// redeem.
async fn survives(fail: impl Fn(&Dir), says: &[&str], mend: impl Fn(&Dir)) {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let state = opened(&auth, dir.store()).await;
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;
    fail(&dir);
    auth.gate.open();
    let failure = soon(&mut refresh).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Unsaved);
    // The first try may have met no more than a lost lease.
    if failure.source().is_some() {
        assert_says(&failure, says);
    }
    assert_eq!(kind(soon(state.refresh()).await), FailureKind::Unsaved);
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
    mend(&dir);
    soon(state.drain()).await;
    assert_eq!(dir.store().load().await.unwrap(), record(2));
    assert_eq!(state.current().access_token(), Some("access-2"));
    assert_eq!(auth.asked(), ["refresh-1"]);

    // The next process begins where this one has ended.
    let next = opened(&auth, dir.store()).await;
    assert_eq!(soon(next.refresh()).await.unwrap().access_token(), Some("access-3"));
    auth.assert_sound();
}

#[tokio::test]
async fn minted_tokens_outlive_a_folder_that_vanishes() {
    let path = "folder";
    survives(Dir::hide, &["could not", path, "No such file"], Dir::show).await;
}

/// As where the disk is full, or the folder read-only: root writes there all the same.
#[tokio::test]
async fn minted_tokens_outlive_a_folder_that_cannot_be_written() {
    survives(
        |dir| fs::create_dir(dir.beside(".tmp")).unwrap(),
        &["could not remove", "tokens.json.tmp"],
        |dir| fs::remove_dir(dir.beside(".tmp")).unwrap(),
    )
    .await;
}

#[tokio::test]
async fn minted_tokens_outlive_a_file_that_is_opened_to_others() {
    use std::os::unix::fs::PermissionsExt;
    let chmod = |dir: &Dir, mode| {
        fs::set_permissions(&dir.file, fs::Permissions::from_mode(mode)).unwrap();
    };
    survives(|dir| chmod(dir, 0o644), &["chmod 600"], |dir| chmod(dir, 0o600)).await;
}

#[tokio::test]
async fn nothing_is_redeemed_without_a_lease() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let state = opened(&auth, dir.store()).await;
    dir.hide();
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &["tokens.json.lease", "No such file"]);
    // A caller with a good token never notices.
    assert_eq!(soon(state.token()).await.unwrap().access_token(), Some("access-1"));
    assert_eq!(auth.count(), 0);
    dir.show();
}

/// Nor where the intent cannot be written down.
#[tokio::test]
async fn nothing_is_redeemed_from_a_file_that_is_damaged() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let state = opened(&auth, dir.store()).await;
    fs::write(&dir.file, "{").unwrap();
    let failure = soon(state.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Store);
    assert_says(&failure, &["could not read", "truncated", "sign in again"]);
    assert_says(&soon(state.clear()).await.unwrap_err(), &["remove", "truncated"]);
    assert_eq!((auth.count(), dir.text().as_str()), (0, "{"));
}

/// On a challenge the record is read again under the lease.
#[tokio::test]
async fn what_another_process_has_saved_is_adopted() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let state = opened(&auth, dir.store()).await;
    let first = state.current().generation();
    dir.store().save(generation(1), record(7)).await.unwrap();
    let found = soon(state.challenged(first)).await.unwrap();
    assert_eq!((found.access_token(), found.generation()), (Some("access-7"), generation(7)));
    assert_eq!(auth.count(), 0);

    // Also while that one still has the lease.
    let held = lease(&dir.store()).await;
    dir.store().save(generation(7), record(8)).await.unwrap();
    let found = soon(state.challenged(found.generation())).await.unwrap();
    assert_eq!(found.access_token(), Some("access-8"));
    held.release(None).await;

    dir.store().delete().await.unwrap();
    let gone = soon(state.challenged(found.generation())).await;
    assert_eq!(kind(gone), FailureKind::SignedOut);
    assert_eq!(auth.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_states_are_one_refresh() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let mut states = Vec::new();
    for _ in 0..16 {
        states.push(opened(&auth, dir.store()).await);
    }
    for round in 1..=3 {
        let base = states[0].current().generation();
        let refreshes: Vec<_> = states
            .iter()
            .map(|state| {
                let state = Arc::clone(state);
                tokio::spawn(async move { soon(state.challenged(base)).await })
            })
            .collect();
        for refresh in refreshes {
            let found = refresh.await.unwrap().unwrap();
            assert_eq!(found.access_token(), Some(&*format!("access-{}", round + 1)));
        }
        assert_eq!(auth.count(), round);
    }
    auth.assert_sound();
}

#[tokio::test]
async fn a_restart_begins_where_the_last_run_has_ended() {
    let (auth, dir) = (Auth::new(), Dir::new());
    let begin = || {
        let state = RefreshState::builder(auth.refresher()).store(dir.store());
        state.tokens(tokens(1)).build()
    };
    let first = begin();
    assert_eq!(soon(first.token()).await.unwrap().access_token(), Some("access-1"));
    assert_eq!(soon(first.refresh()).await.unwrap().access_token(), Some("access-2"));
    soon(first.drain()).await;
    drop(first);
    assert_eq!(soon(begin().token()).await.unwrap().access_token(), Some("access-2"));
    assert_eq!(auth.count(), 1);
}

/// A rejection tells that another process may have spent the token.
#[tokio::test]
async fn a_rejection_after_a_lost_answer_says_so() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let state = opened(&auth, dir.store()).await;
    auth.next(Play::Fail).next(Play::Reject).next(Play::Reject);
    assert_eq!(kind(soon(state.refresh()).await), FailureKind::Transient);
    soon(state.drain()).await;
    assert_eq!(fs::read_to_string(dir.beside(".lease")).unwrap(), "unanswered 1\n");
    let other = opened(&auth, dir.store()).await;
    let failure = soon(other.refresh()).await.unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Rejected);
    assert_eq!(failure.open_redeem(), Some(OpenCause::AnswerLost));
}

/// The sign-in wins, and waits neither for the lease nor for the flight.
#[tokio::test]
async fn sign_in_and_sign_out_win_over_a_redeem() {
    let (auth, dir) = (Auth::new(), Dir::signed_in().await);
    let (state, other) = (opened(&auth, dir.store()).await, opened(&auth, dir.store()).await);
    auth.gate.close();
    let mut refresh = task::spawn(state.refresh());
    assert_pending!(refresh.poll());
    auth.gate.arrived(1).await;
    let life = SystemTime::now() + Duration::from_secs(3600);
    soon(other.set(tokens(9).with_expires_at(life))).await.unwrap();
    soon(other.clear()).await.unwrap();
    auth.gate.open();
    assert_eq!(kind(soon(&mut refresh).await), FailureKind::SignedOut);
    soon(state.drain()).await;
    assert_eq!(dir.store().load().await.unwrap(), Record::new(generation(3), None));
}
