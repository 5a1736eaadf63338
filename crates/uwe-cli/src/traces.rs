//! Traces of `uwe serve` for an OpenTelemetry collector, with the feature `telemetry`; without it, their absence.

use anyhow::Result;
#[cfg(not(feature = "telemetry"))]
use tracing_subscriber::layer::Identity;

/// What sends spans.
#[cfg(feature = "telemetry")]
pub(crate) struct Traces(Option<opentelemetry_sdk::trace::SdkTracerProvider>);

#[cfg(feature = "telemetry")]
impl Traces {
    /// Sends what is left.
    pub(crate) fn end(self) {
        if let Some(Err(error)) = self.0.map(|provider| provider.shutdown()) {
            crate::setup::note(&format!("the last traces were not sent: {error}"));
        }
    }
}

/// A layer that sends spans, when the environment names a collector.
#[cfg(feature = "telemetry")]
pub(crate) fn exporter<S>() -> Result<(Option<impl tracing_subscriber::Layer<S>>, Traces)>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    use anyhow::Context;
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    let named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    if named.iter().all(|name| std::env::var_os(name).is_none()) {
        return Ok((None, Traces(None)));
    }
    let spans = opentelemetry_otlp::SpanExporter::builder().with_http().build();
    let spans = spans.context("cannot send traces: check the variables that begin with OTEL_")?;
    let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
        None => Resource::builder().with_service_name("uwe").build(),
        Some(_) => Resource::builder().build(),
    };
    let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(spans).build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("uwe"));
    Ok((Some(layer), Traces(Some(provider))))
}

/// Nothing: the build has no exporter.
#[cfg(not(feature = "telemetry"))]
pub(crate) struct Traces;

#[cfg(not(feature = "telemetry"))]
impl Traces {
    pub(crate) fn end(self) {}
}

#[cfg(not(feature = "telemetry"))]
pub(crate) fn exporter() -> Result<(Identity, Traces)> {
    Ok((Identity::new(), Traces))
}
