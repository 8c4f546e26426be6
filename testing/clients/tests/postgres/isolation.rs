//! Databases whose transactions are isolated more strictly than usual: the server gives up on
//! statements that meet, and they are sent again.

use tokio::task::JoinSet;
use tower_refresh::{
    Generation,
    store::{Leased, SaveError, TokenStore},
};

use super::{Place, record, shared, sign_in, soon};

#[tokio::test]
async fn strict_isolation_changes_nothing() {
    for level in ["repeatable\\ read", "serializable"] {
        let options = format!("-c default_transaction_isolation={level}");
        let place = Place::new().await;
        let url = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres options='{}'",
            shared().port(),
            options.replace('\\', "\\\\")
        );
        let open =
            || place.builder_at(&url).poll(super::millis(20)).build().unwrap().store("alice");
        sign_in(&open()).await;
        let mut turns = JoinSet::new();
        for _ in 0..8 {
            let store = open();
            turns.spawn(async move {
                for _ in 0..4 {
                    let known = store.load().await.unwrap().generation;
                    match store.lease(known).await.unwrap() {
                        Leased::Lease(mut held) => {
                            held.intend(known).await.unwrap();
                            held.save(known, record(known.get() + 1)).await.unwrap();
                        }
                        leased => drop(leased),
                    }
                }
            });
        }
        soon(turns.join_all()).await;
        let last = open().load().await.unwrap().generation;
        let mut racers = JoinSet::new();
        for racer in 0..8 {
            let store = open();
            let record =
                tower_refresh::store::Record::new(last.next(), testing::tokens(90 + racer));
            racers.spawn(async move { store.save(last, record).await });
        }
        let results = soon(racers.join_all()).await;
        let won = results.iter().filter(|result| result.is_ok()).count();
        let lost = results.iter().filter(|r| matches!(r, Err(SaveError::Conflict))).count();
        assert_eq!((won, lost), (1, 7), "{results:?}");
        assert!(last > Generation::new(1));
    }
}
