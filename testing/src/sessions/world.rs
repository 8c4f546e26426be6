//! The whole: a server, a place, and the processes of an application.

use std::sync::{Arc, Mutex};

use tower::{Layer, service_fn, util::BoxCloneSyncService};
use tower_refresh::{
    FromExtensions, RefreshLayer, Renewal, Tokens,
    seal::Keyring,
    session::{SealedBuilder, SessionLayer, Sessions, SessionsBuilder},
    state::RenewalBuilder,
};

use super::{
    App,
    app::{answer, handle},
    place::Place,
    server::Server,
};
use crate::Gate;

/// One process of the application.
#[derive(Clone)]
pub struct Replica {
    /// Its sessions.
    pub sessions: Sessions,
    pub(super) app: App,
}

/// How sessions are kept.
#[derive(Clone, Copy, Debug, Default)]
pub enum Mode {
    /// The tokens in a store.
    #[default]
    Opaque,
    /// In the browser's cookies, with a store as the memory.
    Sealed,
}

/// The whole: a server, a store, and what tests change of the rest.
#[derive(Clone, Default)]
pub struct World {
    /// The authorization server, and the API.
    pub server: Server,
    /// Where the tokens are.
    pub place: Place,
    /// How its sessions are kept.
    pub mode: Mode,
    /// What the API has been sent.
    pub upstream: Arc<Mutex<Vec<http::HeaderMap>>>,
    /// `/held` waits here.
    pub held: Gate,
}

impl World {
    /// One where nothing has happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with sealed sessions.
    pub fn sealed() -> Self {
        Self { mode: Mode::Sealed, ..Self::default() }
    }

    /// How tokens are refreshed and revoked at this server.
    pub fn renewal(&self) -> RenewalBuilder {
        let (server, signing_out, discarding) =
            (self.server.clone(), self.server.clone(), self.server.clone());
        Renewal::builder(move |spent: Tokens| {
            let server = server.clone();
            async move { server.redeem(spent).await }
        })
        .on_sign_out(async move |tokens: Tokens| signing_out.revoke(&tokens))
        .on_discard(async move |tokens: Tokens| discarding.revoke(&tokens))
    }

    /// A process.
    pub fn replica(&self) -> Replica {
        self.replica_with(|builder| builder)
    }

    /// With these settings.
    pub fn replica_with(&self, change: impl FnOnce(SessionsBuilder) -> SessionsBuilder) -> Replica {
        self.replica_by(change, |layer| layer)
    }

    /// With this layer, besides.
    pub fn replica_by(
        &self,
        change: impl FnOnce(SessionsBuilder) -> SessionsBuilder,
        layer: impl FnOnce(SessionLayer) -> SessionLayer,
    ) -> Replica {
        let builder = match self.mode {
            Mode::Opaque => Sessions::builder(self.renewal(), self.place.clone()),
            Mode::Sealed => self.sealing(Keyring::new([7; 32])).remember(self.place.clone()),
        };
        self.replica_of(change(builder), layer)
    }

    /// Sealed sessions with these keys.
    pub fn sealing(&self, keys: Keyring) -> SealedBuilder {
        Sessions::sealed(self.renewal(), keys)
    }

    /// A process with these sessions, and this layer.
    pub fn replica_of(
        &self,
        builder: SessionsBuilder,
        layer: impl FnOnce(SessionLayer) -> SessionLayer,
    ) -> Replica {
        let sessions = builder.build().unwrap();
        let world = self.clone();
        let api = RefreshLayer::per_request(FromExtensions)
            .allow_origin("http://api.test")
            .unwrap()
            .layer(service_fn(move |request| answer(world.clone(), request)));
        let world = self.clone();
        let handler = service_fn(move |request| handle(world.clone(), api.clone(), request));
        let app = layer(sessions.layer()).layer(handler);
        Replica { sessions, app: BoxCloneSyncService::new(app) }
    }
}
