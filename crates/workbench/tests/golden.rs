//! Metrics and lexical baselines against the public toolkit WorkRB; `golden/generate.py` wrote the expected values.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use serde::Deserialize;
use std::collections::BTreeMap;
use workbench::{
    Catalogue, CatalogueOptions, Judgement, Lexical, LexicalSystem, Metric, RankingSet, Ranks, System,
};

#[derive(Deserialize)]
struct Case {
    kind: String,
    tied: bool,
    scores: Vec<Vec<f32>>,
    relevant: Vec<Vec<u32>>,
    grades: Option<Vec<Vec<f32>>>,
    values: BTreeMap<String, f64>,
}

#[test]
fn metrics_equal_the_toolkit_on_240_random_matrices() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/metrics.json")).unwrap();
    assert_eq!(cases.len(), 240);
    let tied = cases.iter().filter(|case| case.tied).count();
    assert!(tied >= 50 && cases.len() - tied >= 150, "{tied} with ties");
    let empty = cases.iter().filter(|case| case.relevant.iter().any(Vec::is_empty)).count();
    assert!(empty >= 20, "{empty} with queries without a relevant target");
    for (index, case) in cases.iter().enumerate() {
        for (name, expected) in &case.values {
            let metric: Metric = name.parse().unwrap();
            let values: Vec<f64> = case
                .scores
                .iter()
                .zip(&case.relevant)
                .enumerate()
                .filter_map(|(query, (scores, relevant))| {
                    let grade =
                        |place: usize| case.grades.as_ref().map_or(1.0, |grades| grades[query][place]);
                    let judgements: Vec<Judgement> = relevant
                        .iter()
                        .enumerate()
                        .map(|(place, target)| Judgement { target: *target, grade: grade(place) })
                        .collect();
                    Ranks::of(scores, &judgements).unwrap().metric(metric, scores.len())
                })
                .collect();
            let value = workbench::mean(&values);
            assert!(
                (value - expected).abs() < 1e-9,
                "case {index} ({}), {name}: {value}, expected {expected}",
                case.kind
            );
        }
    }
}

#[derive(Deserialize)]
struct Texts {
    queries: Vec<String>,
    targets: Vec<String>,
    best: BTreeMap<String, Vec<Vec<(usize, f32)>>>,
}

/// A set of these texts, by the form in which a user brings one.
fn set(texts: &Texts) -> RankingSet {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lexical.json");
    let relevance = vec![[0]; texts.queries.len()];
    let json =
        serde_json::json!({"queries": texts.queries, "targets": texts.targets, "relevance": relevance});
    std::fs::write(&path, json.to_string()).unwrap();
    let mut catalogue = Catalogue::open(folder.path(), CatalogueOptions::default()).unwrap();
    catalogue.add(&path).unwrap();
    let entry = catalogue.entries().last().unwrap();
    catalogue.load(entry).unwrap()
}

#[test]
fn lexical_baselines_rank_like_the_toolkit() {
    let texts: Texts = serde_json::from_str(include_str!("golden/lexical.json")).unwrap();
    let set = set(&texts);
    assert_eq!((set.queries.len(), set.targets.len()), (texts.queries.len(), texts.targets.len()));
    assert_eq!(texts.best.len(), 4);
    for (name, best) in &texts.best {
        let system = LexicalSystem { lexical: name.parse::<Lexical>().unwrap(), seed: 1 };
        let rows = system.open(&set, &mut |_, _| true).unwrap().rows(0..set.queries.len()).unwrap();
        for ((query, row), expected) in set.queries.iter().zip(rows).zip(best) {
            let hits = uwe::best(&row, expected.len());
            let found: Vec<usize> = hits.iter().map(|hit| hit.target).collect();
            let wanted: Vec<usize> = expected.iter().map(|(target, _)| *target).collect();
            assert_eq!(found, wanted, "{name}, `{query}`");
            for (hit, (_, score)) in hits.iter().zip(expected) {
                assert!((hit.score - score).abs() <= 1e-6 * score.abs().max(1.0), "{name}, `{query}`");
            }
        }
    }
}
