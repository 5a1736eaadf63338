//! For who watches over the service.

use crate::app::App;
use crate::error::{ApiError, Code};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Whether the process lives.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "It lives", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether requests are taken.
#[utoipa::path(get, path = "/readyz", tag = "operations", responses(
    (status = 200, description = "Requests are taken", body = String),
    (status = 503, description = "The service is stopping", body = crate::error::ErrorBody),
))]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.is_stopping() {
        return ApiError::new(Code::Stopping, "the service is stopping", "").into_response();
    }
    "ok\n".into_response()
}

/// Counters, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "operations", responses((status = 200, description = "Counters as text", body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let text = app.metrics.text().map_err(|error| ApiError::internal(&error))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
