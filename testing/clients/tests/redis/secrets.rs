//! Neither a password nor a token is in what is shown, told or logged.

use std::error::Error;

use testing::{Logs, clean_debug, clean_error};
use tower_refresh::{
    Generation, Tokens,
    store::{Keyring, Leased, Record, RedisStores, TokenStore},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{KEY, NAME, RedisServer, listening, millis, soon};

fn with_password(server: &RedisServer, password: &str) -> String {
    server.url().replace("redis://", &format!("redis://:{password}@"))
}

#[tokio::test]
async fn a_password_is_shown_nowhere() {
    let (logs, _guard) = Logs::capture();
    let mut server = RedisServer::start();
    let mut connection = server.connection();
    let rule = ["SET", "requirepass", "SECRET-right"];
    redis::cmd("CONFIG").arg(&rule).exec(&mut connection).unwrap();

    let open = |password| RedisStores::builder(with_password(&server, password), Keyring::new(KEY));
    let builder = open("SECRET-right").lease(millis(1000)).poll(millis(3_600_000));
    clean_debug(&builder);
    let stores = builder.build().unwrap();
    let store = stores.store(NAME);
    clean_debug(&stores);
    clean_debug(&store);

    // It opens all the same, for commands and for messages.
    let tokens = Tokens::new("SECRET-access").with_refresh_token("SECRET-refresh");
    store.save(Generation::ZERO, Record::new(Generation::new(1), tokens)).await.unwrap();
    let held = store.lease(Generation::new(1)).await.unwrap();
    clean_debug(&held);
    let waiting = store.clone();
    let waiter = tokio::spawn(async move { waiting.lease(Generation::new(1)).await });
    listening(&mut connection, 1).await;

    let wrong = open("SECRET-wrong").build().unwrap().store(NAME);
    clean_error(&wrong.load().await.unwrap_err());
    clean_error(&wrong.save(Generation::ZERO, Record::default()).await.unwrap_err());
    clean_error(&wrong.delete().await.unwrap_err());
    clean_error(&wrong.lease(Generation::ZERO).await.unwrap_err());
    server.kill();
    if let Leased::Lease(held) = held {
        held.release(None).await;
    }
    clean_error(&store.load().await.unwrap_err());
    clean_error(&soon(waiter).await.unwrap().unwrap_err());

    for url in [
        "http://:SECRET@127.0.0.1/",
        "redis://:SECRET@/",
        "redis://:SECRET@0.0.0.0/",
        "redis://:SECRET@127.0.0.1/not-a-number",
        "redis://:SECRET@127.0.0.1/?protocol=9",
        "redis://:SECRET@[::1/",
        "redis://:SECRET@127.0.0.1:99999/",
        "SECRET",
    ] {
        clean_error(&RedisStores::builder(url, Keyring::new(KEY)).build().unwrap_err());
    }
    logs.assert_clean();
}

/// What servers say of a command that they do not know: it was renamed, or is too new.
#[tokio::test]
async fn a_password_that_the_server_quotes_is_not_passed_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = [0; 1024];
            while let Ok(read @ 1..) = stream.read(&mut asked).await {
                let commands = asked[..read].iter().filter(|byte| **byte == b'*').count();
                let answer = b"-ERR unknown command 'HELLO', with args beginning with: \
                    '3' 'AUTH' 'default' 'SECRET' \r\n";
                if stream.write_all(&answer.repeat(commands)).await.is_err() {
                    break;
                }
            }
        }
    });
    let url = format!("redis://:SECRET@127.0.0.1:{port}/?protocol=resp3");
    let store = RedisStores::builder(url, Keyring::new(KEY)).build().unwrap().store(NAME);
    let error = soon(store.load()).await.unwrap_err();
    clean_error(&error);
    let source = error.source().unwrap().to_string();
    assert!(source.contains("does not know a command"), "{source}");
}
