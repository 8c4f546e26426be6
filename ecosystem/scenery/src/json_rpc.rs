//! A JSON-RPC server.

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use testing::loopback::{self, Loopback, ResponseBody};

/// Carries no call out without the good token. Its answer is the first parameter.
pub async fn serve(servers: Loopback, request: Request<Incoming>) -> Response<ResponseBody> {
    if request.uri().path() != "/" {
        return servers.answer(request).await;
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return loopback::empty(StatusCode::BAD_REQUEST);
    };
    if !servers.judge(&head.headers).await {
        return loopback::challenge();
    }
    let call: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": call["params"][0] });
    loopback::json(StatusCode::OK, answer.to_string())
}
