//! The page: files that are built from `web/` and carried in the program, so that it works without a network.

use crate::app::App;
use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName};
use axum::response::IntoResponse;
use axum::routing::get;
use std::sync::Arc;

/// Path, content type, content.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../web/dist/index.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../web/dist/app.js")),
    ("/app.css", "text/css; charset=utf-8", include_str!("../web/dist/app.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../web/dist/icon.svg")),
];

/// Nothing from elsewhere, and nothing written into the page runs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether a path is one of the page's files.
pub(crate) fn is_file(path: &str) -> bool {
    FILES.iter().any(|(file, _, _)| *file == path)
}

/// Routes of the page's files.
pub(crate) fn router() -> Router<Arc<App>> {
    FILES.iter().fold(Router::new(), |router, (path, kind, content)| {
        let headers: [(HeaderName, &str); 3] =
            [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, POLICY)];
        router.route(path, get(async move || (headers, *content).into_response()))
    })
}
