//! Tokens that no request will use are revoked (RFC 7009).

use std::{sync::Arc, time::Duration};

use tower_refresh::{
    RefreshState, Tokens,
    oauth2::{Client, ErrorKind, Revoker},
    state::Revocation,
    store::MemoryStore,
};

use super::endpoint::{Endpoint, Reply, json, rotated, tokens};

async fn revoker(reply: Reply) -> (Endpoint, Revoker) {
    let endpoint = Endpoint::start([reply]).await;
    let client = endpoint.client().client_secret_post("hush").build().unwrap();
    let revoker = client.revoker(&endpoint.uri("/revoke")).unwrap();
    (endpoint, revoker)
}

fn done() -> Reply {
    Reply::Answer(200, "", String::new())
}

#[tokio::test]
async fn the_refresh_token_is_revoked_or_else_the_access_token() {
    let (endpoint, revoker) = revoker(done()).await;
    revoker.revoke(&tokens(1)).await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert_eq!(seen.head[0], "POST /revoke HTTP/1.1");
    assert_eq!(seen.field("token"), Some("refresh-1"));
    assert_eq!(seen.field("token_type_hint"), Some("refresh_token"));
    assert_eq!(seen.field("client_id"), Some("my client"));
    assert_eq!(seen.field("client_secret"), Some("hush"));

    let (endpoint, revoker) = self::revoker(done()).await;
    revoker.revoke(&Tokens::new("access-1")).await.unwrap();
    let seen = endpoint.seen().remove(0);
    assert_eq!(seen.field("token"), Some("access-1"));
    assert_eq!(seen.field("token_type_hint"), Some("access_token"));
}

#[tokio::test]
async fn what_the_server_says_is_told() {
    let words = r#"{"error":"unsupported_token_type","error_description":"not refresh-1"}"#;
    let (endpoint, revoker) = revoker(json(400, words)).await;
    let error = revoker.revoke(&tokens(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        format!(
            "{}: refused (400 Bad Request): unsupported_token_type: not [redacted]",
            endpoint.uri("/revoke")
        )
    );

    let (_endpoint, revoker) =
        self::revoker(Reply::Answer(503, "retry-after: 5\r\n", String::new())).await;
    let error = revoker.revoke(&tokens(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.status().unwrap().as_u16()), (ErrorKind::Refused, 503));
    assert_eq!(error.retry_after().unwrap().as_secs(), 5);
}

/// The fence: a sign-in during the refresh wins, and what was minted is discarded.
#[tokio::test]
async fn a_discarded_result_is_revoked() {
    let (revocations, revoker) = revoker(done()).await;
    let endpoint = Endpoint::start([rotated(2)]).await;
    let client = endpoint.client().build().unwrap();
    let store = Arc::new(MemoryStore::with_tokens(tokens(1)));
    let grant = client.refresh_token_grant();
    let signed_in = Arc::clone(&store);
    // The sign-in of another process, right after the server has rotated.
    let state = RefreshState::builder(move |current: Tokens| {
        let (grant, store) = (grant.clone(), Arc::clone(&signed_in));
        async move {
            let minted = tower_refresh::Refresher::refresh(&grant, current.into()).await?;
            let other =
                RefreshState::builder(async |_: Tokens| Ok(Tokens::new(""))).store(store).build();
            other.set(tokens(9)).await.unwrap();
            Ok(minted)
        }
    })
    .store(store)
    .on_discard(revoker.hook())
    .build();
    assert_eq!(state.token().await.unwrap().access_token(), Some("access-1"));
    assert_eq!(state.refresh().await.unwrap().access_token(), Some("access-9"));
    state.drain().await;
    let seen = revocations.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].field("token"), Some("refresh-2"));
}

#[tokio::test]
async fn a_sign_out_revokes_what_the_store_held() {
    let (revocations, revoker) = revoker(done()).await;
    let endpoint = Endpoint::start([rotated(2)]).await;
    let client = endpoint.client().build().unwrap();
    let state = RefreshState::builder(client.refresh_token_grant())
        .tokens(tokens(1))
        .on_sign_out(revoker.hook())
        .build();
    state.refresh().await.unwrap();
    state.clear().await.unwrap();
    assert_eq!(revocations.seen()[0].field("token"), Some("refresh-2"));
    // There is nothing left to revoke.
    state.clear().await.unwrap();
    assert_eq!(revocations.seen().len(), 1);
}

#[tokio::test]
async fn a_sign_out_does_not_fail_with_its_revocation() {
    let client = Client::builder("http://127.0.0.1:1/token", "id").unwrap().build().unwrap();
    let revoker = client.revoker("http://127.0.0.1:1/revoke").unwrap();
    let state = RefreshState::builder(client.refresh_token_grant())
        .tokens(tokens(1))
        .on_sign_out(revoker.hook())
        .build();
    let signed_out = state.clear().await.unwrap();
    assert_eq!((signed_out.revocation, signed_out.lives_on()), (Revocation::Pending, true));
    assert!(signed_out.error().is_some());
    assert_eq!(state.current().access_token(), None);
    let left = state.drain().await.unrevoked;
    assert_eq!(left[0].refresh_token(), Some("refresh-1"));
}

/// A server that is overloaded is asked again; one that refuses is not (RFC 7009, section 2.2.1).
#[tokio::test]
async fn a_revocation_is_tried_again_unless_the_server_refuses_it() {
    let busy = || Reply::Answer(503, "", String::new());
    let slow_down = || Reply::Answer(429, "", String::new());
    let refused = || json(400, r#"{"error":"unsupported_token_type"}"#);
    let not_found = || Reply::Answer(404, "", String::new());
    let client_refused = || json(401, r#"{"error":"invalid_client"}"#);
    for (replies, first, clean, tries) in [
        ([busy(), done()], Revocation::Pending, true, 2),
        ([slow_down(), done()], Revocation::Pending, true, 2),
        ([Reply::ResetAfter, done()], Revocation::Pending, true, 2),
        ([client_refused(), done()], Revocation::Pending, true, 2),
        ([busy(), busy()], Revocation::Pending, false, 2),
        ([refused(), done()], Revocation::Failed, false, 1),
        ([not_found(), done()], Revocation::Failed, false, 1),
    ] {
        let endpoint = Endpoint::start(replies).await;
        let client = endpoint.client().build().unwrap();
        let revoker = client.revoker(&endpoint.uri("/revoke")).unwrap();
        let state = RefreshState::builder(client.refresh_token_grant())
            .tokens(tokens(1))
            .cool_down(Duration::from_secs(3600), Duration::from_secs(3600))
            .on_sign_out(revoker.hook())
            .build();
        assert_eq!(state.clear().await.unwrap().revocation, first);
        assert_eq!(state.drain().await.is_clean(), clean);
        let seen = endpoint.seen();
        assert_eq!(seen.len(), tries);
        assert!(seen.iter().all(|asked| asked.field("token") == Some("refresh-1")));
    }
}
