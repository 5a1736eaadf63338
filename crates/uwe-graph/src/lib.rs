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
mod recipe;
mod tag;

pub use build::build;
pub use check::{Check, Finding, FindingKind, check};
pub use edge::{Count, Edge, Graph, GraphFile, Manifest, Part, Provenance, SourceNote};
pub use enrich::{Endpoint, EnrichOptions, Enrichment, Outcome, Plan};
pub use fold::{fold, words};
pub use recipe::{Recipe, Source, SourceKind};
pub use tag::{RowColumns, Rows, TagOptions, Tagged, tag};
pub use workbench::{Error, Result};
