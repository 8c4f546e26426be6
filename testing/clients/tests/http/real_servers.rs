//! Servers that are not ours, which refuse inside a 200 or a 500. `scripts/real_servers.sh` starts
//! them, and runs this.

use std::{
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{ServiceBuilder, ServiceExt};
use tower_refresh::{
    RefreshLayer, RefreshState, Tokens,
    body::NotReplayable,
    in_body::{Connect, GraphQl, GrpcWeb, InBodyLayer, Trpc},
};

/// Method, path, content type, what is accepted, body; a piece of the answer to the good token, or
/// none where a part of the request was carried out.
type Case =
    (&'static str, &'static str, &'static str, &'static str, &'static [u8], Option<&'static str>);

fn cases(server: &str) -> &'static [Case] {
    const JSON: &str = "application/json";
    const LINES: &str = "application/jsonl";
    const EVENTS: &str = "text/event-stream";
    match server {
        "apollo" => &[
            ("POST", "", JSON, JSON, br#"{"query":"{me}"}"#, Some(r#""me":"1""#)),
            ("POST", "", JSON, JSON, br#"{"query":"{must}"}"#, Some(r#""must":"1""#)),
            ("POST", "", JSON, JSON, br#"{"query":"mutation{pay}"}"#, Some(r#""pay":1"#)),
            ("POST", "", JSON, JSON, br#"{"query":"mutation{add pay}"}"#, None),
        ],
        "apollo_context" => {
            &[("POST", "", JSON, JSON, br#"{"query":"{me}"}"#, Some(r#""me":"1""#))]
        }
        "trpc" => &[
            ("GET", "/me", JSON, JSON, b"", Some(r#""data":1"#)),
            ("GET", "/me,me?batch=1", JSON, JSON, b"", Some(r#""data":1"#)),
            ("GET", "/me,ok?batch=1", JSON, JSON, b"", None),
            ("GET", "/me,me?batch=1", JSON, LINES, b"", Some("[[1]]")),
            ("GET", "/me,ok?batch=1", JSON, LINES, b"", None),
            ("GET", "/slow,me?batch=1", JSON, LINES, b"", None),
            ("GET", "/ticks", JSON, EVENTS, b"", Some("data: 1")),
        ],
        "connect" => &[
            ("POST", "/Stream", "application/connect+json", "*/*", b"\0\0\0\0\x02{}", Some("one")),
            ("POST", "/Unary", "application/grpc-web+proto", "*/*", b"\0\0\0\0\0", Some("one")),
            ("POST", "/Unary", JSON, "*/*", b"{}", Some("one")),
        ],
        other => panic!("{other}"),
    }
}

#[tokio::test]
#[ignore = "needs the servers that scripts/real_servers.sh starts"]
async fn real_servers_are_recovered_from() {
    let file = env::var("REAL_SERVERS").expect("run scripts/real_servers.sh");
    let addresses = fs::read_to_string(file).unwrap();
    let mut asked = 0;
    for (server, url) in addresses.lines().filter_map(|line| line.split_once(' ')) {
        for case in cases(server) {
            let (method, path, content_type, accept, body, expected) = case;
            let refreshes = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&refreshes);
            let state = RefreshState::builder(move |_: Tokens| {
                counted.fetch_add(1, Ordering::SeqCst);
                async { Ok(Tokens::new("good")) }
            })
            .tokens(Tokens::new("expired"))
            .build();
            let client = Client::builder(TokioExecutor::new()).build_http();
            let rules = InBodyLayer::new()
                .rule(GraphQl::new())
                .rule(Trpc::new())
                .rule(Connect::new())
                .rule(GrpcWeb::new());
            let client = ServiceBuilder::new()
                .layer(RefreshLayer::new(Arc::clone(&state)))
                .layer(rules)
                .service(client);
            let request = Request::builder()
                .method(*method)
                .uri(format!("{}{path}", url.trim_end_matches('/')))
                .header(CONTENT_TYPE, *content_type)
                .header(ACCEPT, *accept)
                .header("trpc-accept", *accept)
                .body(Full::new(Bytes::from_static(body)))
                .unwrap();
            let response = client.oneshot(request).await.unwrap();
            println!("{server} {path} {accept}: {}", response.status());
            let carried_out = response.extensions().get::<NotReplayable>().copied();
            let status = response.status();
            let answer = response.into_body().collect().await.unwrap().to_bytes();
            let answer = String::from_utf8_lossy(&answer);
            match expected {
                Some(piece) => {
                    assert_eq!((status, carried_out), (StatusCode::OK, None), "{server} {answer}");
                    assert!(answer.contains(piece), "{server} {answer}");
                    assert!(!answer.contains("expired"), "{server} {answer}");
                }
                None => {
                    assert_eq!(carried_out, Some(NotReplayable::CarriedOut), "{server} {answer}");
                    assert!(answer.contains("expired"), "{server} {answer}");
                }
            }
            // Where nothing is replayed the refresh is for what comes.
            assert_eq!(state.token().await.unwrap().access_token(), Some("good"));
            assert_eq!(refreshes.load(Ordering::SeqCst), 1, "{server}");
            asked += 1;
        }
    }
    assert_eq!(asked, 15);
}
