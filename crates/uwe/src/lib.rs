//! Unified Work Embeddings: connects the texts of work.
//!
//! A text of the work world (a job title, a skill, a sentence of a vacancy) becomes token states; two texts
//! are scored by soft late interaction over them. The texts to choose from are encoded once into a target
//! space, a file that is mapped and ranked against.
//!
//! ```no_run
//! use std::path::Path;
//! use uwe::{Compute, Encoder, EncoderOptions, Ranker, Space};
//!
//! # fn main() -> uwe::Result<()> {
//! let encoder = Encoder::open(Path::new("models/uwe-mini"), EncoderOptions::default(), Compute::new(0, None)?)?;
//! let space = Space::open(Path::new("esco.space"))?;
//! let ranker = Ranker::new(&encoder, &space, encoder.scoring())?;
//! for ranking in ranker.rank(&["pastry chef"], 5)? {
//!     for hit in ranking.hits {
//!         println!("{:.3} {}", hit.score, space.target(hit.target).map_or("", |target| target.text()));
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The library is synchronous, opens no connection and reads no environment variable. Scores do not depend
//! on batches, threads or neighbours, and in precision `f32` not on the processor either: every kernel does
//! the same operations in the same order on each.
//!
//! The method is that of "Unified Work Embeddings: Contrastive Learning of a Bidirectional Multi-task
//! Ranker", arXiv 2511.07969.

#[cfg(target_endian = "big")]
compile_error!("space files and weights are read in place as little-endian numbers");

mod compute;
mod error;
mod evidence;
mod kernel;
mod model;
mod rank;
mod score;
mod space;
mod team;
mod text;

pub use compute::Compute;
pub use error::{Error, Result};
pub use evidence::{Evidence, EvidenceRecord, Pair, PairRecord, TokenPlace, TokenRecord};
pub use kernel::{InstructionSet, Precision};
pub use model::{
    Architecture, Config as ModelConfig, Encoded, Encoder, EncoderOptions, Folder as ModelFolder, ModelInfo,
    Pooling, TokenStates, Verification, distance_bucket,
};
pub use rank::{Hit, Ranker, Ranking, best, score_all, score_encoded};
pub use score::{Axis, Logits, Reduction, Scorer, Scoring};
pub use space::{
    BuildOptions, Columns, Format, Lines, Meta, Pillar, Progress, Space, StateType, Target, Targets,
};
pub use text::{DEFAULT_MAX_TOKENS, Tokenizer, Tokens};
