//! OpenTelemetry's exporters over HTTP: traces, metrics and logs leave at the same time, each from a
//! thread of its own, with a token that has just expired. One refresh, and each arrives once.

use std::{fmt, process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{
    logs::{LogRecord, Logger, LoggerProvider},
    metrics::MeterProvider,
    trace::{Span, Tracer, TracerProvider},
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    logs::SdkLoggerProvider, metrics::SdkMeterProvider, trace::SdkTracerProvider,
};
use scenery::{AnyError, Loopback, Outcome, loopback};
use tokio::runtime::Handle;
use tower::{Layer, ServiceExt};
use tower_refresh::{RefreshLayer, RefreshState, body::ReplayBody, layer::Refresh};

// ---- What a user writes: a client for the exporters,
type Http = Client<HttpConnector, ReplayBody<Full<Bytes>>>;

#[derive(Clone)]
struct Collector {
    client: Refresh<Http>,
    runtime: Handle,
}

impl Collector {
    fn new(state: Arc<RefreshState>) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client: RefreshLayer::new(state).layer(client), runtime: Handle::current() }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.client.clone().oneshot(request.map(Full::new));
        // An exporter's thread is not in a runtime, and what sends wants to be.
        let (head, body) = self.runtime.spawn(sent).await??.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

// ---- and gives it to each of them.
struct Telemetry {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
    logs: SdkLoggerProvider,
}

fn telemetry(endpoint: &str, collector: &Collector) -> Result<Telemetry, AnyError> {
    let at = |path| format!("{endpoint}/v1/{path}");
    let http = || collector.clone();
    let traces =
        SpanExporter::builder().with_http().with_http_client(http()).with_endpoint(at("traces"));
    let metrics =
        MetricExporter::builder().with_http().with_http_client(http()).with_endpoint(at("metrics"));
    let logs =
        LogExporter::builder().with_http().with_http_client(http()).with_endpoint(at("logs"));
    Ok(Telemetry {
        traces: SdkTracerProvider::builder().with_batch_exporter(traces.build()?).build(),
        metrics: SdkMeterProvider::builder().with_periodic_exporter(metrics.build()?).build(),
        logs: SdkLoggerProvider::builder().with_batch_exporter(logs.build()?).build(),
    })
}
// ---- That is all.

#[tokio::main]
async fn main() -> Result<ExitCode, AnyError> {
    // The collector: an API that takes no telemetry without the good token.
    let servers = Loopback::options().latency(Duration::from_millis(10)).serve(collect).await?;
    let collector = Collector::new(scenery::credential(&servers)?);
    let telemetry = Arc::new(telemetry(servers.address(), &collector)?);

    servers.refuse_together(3);
    let ok = [
        record_and_flush(&telemetry, 0),
        record_and_flush(&telemetry, 1),
        record_and_flush(&telemetry, 2),
    ];
    let mut delivered = 0;
    for flushed in ok {
        delivered += usize::from(flushed.await?.is_ok());
    }
    let outcome = Outcome::of(&servers, 3, delivered.min(servers.bodies().len()));

    scenery::end_session(&servers);
    let failure = record_and_flush(&telemetry, 0).await?.err().unwrap_or_default();
    Ok(outcome.report(failure))
}

/// Records something, and waits until it is exported.
fn record_and_flush(
    telemetry: &Arc<Telemetry>,
    signal: usize,
) -> tokio::task::JoinHandle<Result<(), String>> {
    let telemetry = Arc::clone(telemetry);
    tokio::task::spawn_blocking(move || {
        let flushed = match signal {
            0 => {
                telemetry.traces.tracer("shop").start("order").end();
                telemetry.traces.force_flush()
            }
            1 => {
                telemetry.metrics.meter("shop").u64_counter("orders").build().add(1, &[]);
                telemetry.metrics.force_flush()
            }
            _ => {
                let logger = telemetry.logs.logger("shop");
                let mut record = logger.create_log_record();
                record.set_body("ordered".into());
                logger.emit(record);
                telemetry.logs.force_flush()
            }
        };
        flushed.map_err(|error| error.to_string())
    })
}

async fn collect(
    servers: Loopback,
    request: Request<hyper::body::Incoming>,
) -> Response<loopback::ResponseBody> {
    if !request.uri().path().starts_with("/v1/") {
        return servers.answer(request).await;
    }
    if !servers.judge(request.headers()).await {
        return loopback::challenge();
    }
    let answer = servers.strict(request).await;
    if answer.status() == StatusCode::OK { loopback::empty(StatusCode::OK) } else { answer }
}
