//! Whole trainings of a tiny encoder: it learns, it is killed and goes on, it refuses what makes no sense.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use uwe_graph::{Graph, GraphFile, Part, fold};
use uwe_train::{
    Distillation, Event, Inputs, Margin, Negatives, Parameters, Recipe, Threads, Training, read_log,
};

const HIDDEN: usize = 64;
const WIDE: usize = 128;

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The starter graph; every edge is there a second time, to see how well it is learnt.
fn starter(shuffled: bool) -> GraphFile {
    let recipe = uwe_graph::Recipe::read(&project().join("recipes/starter.toml")).unwrap();
    let mut graph = uwe_graph::build(&recipe, (&project(), &project()), &mut |_| {}).unwrap();
    graph.edges.retain(|edge| edge.graph != Graph::Job);
    graph.edges.iter_mut().for_each(|edge| edge.part = Part::Train);
    let mut known = graph.edges.clone();
    known.iter_mut().for_each(|edge| edge.part = Part::Val);
    if shuffled {
        let mut texts: Vec<String> = graph.edges.iter().map(|edge| edge.text.clone()).collect();
        texts.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
        graph.edges.iter_mut().zip(texts).for_each(|(edge, text)| edge.text = text);
    }
    graph.edges.extend(known);
    graph.seal();
    graph
}

/// A random encoder of two layers whose tokens are the graph's words.
fn model(folder: &Path, graph: &GraphFile) {
    let mut words: BTreeSet<String> = BTreeSet::new();
    for edge in &graph.edges {
        for text in [&edge.skill, &edge.text] {
            words.extend(fold(text).split(' ').map(String::from));
        }
    }
    let mut vocabulary: BTreeMap<String, usize> = BTreeMap::new();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].map(String::from);
    for (id, word) in special.into_iter().chain(words).enumerate() {
        vocabulary.insert(word, id);
    }
    let count = vocabulary.len();
    let token = |id: usize, content: &str| {
        serde_json::json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [token(2, "[CLS]"), token(3, "[SEP]")],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    });
    let config = serde_json::json!({"model_type": "bert", "hidden_size": HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": WIDE, "vocab_size": count, "max_position_embeddings": 64,
        "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12});
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let mut shapes = vec![
        ("embeddings.word_embeddings.weight".to_string(), vec![count, HIDDEN]),
        ("embeddings.position_embeddings.weight".into(), vec![64, HIDDEN]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, HIDDEN]),
    ];
    let norm = |name: String, shapes: &mut Vec<(String, Vec<usize>)>| {
        shapes.extend([(format!("{name}.weight"), vec![HIDDEN]), (format!("{name}.bias"), vec![HIDDEN])]);
    };
    norm("embeddings.LayerNorm".into(), &mut shapes);
    for layer in 0..2 {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        for (name, outputs, inputs) in [
            ("attention.self.query", HIDDEN, HIDDEN),
            ("attention.self.key", HIDDEN, HIDDEN),
            ("attention.self.value", HIDDEN, HIDDEN),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", WIDE, HIDDEN),
            ("output.dense", HIDDEN, WIDE),
        ] {
            shapes.push((at(&format!("{name}.weight")), vec![outputs, inputs]));
            shapes.push((at(&format!("{name}.bias")), vec![outputs]));
        }
        norm(at("attention.output.LayerNorm"), &mut shapes);
        norm(at("output.LayerNorm"), &mut shapes);
    }
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    let data: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|_| match &name[..] {
                name if name.ends_with("LayerNorm.weight") => 1.0,
                name if name.ends_with("bias") => 0.0,
                _ => generator.random_range(-0.08f32..0.08),
            });
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (name, shape, bytes)
        })
        .collect();
    let views = data.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let bytes = safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap();
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

fn recipe(steps: u64) -> Recipe {
    let text = format!(
        "steps = {steps}\nbatch = 128\njoin_sentences = 0.0\n[graphs.sentence]\nweight = 1.0\ntemperature = 0.05\n\
         [graphs.alternative]\nweight = 1.0\ntemperature = 0.05\n[optimizer]\nlearning_rate = 3e-3\nwarm_up = 0.05\n\
         [validation]\nevery = {steps}\nqueries = 400\ncheckpoint_every = 10\n"
    );
    Recipe::parse(&text, "r.toml").unwrap()
}

/// Model and graph in a folder.
fn inputs(folder: &Path, shuffled: bool) -> Inputs {
    let graph = starter(shuffled);
    graph.write(&folder.join("graph")).unwrap();
    model(&folder.join("model"), &graph);
    Inputs { model: folder.join("model"), graph: folder.join("graph"), data: None, unchecked: true }
}

fn means(run: &Path) -> Vec<f64> {
    let events = read_log(&run.join("log.jsonl")).unwrap();
    let mean = |event: &Event| match event {
        Event::Validation(validation) => Some(validation.scored.mean),
        Event::Step(_) => None,
    };
    events.iter().filter_map(mean).collect()
}

#[test]
fn a_tiny_encoder_learns_the_starter_graphs_and_not_from_shuffled_links() {
    let mut reached = Vec::new();
    for shuffled in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let inputs = inputs(folder.path(), shuffled);
        let run = folder.path().join("run");
        let mut training = Training::begin(&run, recipe(250), inputs, Threads::new(0).unwrap()).unwrap();
        let summary = training.run(&mut |_| true).unwrap();
        let means = means(&run);
        assert_eq!((summary.steps, means.len()), (250, 2));
        reached.push(means[1]);
    }
    assert!(reached[0] > 0.95, "{reached:?}");
    assert!(reached[1] < 0.3, "{reached:?}");
}

#[test]
fn a_training_that_is_killed_and_resumed_ends_with_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = inputs(folder.path(), false);
    let whole = folder.path().join("whole");
    let mut recipe = recipe(150);
    recipe.batch = 16;
    recipe.validation.queries = 20;
    recipe.validation.every = 70;
    // What a checkpoint holds besides: a mean of the weights, and neighbours that were found before the kill.
    recipe.optimizer.averaging = 0.9;
    recipe.negatives = Some(Negatives { neighbours: 2, most_similar: 0.999, refresh: 60 });
    recipe.margin = Some(Margin { weight: 0.1, positive: 0.6, negative: 0.3 });
    let teacher = Distillation { model: inputs.model.clone(), weight: 0.1, scoring: recipe.scoring };
    recipe.distillation = Some(teacher);
    let one = || Threads::new(1).unwrap();
    let mut training = Training::begin(&whole, recipe.clone(), inputs.clone(), one()).unwrap();
    training.run(&mut |_| true).unwrap();
    // What a kill leaves: nothing is written after step 137 but what was written before; the last checkpoint is step 130's.
    let killed = folder.path().join("killed");
    let mut training = Training::begin(&killed, recipe, inputs, one()).unwrap();
    let gone = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        training.run(&mut |event| match event {
            Event::Step(step) if step.step == 137 => std::panic::resume_unwind(Box::new("killed")),
            _ => true,
        })
    }));
    assert!(gone.is_err());
    std::fs::create_dir(killed.join(".partial-model")).unwrap();
    std::fs::write(killed.join(".part-checkpoint"), "half").unwrap();
    let mut resumed = Training::resume(&killed, Threads::new(2).unwrap()).unwrap();
    assert_eq!(resumed.state().step, 130);
    resumed.run(&mut |_| true).unwrap();
    assert!(!killed.join(".partial-model").exists() && !killed.join(".part-checkpoint").exists());
    let read = |run: &Path, file: &str| std::fs::read(run.join(file)).unwrap();
    for file in ["checkpoint.safetensors", "last/model.safetensors", "best/model.safetensors"] {
        assert!(read(&whole, file) == read(&killed, file), "{file} differs");
    }
    let timeless = |run: &Path| -> Vec<Event> {
        let mut events = read_log(&run.join("log.jsonl")).unwrap();
        for event in &mut events {
            match event {
                Event::Step(step) => step.seconds = 0.0,
                Event::Validation(validation) => validation.seconds = 0.0,
            }
        }
        events
    };
    assert_eq!(timeless(&whole), timeless(&killed));
    assert_eq!(timeless(&whole).len(), 150 + 4);
    let page = uwe_train::report(&whole).unwrap();
    assert!(page.contains("Loss by graph") && page.contains("<svg "));
    // An interruption keeps the very step that it came behind.
    let mut again = Training::resume(&killed, one()).unwrap();
    assert_eq!(again.run(&mut |_| true).unwrap().steps, 150);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let good = inputs(folder.path(), false);
    let one = || Threads::new(1).unwrap();
    let run = folder.path().join("run");
    let unchecked = Inputs { unchecked: false, ..good.clone() };
    let error = Training::begin(&run, recipe(2), unchecked, one()).unwrap_err();
    assert!(error.to_string().contains("has passed no leak check"), "{error}");
    assert!(!run.exists(), "a refused training leaves a folder");
    let mut jobs = recipe(2);
    jobs.graphs.insert("job".into(), jobs.graphs["sentence"].clone());
    let error = Training::begin(&run, jobs, good.clone(), one()).unwrap_err();
    assert!(error.to_string().contains("no edge of graph `job`"), "{error}");
    Training::begin(&run, recipe(2), good.clone(), one()).unwrap();
    let error = Training::begin(&run, recipe(2), good.clone(), one()).unwrap_err();
    assert!(error.to_string().contains("resume"), "{error}");
    // Another graph under the same name.
    let mut other = starter(false);
    other.edges.pop();
    other.seal();
    other.write(&good.graph).unwrap();
    let error = Training::resume(&run, one()).unwrap_err();
    assert!(error.to_string().contains("another graph"), "{error}");
    // A learning rate beyond sense ends with a name, not with broken weights.
    let wild = folder.path().join("wild");
    let mut far = recipe(50);
    far.optimizer.learning_rate = 1e30;
    far.validation.every = 50;
    let mut training = Training::begin(&wild, far, good, one()).unwrap();
    let error = training.run(&mut |_| true).unwrap_err();
    assert!(error.to_string().contains("is not finite; batch"), "{error}");
    assert!(!Parameters::read(&wild.join("best/model.safetensors"), &[]).unwrap().values.is_empty());
}
