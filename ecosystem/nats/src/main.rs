//! A message broker: twenty connections, which the server ends when their token expires. Each is made again
//! by the client itself; one refresh, and all come back with the new token.
//!
//! The first callback is enough for tokens that are refused at their expiry and not before: `token()` waits
//! for the new one. The other tells the state what the server says of its tokens. The client's events name
//! none, so each connection remembers the one that it has sent last. While there is no token the client goes
//! on trying. Its events say "authentication" of that, and `state.status()` says why.

use std::{
    collections::BTreeSet,
    future::ready,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_nats::{
    Auth, AuthError, Client, ConnectError, ConnectErrorKind, ConnectOptions, Event, Subscriber,
};
use futures_util::StreamExt;
use http::StatusCode;
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use testing::NatsServer;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};
use tower_refresh::{Generation, RefreshState};

const NO_TOKEN: &str = "what was never given out";

// ---- What a user writes: a connection that is made, and made again, with the token to use now.
async fn connect(address: &str, state: &Arc<RefreshState>) -> Result<Client, AnyError> {
    let connect = |_| options(state).connect(address);
    let is_refused = |outcome: &Result<_, ConnectError>| match outcome {
        Err(error) => error.kind() == ConnectErrorKind::AuthorizationViolation,
        Ok(_) => false,
    };
    Ok(state.attempt(connect, is_refused).await??)
}

fn options(state: &Arc<RefreshState>) -> ConnectOptions {
    let sent = Arc::new(AtomicU64::default());
    let (to_send, to_hear) = ((state.clone(), sent.clone()), (state.clone(), sent));
    let options = ConnectOptions::with_auth_callback(move |_nonce| {
        let (state, sent) = to_send.clone();
        async move {
            let credential = state.token().await.map_err(AuthError::new)?;
            sent.store(credential.generation().get(), Relaxed);
            let mut auth = Auth::new();
            auth.username = Some("shop".into());
            auth.password = credential.access_token().map(str::to_owned);
            Ok(auth)
        }
    });
    options.event_callback(move |event| {
        let ((state, sent), words) = (to_hear.clone(), event.to_string());
        let sent = Generation::new(sent.load(Relaxed));
        if matches!(event, Event::Connected) {
            state.accepted(sent);
        } else if words.contains("authorization violation")
            || words.contains("authentication expired")
        {
            tokio::spawn(async move { state.challenged(sent).await });
        }
        ready(())
    })
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let broker = Arc::new(NatsServer::start(NO_TOKEN));
    let servers = serve(&broker).await?;
    let state = scenery::credential(&servers)?;
    let mut orders = admin(&broker).await?;

    broker.set_password(&servers.book().current().access);
    let mut clients = Vec::new();
    for _ in 0..CALLS {
        clients.push(connect(&broker.address(), &state).await?);
    }
    broker.set_password(NO_TOKEN);
    let mut running = JoinSet::new();
    for (number, client) in clients.iter().cloned().enumerate() {
        running.spawn(timeout(Duration::from_secs(20), order(client, number)));
    }
    let sent = running.join_all().await.into_iter().flatten().filter(Result::is_ok).count();
    let mut arrived = BTreeSet::new();
    while arrived.len() < sent {
        let order = orders.next().await.ok_or("the broker has gone")?;
        if !arrived.insert(order.payload) {
            return Err("this order came before".into());
        }
    }
    let outcome = Outcome::of(&servers, CALLS, sent);

    scenery::end_session(&servers);
    broker.set_password(NO_TOKEN);
    Ok(outcome.report_error(connect(&broker.address(), &state).await))
}

/// Places an order over the second connection of this client.
async fn order(client: Client, number: usize) -> Result<(), AnyError> {
    while client.statistics().connects.load(Relaxed) < 2 {
        sleep(Duration::from_millis(1)).await;
    }
    client.publish("orders", format!("order {number}").into()).await?;
    Ok(client.flush().await?)
}

/// Sees all orders.
async fn admin(broker: &NatsServer) -> Result<Subscriber, AnyError> {
    let admin = ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let admin = admin.connect(broker.address()).await?;
    let orders = admin.subscribe("orders").await?;
    admin.flush().await?;
    Ok(orders)
}

/// An authorization server whose tokens the broker knows.
async fn serve(broker: &Arc<NatsServer>) -> Result<Loopback, AnyError> {
    let broker = Arc::clone(broker);
    let servers = Loopback::options().latency(Duration::from_millis(10));
    let servers = servers.serve(move |servers: Loopback, request| {
        let broker = Arc::clone(&broker);
        async move {
            let answer = servers.answer(request).await;
            if answer.status() == StatusCode::OK {
                let minted = servers.book().current().access;
                // It waits for the broker.
                if spawn_blocking(move || broker.set_password(&minted)).await.is_err() {
                    return loopback::empty(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
            answer
        }
    });
    Ok(servers.await?)
}
