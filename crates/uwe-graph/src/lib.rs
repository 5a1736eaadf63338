//! Training graphs: bipartite edges between skills and job titles, sentences of vacancies, and alternative labels.
//!
//! A [`Recipe`] names sources and rules; [`build`] makes a [`GraphFile`] of it, in an order that depends on nothing but
//! the inputs. [`check`] compares a graph with every test set of the benchmark and names what leaked.

mod build;
mod builders;
mod check;
mod edge;
mod enrich;
mod fold;
mod lines;
mod merge;
mod recipe;
mod report;
mod tag;

pub use build::build;
pub use check::{Check, Finding, FindingKind, check};
pub use edge::{Count, Edge, Graph, GraphFile, Manifest, Part, Provenance, SourceNote};
pub use enrich::{
    AnswerForm, Endpoint, EnrichOptions, Enriched, Enrichment, EnrichmentNote, Outcome, Plan, Sample,
};
pub use fold::{fold, words};
pub use merge::merge;
pub use recipe::{Recipe, Source, SourceKind};
pub use report::report;
pub use tag::{RowColumns, Rows, TagOptions, Tagged, tag, tag_sources};
pub use workbench::{Error, Result};
