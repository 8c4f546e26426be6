//! What a builder refuses, and where its tables are.

use tower_refresh::store::{Keyring, PostgresStores, TokenStore};

use super::{KEY, Place, access, millis, shared, sign_in};

fn builder(url: &str) -> tower_refresh::store::PostgresStoresBuilder {
    PostgresStores::builder(url, Keyring::new(KEY))
}

#[test]
fn what_cannot_work_is_refused() {
    let url = "postgres://app@localhost/app";
    for (builder, reason) in [
        (builder("http://localhost"), "cannot be read"),
        (builder("user=app"), "no host"),
        (builder("postgres://app@localhost/app?sslmode=require"), "TLS"),
        (builder(url).prefix(""), "letters, digits and _"),
        (builder(url).prefix("a-b"), "letters, digits and _"),
        (builder(url).prefix("a\"; DROP TABLE users; --"), "letters, digits and _"),
        (builder(url).prefix("x".repeat(41)), "letters, digits and _"),
        (builder(url).schema("a.b"), "letters, digits and _"),
        (builder(url).lease(millis(99)), "100 ms"),
        (builder(url).poll(millis(0)), "1 ms"),
        (builder(url).timeout(millis(0)), "1 ms"),
        (builder(url).tombstone_ttl(millis(0)), "1 ms"),
        (builder(url).max_connections(0), "1 at least"),
    ] {
        let said = builder.build().unwrap_err().to_string();
        assert!(said.contains(reason), "{said}");
    }
    for prefix in ["a", "A_1", &"x".repeat(40)] {
        builder(url).prefix(prefix).schema("other").build().unwrap();
    }
}

/// However odd a name it is.
#[tokio::test]
async fn a_table_may_be_in_a_schema_of_its_own() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let schema = place.prefix.replace("test", "Schema");
    sight.run(&format!("CREATE SCHEMA \"{schema}\"")).await;
    let long = "L".repeat(40);
    let stores = place.builder().schema(&schema).prefix(&long).build().unwrap();
    stores.migrate().await.unwrap();
    let store = stores.store("alice");
    sign_in(&store).await;
    let held = super::lease(&store, 1).await;
    let waiter = place.builder().schema(&schema).prefix(&long).poll(super::HOUR).build().unwrap();
    let waiter = waiter.store("alice");
    let (leased, ()) = tokio::join!(waiter.lease(tower_refresh::Generation::new(1)), async {
        tokio::time::sleep(millis(200)).await;
        held.release(None).await;
    });
    leased.unwrap();
    assert_eq!(access(&store.load().await.unwrap().tokens), Some("access-1"));
    let rows = format!("SELECT count(*) FROM \"{schema}\".\"{long}_records\"");
    assert_eq!(sight.client.query_one(&rows, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_eq!(sight.count().await, 0);
}

/// Replicas that are started together.
#[tokio::test]
async fn any_number_may_migrate_at_once() {
    let prefix = "at_once";
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let stores = builder(&shared().url()).prefix(prefix).timeout(millis(10_000));
        all.spawn(async move { stores.build().unwrap().migrate().await.unwrap() });
    }
    all.join_all().await;
    sign_in(&builder(&shared().url()).prefix(prefix).build().unwrap().store("alice")).await;
}

/// The SQL is for other tools, too, and may be run again.
#[tokio::test]
async fn the_migration_is_plain_sql() {
    let sight = Place::new().await.sight().await;
    for _ in 0..2 {
        sight.client.batch_execute(PostgresStores::MIGRATION).await.unwrap();
    }
    sign_in(&builder(&shared().url()).build().unwrap().store("alice")).await;
}

/// A user without the right to make tables, and one without a right that is needed.
#[tokio::test]
async fn rights_that_are_missing_are_named() {
    let place = Place::new().await;
    let sight = place.sight().await;
    let user = format!("user_{}", place.prefix);
    sight
        .run(&format!("CREATE ROLE {user} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
        .await;
    let stores = place.builder_at(&shared().url_of(&user)).build().unwrap();
    let store = stores.store("alice");
    stores.migrate().await.unwrap();
    let source = |error: &dyn std::error::Error| error.source().unwrap().to_string();
    let said = source(&store.load().await.unwrap_err());
    assert!(said.contains("42501") && said.contains("SELECT, INSERT, UPDATE and DELETE"), "{said}");
    sight.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON records TO {user}")).await;
    sign_in(&store).await;
    super::lease(&store, 1).await.release(None).await;
    store.delete().await.unwrap();
    stores.sweep().await.unwrap();

    let other = place.builder_at(&shared().url_of(&user)).prefix("missing").build().unwrap();
    let said = source(&other.store("alice").load().await.unwrap_err());
    assert!(said.contains("42P01") && said.contains("migrate"), "{said}");
    let said = source(&other.migrate().await.unwrap_err());
    assert!(said.contains("42501"), "{said}");
}
