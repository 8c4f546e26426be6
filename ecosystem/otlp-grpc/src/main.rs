//! OpenTelemetry's exporters over gRPC, which take no client but tonic's `Channel`: twenty tracers
//! export at the same time with a token that has just expired. One refresh, and each span arrives once.

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use scenery::{AnyError, CALLS, Loopback, Outcome};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Request, Response, Status,
    body::Body,
    transport::{Channel, Server, server::TcpIncoming},
};
use tower::Layer;
use tower_refresh::{RefreshLayer, RefreshState, layer::ErrorOnRefusalLayer, tonic_channel};

// ---- What a user writes: a channel for the exporters.
fn channel(collector: Channel, state: Arc<RefreshState>) -> Channel {
    let layer = RefreshLayer::new(state).map_body(Body::new);
    tonic_channel(ErrorOnRefusalLayer::new().layer(layer.layer(collector)))
}

fn tracer(channel: Channel) -> Result<SdkTracerProvider, AnyError> {
    let exporter = SpanExporter::builder().with_tonic().with_channel(channel).build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).build())
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    let servers = Loopback::start(Duration::from_millis(10)).await?;
    let collector = Collector { servers: servers.clone(), spans: Arc::default() };
    let to_collector = Channel::from_shared(serve(collector.clone()).await?)?.connect_lazy();
    let channel = channel(to_collector, scenery::credential(&servers)?);

    servers.refuse_together(CALLS);
    let mut running = JoinSet::new();
    for number in 0..CALLS {
        let tracer = tracer(channel.clone())?;
        running.spawn_blocking(move || {
            tracer.tracer("shop").start(format!("order {number}")).end();
            tracer.force_flush().map_err(|error| error.to_string())
        });
    }
    let flushed = running.join_all().await;
    let arrived = collector.spans.lock().unwrap_or_else(PoisonError::into_inner).len();
    let ok = flushed.iter().filter(|flushed| flushed.is_ok()).count().min(arrived);
    let outcome = Outcome::of(&servers, CALLS, ok);

    scenery::end_session(&servers);
    let tracer = tracer(channel)?;
    let last = tokio::task::spawn_blocking(move || {
        tracer.tracer("shop").start("one more").end();
        tracer.force_flush()
    });
    let failure = last.await?.err().map(|error| error.to_string()).unwrap_or_default();
    Ok(outcome.report(failure))
}

/// A collector that takes no spans without the good token, and none twice.
#[derive(Clone)]
struct Collector {
    servers: Loopback,
    spans: Arc<Mutex<BTreeSet<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if !self.servers.judge(&request.metadata().clone().into_headers()).await {
            return Err(Status::unauthenticated("the token has expired"));
        }
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|it| it.scope_spans);
        let mut spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        for span in scopes.flat_map(|scope| scope.spans) {
            if !spans.insert(span.name) {
                return Err(Status::already_exists("this span came before"));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn serve(collector: Collector) -> Result<String, AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(collector);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    Ok(address)
}
