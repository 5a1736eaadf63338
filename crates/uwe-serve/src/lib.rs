//! Unified Work Embeddings over HTTP.
//!
//! [`Service::start`] brings an encoder, the folder of target spaces and the configuration together; [`Service::run`] serves until it
//! is told to stop. The routes are this service's own (`/v1/rank`, `/v1/score`, `/v1/spaces`), those of text-embeddings-inference
//! (`/embed`, `/rerank`, `/info`), OpenAI's `/v1/embeddings`, Cohere's and Jina's `/v1/rerank`, and a page for people. docs/operations.md
//! says how to run it.

mod app;
mod body;
mod config;
mod engine;
mod error;
mod keys;
mod metrics;
mod page;
mod queue;
mod routes;
mod server;
mod spaces;
mod stream;
mod trace;

pub use config::{Config, ConfigError, Limits};
pub use error::{ApiError, Code};
pub use keys::{Keys, Right};
pub use routes::document;
pub use spaces::{SPACE_NAMES, is_space_name};

use app::App;
use engine::Engine;
use metrics::Metrics;
use spaces::Spaces;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use uwe::{Encoder, Space};

/// Why a service could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The folder of spaces cannot be used.
    #[error(transparent)]
    Data(#[from] uwe::Error),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Threads(#[from] std::io::Error),
}

/// A service that is ready to run.
pub struct Service {
    app: Arc<App>,
}

impl Service {
    /// Brings everything together. `workers` threads take requests up; they share the encoder's threads.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        encoder: Encoder,
        (config, keys): (Config, Keys),
        workers: usize,
    ) -> Result<Self, StartError> {
        config.check(keys.len())?;
        let name = encoder.info().path.canonicalize().unwrap_or_else(|_| encoder.info().path.clone());
        let model = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let metrics = Arc::new(Metrics::new(&routes::COUNTED));
        let engine =
            Arc::new(Engine::start(Arc::new(encoder), (&config.limits, workers), Arc::clone(&metrics))?);
        let parts = (Arc::clone(&engine), Arc::clone(&metrics));
        let spaces = Spaces::open(&config.data, &config.limits, parts)?;
        let permits = Semaphore::new(config.limits.requests);
        let (uploads, stopping) = (Arc::new(Semaphore::new(1)), AtomicBool::new(false));
        let app = App { config, keys, spaces, engine, metrics, permits, uploads, stopping, model };
        Ok(Self { app: Arc::new(app) })
    }

    /// Adds a space that is no file of the service's folder, unless the folder has one of that name; whether it did.
    pub fn add_space(&self, name: &str, space: Space) -> bool {
        self.app.spaces.add(name, space)
    }

    /// The encoder.
    pub fn encoder(&self) -> &Encoder {
        self.app.encoder()
    }

    /// The routes, to be nested into another axum application or called without a connection. Limits of connections and the time-outs of
    /// headers are those of [`Service::run`] and not in here.
    pub fn router(&self) -> axum::Router {
        routes::router(&self.app)
    }

    /// Serves until `stop` comes; then takes no connection any more, and ends when every request has, or the time for it is over.
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        server::serve(self.app, listener, stop).await;
    }
}
