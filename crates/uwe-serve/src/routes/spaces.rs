//! Target spaces: list, look at, make, delete.

#![allow(unused_qualifications, reason = "the macro of the OpenAPI document writes them")]

use crate::app::App;
use crate::body::{self, Allowance};
use crate::error::{ApiError, Code, ErrorBody};
use crate::spaces::{SpaceInfo, UploadForm, UploadFormat};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// All spaces.
#[derive(Serialize, ToSchema)]
pub(super) struct SpaceList {
    /// By name.
    spaces: Vec<SpaceInfo>,
}

/// Lists the spaces.
#[utoipa::path(get, path = "/v1/spaces", tag = "spaces", security(("key" = [])), responses((status = 200, body = SpaceList)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Json<SpaceList> {
    Json(SpaceList { spaces: app.spaces.list() })
}

/// Describes a space, and how far it is when it is being built.
#[utoipa::path(get, path = "/v1/spaces/{name}", tag = "spaces", security(("key" = [])), params(("name" = String, Path)), responses(
    (status = 200, body = SpaceInfo),
    (status = "4XX", description = "Refused", body = ErrorBody),
))]
pub(super) async fn info(State(app): State<Arc<App>>, Name(name): Name) -> Result<Json<SpaceInfo>, ApiError> {
    app.spaces.info(&name).map(Json)
}

/// Which columns of an upload to take.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadColumns {
    /// Column or field of the text; without it, text, label, preferredLabel, title or name.
    text_column: Option<String>,
    /// Column or field of the identifier; without it, id, uri or conceptUri.
    id_column: Option<String>,
}

/// Targets as JSON.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SpaceRequest {
    /// The targets.
    #[schema(min_items = 1, example = json!([{"text": "bake bread", "id": "1"}]))]
    targets: Vec<Target>,
}

/// A target: its text, or an object with a text, an identifier and further fields.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "neither a text nor an object: write {\"text\": ..., \"id\": ...}")]
enum Target {
    Text(String),
    #[schema(value_type = Object)]
    Fields(serde_json::Map<String, serde_json::Value>),
}

/// The name of a space in a path.
pub(super) struct Name(String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(error) => Err(ApiError::value(error.body_text(), "the path has the name of a space")),
        }
    }
}

/// Makes a space, or a newer version of one, in the background; `GET` tells how far it is.
#[utoipa::path(put, path = "/v1/spaces/{name}", tag = "spaces", security(("key" = [])),
    params(("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,63}$"), UploadColumns),
    request_body(content(
        (SpaceRequest = "application/json"),
        (String = "text/csv"),
        (String = "text/tab-separated-values"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 202, description = "Being built", body = SpaceInfo),
        (status = "4XX", description = "Refused", body = ErrorBody),
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Name(name): Name,
    query: Result<Query<UploadColumns>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    content: Body,
) -> Result<Response, ApiError> {
    crate::spaces::check_name(&name)?;
    let Query(columns) =
        query.map_err(|error| ApiError::value(error.body_text(), "there are text_column and id_column"))?;
    let bytes = Allowance::upload(app.limits()).read(content).await?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let format = match &kind[..] {
        "text/csv" => UploadFormat::Csv,
        "text/tab-separated-values" => UploadFormat::Tsv,
        "application/x-ndjson" | "application/jsonl" | "application/json" => UploadFormat::JsonLines,
        _ => {
            return Err(ApiError::new(
                Code::UnsupportedType,
                "the content type of the targets is not known",
                "send text/csv, text/tab-separated-values, application/x-ndjson or application/json",
            ));
        }
    };
    let form = UploadForm { format, text_column: columns.text_column, id_column: columns.id_column };
    let turn = Arc::clone(&app.uploads).acquire_owned().await.map_err(|error| ApiError::internal(&error))?;
    let shared = Arc::clone(&app);
    let at = name.clone();
    // Parsing and writing an upload takes a while; requests go on.
    let make = move || {
        // Kept to the end, even when the client goes and nobody waits for this.
        let _turn = turn;
        match &kind[..] {
            "application/json" => shared.spaces.create(&at, &form, &lines(body::json(&headers, &bytes)?)),
            _ => shared.spaces.create(&at, &form, &bytes),
        }
    };
    let made = tokio::task::spawn_blocking(make).await;
    let info = made.unwrap_or_else(|error| Err(ApiError::internal(&error)))?;
    let place = [(header::LOCATION, format!("/v1/spaces/{name}"))];
    Ok((StatusCode::ACCEPTED, place, Json(info)).into_response())
}

/// Targets as lines of JSON.
fn lines(request: SpaceRequest) -> Vec<u8> {
    let mut lines = Vec::new();
    for target in request.targets {
        let target = match target {
            Target::Text(text) => serde_json::json!({ "text": text }),
            Target::Fields(fields) => serde_json::Value::Object(fields),
        };
        lines.extend_from_slice(target.to_string().as_bytes());
        lines.push(b'\n');
    }
    lines
}

/// Deletes a space. Rankings that have begun end as they would have.
#[utoipa::path(delete, path = "/v1/spaces/{name}", tag = "spaces", security(("key" = [])), params(("name" = String, Path, pattern = "^[a-z0-9][a-z0-9_-]{0,63}$")), responses(
    (status = 204, description = "Deleted"),
    (status = "4XX", description = "Refused", body = ErrorBody),
))]
pub(super) async fn delete(State(app): State<Arc<App>>, Name(name): Name) -> Result<StatusCode, ApiError> {
    crate::spaces::check_name(&name)?;
    let shared = Arc::clone(&app);
    let deleted = tokio::task::spawn_blocking(move || shared.spaces.delete(&name)).await;
    deleted.unwrap_or_else(|error| Err(ApiError::internal(&error)))?;
    Ok(StatusCode::NO_CONTENT)
}
