//! Lexical baselines with the scores of the public toolkit WorkRB: BM25 by `rank_bm25`, TF-IDF by scikit-learn,
//! the edit-distance ratio by RapidFuzz, each on NFKD-normalised lower-case texts; and random scores.
//!
//! BM25 and TF-IDF are written here because no crate gives those numbers: the crates for BM25 use other formulas
//! for rare words and normalise lengths in other ways, and none follows scikit-learn's tokens and weights.

mod bm25;
mod tfidf;

use crate::error::{Error, Result};
use bm25::Bm25;
use std::fmt;
use std::str::FromStr;
use tfidf::TfIdf;
use unicode_normalization::UnicodeNormalization;

/// A baseline that knows only the letters of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lexical {
    /// BM25 Okapi over words between blanks; k1 1.5, b 0.75, epsilon 0.25.
    Bm25,
    /// Cosine of TF-IDF vectors over words of two characters and more.
    TfIdfWords,
    /// Cosine of TF-IDF vectors over 1 to 3 neighbouring characters.
    TfIdfCharacters,
    /// `100 (1 - distance / (length + length))`, where a distance counts insertions and deletions.
    EditDistance,
    /// Uniform random scores.
    Random,
}

impl Lexical {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 5] =
        [Self::Random, Self::Bm25, Self::TfIdfWords, Self::TfIdfCharacters, Self::EditDistance];
}

impl fmt::Display for Lexical {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bm25 => "bm25",
            Self::TfIdfWords => "tfidf-words",
            Self::TfIdfCharacters => "tfidf-characters",
            Self::EditDistance => "edit-distance",
            Self::Random => "random",
        })
    }
}

impl FromStr for Lexical {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|lexical| lexical.to_string() == text).ok_or_else(|| Error::Argument {
            name: "system",
            problem: format!(
                "`{text}` is none of {}",
                Self::ALL.map(|lexical| lexical.to_string()).join(", ")
            ),
        })
    }
}

/// The targets of a set, ready for a baseline.
pub(crate) struct Index {
    kind: Kind,
}

enum Kind {
    Bm25(Bm25),
    TfIdf(TfIdf),
    EditDistance(Vec<Vec<char>>),
    Random { seed: u64, targets: usize },
}

impl Index {
    pub(crate) fn new(lexical: Lexical, targets: &[String], seed: u64) -> Self {
        let texts: Vec<String> = targets.iter().map(|target| normalised(target)).collect();
        let kind = match lexical {
            Lexical::Bm25 => Kind::Bm25(Bm25::new(&texts)),
            Lexical::TfIdfWords => Kind::TfIdf(TfIdf::new(&texts, tfidf::words)),
            Lexical::TfIdfCharacters => Kind::TfIdf(TfIdf::new(&texts, tfidf::character_grams)),
            Lexical::EditDistance => {
                Kind::EditDistance(texts.iter().map(|text| text.chars().collect()).collect())
            }
            Lexical::Random => Kind::Random { seed, targets: targets.len() },
        };
        Self { kind }
    }

    /// Scores of all targets for the query, which is number `place` of its set.
    pub(crate) fn scores(&self, query: &str, place: usize) -> Vec<f32> {
        let query = normalised(query);
        match &self.kind {
            Kind::Bm25(bm25) => bm25.scores(&query),
            Kind::TfIdf(tfidf) => tfidf.scores(&query),
            Kind::EditDistance(targets) => {
                let length = query.chars().count();
                let query = rapidfuzz::distance::indel::BatchComparator::new(query.chars());
                targets
                    .iter()
                    .map(|target| {
                        // The crate's own `ratio` for batches divides by the length of the longer text.
                        let both = length + target.len();
                        let distance = query.distance(target.iter().copied());
                        let share = if both == 0 { 0.0 } else { distance as f64 / both as f64 };
                        ((1.0 - share) * 100.0) as f32
                    })
                    .collect()
            }
            Kind::Random { seed, targets } => crate::statistics::uniform_row(*seed, place as u64, *targets),
        }
    }
}

/// NFKD, then lower case.
fn normalised(text: &str) -> String {
    text.nfkd().collect::<String>().to_lowercase()
}

/// What Python counts as a blank: Unicode's white space and four more control characters.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(lexical: Lexical, targets: &[&str], query: &str) -> Vec<f32> {
        let targets: Vec<String> = targets.iter().map(|text| text.to_string()).collect();
        Index::new(lexical, &targets, 1).scores(query, 0)
    }

    #[test]
    fn edit_distance_is_a_ratio_of_a_hundred() {
        let found = scores(Lexical::EditDistance, &["Nurse", "nurses", "", "xyz"], "NURSE");
        assert_eq!(found, [100.0, ((1.0f64 - 1.0 / 11.0) * 100.0) as f32, 0.0, 0.0]);
    }

    #[test]
    fn texts_without_a_known_word_score_nothing() {
        for lexical in [Lexical::Bm25, Lexical::TfIdfWords] {
            assert_eq!(scores(lexical, &["bake bread", "weld pipes"], "teach"), [0.0, 0.0], "{lexical}");
            let some = scores(lexical, &["bake bread", "weld pipes", "lay bricks"], "weld");
            assert!(some[1] > 0.0 && some[0] == 0.0, "{lexical} {some:?}");
        }
        assert_eq!(scores(Lexical::TfIdfWords, &["bake bread"], ""), [0.0]);
    }

    #[test]
    fn random_scores_depend_on_seed_and_query_alone() {
        let targets: Vec<String> = (0..9).map(|i| i.to_string()).collect();
        let index = Index::new(Lexical::Random, &targets, 1);
        assert_eq!(index.scores("a", 3), index.scores("b", 3));
        assert_ne!(index.scores("a", 3), index.scores("a", 4));
        assert_ne!(index.scores("a", 3), Index::new(Lexical::Random, &targets, 2).scores("a", 3));
    }
}
