//! A request's span, for collectors of traces; without the feature `telemetry` there is none, and it costs nothing.

use crate::engine::Timing;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use tracing::Span;

/// The span of a request, named as OpenTelemetry's conventions do; part of the caller's trace where it sends one.
#[cfg(feature = "telemetry")]
pub(crate) fn span(request: &Request, route: &str, id: &HeaderValue) -> Span {
    use tracing::field::Empty;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        http.request.method = %request.method(),
        http.route = route,
        http.response.status_code = Empty,
        id = ?id,
        uwe.tokens = Empty,
        uwe.tokenise_ms = Empty,
        uwe.queue_ms = Empty,
        uwe.encode_ms = Empty,
        uwe.work_ms = Empty,
    );
    let caller = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract(&Caller(request.headers()))
    });
    // Without a layer that exports there is nothing to be part of.
    let _ = span.set_parent(caller);
    span
}

/// Writes into the span what the answer is and what the request's texts took.
#[cfg(feature = "telemetry")]
pub(crate) fn record(span: &Span, status: StatusCode, timing: Option<&Timing>) {
    span.record("http.response.status_code", status.as_u16());
    if let Some(timing) = timing {
        span.record("uwe.tokens", timing.tokens);
        for (name, ms) in timing.parts() {
            span.record(&*format!("uwe.{name}_ms"), ms);
        }
    }
}

/// Headers, as propagators read them.
#[cfg(feature = "telemetry")]
struct Caller<'a>(&'a axum::http::HeaderMap);

#[cfg(feature = "telemetry")]
impl opentelemetry::propagation::Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

#[cfg(not(feature = "telemetry"))]
pub(crate) fn span(_: &Request, _: &str, _: &HeaderValue) -> Span {
    Span::none()
}

#[cfg(not(feature = "telemetry"))]
pub(crate) fn record(_: &Span, _: StatusCode, _: Option<&Timing>) {}
