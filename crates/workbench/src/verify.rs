//! Compares sets with ready-made ones, element by element.

use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::set::RankingSet;
use crate::sources::sorted_entries;
use serde::Deserialize;
use std::path::Path;

/// How a set compares with its ready-made copy.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Key of the set.
    pub key: String,
    /// Number of queries and targets of the ready-made set.
    pub size: (usize, usize),
    /// The first difference, or why there is nothing to compare; `None` when all is equal.
    pub problem: Option<String>,
}

#[derive(Deserialize)]
struct ReadyMade {
    task: String,
    split: crate::Split,
    language: String,
    queries: Vec<String>,
    targets: Vec<String>,
    relevance: Vec<Vec<u32>>,
}

/// Makes every set for which `folder` holds a file `{task, split, language, queries, targets, relevance}` and
/// compares the two: queries, targets and relevance, order included.
///
/// # Errors
/// [`Error::Data`] for a file that is no such set; a set that differs is a [`Verdict`].
pub fn verify(catalogue: &Catalogue, folder: &Path) -> Result<Vec<Verdict>> {
    let mut files = sorted_entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    let mut verdicts = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let expected: ReadyMade = serde_json::from_slice(&bytes).map_err(|error| {
            Error::data(path.display(), format!("is no ranking set: {error}"), "keep only sets in the folder")
        })?;
        let key = format!("{}.{}.{}", expected.task, expected.split, expected.language);
        let entry = catalogue.entries().iter().find(|entry| entry.identity.key() == key);
        let problem = match entry {
            None => Some("the data folder gives no set of this name".to_string()),
            Some(entry) => match catalogue.load(entry) {
                Ok(set) => first_difference(&expected, &set),
                Err(error) => Some(error.to_string()),
            },
        };
        verdicts.push(Verdict { key, size: (expected.queries.len(), expected.targets.len()), problem });
    }
    Ok(verdicts)
}

fn first_difference(expected: &ReadyMade, set: &RankingSet) -> Option<String> {
    let texts = |what: &str, expected: &[String], found: &[String]| {
        if expected.len() != found.len() {
            return Some(format!("{} {what}, expected {}", found.len(), expected.len()));
        }
        let place = expected.iter().zip(found).position(|(a, b)| a != b)?;
        Some(format!("{what} {place} is `{}`, expected `{}`", found[place], expected[place]))
    };
    texts("targets", &expected.targets, &set.targets)
        .or_else(|| texts("queries", &expected.queries, &set.queries))
        .or_else(|| {
            let labels = |index: usize| -> Vec<u32> {
                set.relevance[index].iter().map(|judgement| judgement.target).collect()
            };
            if expected.relevance.len() != expected.queries.len() {
                let counts = (expected.relevance.len(), expected.queries.len());
                return Some(format!(
                    "the ready-made set has {} lists of labels for {} queries",
                    counts.0, counts.1
                ));
            }
            let place =
                (0..expected.relevance.len()).find(|index| expected.relevance[*index] != labels(*index))?;
            Some(format!(
                "query {place} has the labels {:?}, expected {:?}",
                labels(place),
                expected.relevance[place]
            ))
        })
}
