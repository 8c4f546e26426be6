//! Neither a password nor a token is in what is shown, told or logged.

use std::error::Error;

use testing::{Logs, PostgresServer, clean, clean_debug, clean_error};
use tower_refresh::{
    Generation, Tokens,
    store::{Keyring, Leased, PostgresStores, Record, TokenStore},
};

use super::{KEY, NAME, Place, millis, soon};

#[tokio::test]
async fn a_secret_is_shown_nowhere() {
    let (logs, _guard) = Logs::capture();
    let mut server = PostgresServer::start();
    let place = Place::at(server.url()).await;
    let sight = place.sight().await;
    sight
        .run(
            "CREATE ROLE app LOGIN PASSWORD 'SECRET-right';
            GRANT SELECT, INSERT, UPDATE, DELETE ON records TO app",
        )
        .await;
    std::fs::write(
        server.folder().join("data/pg_hba.conf"),
        "host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
    )
    .unwrap();
    sight.run("SELECT pg_reload_conf()").await;
    let open = |password: &str| {
        place.builder_at(&server.url_of(&format!("app:{password}"))).timeout(millis(5000))
    };
    let wrong = open("SECRET-wrong").build().unwrap().store(NAME);
    super::until("reloaded", async || wrong.load().await.is_err()).await;
    clean_error(&wrong.load().await.unwrap_err());
    clean_error(&wrong.save(Generation::ZERO, Record::default()).await.unwrap_err());
    clean_error(&wrong.delete().await.unwrap_err());
    clean_error(&wrong.lease(Generation::ZERO).await.unwrap_err());

    let builder = open("SECRET-right").poll(super::HOUR);
    clean_debug(&builder);
    let stores = builder.build().unwrap();
    let store = stores.store(NAME);
    clean_debug(&stores);
    clean_debug(&store);
    // It opens all the same, for statements and for messages.
    let tokens = Tokens::new("SECRET-access").with_refresh_token("SECRET-refresh");
    let record = Record::new(Generation::new(1), tokens);
    store.save(Generation::ZERO, record.clone()).await.unwrap();
    let held = store.lease(Generation::new(1)).await.unwrap();
    clean_debug(&held);
    let waiting = store.clone();
    let waiter = tokio::spawn(async move { waiting.lease(Generation::new(1)).await });
    sight.listening(1).await;

    // The server says in detail which row it refuses.
    sight.run("ALTER TABLE records ADD CHECK (generation < 2)").await;
    let refused = store.save(Generation::new(1), Record::new(Generation::new(2), record.tokens));
    let error = refused.await.unwrap_err();
    clean_error(&error);
    let said = error.source().unwrap().to_string();
    assert!(said.contains("23514") && !said.contains("Failing row"), "{said}");
    // And in the table nothing can be read.
    let document = format!("SELECT encode(document, 'escape') FROM {}", place.table());
    let document: String = sight.client.query_one(&document, &[]).await.unwrap().get(0);
    clean(&document);
    assert!(document.contains("sealed"), "{document}");

    server.kill();
    if let Leased::Lease(held) = held {
        held.release(None).await;
    }
    clean_error(&store.load().await.unwrap_err());
    waiter.abort();
    let _ = soon(waiter).await;
    for url in [
        "http://:SECRET@127.0.0.1/",
        "postgres://app:SE@CRET/SECRET@127.0.0.1/app",
        "postgres://app:x?SECRET=1@127.0.0.1/",
        "postgres://app:SECRET@127.0.0.1:99999/app",
        "postgres://app:SECRET@127.0.0.1/app?SECRET=1",
        "postgres://app:SECRET@127.0.0.1/app?sslmode=SECRET",
        "postgres://app:SECRET@127.0.0.1/app?sslmode=require",
        "host=localhost password='SECRET",
        "host=localhost SECRET",
        "password=SECRET",
        "SECRET",
    ] {
        match PostgresStores::builder(url, Keyring::new(KEY)).build() {
            Err(error) => clean_error(&error),
            // It can be read, if not as it was meant.
            Ok(stores) => clean_debug(&stores),
        }
    }
    logs.assert_clean();
}
