//! Names: each has keys of its own, and all of them are in one slot of a cluster.

use redis::Commands;
use tower_refresh::{
    Generation, Tokens,
    store::{Record, TokenStore},
};

use super::{RedisServer, access, builder, lease};

const NAMES: [(&str, &str); 9] = [
    ("alice", "alice"),
    ("", "%"),
    ("%", "%25"),
    ("a{b", "a%7Bb"),
    ("{alice}", "%7Balice%7D"),
    ("}x{", "%7Dx%7B"),
    ("a%7Bb", "a%257Bb"),
    ("alice:lease", "alice:lease"),
    ("zürich \n 🔑", "zürich \n 🔑"),
];

#[tokio::test]
async fn each_name_has_its_own_keys() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let stores = builder(&server).build().unwrap();
    let mut leases = Vec::new();
    for (name, tag) in NAMES {
        let store = stores.store(name);
        assert_eq!(store.load().await.unwrap(), Record::default(), "{name}");
        let record = Record::new(Generation::new(1), Tokens::new(name));
        store.save(Generation::ZERO, record).await.unwrap();
        leases.push(lease(&store, 1).await);
        for key in [format!("tower-refresh:{{{tag}}}"), format!("tower-refresh:{{{tag}}}:lease")] {
            assert!(connection.exists::<_, bool>(&key).unwrap(), "there is no {key}");
        }
    }
    assert_eq!(connection.keys::<_, Vec<String>>("*").unwrap().len(), 2 * NAMES.len());
    for (name, _) in NAMES {
        assert_eq!(access(&stores.store(name).load().await.unwrap().tokens), Some(name));
    }
}

#[tokio::test]
async fn each_prefix_is_a_world_of_its_own() {
    let server = RedisServer::start();
    let mut connection = server.connection();
    let (one, two) = (
        builder(&server).prefix("one").build().unwrap().store("a"),
        builder(&server).prefix("two").build().unwrap().store("a"),
    );
    let record = Record::new(Generation::new(1), Tokens::new("one"));
    one.save(Generation::ZERO, record).await.unwrap();
    let _held = (lease(&one, 1).await, lease(&two, 0).await);
    assert_eq!(two.load().await.unwrap(), Record::default());
    let mut keys: Vec<String> = connection.keys("*").unwrap();
    keys.sort();
    assert_eq!(keys, ["one:{a}", "one:{a}:lease", "two:{a}", "two:{a}:lease"]);
}
