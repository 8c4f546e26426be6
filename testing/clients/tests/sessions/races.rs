//! What other tabs and replicas do meanwhile.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use http::StatusCode;
use tokio::time::advance;
use tokio_test::{assert_pending, task};

use testing::sessions::{World, settle, signed_in};

/// A tab is closed in mid-refresh: the refresh goes on, and the other tabs have its tokens.
async fn a_tab_that_is_closed_in_mid_refresh_costs_nothing(world: World) {
    let replicas = [world.replica(), world.replica()];
    let browser = signed_in(&replicas[0], "alice").await;
    browser.get(&replicas[1], "/").await;
    let first = world.server.hold_refresh(&browser, &replicas[0]).await;
    drop(first);
    let mut others =
        task::spawn(join_all((0..10).map(|at| browser.get(&replicas[at % 2], "/api"))));
    assert_pending!(others.poll());
    world.server.1.open();
    assert!(others.await.iter().all(|answer| answer.text == "data"));
    assert_eq!((world.server.redeems(), world.server.reuses()), (1, 0));
}

/// Two tabs come back from the authorization server at the same time: one session is left, and the
/// browser has it or both live, never none.
async fn two_sign_ins_at_once_leave_the_browser_signed_in(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let (one, other) =
        tokio::join!(browser.sign_in(&replica, "alice"), browser.sign_in(&replica, "alice"));
    assert!(one.headers.contains_key("set-cookie") && other.headers.contains_key("set-cookie"));
    assert_eq!(browser.get(&replica, "/").await.text, "alice");
    settle().await;
    assert_eq!(world.server.alive(), 2, "of the first session nothing is left");
}

async fn signed_out_in_one_tab_while_the_other_refreshes_is_signed_out(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let refreshing = world.server.hold_refresh(&browser.copy(), &replica).await;
    assert_eq!(browser.post(&replica, "/sign_out").await.status, StatusCode::NO_CONTENT);
    world.server.1.open();
    let answer = refreshing.await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert_eq!(answer.headers["session-ended"], "signed_out");
    // The cookie that the API has set goes through. Ours is not cleared in passing.
    assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["theirs=1"]);
    settle().await;
    assert_eq!(world.server.alive(), 0);
}

/// On another replica: nothing is served there while the redeem that came before is under way.
async fn signed_out_on_one_replica_while_the_other_refreshes_is_signed_out(world: World) {
    let (here, there) = (world.replica(), world.replica());
    let browser = signed_in(&here, "alice").await;
    browser.get(&there, "/").await;
    let copy = browser.copy();
    let refreshing = world.server.hold_refresh(&browser.copy(), &there).await;
    browser.post(&here, "/sign_out").await;
    assert_eq!(copy.get(&there, "/").await.text, "anonymous");
    world.server.1.open();
    assert_eq!(refreshing.await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(copy.get(&there, "/").await.text, "anonymous");
}

/// Signed out, and signed in again a moment later: no answer that was under way brings the old session
/// back.
async fn a_request_under_way_through_a_sign_out_and_a_sign_in_changes_nothing(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let late = world.server.hold_refresh(&browser.copy(), &replica).await;
    browser.post(&replica, "/sign_out").await;
    browser.sign_in(&replica, "bob").await;
    let cookie = browser.cookie();
    world.server.1.open();
    browser.take(&late.await.headers);
    assert_eq!(browser.cookie(), cookie);
    assert_eq!(browser.get(&replica, "/").await.text, "bob");
}

/// The store is away for a second, in the middle of a herd: everybody is signed in afterwards.
async fn an_outage_in_a_herd_signs_nobody_out(world: World) {
    let replicas = [world.replica(), world.replica()];
    let mut browsers = Vec::new();
    for user in 0..20 {
        browsers.push(signed_in(&replicas[user % 2], &format!("user{user}")).await);
    }
    world.server.expire_all();
    let herd = |count: usize| {
        let at = move |tab| (tab / count, tab % 2);
        join_all(
            (0..20 * count)
                .map(at)
                .map(|(user, replica)| browsers[user].get(&replicas[replica], "/api")),
        )
    };
    world.place.control().is_read_only.store(true, Ordering::Relaxed);
    let answers = herd(4).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE));
    world.place.go_away(true);
    let answers = herd(4).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::SERVICE_UNAVAILABLE));
    world.place.go_away(false);
    world.place.control().is_read_only.store(false, Ordering::Relaxed);
    advance(Duration::from_secs(120)).await;
    let answers = herd(4).await;
    assert!(answers.iter().all(|answer| answer.text == "data"), "{answers:?}");
    assert_eq!((world.server.redeems(), world.server.reuses()), (20, 0));
}

/// The caller of a sign-in goes away in its middle: the session is whole, or is not.
async fn a_sign_in_that_is_broken_off_leaves_nothing_half(world: World) {
    let replica = world.replica();
    let browser = signed_in(&replica, "alice").await;
    let tab = browser.copy();
    let mut signing_in = task::spawn(tab.sign_in(&replica, "bob"));
    assert_pending!(signing_in.poll());
    drop(signing_in);
    settle().await;
    // It went on: the browser's old session has ended, as if the answer had been lost.
    assert_eq!(browser.get(&replica, "/ended").await.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(world.server.alive(), 1);
}

in_both_modes! {
    a_tab_that_is_closed_in_mid_refresh_costs_nothing,
    two_sign_ins_at_once_leave_the_browser_signed_in,
    signed_out_in_one_tab_while_the_other_refreshes_is_signed_out,
    signed_out_on_one_replica_while_the_other_refreshes_is_signed_out,
    a_request_under_way_through_a_sign_out_and_a_sign_in_changes_nothing,
    an_outage_in_a_herd_signs_nobody_out,
    a_sign_in_that_is_broken_off_leaves_nothing_half,
}
