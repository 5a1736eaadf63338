//! Evidence: which tokens of query and target met, and how much each pair added to the score.
//!
//! Every scorer here is a sum over pairs of tokens (for the cosine of mean-pooled texts because a mean is a
//! sum), so a score can be taken apart without a rest: the contributions add up to it.

use crate::error::Result;
use crate::kernel::norm;
use crate::model::Pooling;
use crate::score::{Axis, Logits, Reduction, Scorer, Scoring};
use crate::text::Tokens;
use serde::Serialize;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;

/// A score, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The score: the sum of all contributions.
    pub score: f64,
    /// Pairs of tokens, the largest contribution first.
    pub pairs: Vec<Pair>,
}

/// What one query token and one target token added.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// The query's token.
    pub query: TokenPlace,
    /// The target's token; for a pooled target the whole text.
    pub target: TokenPlace,
    /// Weight of the pair's cosine in the score.
    pub weight: f64,
    /// Cosine of the two states.
    pub cosine: f64,
    /// `weight * cosine`: what the pair added to the score.
    pub contribution: f64,
}

/// Place of a token in its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPlace {
    /// Index of the token; for a pooled text 0.
    pub token: usize,
    /// Character range in the text; `None` for a special token.
    pub range: Option<Range<usize>>,
}

/// Evidence by words, as programs read it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvidenceRecord {
    /// Pairs of words that added at least a hundredth of the score, the largest first.
    pub pairs: Vec<PairRecord>,
    /// What all other pairs added.
    pub rest: f64,
}

/// A pair of words.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairRecord {
    /// The query's word.
    pub query: TokenRecord,
    /// The target's word.
    pub target: TokenRecord,
    /// Weight of the pair's cosine in the score.
    pub weight: f64,
    /// Cosine of the two states.
    pub cosine: f64,
    /// What the pair added to the score.
    pub contribution: f64,
}

/// A word: its text and its character range; all null for a special token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenRecord {
    /// The characters.
    pub text: Option<String>,
    /// First character, counted in the text's characters from 0.
    pub start: Option<usize>,
    /// Character behind the last one.
    pub end: Option<usize>,
}

/// Pairs below this share of the score are counted together.
const LISTED: f64 = 0.01;

impl Evidence {
    /// The same score by words: pairs of tokens that belong to the same two words are one, with the sum of their weights and
    /// contributions; its cosine is the weighted mean. `query` and `target` are the texts that it is about.
    pub fn by_words(&self, query: &str, target: &str) -> Self {
        let texts = (query.chars().collect::<Vec<_>>(), target.chars().collect::<Vec<_>>());
        let mut places: HashMap<(WordKey, WordKey), usize> = HashMap::new();
        let mut pairs: Vec<Pair> = Vec::new();
        for pair in &self.pairs {
            let sides = (word(&pair.query, &texts.0), word(&pair.target, &texts.1));
            match places.entry((key(&sides.0), key(&sides.1))) {
                Entry::Occupied(place) => {
                    let known = &mut pairs[*place.get()];
                    known.query.token = known.query.token.min(pair.query.token);
                    known.target.token = known.target.token.min(pair.target.token);
                    known.weight += pair.weight;
                    known.contribution += pair.contribution;
                }
                Entry::Vacant(place) => {
                    place.insert(pairs.len());
                    pairs.push(Pair { query: sides.0, target: sides.1, ..pair.clone() });
                }
            }
        }
        for pair in &mut pairs {
            if pair.weight != 0.0 {
                pair.cosine = pair.contribution / pair.weight;
            }
        }
        // A stable sort: equal ones stay in the order of their tokens.
        pairs.sort_by(|a, b| b.contribution.total_cmp(&a.contribution));
        Self { score: self.score, pairs }
    }

    /// The pairs as programs read them, those of [`Evidence::by_words`] by words; `query` and `target` are the texts that it is about.
    pub fn record(&self, query: &str, target: &str) -> EvidenceRecord {
        let score = self.score.abs().max(f64::MIN_POSITIVE);
        let (listed, other): (Vec<&Pair>, Vec<&Pair>) =
            self.pairs.iter().partition(|pair| pair.contribution.abs() / score >= LISTED);
        let pairs = listed.into_iter().map(|pair| PairRecord {
            query: TokenRecord::new(&pair.query, query),
            target: TokenRecord::new(&pair.target, target),
            weight: pair.weight,
            cosine: pair.cosine,
            contribution: pair.contribution,
        });
        EvidenceRecord { pairs: pairs.collect(), rest: other.iter().map(|pair| pair.contribution).sum() }
    }

    /// Character ranges of the query's tokens with what each added.
    pub fn query_shares(&self) -> Vec<(Range<usize>, f64)> {
        self.shares(|pair| &pair.query)
    }

    /// Character ranges of the target's tokens with what each added.
    pub fn target_shares(&self) -> Vec<(Range<usize>, f64)> {
        self.shares(|pair| &pair.target)
    }

    fn shares(&self, side: impl Fn(&Pair) -> &TokenPlace) -> Vec<(Range<usize>, f64)> {
        let mut shares: Vec<(Range<usize>, f64)> = Vec::new();
        for pair in &self.pairs {
            let Some(range) = &side(pair).range else { continue };
            match shares.iter_mut().find(|(known, _)| known == range) {
                Some((_, share)) => *share += pair.contribution,
                None => shares.push((range.clone(), pair.contribution)),
            }
        }
        shares
    }
}

/// What tells words apart: their place, or for what is no word its token.
type WordKey = (Option<Range<usize>>, usize);

fn key(place: &TokenPlace) -> WordKey {
    (place.range.clone(), if place.range.is_some() { 0 } else { place.token })
}

/// The place of the whole word that a token is a piece of: letters and digits around it. Other characters are words of their own.
fn word(place: &TokenPlace, text: &[char]) -> TokenPlace {
    let Some(range) = &place.range else { return place.clone() };
    let belongs = |index: usize| text.get(index).is_some_and(|c| c.is_alphanumeric());
    let (mut start, mut end) = (range.start, range.end);
    if start < end && (start..end).all(belongs) {
        while start > 0 && belongs(start - 1) {
            start -= 1;
        }
        while belongs(end) {
            end += 1;
        }
    }
    TokenPlace { token: place.token, range: Some(start..end) }
}

impl TokenRecord {
    fn new(place: &TokenPlace, text: &str) -> Self {
        let Some(range) = &place.range else { return Self { text: None, start: None, end: None } };
        let characters = text.chars().skip(range.start).take(range.len()).collect();
        Self { text: Some(characters), start: Some(range.start), end: Some(range.end) }
    }
}

/// One text of the two.
pub(crate) struct Side<'a> {
    pub(crate) text: &'a str,
    pub(crate) tokens: &'a Tokens,
    /// `tokens x dimension`
    pub(crate) states: &'a [f32],
    pub(crate) special: (usize, usize),
    pub(crate) pooling: Pooling,
}

/// A text's vectors with their places.
struct Vectors<'a> {
    rows: Vec<(&'a [f32], TokenPlace)>,
}

impl Side<'_> {
    /// The counted tokens.
    fn vectors(&self, special_tokens: bool) -> Vectors<'_> {
        let count = self.tokens.ids.len();
        let width = self.states.len() / count.max(1);
        let counted = if special_tokens { 0..count } else { self.special.0..count - self.special.1 };
        let is_special = |token: usize| token < self.special.0 || token >= count - self.special.1;
        let rows = self
            .states
            .chunks_exact(width.max(1))
            .enumerate()
            .filter(|(token, _)| counted.contains(token))
            .map(|(token, state)| {
                let range = (!is_special(token)).then(|| self.tokens.ranges[token].clone());
                (state, TokenPlace { token, range })
            })
            .collect();
        Vectors { rows }
    }

    /// The whole text as one place.
    fn whole(&self) -> TokenPlace {
        TokenPlace { token: 0, range: Some(0..self.text.chars().count()) }
    }
}

impl Evidence {
    /// Takes the score of a query and a target apart. `pooled` are the two pooled vectors.
    pub(crate) fn explain(
        scoring: &Scoring,
        query: Side<'_>,
        target: Side<'_>,
        pooled: (&[f32], &[f32]),
    ) -> Result<Self> {
        let mut queries = query.vectors(scoring.special_tokens || scoring.scorer.pools_query());
        let mut targets = target.vectors(scoring.special_tokens || scoring.scorer.pools_query());
        if matches!(scoring.scorer, Scorer::SoftPooled { .. }) {
            targets = Vectors { rows: vec![(pooled.1, target.whole())] };
        }
        if scoring.scorer == Scorer::Cosine && query.pooling == Pooling::FirstToken {
            // The pooled vector is the first token's state and nothing else.
            queries.rows.truncate(1);
            targets.rows.truncate(1);
        }
        let weights = weights(&scoring.scorer, &queries, &targets, pooled);
        let mut pairs = Vec::new();
        for (i, (q, query)) in queries.rows.iter().enumerate() {
            for (j, (y, target)) in targets.rows.iter().enumerate() {
                let (weight, cosine) = (weights[i][j], cosine(q, y));
                pairs.push(Pair {
                    query: query.clone(),
                    target: target.clone(),
                    weight,
                    cosine,
                    contribution: weight * cosine,
                });
            }
        }
        let score = pairs.iter().map(|pair| pair.contribution).sum();
        pairs.sort_by(|a, b| {
            b.contribution
                .total_cmp(&a.contribution)
                .then(a.query.token.cmp(&b.query.token))
                .then(a.target.token.cmp(&b.target.token))
        });
        Ok(Self { score, pairs })
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
}

fn length(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let lengths = length(a) * length(b);
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// Softmax of some logits.
fn softmax(logits: Vec<f64>) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    logits.into_iter().map(|logit| (logit - largest).exp() / total).collect()
}

/// Weight of each pair's cosine in the score.
fn weights(
    scorer: &Scorer,
    queries: &Vectors<'_>,
    targets: &Vectors<'_>,
    pooled: (&[f32], &[f32]),
) -> Vec<Vec<f64>> {
    let (rows, columns) = (queries.rows.len(), targets.rows.len());
    let logit = |i: usize, j: usize, logits: Logits, temperature: f32| {
        let (q, y) = (queries.rows[i].0, targets.rows[j].0);
        let value = match logits {
            Logits::Raw => dot(q, y),
            Logits::UnitTarget if length(y) > 0.0 => dot(q, y) / length(y),
            Logits::UnitTarget => 0.0,
            Logits::Cosine => cosine(q, y),
        };
        value / f64::from(temperature)
    };
    let share = |reduction: Reduction, terms: usize| {
        if reduction == Reduction::Mean { 1.0 / terms.max(1) as f64 } else { 1.0 }
    };
    let over_target = |logits: Logits, temperature: f32, scale: f64| -> Vec<Vec<f64>> {
        (0..rows)
            .map(|i| {
                let row = softmax((0..columns).map(|j| logit(i, j, logits, temperature)).collect());
                row.into_iter().map(|weight| weight * scale).collect()
            })
            .collect()
    };
    let over_query = |logits: Logits, temperature: f32, scale: f64| -> Vec<Vec<f64>> {
        let mut weights = vec![vec![0.0; columns]; rows];
        for j in 0..columns {
            let column = softmax((0..rows).map(|i| logit(i, j, logits, temperature)).collect());
            for (row, weight) in weights.iter_mut().zip(column) {
                row[j] = weight * scale;
            }
        }
        weights
    };
    match *scorer {
        Scorer::SoftLateInteraction { temperature, logits, axis, reduction } => {
            let share = |terms| share(reduction, terms);
            match axis {
                Axis::Target => over_target(logits, temperature, share(rows)),
                Axis::Query => over_query(logits, temperature, share(columns)),
                Axis::Both => {
                    let one = over_target(logits, temperature, share(rows) / 2.0);
                    let other = over_query(logits, temperature, share(columns) / 2.0);
                    let add =
                        |one: Vec<f64>, other: Vec<f64>| one.iter().zip(other).map(|(a, b)| a + b).collect();
                    one.into_iter().zip(other).map(|(one, other)| add(one, other)).collect()
                }
            }
        }
        Scorer::SoftPooled { temperature, logits } => over_query(logits, temperature, 1.0),
        Scorer::MaxSim { reduction } => {
            (0..rows)
                .map(|i| {
                    let cosines = (0..columns).map(|j| cosine(queries.rows[i].0, targets.rows[j].0));
                    let best = cosines.enumerate().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
                    (0..columns)
                        .map(|j| {
                            if Some(j) == best.map(|(place, _)| place) { share(reduction, rows) } else { 0.0 }
                        })
                        .collect()
                })
                .collect()
        }
        Scorer::Cosine => {
            // cos(mean q, mean y) = sum_ij q_i . y_j / (n m |mean q| |mean y|)
            let lengths = f64::from(norm(pooled.0)) * f64::from(norm(pooled.1)) * (rows * columns) as f64;
            let lengths = if lengths > 0.0 { lengths } else { f64::INFINITY };
            (0..rows)
                .map(|i| {
                    (0..columns)
                        .map(|j| length(queries.rows[i].0) * length(targets.rows[j].0) / lengths)
                        .collect()
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(query: Option<Range<usize>>, target: Option<Range<usize>>, contribution: f64) -> Pair {
        Pair {
            query: TokenPlace { token: 1, range: query },
            target: TokenPlace { token: 1, range: target },
            weight: 0.5,
            cosine: contribution / 0.5,
            contribution,
        }
    }

    #[test]
    fn pieces_of_a_word_are_one() {
        // ge-ria-tric ward against elder-care and its special token.
        let evidence = Evidence {
            score: 0.7,
            pairs: vec![
                pair(Some(0..2), Some(0..5), 0.1),
                pair(Some(2..5), Some(0..5), 0.1),
                pair(Some(5..9), Some(6..10), 0.2),
                pair(Some(10..14), Some(0..5), 0.15),
                pair(Some(10..14), None, 0.15),
            ],
        };
        let words = evidence.by_words("geriatric ward", "elder-care");
        let sum: f64 = words.pairs.iter().map(|pair| pair.contribution).sum();
        assert!((sum - evidence.score).abs() < 1e-12);
        assert_eq!(words.by_words("geriatric ward", "elder-care"), words);
        let record = words.record("geriatric ward", "elder-care");
        let names: Vec<_> = record
            .pairs
            .iter()
            .map(|pair| (pair.query.text.as_deref(), pair.target.text.as_deref(), pair.weight))
            .collect();
        assert_eq!(
            names,
            [
                (Some("geriatric"), Some("elder"), 1.0),
                (Some("geriatric"), Some("care"), 0.5),
                (Some("ward"), Some("elder"), 0.5),
                (Some("ward"), None, 0.5),
            ]
        );
        assert!((record.pairs[0].cosine - 0.2).abs() < 1e-12);
    }
}
