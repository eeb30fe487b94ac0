//! [`Metrics`]: what a worker counts, and the page that it shows it on.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Worker;
use super::disk::Origin;

/// Readers at once; there is usually one.
const MOST_READERS: usize = 16;
/// A reader that takes longer to ask is sent away.
const ASKING: Duration = Duration::from_secs(5);
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a worker counts. Each is cheap to change, whether or not anybody looks.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    pub(super) connected: Gauge,
    pub(super) sessions: Counter,
    pub(super) units_running: Gauge,
    units: Family<UnitLabels, Counter>,
    pub(super) rows: Counter,
    pub(super) compute: Counter<f64, AtomicU64>,
    pub(super) states_received: Counter,
    pub(super) state_bytes_received: Counter,
    partitions_loaded: Family<OriginLabels, Counter>,
    pub(super) cache_troubles: Counter,
    states_held: Gauge,
    state_bytes_held: Gauge,
    partitions_held: Gauge,
    partition_bytes_held: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnitLabels {
    pass: Pass,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Pass {
    Train,
    Validation,
}

/// How a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Completed,
    Failed,
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OriginLabels {
    origin: &'static str,
}

impl Metrics {
    pub(super) fn unit(&self, validation: bool, outcome: Outcome) {
        let pass = if validation { Pass::Validation } else { Pass::Train };
        self.units.get_or_create(&UnitLabels { pass, outcome }).inc();
    }

    pub(super) fn partition(&self, origin: Origin) {
        let origin = match origin {
            Origin::Disk => "disk",
            Origin::Dataset => "dataset",
        };
        self.partitions_loaded.get_or_create(&OriginLabels { origin }).inc();
    }

    fn registry(&self, slots: usize) -> Registry {
        let mut registry = Registry::with_prefix("cerebro_worker");
        let all = &mut registry;
        all.register("build", "The worker's release", Info::new(vec![("version", crate::VERSION)]));
        let slot_count = Gauge::<i64>::default();
        slot_count.set(slots as i64);
        all.register("slots", "Units that it can run at once", slot_count);
        all.register("connected", "Whether it has a session with a driver", self.connected.clone());
        all.register("sessions", "Sessions that it had with drivers", self.sessions.clone());
        all.register("units_running", "Units in its slots", self.units_running.clone());
        all.register("units", "Units that ended", self.units.clone());
        all.register("rows", "Rows of completed units", self.rows.clone());
        let help = "Time that models took to train and to evaluate";
        all.register_with_unit("compute", help, Unit::Seconds, self.compute.clone());
        all.register("states_held", "States in memory", self.states_held.clone());
        let help = "States in memory";
        all.register_with_unit("states_held", help, Unit::Bytes, self.state_bytes_held.clone());
        let help = "States that were fetched from other processes";
        all.register("states_received", help, self.states_received.clone());
        let bytes = self.state_bytes_received.clone();
        all.register_with_unit("states_received", help, Unit::Bytes, bytes);
        all.register("partitions_held", "Partitions in memory", self.partitions_held.clone());
        let bytes = self.partition_bytes_held.clone();
        all.register_with_unit("partitions_held", "Partitions in memory", Unit::Bytes, bytes);
        let help = "Partitions that were read, from the cache on disk or from the data set";
        all.register("partitions_loaded", help, self.partitions_loaded.clone());
        let help = "Times that the cache on disk was damaged, full or otherwise of no use";
        all.register("cache_troubles", help, self.cache_troubles.clone());
        registry
    }
}

/// Shows `worker`'s figures to whoever asks on `listener` for `/metrics`.
pub(super) async fn serve(listener: TcpListener, worker: Arc<Worker>) {
    let registry = Arc::new(worker.metrics.registry(worker.options.slots));
    let readers = Arc::new(Semaphore::new(MOST_READERS));
    loop {
        let Ok(reader) = Arc::clone(&readers).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a reader of the metrics could not be let in");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (worker, registry) = (Arc::clone(&worker), Arc::clone(&registry));
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&request, &worker, &registry);
                async move { Ok::<_, Infallible>(answer) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(ASKING)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // Whoever has gone away does not want to know.
            let _ = tokio::time::timeout(2 * ASKING, serving).await;
            drop(reader);
        });
    }
}

fn answer<B>(request: &Request<B>, worker: &Worker, registry: &Registry) -> Response<String> {
    let mut response = Response::new(String::new());
    if request.method() != Method::GET || request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
        "the figures are at /metrics\n".clone_into(response.body_mut());
        return response;
    }
    let metrics = &worker.metrics;
    let (states, bytes) = worker.states.size();
    metrics.states_held.set(states as i64);
    metrics.state_bytes_held.set(bytes as i64);
    let (partitions, bytes) = worker.jobs.current().map_or((0, 0), |job| job.size());
    metrics.partitions_held.set(partitions as i64);
    metrics.partition_bytes_held.set(bytes as i64);
    // Writing to a string does not fail.
    if encode(response.body_mut(), registry).is_err() {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let text = hyper::header::HeaderValue::from_static(TEXT);
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
