//! Replicas that share one credential, against an authorization server that is as strict
//! as real ones.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tower_refresh::{RefreshState, oauth2::Client};

use super::{RedisServer, open, soon};

use testing::loopback::{CLIENT_ID, Loopback};

const REPLICAS: usize = 8;
const CALLERS: usize = 8;
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_states_over_one_redis_refresh_once() {
    let redis = RedisServer::start();
    let servers = Loopback::start(Duration::from_millis(5)).await.unwrap();
    let tokens = servers.sign_in();
    let states: Vec<Arc<RefreshState>> = (0..REPLICAS)
        .map(|_| {
            let client = Client::builder(&servers.token_endpoint(), CLIENT_ID).unwrap();
            RefreshState::builder(client.build().unwrap().refresh_token_grant())
                .store(open(&redis))
                .tokens(tokens.clone())
                .build()
        })
        .collect();
    for state in &states {
        state.token().await.unwrap();
    }
    for round in 1..=ROUNDS {
        let refused = states[0].current().generation();
        let mut callers = JoinSet::new();
        for state in states.iter().cycle().take(REPLICAS * CALLERS) {
            let state = Arc::clone(state);
            callers.spawn(async move {
                let token = state.challenged(refused).await.unwrap();
                state.accepted(token.generation());
                token
            });
        }
        for token in soon(callers.join_all()).await {
            assert_eq!(token.generation(), refused.next());
        }
        let book = servers.book();
        assert_eq!((book.refreshes, book.token_reuse), (round, 0));
    }
}
