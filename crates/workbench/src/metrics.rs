//! Metrics of a ranking, computed from the ranks of the relevant targets alone.
//!
//! Targets are ordered by score, descending, then by index, ascending: the one order of the project, so that
//! equal scores never depend on a sort. A scorer that gives every target the same score thus ranks them as they
//! lie in the target list, which knows nothing of the query.

use crate::error::{Error, Result};
use crate::set::Judgement;
use std::fmt;
use std::str::FromStr;

/// A metric of one query's ranking; the metric of a set is the mean over its queries.
///
/// With ranks `r_1 < r_2 < ...` (from 1) of the `n` relevant targets:
///
/// | metric | value |
/// |---|---|
/// | `map` | `1/n sum_i i / r_i`, over the full depth |
/// | `mrr` | `1 / r_1` |
/// | `rp@k` | relevant targets among the first `k`, over `min(k, n)` |
/// | `recall@k` | the same over `n` |
/// | `hit@k` | 1 if there is one, else 0 |
/// | `ndcg`, `ndcg@k` | gain `2^grade - 1`, discount `log2(rank + 1)`, over that of the ideal order |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Average precision; its mean is MAP.
    AveragePrecision,
    /// Reciprocal rank of the first relevant target.
    ReciprocalRank,
    /// R-precision at k.
    RPrecision(usize),
    /// Recall at k.
    Recall(usize),
    /// Hit at k.
    Hit(usize),
    /// Normalised discounted cumulative gain, at k or over the full depth.
    Ndcg(Option<usize>),
}

/// Least grade that counts as relevant for metrics that know only relevant and not.
const RELEVANT: f32 = 1e-9;

impl Metric {
    /// What every run measures.
    pub fn all() -> Vec<Self> {
        vec![
            Self::AveragePrecision,
            Self::RPrecision(5),
            Self::RPrecision(10),
            Self::ReciprocalRank,
            Self::Recall(10),
            Self::Recall(100),
            Self::Hit(1),
            Self::Hit(10),
            Self::Ndcg(Some(10)),
        ]
    }

    /// The value for one query: `relevant` holds rank (from 1, ascending) and grade of each relevant target,
    /// `targets` their whole number. `None` when the metric is not defined, as without a relevant target.
    pub fn of(self, relevant: &[(u32, f32)], targets: usize) -> Option<f64> {
        if let Self::Ndcg(k) = self {
            return ndcg(relevant, k.unwrap_or(targets).min(targets));
        }
        let ranks: Vec<u32> =
            relevant.iter().filter(|(_, grade)| *grade >= RELEVANT).map(|(rank, _)| *rank).collect();
        let count = ranks.len();
        let within = |k: usize| ranks.iter().filter(|rank| **rank as usize <= k).count() as f64;
        let first = *ranks.first()?;
        Some(match self {
            Self::AveragePrecision => {
                let sum: f64 =
                    ranks.iter().enumerate().map(|(i, rank)| (i + 1) as f64 / f64::from(*rank)).sum();
                sum / count as f64
            }
            Self::ReciprocalRank => 1.0 / f64::from(first),
            Self::RPrecision(k) => within(k) / k.min(count) as f64,
            Self::Recall(k) => within(k) / count as f64,
            Self::Hit(k) => f64::from(u8::from(first as usize <= k)),
            Self::Ndcg(_) => return None,
        })
    }
}

fn ndcg(relevant: &[(u32, f32)], k: usize) -> Option<f64> {
    let gain = |grade: f32| f64::from(grade).exp2() - 1.0;
    let discount = |rank: f64| 1.0 / (rank + 1.0).log2();
    let found: f64 = relevant
        .iter()
        .filter(|(rank, _)| *rank as usize <= k)
        .map(|(rank, grade)| gain(*grade) * discount(f64::from(*rank)))
        .sum();
    let mut grades: Vec<f32> = relevant.iter().map(|(_, grade)| *grade).collect();
    grades.sort_unstable_by(|a, b| b.total_cmp(a));
    let ideal: f64 =
        grades.iter().take(k).enumerate().map(|(i, grade)| gain(*grade) * discount((i + 1) as f64)).sum();
    (ideal > 0.0).then(|| found / ideal)
}

impl fmt::Display for Metric {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AveragePrecision => formatter.write_str("map"),
            Self::ReciprocalRank => formatter.write_str("mrr"),
            Self::RPrecision(k) => write!(formatter, "rp@{k}"),
            Self::Recall(k) => write!(formatter, "recall@{k}"),
            Self::Hit(k) => write!(formatter, "hit@{k}"),
            Self::Ndcg(None) => formatter.write_str("ndcg"),
            Self::Ndcg(Some(k)) => write!(formatter, "ndcg@{k}"),
        }
    }
}

impl FromStr for Metric {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Argument {
            name: "metric",
            problem: format!("`{text}` is none; there are map, mrr, rp@K, recall@K, hit@K, ndcg and ndcg@K"),
        };
        let (name, k) = match text.split_once('@') {
            None => (text, None),
            Some((name, k)) => (name, Some(k.parse::<usize>().ok().filter(|k| *k > 0).ok_or_else(wrong)?)),
        };
        match (name, k) {
            ("map", None) => Ok(Self::AveragePrecision),
            ("mrr", None) => Ok(Self::ReciprocalRank),
            ("rp", Some(k)) => Ok(Self::RPrecision(k)),
            ("recall", Some(k)) => Ok(Self::Recall(k)),
            ("hit", Some(k)) => Ok(Self::Hit(k)),
            ("ndcg", k) => Ok(Self::Ndcg(k)),
            _ => Err(wrong()),
        }
    }
}

/// Where the relevant targets of a query ended up.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranks {
    /// `(rank from 1, target)` of each relevant target, by rank.
    pub relevant: Vec<(u32, Judgement)>,
    /// How many other targets have the very score of a relevant one: where there are many, the order of the
    /// target list decides.
    pub ties: u32,
}

impl Ranks {
    /// Ranks of the `relevant` targets among `scores`, one score a target, in time
    /// `targets x log(relevant)` and memory that does not depend on the number of targets.
    ///
    /// # Errors
    /// [`Error::Argument`] for a score that is not a number, or of another length than the targets.
    pub fn of(scores: &[f32], relevant: &[Judgement]) -> Result<Self> {
        if let Some(target) = scores.iter().position(|score| score.is_nan()) {
            return Err(Error::Argument {
                name: "scores",
                problem: format!("the score of target {target} is not a number"),
            });
        }
        // Adding 0 makes -0 and 0 the same score.
        let mut ordered: Vec<(f32, Judgement)> = Vec::with_capacity(relevant.len());
        for judgement in relevant {
            let score = scores.get(judgement.target as usize).ok_or_else(|| Error::Argument {
                name: "scores",
                problem: format!("target {} has no score; there are {}", judgement.target, scores.len()),
            })?;
            ordered.push((score + 0.0, *judgement));
        }
        let before = |a: (f32, u32), b: (f32, u32)| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
        ordered.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.target.cmp(&b.1.target)));
        // passed[i]: targets that come behind exactly `i` relevant ones. Most come behind all of them.
        let mut passed = vec![0u32; ordered.len() + 1];
        let mut ties = 0;
        let lowest = ordered.last().map_or(f32::INFINITY, |(score, _)| *score);
        for (target, score) in scores.iter().enumerate() {
            if *score < lowest {
                continue;
            }
            let this = (score + 0.0, target as u32);
            let place =
                ordered.partition_point(|(score, judgement)| before((*score, judgement.target), this));
            passed[place] += 1;
            let equal = |place: usize| ordered.get(place).is_some_and(|(score, _)| *score == this.0);
            let is_relevant = ordered.get(place).is_some_and(|(_, judgement)| judgement.target == this.1);
            if !is_relevant && (equal(place) || (place > 0 && equal(place - 1))) {
                ties += 1;
            }
        }
        let mut rank = 0;
        let relevant = ordered
            .into_iter()
            .zip(passed)
            .map(|((_, judgement), passed)| {
                rank += passed;
                (rank, judgement)
            })
            .collect();
        Ok(Self { relevant, ties })
    }

    /// The value of a metric.
    pub fn metric(&self, metric: Metric, targets: usize) -> Option<f64> {
        let relevant: Vec<(u32, f32)> =
            self.relevant.iter().map(|(rank, judgement)| (*rank, judgement.grade)).collect();
        metric.of(&relevant, targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgements(targets: &[u32]) -> Vec<Judgement> {
        targets.iter().map(|target| Judgement { target: *target, grade: 1.0 }).collect()
    }

    fn ranks(scores: &[f32], relevant: &[u32]) -> (Vec<u32>, u32) {
        let ranks = Ranks::of(scores, &judgements(relevant)).unwrap();
        (ranks.relevant.iter().map(|(rank, _)| *rank).collect(), ranks.ties)
    }

    #[test]
    fn ranks_equal_those_of_a_whole_sort() {
        let mut state = 1u64;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for round in 0..300 {
            let count = 1 + next(60) as usize;
            let values = 1 + next(if round % 2 == 0 { 5 } else { 1000 });
            let scores: Vec<f32> = (0..count).map(|_| next(values) as f32 - 2.0).collect();
            let relevant: Vec<u32> = (0..count as u32).filter(|_| next(4) == 0).collect();
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
            let expected: Vec<u32> = order
                .iter()
                .enumerate()
                .filter(|(_, target)| relevant.contains(&(**target as u32)))
                .map(|(place, _)| place as u32 + 1)
                .collect();
            let tied = (0..count as u32)
                .filter(|t| !relevant.contains(t))
                .filter(|t| relevant.iter().any(|r| scores[*r as usize] == scores[*t as usize]))
                .count() as u32;
            assert_eq!(ranks(&scores, &relevant), (expected, tied));
        }
    }

    #[test]
    fn equal_scores_are_ordered_by_index_and_zeros_have_no_sign() {
        assert_eq!(ranks(&[0.0, -0.0, 0.0, 1.0], &[1]), (vec![3], 2));
        assert_eq!(ranks(&[-0.0, 0.0], &[1]), (vec![2], 1));
        assert!(Ranks::of(&[f32::NAN], &judgements(&[0])).is_err());
        assert!(Ranks::of(&[1.0], &judgements(&[1])).is_err());
    }

    #[test]
    fn values_worked_out_by_hand() {
        // Relevant targets at ranks 1, 3 and 6 of 8.
        let relevant = [(1, 1.0), (3, 1.0), (6, 1.0)];
        let value = |metric: &str| metric.parse::<Metric>().unwrap().of(&relevant, 8).unwrap();
        assert!((value("map") - (1.0 + 2.0 / 3.0 + 3.0 / 6.0) / 3.0).abs() < 1e-15);
        assert_eq!(value("mrr"), 1.0);
        assert_eq!(value("rp@2"), 0.5);
        assert!((value("rp@5") - 2.0 / 3.0).abs() < 1e-15);
        assert!((value("recall@2") - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(value("hit@1"), 1.0);
        let ideal = 1.0 + 1.0 / 3f64.log2() + 0.5;
        assert!((value("ndcg@3") - (1.0 + 0.5) / ideal).abs() < 1e-12);
        assert_eq!(Metric::AveragePrecision.of(&[], 8), None);
        assert_eq!(Metric::Ndcg(None).of(&[(1, 0.0)], 8), None);
    }

    #[test]
    fn names_are_read_back() {
        for metric in Metric::all() {
            assert_eq!(metric.to_string().parse::<Metric>().unwrap(), metric);
        }
        for wrong in ["", "map@3", "rp", "rp@0", "rp@x", "ndcg@"] {
            assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_constant_scorer_does_not_score_high() {
        // One relevant target in 500, anywhere: the mean of 1 / rank is that of a random order.
        let scores = vec![0.7; 500];
        let mean: f64 = (0..500)
            .map(|target| {
                Ranks::of(&scores, &judgements(&[target]))
                    .unwrap()
                    .metric(Metric::AveragePrecision, 500)
                    .unwrap()
            })
            .sum::<f64>()
            / 500.0;
        assert!(mean < 0.02, "{mean}");
    }
}
