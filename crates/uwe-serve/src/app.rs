//! What all routes share, and the one way from a request's texts to an answer.

use crate::body::{self, Allowance};
use crate::config::{Config, Limits};
use crate::engine::{Asked, Encoding, Engine, Timed};
use crate::error::{ApiError, Code};
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::spaces::Spaces;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use uwe::{Encoder, Scoring};

/// What all routes share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) keys: Keys,
    // Before the engine: its builder ends first.
    pub(crate) spaces: Spaces,
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<Metrics>,
    /// One for each request that is read or worked on.
    pub(crate) permits: Semaphore,
    /// One upload is parsed and written at a time: parsed, it is many times its size.
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) stopping: AtomicBool,
    /// Name of the model, for answers.
    pub(crate) model: String,
}

impl App {
    pub(crate) fn limits(&self) -> &Limits {
        &self.config.limits
    }

    pub(crate) fn encoder(&self) -> &Encoder {
        self.engine.encoder()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Encodes a request's texts, which are checked, and works on them, within the time of a request.
    pub(crate) async fn ask<T, F>(&self, asked: Asked<'_>, work: F) -> Result<Timed<T>, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Encoder, &[Arc<Encoding>]) -> Result<T, ApiError> + Send + 'static,
    {
        let limit = Limits::duration(self.limits().request_ms);
        let answer = tokio::time::timeout(limit, self.engine.run(asked, work)).await;
        answer.unwrap_or_else(|_| {
            Err(ApiError::new(
                Code::Timeout,
                format!("the answer was not ready within {} ms", limit.as_millis()),
                "ask for fewer texts or hits at a time",
            ))
        })
    }

    /// Whether there are texts, and not too many or too long ones.
    pub(crate) fn check(&self, texts: &[String]) -> Result<(), ApiError> {
        let limits = self.limits();
        if texts.is_empty() {
            return Err(ApiError::value("there is no text", "send at least one"));
        }
        if texts.len() > limits.texts {
            return Err(ApiError::new(
                Code::TooLarge,
                format!("{} texts are more than {}", texts.len(), limits.texts),
                "send them in several requests",
            ));
        }
        match texts.iter().position(|text| text.len() > limits.text_bytes) {
            None => Ok(()),
            Some(index) => Err(ApiError::new(
                Code::TooLarge,
                format!(
                    "text {index} (from 0) has {} bytes, more than {}",
                    texts[index].len(),
                    limits.text_bytes
                ),
                "send its sentences as texts of their own",
            )),
        }
    }

    /// The scorer of a request: by name, with all options, or the model's own.
    pub(crate) fn scoring(&self, name: Option<&str>, whole: Option<Scoring>) -> Result<Scoring, ApiError> {
        let own = self.encoder().scoring();
        let scoring = match (whole, name) {
            (Some(_), Some(_)) => {
                return Err(ApiError::value("`scorer` and `scoring` are both given", "give one of them"));
            }
            (Some(scoring), None) => scoring,
            (None, None) => own,
            (None, Some(name)) => Scoring::named(name, own).ok_or_else(|| {
                let name: String = name.chars().take(40).collect();
                ApiError::value(
                    format!("`scorer`: there is no `{name}`"),
                    "there are soft, soft-pooled, maxsim and cosine",
                )
            })?,
        };
        scoring.check()?;
        Ok(scoring)
    }
}

/// A request's body as JSON, of a request that is not going to be refused anyway.
pub(crate) struct Question<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Question<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (parts, content) = request.into_parts();
        // Read in any case: who is still sending would find the connection closed, and no answer.
        let bytes = Allowance::question(app.limits()).read(content).await?;
        app.engine.let_in()?;
        body::json(&parts.headers, &bytes).map(Self)
    }
}
