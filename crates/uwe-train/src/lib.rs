//! Training of unified work embeddings.
//!
//! An encoder (BERT or MPNet, from a folder as sentence-transformers writes it) learns from graphs of work by many-to-many
//! InfoNCE over soft late interaction, and is written back to such a folder. Forward and backward passes are written for
//! the processor: ragged batches without padding, products by blocks, and sums in an order that does not depend on the
//! number of threads, so that a resumed training ends with the same bits.
//!
//! Source of the method: "Unified Work Embeddings", arXiv 2511.07969.

mod buffers;
mod checkpoint;
#[cfg(feature = "device")]
mod device;
mod error;
mod interaction;
mod learner;
mod loss;
mod machine;
mod matrix;
mod negatives;
mod network;
mod objective;
mod optimizer;
mod parameters;
mod recipe;
mod report;
mod sampler;
mod threads;
mod trainer;
mod validation;

pub use checkpoint::{State, export};
#[cfg(feature = "device")]
pub use device::Device;
pub use error::{Error, Result};
pub use loss::{Links, Margin, Variant, info_nce, margin_mse, threshold_margin, transpose};
pub use machine::Machine;
pub use network::{Batch, Forward, Network};
pub use objective::{GraphTask, Lesson, Objective, Step};
pub use optimizer::Optimizer;
pub use parameters::{NumberType, Parameters, Place};
pub use recipe::{
    Distillation, Draw, GraphOptions, Negatives, OptimizerOptions, Recipe, Reverse, Schedule,
    ValidationOptions,
};
pub use report::report;
pub use sampler::{Drawn, GraphDraw, Sampler};
pub use threads::Threads;
pub use trainer::{Event, Inputs, StepLog, Summary, Training, ValidationLog, read_log};
pub use validation::{Scored, Validation, ValidationSet};
