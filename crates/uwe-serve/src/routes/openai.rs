//! OpenAI's route for vectors, for its clients.

use super::inference::{Inputs, pooled};
use super::post;
use crate::app::{App, Question};
use crate::engine::{Asked, Encoding};
use crate::error::ApiError;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/embeddings", post(embeddings))
}

/// How a vector is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum EncodingFormat {
    /// Numbers.
    #[default]
    Float,
    /// Base64 of 32-bit numbers, little-endian.
    Base64,
}

/// Texts to make vectors of.
#[derive(Deserialize, ToSchema)]
pub(super) struct EmbeddingsRequest {
    /// The texts.
    input: Inputs,
    /// A name for the log; there is one model.
    #[allow(dead_code, reason = "clients send it")]
    model: Option<String>,
    /// How vectors are written.
    encoding_format: Option<EncodingFormat>,
    /// Width of a vector: the model's, or nothing.
    dimensions: Option<usize>,
}

/// Vectors in the order of the texts.
#[derive(Serialize, ToSchema)]
pub(super) struct EmbeddingsResponse {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
    /// Places of texts whose end was left out, because they have more tokens than the model reads.
    truncated: Vec<usize>,
}

#[derive(Serialize, ToSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Text(String),
}

#[derive(Serialize, ToSchema)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Vectors of texts, of length 1.
#[utoipa::path(post, path = "/v1/embeddings", tag = "OpenAI", security(("key" = [])), request_body = EmbeddingsRequest, responses(
    (status = 200, body = EmbeddingsResponse),
    (status = "4XX", description = "Refused, as OpenAI says it", body = Object),
    (status = 503, description = "Stopping, or not ready in time", body = Object),
))]
pub(super) async fn embeddings(
    State(app): State<Arc<App>>,
    Question(request): Question<EmbeddingsRequest>,
) -> Result<Response, ApiError> {
    let width = app.encoder().info().dimension;
    if request.dimensions.is_some_and(|dimensions| dimensions != width) {
        return Err(ApiError::value(
            format!("`dimensions`: the vectors have {width}, and cannot be made shorter"),
            "leave it out",
        ));
    }
    let texts = request.input.into_texts();
    app.check(&texts)?;
    let work = |encoder: &uwe::Encoder, encodings: &[Arc<Encoding>]| {
        let cut = encodings.iter().enumerate().filter(|(_, encoding)| encoding.tokens.truncated);
        Ok((pooled(encoder, encodings, true), cut.map(|(index, _)| index).collect()))
    };
    let ((vectors, truncated), timing) = app.ask(Asked::of(&texts), work).await?;
    let write = |vector: Vec<f32>| match request.encoding_format.unwrap_or_default() {
        EncodingFormat::Float => Vector::Numbers(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            Vector::Text(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
    };
    let data = vectors.into_iter().enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: write(vector),
    });
    let response = EmbeddingsResponse {
        object: "list",
        data: data.collect(),
        model: app.model.clone(),
        usage: Usage { prompt_tokens: timing.tokens, total_tokens: timing.tokens },
        truncated,
    };
    Ok((Extension(timing), Json(response)).into_response())
}
