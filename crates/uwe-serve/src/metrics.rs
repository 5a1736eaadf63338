//! What the service counts, for Prometheus. docs/operations.md describes every name.

use crate::error::Code;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A route and the status that it answered with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    code: &'static str,
}

#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // From half a millisecond to sixteen seconds.
        Histogram::new(exponential_buckets(0.0005, 2.0, 16))
    }
}

/// The counters of a service.
pub(crate) struct Metrics {
    registry: Registry,
    answers: Family<Answer, Counter>,
    seconds: Family<Route, Histogram, Seconds>,
    refusals: Family<Refusal, Counter>,
    /// Time from the queue's end to the worker.
    pub(crate) queue_seconds: Histogram,
    /// Tokens that were encoded together.
    pub(crate) batch_tokens: Histogram,
    /// Texts that were asked for.
    pub(crate) texts: Counter,
    /// Texts whose states were still known.
    pub(crate) cached: Counter,
    /// Requests that were dropped before any work, because their client had gone.
    pub(crate) gone: Counter,
    /// Texts that wait.
    pub(crate) waiting: Gauge,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Connections that were refused.
    pub(crate) connections_refused: Counter,
    /// Spaces that can be ranked against.
    pub(crate) spaces: Gauge,
    /// Spaces that were built.
    pub(crate) builds: Counter,
}

impl Metrics {
    /// All of them, at zero, for these routes.
    pub(crate) fn new(routes: &[&str]) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("uwe"),
            answers: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
            refusals: Family::default(),
            queue_seconds: Seconds.new_metric(),
            batch_tokens: Histogram::new(exponential_buckets(8.0, 2.0, 10)),
            texts: Counter::default(),
            cached: Counter::default(),
            gone: Counter::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            spaces: Gauge::default(),
            builds: Counter::default(),
        };
        for route in routes {
            metrics.answers.get_or_create(&Answer { route: (*route).into(), status: 200 }).inc_by(0);
            drop(metrics.seconds.get_or_create(&Route { route: (*route).into() }));
        }
        for code in Code::ALL {
            metrics.refusals.get_or_create(&Refusal { code: code.name() }).inc_by(0);
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("requests", "Answered requests by route and status", self.answers.clone());
        registry.register_with_unit(
            "request_duration",
            "Time from a request's headers to its answer",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("refusals", "Refused requests by code", self.refusals.clone());
        registry.register_with_unit(
            "queue_duration",
            "Time that requests waited for a worker",
            Unit::Seconds,
            self.queue_seconds.clone(),
        );
        registry.register("batch_tokens", "Tokens that were encoded together", self.batch_tokens.clone());
        registry.register("texts", "Texts that were asked for", self.texts.clone());
        registry.register("texts_cached", "Texts whose states were still known", self.cached.clone());
        registry.register("requests_gone", "Requests dropped unworked, their client gone", self.gone.clone());
        registry.register("texts_waiting", "Texts that wait for a worker", self.waiting.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register(
            "connections_refused",
            "Connections closed because of their number",
            self.connections_refused.clone(),
        );
        registry.register("spaces", "Spaces that can be ranked against", self.spaces.clone());
        registry.register("space_builds", "Spaces that were built", self.builds.clone());
        self
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, route: &str, status: u16, seconds: f64) {
        self.answers.get_or_create(&Answer { route: route.into(), status }).inc();
        self.seconds.get_or_create(&Route { route: route.into() }).observe(seconds);
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, code: Code) {
        self.refusals.get_or_create(&Refusal { code: code.name() }).inc();
    }

    /// Everything, in the text form of OpenMetrics.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
