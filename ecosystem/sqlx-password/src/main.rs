//! A database whose password is the access token, as Amazon RDS (IAM) and Azure have it: twenty
//! connections of a pool are made at the same time with a token that has just expired. One refresh, and
//! each of them is made with the new one.
//!
//! PostgreSQL looks at the password of a new connection only, so connections that are there outlive
//! their token; the pool's `max_lifetime` bounds that. A connection that the pool makes on its own
//! (`min_connections`, `execute(&pool)`) has the password that was set last. A task that sets each new
//! one (`state.subscribe()`), with `state.keep_fresh()`, is enough for those until a token is refused
//! before its end.

use std::{fs, process::ExitCode, sync::Arc, time::Duration};

use http::StatusCode;
use scenery::{AnyError, CALLS, Loopback, Outcome, loopback};
use sqlx::{
    AssertSqlSafe, Connection, Error, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use testing::PostgresServer;
use tokio::sync::Mutex;
use tower_refresh::{Credential, RefreshState};

// ---- What a user writes: a connection of the pool, whose password is the token to use now if it is made.
async fn acquire(
    pool: &PgPool,
    state: &Arc<RefreshState>,
) -> Result<PoolConnection<Postgres>, AnyError> {
    let connect = |credential: Credential| {
        let options = PgConnectOptions::clone(&pool.connect_options());
        pool.set_connect_options(options.password(credential.access_token().unwrap_or_default()));
        pool.acquire()
    };
    // 28P01: the password is wrong. 28000: the same where PAM looks at it, as Amazon's servers do.
    let is_refused = |outcome: &Result<_, Error>| match outcome {
        Err(Error::Database(error)) => matches!(error.code().as_deref(), Some("28P01" | "28000")),
        _ => false,
    };
    Ok(state.attempt(connect, is_refused).await??)
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let mut server = PostgresServer::start();
    let servers = database(&mut server).await?;
    let state = scenery::credential(&servers)?;

    let pool = pool(&server)?;
    let ok = scenery::at_once(&servers, |number| {
        let (pool, state) = (pool.clone(), Arc::clone(&state));
        async move { order(&pool, &state, number).await.is_ok() }
    });
    let ok = ok.await;
    let mut admin = PgConnection::connect(&server.url()).await?;
    let orders: i64 =
        sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(&mut admin).await?;
    let outcome = Outcome::of(&servers, CALLS, ok.min(usize::try_from(orders)?));

    scenery::end_session(&servers);
    set_password(&mut admin, "nothing that was ever given out").await?;
    Ok(outcome.report_error(order(&self::pool(&server)?, &state, CALLS).await))
}

fn pool(server: &PostgresServer) -> Result<PgPool, Error> {
    let most = PgPoolOptions::new().max_connections(u32::try_from(CALLS).unwrap_or(u32::MAX));
    most.connect_lazy(&server.url_of("shop"))
}

async fn order(pool: &PgPool, state: &Arc<RefreshState>, number: usize) -> Result<(), AnyError> {
    let mut connection = acquire(pool, state).await?;
    let insert = sqlx::query("INSERT INTO orders VALUES ($1)").bind(i64::try_from(number)?);
    insert.execute(&mut *connection).await?;
    Ok(())
}

/// A database for a user whose password is the access token that was given out last.
async fn database(server: &mut PostgresServer) -> Result<Loopback, AnyError> {
    fs::write(
        server.folder().join("data/pg_hba.conf"),
        "host all shop 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
    )?;
    server.start_again();
    let mut admin = PgConnection::connect(&server.url()).await?;
    for statement in [
        "CREATE TABLE orders (number bigint PRIMARY KEY)",
        "CREATE ROLE shop LOGIN",
        "GRANT INSERT ON orders TO shop",
    ] {
        sqlx::query(statement).execute(&mut admin).await?;
    }
    set_password(&mut admin, "nothing that was ever given out").await?;
    let admin = Arc::new(Mutex::new(admin));
    let servers = Loopback::options().latency(Duration::from_millis(10));
    let servers = servers.serve(move |servers: Loopback, request| {
        let admin = Arc::clone(&admin);
        async move {
            let answer = servers.answer(request).await;
            if answer.status() == StatusCode::OK {
                let minted = servers.book().current().access;
                if set_password(&mut *admin.lock().await, &minted).await.is_err() {
                    return loopback::empty(StatusCode::INTERNAL_SERVER_ERROR);
                }
            }
            answer
        }
    });
    Ok(servers.await?)
}

async fn set_password(admin: &mut PgConnection, password: &str) -> Result<(), Error> {
    let statement = format!("ALTER ROLE shop PASSWORD '{password}'");
    sqlx::query(AssertSqlSafe(statement)).execute(admin).await?;
    Ok(())
}
