//! The routes of Hugging Face's text-embeddings-inference, for its clients.

use super::post;
use super::rank::{How, score_texts};
use crate::app::{App, Question};
use crate::engine::{Asked, Encoding};
use crate::error::ApiError;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use uwe::Encoder;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/embed", post(embed))
        .route("/rerank", post(rerank))
        .route("/info", get(info).fallback(super::wrong_method))
        .route("/health", get(super::health::readyz).fallback(super::wrong_method))
}

/// One text or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Inputs {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Inputs {
    pub(super) fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Several(texts) => texts,
        }
    }
}

/// Texts to make vectors of.
#[derive(Deserialize, ToSchema)]
pub(super) struct EmbedRequest {
    /// The texts.
    inputs: Inputs,
    /// Whether vectors have length 1.
    #[serde(default = "yes")]
    #[schema(default = true)]
    normalize: bool,
    /// Whether a text that is too long is cut; otherwise it is refused.
    #[serde(default)]
    truncate: bool,
}

fn yes() -> bool {
    true
}

/// Pooled vectors of the texts.
pub(super) fn pooled(encoder: &Encoder, encodings: &[Arc<Encoding>], unit: bool) -> Vec<Vec<f32>> {
    let pool = |encoding: &Arc<Encoding>| match unit {
        true => encoder.pool_to_unit(&encoding.states),
        false => encoder.pool(&encoding.states),
    };
    encodings.iter().map(pool).collect()
}

/// Vectors of texts, one for each.
#[utoipa::path(post, path = "/embed", tag = "text-embeddings-inference", security(("key" = [])), request_body = EmbedRequest, responses(
    (status = 200, description = "A vector for each text", body = Vec<Vec<f32>>),
    (status = "4XX", description = "Refused: `error` and `error_type`", body = Object),
    (status = 503, description = "Stopping, or not ready in time", body = Object),
))]
pub(super) async fn embed(
    State(app): State<Arc<App>>,
    Question(request): Question<EmbedRequest>,
) -> Result<Response, ApiError> {
    let texts = request.inputs.into_texts();
    app.check(&texts)?;
    let unit = request.normalize;
    let work = move |encoder: &Encoder, encodings: &[Arc<Encoding>]| Ok(pooled(encoder, encodings, unit));
    let (vectors, timing) = app.ask(Asked { whole: !request.truncate, ..Asked::of(&texts) }, work).await?;
    Ok((Extension(timing), Json(vectors)).into_response())
}

/// A text, and others to order by how well they fit it.
#[derive(Deserialize, ToSchema)]
pub(super) struct RerankRequest {
    /// The text.
    query: String,
    /// The others.
    #[schema(min_items = 1)]
    texts: Vec<String>,
    /// Whether the answer repeats the texts.
    #[serde(default)]
    return_text: bool,
    /// Whether a text that is too long is cut; otherwise it is refused.
    #[serde(default)]
    truncate: bool,
}

/// A text with its score.
#[derive(Serialize, ToSchema)]
pub(super) struct Rank {
    /// Its place in the request.
    index: usize,
    /// Its score, by the model's own scorer.
    score: f32,
    /// The text, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Orders texts by how well they fit another one.
#[utoipa::path(post, path = "/rerank", tag = "text-embeddings-inference", security(("key" = [])), request_body = RerankRequest, responses(
    (status = 200, description = "Best first", body = Vec<Rank>),
    (status = "4XX", description = "Refused: `error` and `error_type`", body = Object),
    (status = 503, description = "Stopping, or not ready in time", body = Object),
))]
pub(super) async fn rerank(
    State(app): State<Arc<App>>,
    Question(request): Question<RerankRequest>,
) -> Result<Response, ApiError> {
    let how = How { scoring: app.encoder().scoring(), evidence: false, whole: !request.truncate };
    let texts = (request.query, request.texts.clone());
    let (scores, timing) = score_texts(&app, texts, how).await?;
    let rank = |(index, score): (usize, f32)| Rank {
        index,
        score,
        text: request.return_text.then(|| request.texts[index].clone()),
    };
    let ranks: Vec<Rank> = scores.sorted().into_iter().map(rank).collect();
    Ok((Extension(timing), Json(ranks)).into_response())
}

/// What runs here, in the names of text-embeddings-inference, and what it has not.
#[derive(Serialize, ToSchema)]
pub(super) struct Info {
    model_id: String,
    /// Fingerprint of the weights.
    model_sha: String,
    model_dtype: &'static str,
    #[schema(value_type = Object)]
    model_type: serde_json::Value,
    max_concurrent_requests: usize,
    /// Most tokens of a text, special tokens included.
    max_input_length: usize,
    max_batch_tokens: usize,
    max_client_batch_size: usize,
    auto_truncate: bool,
    version: &'static str,
    /// Width of a vector.
    dimension: usize,
    /// The scorer that the model was trained for, with all options.
    #[schema(value_type = Object)]
    scoring: uwe::Scoring,
}

/// Says what runs here.
#[utoipa::path(get, path = "/info", tag = "text-embeddings-inference", security(("key" = [])), responses((status = 200, body = Info)))]
pub(super) async fn info(State(app): State<Arc<App>>) -> Json<Info> {
    let (encoder, limits) = (app.encoder(), app.limits());
    let info = encoder.info();
    Json(Info {
        model_id: app.model.clone(),
        model_sha: info.fingerprint.clone(),
        model_dtype: encoder.options().precision.name(),
        model_type: serde_json::json!({ "embedding": { "pooling": info.pooling.name() } }),
        max_concurrent_requests: limits.requests,
        max_input_length: encoder.tokenizer().max_tokens(),
        max_batch_tokens: limits.batch_tokens,
        max_client_batch_size: limits.texts,
        auto_truncate: false,
        version: env!("CARGO_PKG_VERSION"),
        dimension: info.dimension,
        scoring: encoder.scoring(),
    })
}
