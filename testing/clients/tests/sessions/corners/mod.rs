//! Where two things meet: each was got wrong once.
//!
//! | module | what |
//! |---|---|
//! | `ends` | sessions that end although they should live, and the other way round |
//! | `answers` | what a browser is told, and what it is to keep |
//! | `stores` | stores that panic, are slow, or are busy |

mod answers;
mod ends;
mod stores;

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_refresh::{
    BoxFuture, Generation,
    session::{IndexKey, SessionBody, Sessions},
    store::{
        Deleted, KeptUntil, Leased, MemoryStores, Record, SaveError, StoreError, Stores, TokenStore,
    },
};

use testing::{
    Gate,
    sessions::{Body, Browser, ISSUER, full},
};

const MINUTE: Duration = Duration::from_secs(60);

fn sub(user: &str) -> IndexKey {
    IndexKey::Sub { issuer: ISSUER.to_owned(), subject: user.to_owned() }
}

type App = BoxCloneSyncService<Request<Body>, Response<SessionBody<Body>>, Infallible>;

/// An application of one handler.
fn app<Fut>(
    sessions: &Sessions,
    handler: impl FnMut(Request<Body>) -> Fut + Clone + Send + Sync + 'static,
) -> App
where
    Fut: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
{
    BoxCloneSyncService::new(sessions.layer().layer(service_fn(handler)))
}

async fn ask(app: &App, request: http::request::Builder) -> Response<SessionBody<Body>> {
    app.clone().oneshot(request.body(full("")).unwrap()).await.unwrap()
}

/// What goes wrong with the store of one name.
#[derive(Clone)]
enum Trouble {
    CannotBeRead,
    Panics,
    ReadsWait(Gate),
}

/// Stores in memory, of which some are in trouble, and all may be slow.
#[derive(Clone, Default)]
struct Troubled {
    memory: MemoryStores,
    troubles: Arc<Mutex<HashMap<String, Trouble>>>,
    delay: Duration,
    /// How long it takes to give a list an end.
    list_keep: Duration,
}

impl Troubled {
    fn trouble(&self, name: impl AsRef<str>, trouble: Trouble) {
        self.troubles.lock().unwrap().insert(name.as_ref().to_owned(), trouble);
    }
}

impl Stores for Troubled {
    fn store(&self, name: &str) -> Arc<dyn TokenStore> {
        let store = Arc::new(self.memory.store(name));
        Arc::new(OneTroubled { all: self.clone(), name: name.to_owned(), store })
    }
}

struct OneTroubled {
    all: Troubled,
    name: String,
    store: Arc<dyn TokenStore>,
}

impl OneTroubled {
    async fn read(&self) -> Result<(), StoreError> {
        self.wait().await;
        let trouble = self.all.troubles.lock().unwrap().get(&self.name).cloned();
        match trouble {
            None => Ok(()),
            Some(Trouble::CannotBeRead) => Err(StoreError::new("sealed with a key that is gone")),
            Some(Trouble::Panics) => panic!("the store panics"),
            Some(Trouble::ReadsWait(gate)) => {
                gate.pass().await;
                Ok(())
            }
        }
    }

    async fn wait(&self) {
        if !self.all.delay.is_zero() {
            sleep(self.all.delay).await;
        }
    }
}

impl TokenStore for OneTroubled {
    fn load(&self) -> BoxFuture<'_, Result<Record, StoreError>> {
        Box::pin(async {
            self.read().await?;
            self.store.load().await
        })
    }

    fn changed(&self, known: Generation) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            self.read().await?;
            self.store.changed(known).await
        })
    }

    fn save(&self, expected: Generation, record: Record) -> BoxFuture<'_, Result<(), SaveError>> {
        Box::pin(async move {
            self.wait().await;
            self.store.save(expected, record).await
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<Deleted, StoreError>> {
        self.store.delete()
    }

    fn keep_until(
        &self,
        end: std::time::SystemTime,
    ) -> BoxFuture<'_, Result<KeptUntil, StoreError>> {
        let is_list = self.name.starts_with("sub-") || self.name.starts_with("sid-");
        let delay = if is_list { self.all.list_keep } else { Duration::ZERO };
        Box::pin(async move {
            sleep(delay).await;
            self.store.keep_until(end).await
        })
    }

    fn lease(&self, known: Generation) -> BoxFuture<'_, Result<Leased, StoreError>> {
        self.store.lease(known)
    }
}

fn name_of(browser: &Browser) -> String {
    let cookie = browser.cookie().unwrap();
    let id: tower_refresh::session::SessionId = cookie.split_once('=').unwrap().1.parse().unwrap();
    id.name().as_str().to_owned()
}
