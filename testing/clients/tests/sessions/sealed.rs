//! Sessions whose tokens are in the browser's cookies: what only they have to promise. What both modes
//! promise is in the other modules.

use futures_util::future::join_all;
use http::StatusCode;
use testing::sessions::{World, signed_in};

#[tokio::test(start_paused = true)]
async fn any_number_of_tabs_refresh_once() {
    let world = World::sealed();
    let replicas = [world.replica(), world.replica(), world.replica()];
    let browser = signed_in(&replicas[0], "alice").await;
    for round in 1..=3 {
        world.server.expire_all();
        let requests = (0..99).map(|number| browser.get(&replicas[number % 3], "/api"));
        for answer in join_all(requests).await {
            assert_eq!((answer.status, &*answer.text), (StatusCode::OK, "data"));
        }
        assert_eq!((world.server.redeems(), world.server.reuses()), (round, 0));
        assert_eq!(browser.get(&replicas[0], "/").await.text, "alice");
    }
}
