//! What happens around every request: its identifier, its time, its key, its permit.

use super::{COUNTED, OPEN};
use crate::app::App;
use crate::engine::Timing;
use crate::error::{ApiError, Code, Family};
use crate::trace;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::Instrument;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How long who finds the service overloaded waits to be told. Clients that ask again at once, whatever they are told, would otherwise take
/// the processors from those who were let in.
const PAUSE: Duration = Duration::from_millis(50);

/// The outermost layer: identifier, log, counters, and headers that every answer has.
pub(super) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let (id, method) = (request_id(&request), request.method().clone());
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let route = matched.filter(|path| COUNTED.contains(&path.as_str())).unwrap_or_else(|| "other".into());
    let span = trace::span(&request, &route, &id);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status(), start.elapsed());
    app.metrics.answered(&route, status.as_u16(), elapsed.as_secs_f64());
    if let Some(error) = response.extensions().get::<ApiError>() {
        app.metrics.refused(error.code);
        if error.code == Code::Internal {
            tracing::error!(id = ?id, route, "a request met an internal fault");
        }
    }
    let timing = response.extensions().get::<Timing>().copied();
    trace::record(&span, status, timing.as_ref());
    let headers = response.headers_mut();
    if let Some(timing) = timing {
        time_headers(headers, &timing, elapsed);
    }
    tracing::info!(id = ?id, %method, route, status = status.as_u16(), ms = elapsed.as_secs_f64() * 1e3, "answered");
    headers.insert(REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The time of each part: `Server-Timing` as browsers read it, and the headers of text-embeddings-inference.
fn time_headers(headers: &mut axum::http::HeaderMap, timing: &Timing, total: Duration) {
    let mut parts: String = timing.parts().iter().map(|(name, ms)| format!("{name};dur={ms:.2}, ")).collect();
    parts += &format!("total;dur={:.2}", total.as_secs_f64() * 1e3);
    let whole = |duration: Duration| duration.as_millis().to_string();
    for (name, value) in [
        ("server-timing", parts),
        ("x-total-time", whole(total)),
        ("x-tokenization-time", whole(timing.tokenise)),
        ("x-queue-time", whole(timing.queue)),
        ("x-inference-time", whole(timing.encode + timing.work)),
        ("x-compute-tokens", timing.tokens.to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// The client's identifier where it sends a sound one, else a new one.
fn request_id(request: &Request) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let given = request.headers().get(&REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    });
    given.cloned().unwrap_or_else(|| {
        let started = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        HeaderValue::from_str(&format!("{started:x}-{number:x}")).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// Every refusal has a body, in the form that the clients of its route read, whoever refused.
pub(super) async fn in_form(request: Request, next: Next) -> Response {
    let family = super::family(request.uri().path());
    let response = next.run(request).await;
    match (response.extensions().get::<ApiError>(), response.status()) {
        (Some(_), _) if family == Family::Own => response,
        (Some(error), _) => error.respond(family),
        (None, StatusCode::UNSUPPORTED_MEDIA_TYPE) => ApiError::new(
            Code::UnsupportedType,
            "the body's encoding is not known",
            "send it as it is, or with `Content-Encoding: gzip` or `deflate`",
        )
        .respond(family),
        _ => response,
    }
}

/// Key, then permit: both before a byte of the body is read. A refusal because of overload holds no permit, and takes a moment.
pub(super) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let response = admitted(&app, request, next).await;
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        tokio::time::sleep(PAUSE).await;
    }
    response
}

async fn admitted(app: &App, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let open = OPEN.contains(&path);
    if !open && !is_page(request.method(), path) {
        if let Err(refusal) = app.keys.admit(request.headers(), (request.method(), path)) {
            return refusal.into_response();
        }
        if app.is_stopping() {
            return ApiError::new(Code::Stopping, "the service is stopping", "try again elsewhere")
                .into_response();
        }
    }
    if open {
        return next.run(request).await;
    }
    let Ok(permit) = app.permits.try_acquire() else {
        return ApiError::new(
            Code::Overloaded,
            format!("{} requests are under way, the most that are taken", app.limits().requests),
            "wait as long as Retry-After says, then send it again",
        )
        .into_response();
    };
    let response = next.run(request).await;
    drop(permit);
    response
}

/// The page itself is for everybody; what it asks needs a key like any other question.
fn is_page(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && crate::page::is_file(path)
}
