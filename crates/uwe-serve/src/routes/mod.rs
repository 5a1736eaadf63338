//! The routes, one file a family, and what happens around each of them.

mod around;
mod health;
mod inference;
mod openai;
mod rank;
mod rerank;
mod spaces;

use crate::app::App;
use crate::error::{ApiError, Code, Family};
use crate::page;
use axum::Router;
use axum::handler::Handler;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware;
use axum::routing::{MethodRouter, get};
use std::sync::Arc;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::cors::CorsLayer;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::OpenApi;

/// Routes that answer without a key and without a permit: for who watches over the service.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/health", "/metrics"];

/// Every route that is counted by itself.
pub(crate) const COUNTED: [&str; 20] = [
    "/v1/rank",
    "/v1/score",
    "/v1/spaces",
    "/v1/spaces/{name}",
    "/v1/embeddings",
    "/v1/rerank",
    "/v2/rerank",
    "/embed",
    "/rerank",
    "/info",
    "/livez",
    "/readyz",
    "/health",
    "/metrics",
    "/openapi.json",
    "/",
    "/app.js",
    "/app.css",
    "/icon.svg",
    "other",
];

/// The interface, for programs.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "uwe",
        description = "Unified Work Embeddings: ranks skills, job titles and any other texts of work against each other, and says which words met.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT")
    ),
    paths(
        rank::rank,
        rank::score,
        spaces::list,
        spaces::info,
        spaces::create,
        spaces::delete,
        openai::embeddings,
        rerank::rerank,
        inference::embed,
        inference::rerank,
        inference::info,
        health::livez,
        health::readyz,
        health::metrics,
    ),
    components(schemas(crate::error::ErrorBody)),
    modifiers(&Security, &Names)
)]
struct Document;

/// Keys, as the document describes them.
struct Security;

impl utoipa::Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// Paths that are another's under a second name.
const ALSO: [(&str, &str); 2] = [("/v1/rerank", "/v2/rerank"), ("/readyz", "/health")];

/// Second names of paths, and a name of its own for each operation: functions of different families have the same.
struct Names;

impl utoipa::Modify for Names {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let paths = &mut document.paths.paths;
        for (path, also) in ALSO {
            if let Some(item) = paths.get(path).cloned() {
                paths.insert(also.into(), item);
            }
        }
        for (path, item) in paths.iter_mut() {
            let operations = [
                ("get", &mut item.get),
                ("put", &mut item.put),
                ("post", &mut item.post),
                ("delete", &mut item.delete),
            ];
            for (method, operation) in operations {
                if let Some(operation) = operation {
                    let words = path
                        .split(|letter: char| !letter.is_ascii_alphanumeric())
                        .filter(|word| !word.is_empty());
                    operation.operation_id =
                        Some(std::iter::once(method).chain(words).collect::<Vec<_>>().join("_"));
                }
            }
        }
    }
}

/// The OpenAPI document, as JSON.
pub fn document() -> String {
    Document::openapi().to_pretty_json().unwrap_or_default()
}

/// All routes with what is around them.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let own = Router::new()
        .route("/v1/rank", post(rank::rank))
        .route("/v1/score", post(rank::score))
        .route("/v1/spaces", get(spaces::list).fallback(wrong_method))
        .route(
            "/v1/spaces/{name}",
            get(spaces::info).put(spaces::create).delete(spaces::delete).fallback(wrong_method),
        )
        .route("/livez", get(health::livez).fallback(wrong_method))
        .route("/readyz", get(health::readyz).fallback(wrong_method))
        .route("/metrics", get(health::metrics).fallback(wrong_method))
        .route("/openapi.json", get(async || json(document())).fallback(wrong_method))
        .merge(page::router())
        .fallback(async || {
            ApiError::new(Code::NotFound, "there is no such route", "/openapi.json lists them")
        });
    let routes = own.merge(inference::router()).merge(openai::router()).merge(rerank::router());
    // From the outside in: everything is counted, and a body is decompressed after the request was admitted. One stack for all: each layer of
    // a router by itself would be cloned and boxed for every request.
    let around = ServiceBuilder::new()
        .layer(middleware::from_fn_with_state(Arc::clone(app), around::observe))
        .layer(cors(app))
        .layer(CompressionLayer::new())
        .layer(middleware::from_fn(around::in_form))
        .layer(middleware::from_fn_with_state(Arc::clone(app), around::admit))
        .layer(RequestDecompressionLayer::new());
    routes.layer(around).with_state(Arc::clone(app))
}

/// A route for POST.
pub(crate) fn post<T: 'static, H: Handler<T, Arc<App>>>(handler: H) -> MethodRouter<Arc<App>> {
    axum::routing::post(handler).fallback(wrong_method)
}

async fn wrong_method(method: Method) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{method} is not for this route"),
        "/openapi.json lists the methods of each",
    )
}

/// Whose clients ask at a path.
fn family(path: &str) -> Family {
    match path {
        "/embed" | "/rerank" | "/info" | "/health" => Family::Inference,
        "/v1/embeddings" => Family::OpenAi,
        "/v1/rerank" | "/v2/rerank" => Family::Rerank,
        _ => Family::Own,
    }
}

fn json(text: String) -> ([(HeaderName, &'static str); 1], String) {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

/// Pages of the named origins may ask, and no others.
fn cors(app: &App) -> CorsLayer {
    let origins: Vec<HeaderValue> =
        app.config.origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, HeaderName::from_static("x-api-key")])
}
