//! What a request is refused with: a stable code, a message and what to do next, in the form that the route's clients read.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was refused. The codes are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body is no JSON, or not of the route's form.
    InvalidBody,
    /// A value of the body or the path makes no sense.
    InvalidValue,
    /// A text is longer than the model reads, and the request does not allow cutting it.
    TextTooLong,
    /// More texts, or longer ones, than a request may have.
    TooLarge,
    /// The body's content type is not known here.
    UnsupportedType,
    /// No key, or a wrong one.
    Unauthorized,
    /// A key that may read only.
    Forbidden,
    /// No such route, space or method.
    NotFound,
    /// The route knows other methods.
    MethodNotAllowed,
    /// The space is not ready: it is being built, or does not fit the model.
    NotReady,
    /// The space is being built already.
    Conflict,
    /// The request waited for longer than it may; nothing was computed.
    Overloaded,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The answer was not ready in time.
    Timeout,
    /// The service is stopping.
    Stopping,
    /// A fault of the service; the log has the request's id with it.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 16] = [
        Self::InvalidBody,
        Self::InvalidValue,
        Self::TextTooLong,
        Self::TooLarge,
        Self::UnsupportedType,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotReady,
        Self::Conflict,
        Self::Overloaded,
        Self::BodyTimeout,
        Self::Timeout,
        Self::Stopping,
        Self::Internal,
    ];

    /// The status of a response with this code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::InvalidBody => StatusCode::BAD_REQUEST,
            Self::InvalidValue => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TextTooLong | Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotReady | Self::Conflict => StatusCode::CONFLICT,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Timeout | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code as it stands in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidBody => "invalid_body",
            Self::InvalidValue => "invalid_value",
            Self::TextTooLong => "text_too_long",
            Self::TooLarge => "too_large",
            Self::UnsupportedType => "unsupported_type",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotReady => "not_ready",
            Self::Conflict => "conflict",
            Self::Overloaded => "overloaded",
            Self::BodyTimeout => "body_timeout",
            Self::Timeout => "timeout",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
        }
    }
}

/// A refusal.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Its kind.
    pub code: Code,
    /// What is wrong, with the field or the value.
    pub message: String,
    /// What to do next.
    pub hint: String,
}

impl ApiError {
    /// A refusal with what is wrong and what to do.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }

    /// A value that makes no sense.
    pub fn value(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(Code::InvalidValue, message, hint)
    }

    /// A fault of the service. What it was stands in the log alone.
    pub fn internal(problem: &dyn std::fmt::Display) -> Self {
        tracing::error!(%problem, "internal fault");
        Self::new(
            Code::Internal,
            "the service failed",
            "try again; if it stays, look for the request's id in the log",
        )
    }

    /// A refusal of the library: bad arguments are the client's, everything else the service's.
    pub fn from_library(error: &uwe::Error) -> Self {
        match error {
            uwe::Error::Argument { .. } | uwe::Error::Tokenizer(_) | uwe::Error::Input { .. } => {
                Self::value(error.to_string(), error.hint().unwrap_or_default())
            }
            other => Self::internal(other),
        }
    }
}

impl From<uwe::Error> for ApiError {
    fn from(error: uwe::Error) -> Self {
        Self::from_library(&error)
    }
}

/// The form of an error's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// This service's own.
    Own,
    /// text-embeddings-inference's.
    Inference,
    /// OpenAI's.
    OpenAi,
    /// Cohere's and Jina's.
    Rerank,
}

/// The body of a refusal of this service's own routes.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What is wrong.
    error: ErrorDetail,
}

#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    /// A stable code to match.
    code: Code,
    /// What is wrong, with the field or the value.
    message: String,
    /// What to do next.
    hint: String,
}

impl ApiError {
    /// The response in the form that clients of `family` read.
    pub(crate) fn respond(&self, family: Family) -> Response {
        let (code, message, hint) = (self.code, &self.message, &self.hint);
        let whole = if hint.is_empty() { message.clone() } else { format!("{message} ({hint})") };
        let body = match family {
            Family::Own => serde_json::json!(ErrorBody {
                error: ErrorDetail { code, message: message.clone(), hint: hint.clone() }
            }),
            Family::Inference => {
                let kind = match code {
                    Code::Overloaded => "overloaded",
                    Code::Internal | Code::Timeout | Code::Stopping => "backend",
                    Code::Unauthorized | Code::Forbidden => "unauthorized",
                    _ => "validation",
                };
                serde_json::json!({ "error": whole, "error_type": kind })
            }
            Family::OpenAi => {
                let kind = match code {
                    Code::Overloaded => "rate_limit_error",
                    Code::Internal | Code::Timeout | Code::Stopping => "server_error",
                    Code::Unauthorized | Code::Forbidden => "authentication_error",
                    _ => "invalid_request_error",
                };
                serde_json::json!({
                    "error": { "message": whole, "type": kind, "param": null, "code": code }
                })
            }
            Family::Rerank => serde_json::json!({ "message": whole, "detail": whole, "code": code }),
        };
        let mut response = (code.status(), axum::Json(body)).into_response();
        let headers = response.headers_mut();
        if matches!(code, Code::Overloaded | Code::Stopping | Code::Timeout) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.clone());
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.respond(Family::Own)
    }
}
