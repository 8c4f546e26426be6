//! kube on its default stack, against a cluster behind an OpenID provider: twenty ConfigMaps are created at the same
//! time with a token that has just expired. One refresh, and each is created once, with all that is in it.
//!
//! kube reads a kubeconfig's own ways to get a token (`exec`, `oidc`, a file) as well. It refreshes before a token's expiry, and a 401
//! is the caller's.

use std::{process::ExitCode, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, PostParams},
    client::{Body, ClientBuilder},
};
use scenery::{AnyError, CALLS, Loopback, Outcome};
use tower::buffer::BufferLayer;
use tower_refresh::{RefreshLayer, RefreshState, layer::ErrorOnRefusalLayer};

// ---- What a user writes: the layer over the default stack, which adds the origin and cannot be cloned.
fn client(config: Config, state: Arc<RefreshState>) -> Result<Client, AnyError> {
    let layer = RefreshLayer::new(state).try_clone_bodies(Body::try_clone);
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&BufferLayer::new(1024))
        .with_layer(&layer)
        .with_layer(&ErrorOnRefusalLayer::new())
        .build())
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let config = Config::new(servers.address().parse()?);
    let client = client(config, scenery::credential(&servers)?)?;
    let config_maps: Api<ConfigMap> = Api::namespaced(client, "shop");

    let ok = scenery::at_once(&servers, |number| {
        let config_maps = config_maps.clone();
        async move {
            let sent = config_map(number);
            // The API answers with what it was sent.
            config_maps.create(&PostParams::default(), &sent).await.is_ok_and(|got| got == sent)
        }
    });
    let outcome = Outcome::of_requests(&servers, CALLS, ok.await);

    scenery::end_session(&servers);
    Ok(outcome.report_error(config_maps.create(&PostParams::default(), &config_map(0)).await))
}

fn config_map(number: usize) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(format!("order-{number}")), ..ObjectMeta::default() },
        data: Some([("order".to_owned(), "a pound of tea; ".repeat(100))].into()),
        ..ConfigMap::default()
    }
}
