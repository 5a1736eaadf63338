//! Training of unified work embeddings.

mod error;
mod matrix;
mod network;
mod parameters;
mod threads;

pub use error::{Error, Result};
pub use network::{Batch, Forward, Network};
pub use parameters::{NumberType, Parameters, Place};
pub use threads::Threads;
