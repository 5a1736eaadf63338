//! The reranking route of Cohere and Jina, for their clients.

use super::post;
use super::rank::{How, score_texts};
use crate::app::{App, Question};
use crate::error::ApiError;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/rerank", post(rerank)).route("/v2/rerank", post(rerank))
}

/// A document: its text, alone or in an object.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Document {
    /// The text.
    Text(String),
    /// An object with the text.
    Object {
        /// The text.
        text: String,
    },
}

impl Document {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

/// A text, and documents to order by how well they fit it.
#[derive(Deserialize, ToSchema)]
pub(super) struct RerankRequest {
    /// The text.
    query: String,
    /// The documents.
    #[schema(min_items = 1)]
    documents: Vec<Document>,
    /// The best so many alone.
    #[schema(minimum = 1)]
    top_n: Option<usize>,
    /// Whether the answer repeats the documents.
    #[serde(default)]
    return_documents: bool,
    /// A name for the log; there is one model.
    #[allow(dead_code, reason = "clients send it")]
    model: Option<String>,
}

/// Documents, best first.
#[derive(Serialize, ToSchema)]
pub(super) struct RerankResponse {
    id: String,
    model: String,
    results: Vec<RerankResult>,
    usage: Usage,
    #[schema(value_type = Object)]
    meta: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
struct RerankResult {
    /// The document's place in the request.
    index: usize,
    /// Its score, by the model's own scorer.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextOf>,
}

#[derive(Serialize, ToSchema)]
struct TextOf {
    text: String,
}

#[derive(Serialize, ToSchema)]
struct Usage {
    total_tokens: usize,
}

/// Orders documents by how well they fit a text.
#[utoipa::path(post, path = "/v1/rerank", tag = "Cohere and Jina", security(("key" = [])), request_body = RerankRequest, responses(
    (status = 200, body = RerankResponse),
    (status = "4XX", description = "Refused: `message`", body = Object),
    (status = 503, description = "Stopping, or not ready in time", body = Object),
))]
pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    Question(request): Question<RerankRequest>,
) -> Result<Response, ApiError> {
    if request.top_n == Some(0) {
        return Err(ApiError::value("`top_n` is 0", "ask for at least one, or leave it out"));
    }
    let texts: Vec<String> = request.documents.iter().map(|document| document.text().to_string()).collect();
    let asked = (request.query, texts.clone());
    let how = How { scoring: app.encoder().scoring(), evidence: false, whole: false };
    let (scores, timing) = score_texts(&app, asked, how).await?;
    let most = request.top_n.unwrap_or(texts.len());
    let results = scores.sorted().into_iter().take(most).map(|(index, score)| RerankResult {
        index,
        relevance_score: score,
        document: request.return_documents.then(|| TextOf { text: texts[index].clone() }),
    });
    let mut meta =
        serde_json::json!({ "api_version": { "version": "1" }, "billed_units": { "search_units": 1 } });
    if scores.cut() > 0 {
        let most = app.encoder().tokenizer().max_tokens();
        meta["warnings"] = serde_json::json!([format!("{} texts were cut at {most} tokens", scores.cut())]);
    }
    let response = RerankResponse {
        id: format!("rerank-{:x}", timing.tokens),
        model: app.model.clone(),
        results: results.collect(),
        usage: Usage { total_tokens: timing.tokens },
        meta,
    };
    Ok((Extension(timing), Json(response)).into_response())
}
