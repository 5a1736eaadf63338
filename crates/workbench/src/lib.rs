//! WorkBench: the ranking tasks of "Unified Work Embeddings" (arXiv 2511.07969), measured exactly.
//!
//! A [`Catalogue`] says which sets a data folder can give and makes them from their raw files. A [`System`] (an
//! encoder with a scorer, a lexical baseline, or scores from elsewhere) is measured on them into a [`Run`], a
//! folder of results that can be interrupted, resumed, compared and drawn.
//!
//! Metrics are those of the public toolkit WorkRB to 1e-9. Where scores are equal, targets keep the order of the
//! target list, always.

mod catalogue;
mod error;
mod export;
mod lexical;
mod metrics;
pub mod page;
mod report;
mod results;
mod run;
mod set;
pub mod sources;
mod statistics;
mod systems;
mod verify;

pub use catalogue::{Catalogue, CatalogueOptions, Entry};
pub use error::{Error, Result};
pub use export::{ExportFormat, export};
pub use lexical::Lexical;
pub use metrics::{Metric, Ranks};
pub use report::{Report, report};
pub use results::{
    Averages, Measured, Queries, Results, SetResult, TaskAverage, clear_partial, write_parquet, write_whole,
};
pub use run::{Comparison, Progress, Run, RunOptions, SetComparison};
pub use set::{Identity, Judgement, RankingSet, Split, Task};
pub use statistics::{
    ASSIGNMENTS, Difference, Interval, RESAMPLES, compare, interval, mean, resampled_means,
};
pub use systems::{Description, Direction, EncoderSystem, GivenScores, LexicalSystem, Scores, System, Watch};
pub use verify::{Verdict, verify};
