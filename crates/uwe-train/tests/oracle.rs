//! Loss and gradients against PyTorch's, and what must not change them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uwe::{ModelFolder, Pooling, Scoring};
use uwe_train::{
    Batch, GraphTask, Lesson, Links, Margin, Network, Objective, Parameters, Reverse, Step, Threads, Variant,
};

#[derive(Deserialize)]
struct Golden {
    texts: Vec<Vec<u32>>,
    graphs: Vec<GoldenGraph>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct GoldenGraph {
    skills: Vec<usize>,
    items: Vec<usize>,
    links: Vec<Vec<u32>>,
    weight: f32,
    temperature: f32,
}

#[derive(Deserialize)]
struct Case {
    model: String,
    scoring: Scoring,
    variant: Variant,
    reverse: Reverse,
    #[serde(default = "one")]
    factor: f32,
    #[serde(default)]
    margin: Option<Margin>,
    #[serde(default)]
    teacher: f32,
    #[serde(default)]
    lessons: Vec<Vec<Vec<f32>>>,
    loss: f64,
    graphs: Vec<f64>,
    gradients: BTreeMap<String, [f64; 4]>,
}

fn one() -> f32 {
    1.0
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../uwe/tests/golden").join(name)
}

fn golden() -> Golden {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/cases.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn open(name: &str, threads: usize) -> (Network, Parameters) {
    let folder = ModelFolder::open(&folder(name)).unwrap();
    let parameters = Parameters::read(&folder.weights, &Network::order(&folder.config)).unwrap();
    let network = Network::new(&folder.config, &parameters, Threads::new(threads).unwrap()).unwrap();
    (network, parameters)
}

impl Golden {
    fn batch(&self) -> Batch {
        Batch::new(self.texts.iter().map(Vec::as_slice))
    }

    /// The graphs as a case uses them.
    fn graphs(&self, case: &Case) -> Vec<GraphTask> {
        let task = |(place, graph): (usize, &GoldenGraph)| GraphTask {
            skills: graph.skills.clone(),
            items: graph.items.clone(),
            links: Links::new(graph.links.clone(), graph.items.len()),
            weight: graph.weight,
            temperature: graph.temperature * case.factor,
            margin: case.margin,
            teacher: case
                .lessons
                .get(place)
                .map(|tables| Lesson { weight: case.teacher, tables: tables.clone() }),
        };
        self.graphs.iter().enumerate().map(task).collect()
    }
}

impl Case {
    fn objective(&self) -> Objective {
        Objective {
            scoring: self.scoring,
            variant: self.variant,
            reverse: self.reverse,
            pooling: Pooling::Mean,
            special_tokens: (1, 1),
            keep_activations: true,
        }
    }
}

fn close(found: f64, expected: f64) -> bool {
    (found - expected).abs() <= 1e-4 * expected.abs()
}

#[test]
fn loss_and_every_gradient_equal_pytorch_for_all_scorers_and_variants() {
    equal_pytorch(|network| network, true, 1e-4);
}

/// On burn's processor backend: what runs there runs on its other devices.
#[cfg(feature = "device")]
#[test]
fn loss_and_every_gradient_of_a_device_equal_pytorch() {
    let device = || uwe_train::Device::named("burn-cpu", false).unwrap();
    for keep in [true, false] {
        // Its error function is an approximation, which the sharpest case multiplies.
        equal_pytorch(|network| network.on(Some(device())), keep, 2e-3);
    }
    let error = uwe_train::Device::named("tpu", false).unwrap_err();
    assert!(error.contains("`tpu` is no device of this build"), "{error}");
}

/// Every case, on networks as `on` makes them; gradients up to a relative error.
fn equal_pytorch(on: impl Fn(Network) -> Network, keep: bool, error: f64) {
    let golden = golden();
    assert_eq!(golden.cases.len(), 36);
    for (index, case) in golden.cases.iter().enumerate() {
        let (network, parameters) = open(&case.model, 1);
        let network = on(network);
        let graphs = golden.graphs(case);
        let objective = Objective { keep_activations: keep, ..case.objective() };
        let step = objective.step(&network, &parameters.values, &golden.batch(), &graphs).unwrap();
        let what = format!("case {index}, {} {} {:?}", case.model, case.scoring, case.variant);
        assert!(close(step.loss, case.loss), "{what}: loss {} {}", step.loss, case.loss);
        for (found, expected) in step.graphs.iter().zip(&case.graphs) {
            assert!(close(*found, *expected), "{what}: {found} {expected}");
        }
        let largest = case.gradients.values().map(|expected| expected[0]).fold(0.0, f64::max);
        for place in &parameters.places {
            let gradient = &step.gradient[place.range.clone()];
            let Some(expected) = case.gradients.get(&place.name) else {
                assert!(gradient.iter().all(|value| *value == 0.0), "{what}: {} has a gradient", place.name);
                continue;
            };
            let sum = |weight: &dyn Fn(f64) -> f64| -> f64 {
                gradient.iter().enumerate().map(|(i, value)| f64::from(*value) * weight(i as f64)).sum()
            };
            let length = gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            let found = [length, sum(&|_| 1.0), sum(&|i| (i * 0.7).cos()), sum(&|i| (i * 1.3 + 1.0).sin())];
            for (found, expected_value) in found.iter().zip(expected) {
                // A key's bias moves all logits of a query alike: its gradient is 0 but for the others' rounding.
                let scale = expected[0].max(1e-3 * largest);
                assert!(
                    (found - expected_value).abs() <= error * scale,
                    "{what}: {} {found} {expected_value}",
                    place.name
                );
            }
        }
    }
}

#[test]
fn whole_gradients_equal_pytorch() {
    let golden = golden();
    for name in ["tiny-bert", "tiny-mpnet"] {
        let case = golden.cases.iter().find(|case| case.model == name).unwrap();
        let (network, parameters) = open(name, 1);
        let step = case
            .objective()
            .step(&network, &parameters.values, &golden.batch(), &golden.graphs(case))
            .unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.safetensors"));
        let expected = Parameters::read(&file, &[]).unwrap();
        assert!(expected.places.len() > 30);
        for place in &expected.places {
            let at = parameters.place(&place.name).unwrap();
            let expected = &expected.values[place.range.clone()];
            let largest = expected.iter().fold(1e-2f32, |largest, value| largest.max(value.abs()));
            for (found, expected) in step.gradient[at.range.clone()].iter().zip(expected) {
                assert!((found - expected).abs() <= 1e-4 * largest, "{}: {found} {expected}", place.name);
            }
        }
    }
}

/// Largest difference of two gradients, as a share of the largest entry.
fn difference(a: &Step, b: &Step) -> f32 {
    let largest = a.gradient.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let differences = a.gradient.iter().zip(&b.gradient).map(|(a, b)| (a - b).abs());
    differences.fold(0.0f32, f32::max) / largest
}

#[test]
fn order_threads_and_kept_activations_change_nothing() {
    let golden = golden();
    // Enough texts for several blocks: the same ones again and again, with other ids.
    let texts: Vec<Vec<u32>> = (0..160)
        .map(|i| {
            let mut ids = golden.texts[i % 16].clone();
            ids[1] = 5 + (i as u32 * 7) % 93;
            ids
        })
        .collect();
    let columns: Vec<Vec<u32>> = (0..80).map(|i| vec![i, (i * 3 + 1) % 80]).collect();
    let columns: Vec<Vec<u32>> = columns
        .into_iter()
        .map(|mut columns| {
            columns.sort_unstable();
            columns.dedup();
            columns
        })
        .collect();
    let task = |skills: Vec<usize>, items: Vec<usize>, columns: Vec<Vec<u32>>| GraphTask {
        skills,
        items,
        links: Links::new(columns, 80),
        weight: 1.0,
        temperature: 0.05,
        ..GraphTask::default()
    };
    for name in ["tiny-bert", "tiny-mpnet"] {
        let case = golden.cases.iter().find(|case| case.model == name).unwrap();
        let batch = Batch::new(texts.iter().map(Vec::as_slice));
        let graph = task((0..80).collect(), (80..160).collect(), columns.clone());
        let run = |threads: usize, keep: bool| {
            let (network, parameters) = open(name, threads);
            let objective = Objective { keep_activations: keep, ..case.objective() };
            objective.step(&network, &parameters.values, &batch, std::slice::from_ref(&graph)).unwrap()
        };
        let whole = run(1, true);
        for (threads, keep) in [(1, false), (2, true), (3, false), (8, true)] {
            let other = run(threads, keep);
            assert!(
                other.loss == whole.loss && other.gradient == whole.gradient,
                "{threads} threads, {keep}"
            );
        }
        // The batch backwards: text i stands at 159 - i, row r at 79 - r.
        let reversed = Batch::new(texts.iter().rev().map(Vec::as_slice));
        let back = columns.iter().rev().map(|columns| columns.iter().rev().map(|c| 79 - c).collect());
        let graph = task((80..160).collect(), (0..80).collect(), back.collect());
        let (network, parameters) = open(name, 2);
        let other = case.objective().step(&network, &parameters.values, &reversed, &[graph]).unwrap();
        assert!((other.loss - whole.loss).abs() <= 1e-5 * whole.loss, "{} {}", other.loss, whole.loss);
        assert!(difference(&whole, &other) <= 1e-5, "{}", difference(&whole, &other));
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    let golden = golden();
    for case in golden.cases.iter().filter(|case| case.variant == Variant::ManyToMany) {
        let (network, parameters) = open(&case.model, 2);
        let (batch, graphs) = (golden.batch(), golden.graphs(case));
        let loss = |values: &[f32]| case.objective().step(&network, values, &batch, &graphs).unwrap().loss;
        let step = case.objective().step(&network, &parameters.values, &batch, &graphs).unwrap();
        let length = step.gradient.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        // Along the gradient the loss rises by its length; MaxSim has corners, so that steps are small.
        let moved = |by: f64| -> Vec<f32> {
            let along = step.gradient.iter().map(|slope| (f64::from(*slope) / length * by) as f32);
            parameters.values.iter().zip(along).map(|(value, along)| value + along).collect()
        };
        let slope = (loss(&moved(2e-3)) - loss(&moved(-2e-3))) / 4e-3;
        assert!((slope - length).abs() < 0.02 * length, "{} {}: {slope} {length}", case.model, case.scoring);
    }
}
