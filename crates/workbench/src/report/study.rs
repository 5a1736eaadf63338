//! What a report shows, worked out from the runs.

use crate::error::{Error, Result};
use crate::results::{Averages, Queries, Results, SetResult};
use crate::run::{Comparison, Run};
use crate::set::Identity;
use crate::statistics::mean;
use crate::systems::Description;
use std::collections::HashMap;

/// Runs side by side.
pub(super) struct Study {
    pub(super) runs: Vec<StudyRun>,
    /// Sets that any run has measured, in the order of the benchmark.
    pub(super) sets: Vec<Identity>,
    /// Each further run compared with the first, where they share a set.
    pub(super) comparisons: Vec<Option<Comparison>>,
    /// What is left out, since an earlier run has measured a set of this name on other data.
    pub(super) left_out: Vec<String>,
}

/// A run with all its queries.
pub(super) struct StudyRun {
    /// `A`, `B`, ...: stands for the run in charts.
    pub(super) letter: String,
    pub(super) name: String,
    pub(super) results: Results,
    queries: HashMap<String, Queries>,
    targets: HashMap<String, Vec<String>>,
}

impl StudyRun {
    pub(super) fn set(&self, identity: &Identity) -> Option<&SetResult> {
        self.results.sets.iter().find(|set| set.identity.key() == identity.key())
    }

    pub(super) fn queries(&self, identity: &Identity) -> Option<&Queries> {
        self.queries.get(&identity.key())
    }

    pub(super) fn averages(&self, like: &Averages) -> Option<&Averages> {
        self.results
            .averages
            .iter()
            .find(|average| average.split == like.split && average.language == like.language)
    }
}

/// Name of a system with the options that matter to a reader.
pub(super) fn system_name(system: &Description) -> String {
    let scoring = &system.options["scoring"];
    let Some(scorer) = scoring["scorer"].as_str() else { return system.name.clone() };
    let mut name = format!("{}, {}", system.name, scorer.replace('-', " "));
    if let Some(temperature) = scoring["temperature"].as_f64() {
        // Stored as a 32-bit number: 0.1 would show its rounding error.
        name += &format!(", τ {}", temperature as f32);
    }
    for (field, usual) in [("logits", "raw"), ("axis", "target"), ("reduction", "mean")] {
        if let Some(value) = scoring[field].as_str().filter(|value| *value != usual) {
            name += &format!(", {field} {value}");
        }
    }
    if scoring["special_tokens"] == false {
        name += ", no special tokens";
    }
    if system.options["direction"] == "reverse" {
        name += ", reversed";
    }
    if let Some(precision) = system.options["precision"].as_str().filter(|precision| *precision != "f32") {
        name += &format!(", {precision}");
    }
    name
}

impl Study {
    /// Reads all runs.
    pub(super) fn read(runs: &[Run]) -> Result<Self> {
        let Some(first) = runs.first() else {
            return Err(Error::Argument { name: "runs", problem: "there is none to report on".into() });
        };
        let mut study =
            Self { runs: Vec::new(), sets: Vec::new(), comparisons: Vec::new(), left_out: Vec::new() };
        let mut known: HashMap<String, String> = HashMap::new();
        for (index, run) in runs.iter().enumerate() {
            let mut results = run.gather()?;
            let letter = letter(index);
            results.sets.retain(|set| {
                let key = set.identity.key();
                let fits = *known.entry(key.clone()).or_insert_with(|| set.data.clone()) == set.data;
                if !fits {
                    study.left_out.push(format!("{key} of run {letter}"));
                }
                fits
            });
            let (mut queries, mut targets) = (HashMap::new(), HashMap::new());
            for set in &results.sets {
                queries.insert(set.identity.key(), run.queries(&set.identity)?);
                targets.insert(set.identity.key(), run.targets(&set.identity)?);
                if !study.sets.iter().any(|identity| identity.key() == set.identity.key()) {
                    study.sets.push(set.identity.clone());
                }
            }
            study.runs.push(StudyRun { letter, name: system_name(run.system()), results, queries, targets });
            if index > 0 {
                study.comparisons.push(first.compare(run, "map").ok());
            }
        }
        study.sets.sort_by_key(|identity| {
            (identity.split, identity.task.clone(), !identity.in_average, identity.name.clone())
        });
        Ok(study)
    }

    /// One split and language after the other, as far as any run has averages for it.
    pub(super) fn places(&self) -> Vec<&Averages> {
        let mut places: Vec<&Averages> = Vec::new();
        for average in self.runs.iter().flat_map(|run| &run.results.averages) {
            let same = |other: &&Averages| other.split == average.split && other.language == average.language;
            if !places.iter().any(same) {
                places.push(average);
            }
        }
        places
    }

    /// The run whose queries are shown: the last one named.
    pub(super) fn focus(&self) -> &StudyRun {
        &self.runs[self.runs.len() - 1]
    }
}

fn letter(index: usize) -> String {
    let place = char::from(b'A' + (index % 26) as u8);
    if index < 26 { place.to_string() } else { format!("{place}{}", index / 26) }
}

/// Mean precision at the relevant targets, by how many queries a target is relevant to.
///
/// Precision at a relevant target is the term that it adds to average precision: relevant targets down to it, over
/// its rank. In a set with one relevant target a query this is MAP by frequency of the target.
pub(super) struct LongTail {
    /// `(frequency, mean precision, pairs)`, frequencies in doubling steps, each at its step's geometric middle.
    pub(super) curve: Vec<(f64, f64, usize)>,
    /// The same over thirds of the relevant targets: the most frequent third, the middle, the rarest.
    pub(super) thirds: [f64; 3],
}

pub(super) fn long_tail(queries: &Queries) -> LongTail {
    let mut frequency: HashMap<u32, usize> = HashMap::new();
    for (_, judgement) in queries.relevant.iter().flatten() {
        *frequency.entry(judgement.target).or_default() += 1;
    }
    let mut order: Vec<(usize, u32)> = frequency.iter().map(|(target, count)| (*count, *target)).collect();
    order.sort_unstable_by(|a, b| b.cmp(a));
    let third: HashMap<u32, usize> =
        order.iter().enumerate().map(|(place, (_, target))| (*target, place * 3 / order.len())).collect();
    let mut steps: Vec<Vec<f64>> = Vec::new();
    let mut thirds: [Vec<f64>; 3] = Default::default();
    for list in &queries.relevant {
        for (place, (rank, judgement)) in list.iter().enumerate() {
            let precision = (place + 1) as f64 / f64::from(*rank);
            let step = frequency[&judgement.target].ilog2() as usize;
            if steps.len() <= step {
                steps.resize(step + 1, Vec::new());
            }
            steps[step].push(precision);
            thirds[third[&judgement.target]].push(precision);
        }
    }
    let curve = steps
        .iter()
        .enumerate()
        .filter(|(_, values)| !values.is_empty())
        .map(|(step, values)| {
            let (first, last) = ((1u64 << step) as f64, (2u64 << step) as f64 - 1.0);
            ((first * last).sqrt(), mean(values), values.len())
        })
        .collect();
    LongTail { curve, thirds: thirds.map(|values| mean(&values)) }
}

/// First ranks of each class of [`rank_shares`], with its name.
pub(super) const RANK_CLASSES: [(u32, &str); 8] = [
    (1, "1"),
    (2, "2-3"),
    (4, "4-10"),
    (11, "11-30"),
    (31, "31-100"),
    (101, "-300"),
    (301, "-1000"),
    (1001, "more"),
];

/// Share of the queries whose first relevant target has a rank of each class.
pub(super) fn rank_shares(queries: &Queries) -> [f64; 8] {
    let mut shares = [0.0; 8];
    for rank in queries.relevant.iter().filter_map(|list| Some(list.first()?.0)) {
        let class = RANK_CLASSES.iter().rposition(|(first, _)| *first <= rank).unwrap_or(0);
        shares[class] += 1.0 / queries.relevant.len() as f64;
    }
    shares
}

/// A query that went wrong, or changed.
pub(super) struct Example {
    pub(super) query: String,
    /// Rank of the first relevant target.
    pub(super) rank: u32,
    /// Value of the metric: average precision, or its change.
    pub(super) value: f64,
    /// Relevant targets, best first, at most three, and how many there are.
    pub(super) truth: (Vec<String>, usize),
    /// What stands above the first relevant one, at most four.
    pub(super) above: Vec<String>,
}

fn example(run: &StudyRun, identity: &Identity, query: usize, value: f64) -> Option<Example> {
    let (queries, targets) = (run.queries(identity)?, run.targets.get(&identity.key())?);
    let text = |target: u32| targets.get(target as usize).cloned().unwrap_or_default();
    let relevant = queries.relevant.get(query)?;
    let rank = relevant.first()?.0;
    let above = queries.hits[query].iter().take((rank as usize - 1).min(4)).map(|(t, _)| text(*t)).collect();
    let truth = relevant.iter().take(3).map(|(_, judgement)| text(judgement.target)).collect();
    Some(Example { query: queries.texts[query].clone(), rank, value, truth: (truth, relevant.len()), above })
}

/// The queries with the least average precision.
pub(super) fn worst(run: &StudyRun, identity: &Identity, count: usize) -> Vec<Example> {
    let Some(values) = run.queries(identity).and_then(|queries| queries.metric("map")) else {
        return Vec::new();
    };
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]).then(a.cmp(b)));
    order.into_iter().take(count).filter_map(|query| example(run, identity, query, values[query])).collect()
}

/// Changes of average precision from one run to another, ascending.
pub(super) fn changes(first: &StudyRun, second: &StudyRun, identity: &Identity) -> Option<Vec<(f64, usize)>> {
    let values = |run: &StudyRun| run.queries(identity)?.metric("map").map(<[f64]>::to_vec);
    let (first, second) = (values(first)?, values(second)?);
    if first.len() != second.len() {
        return None;
    }
    let mut changes: Vec<(f64, usize)> = second
        .iter()
        .zip(&first)
        .map(|(b, a)| b - a)
        .enumerate()
        .map(|(query, change)| (change, query))
        .collect();
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    Some(changes)
}

/// Some of the changes as examples, seen by the second run.
pub(super) fn changed(
    second: &StudyRun,
    identity: &Identity,
    changes: impl Iterator<Item = (f64, usize)>,
) -> Vec<Example> {
    changes.filter_map(|(change, query)| example(second, identity, query, change)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::Judgement;

    fn queries(ranks: &[&[(u32, u32)]]) -> Queries {
        let relevant = ranks
            .iter()
            .map(|list| list.iter().map(|(r, t)| (*r, Judgement { target: *t, grade: 1.0 })).collect())
            .collect();
        Queries { relevant, ..Queries::default() }
    }

    #[test]
    fn the_long_tail_goes_by_frequency() {
        // Target 7 is relevant to four queries and always first; 1 and 2 to one each, found late.
        let tail = long_tail(&queries(&[&[(1, 7)], &[(1, 7), (4, 1)], &[(1, 7)], &[(1, 7), (8, 2)]]));
        assert_eq!(tail.curve.len(), 2);
        assert_eq!(tail.curve[0].2, 2);
        assert!((tail.curve[0].1 - (2.0 / 4.0 + 2.0 / 8.0) / 2.0).abs() < 1e-12);
        assert_eq!(tail.curve[1].1, 1.0);
        assert_eq!(tail.thirds[0], 1.0);
    }

    #[test]
    fn ranks_fall_into_classes() {
        let shares = rank_shares(&queries(&[&[(1, 0)], &[(3, 0)], &[(10, 0)], &[(5000, 0)]]));
        assert_eq!(shares, [0.25, 0.25, 0.25, 0.0, 0.0, 0.0, 0.0, 0.25]);
    }

    #[test]
    fn letters_do_not_run_out() {
        assert_eq!([letter(0), letter(25), letter(26)], ["A", "Z", "A1"]);
    }
}
