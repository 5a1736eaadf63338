//! `uwe train` and `uwe model export` as contracts, with the tiny model on the starter graph.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{run, uwe};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// A folder with the starter graph and a recipe of so many steps.
fn prepared(steps: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let (recipe, root) =
        (project.join("recipes/starter.toml").display().to_string(), project.display().to_string());
    let built = run(folder.path(), &["graph", "build", &recipe, "--data", &root, "--output", "graph"]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    let recipe = format!(
        "steps = {steps}\nbatch = 8\n[scoring]\nscorer = \"max-sim\"\nreduction = \"mean\"\nspecial_tokens = true\n[validation]\nevery = {steps}\nqueries = 10\ncheckpoint_every = 5\n"
    );
    std::fs::write(folder.path().join("r.toml"), recipe).unwrap();
    folder
}

const BEGIN: [&str; 7] = ["train", "r.toml", "--graph", "graph", "--allow-unchecked", "--output", "run"];

#[test]
fn a_training_gives_a_model_that_ranks_is_drawn_and_exported() {
    let folder = prepared(3);
    let trained = run(folder.path(), &BEGIN);
    assert_eq!(trained.code, Some(0), "{}", trained.err);
    assert!(trained.out.starts_with("best\trun/best\tafter step "), "{}", trained.out);
    assert!(
        trained.err.contains("after step 0: MAP") && trained.err.contains("after step 3: MAP"),
        "{}",
        trained.err
    );
    let again = run(folder.path(), &BEGIN);
    assert!(again.code == Some(1) && again.err.contains("`uwe train resume` goes on"), "{}", again.err);
    let done = run(folder.path(), &["train", "resume", "run"]);
    assert!(done.code == Some(0) && done.err.contains("going on at step 3 of 3"), "{}", done.err);
    let page = run(folder.path(), &["train", "report", "run"]);
    assert_eq!(page.code, Some(0), "{}", page.err);
    assert!(
        std::fs::read_to_string(folder.path().join("run/report.html")).unwrap().contains("Loss by graph")
    );
    let exported = run(folder.path(), &["model", "export", "run/last", "--output", "half"]);
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    let info = run(folder.path(), &["model", "info", "--json", "--model", "half"]);
    let info: serde_json::Value = serde_json::from_str(&info.out).unwrap();
    assert_eq!((&info["stored_as"], &info["scoring"]["scorer"]), (&"f16".into(), &"max-sim".into()));
    // The model's own scorer is the default, and can be overruled.
    let score = |more: &[&str]| {
        let line =
            [&["score", "--model", "half", "--query", "bake bread", "--target", "baker"][..], more].concat();
        let scored = run(folder.path(), &line);
        assert_eq!(scored.code, Some(0), "{}", scored.err);
        scored.out
    };
    assert_eq!(score(&[]), score(&["--scorer", "maxsim"]));
    assert_ne!(score(&[]), score(&["--scorer", "soft", "--temperature", "5"]));
    let itself = run(folder.path(), &["model", "export", "half", "--output", "half"]);
    assert!(itself.code == Some(1) && itself.err.contains("is the model itself"), "{}", itself.err);
    // The mean of a model and itself is the model; one with another scorer has none with it.
    let mean = run(folder.path(), &["model", "export", "run/last", "run/last", "--output", "mean"]);
    assert_eq!(mean.code, Some(0), "{}", mean.err);
    let weights = |name: &str| std::fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert_eq!(weights("mean"), weights("half"));
    let settings = folder.path().join("mean/config_uwe.json");
    let other = std::fs::read_to_string(&settings).unwrap().replace("max-sim", "cosine");
    std::fs::write(&settings, other).unwrap();
    let mixed = run(folder.path(), &["model", "export", "half", "mean", "--output", "x"]);
    assert!(
        mixed.code == Some(1) && mixed.err.contains("mean has another scorer than half"),
        "{}",
        mixed.err
    );
    // Unless the mean's own is named.
    let line = [
        "model",
        "export",
        "half",
        "mean",
        "--scorer",
        "soft",
        "--axis",
        "both",
        "--temperature",
        "8",
        "-o",
        "x",
    ];
    let named = run(folder.path(), &line);
    assert_eq!(named.code, Some(0), "{}", named.err);
    let info = run(folder.path(), &["model", "info", "--json", "--model", "x"]);
    let info: serde_json::Value = serde_json::from_str(&info.out).unwrap();
    assert_eq!((&info["scoring"]["axis"], &info["scoring"]["temperature"]), (&"both".into(), &8.0.into()));
    let cold = run(folder.path(), &["model", "export", "x", "--temperature", "0", "--output", "y"]);
    assert!(cold.code == Some(2) && cold.err.contains("temperature"), "{}", cold.err);
    let line = ["model", "export", "half", "--temperature", "8", "--output", "y"];
    let meaningless = run(folder.path(), &line);
    assert!(
        meaningless.code == Some(2)
            && meaningless.err.contains("--temperature: means nothing to this scorer"),
        "{}",
        meaningless.err
    );
    assert!(!folder.path().join("y").exists());
}

#[test]
fn a_training_is_refused_or_interrupted_with_a_word_on_what_to_do() {
    let folder = prepared(100_000);
    let unchecked = run(folder.path(), &["train", "r.toml", "--graph", "graph", "--output", "run"]);
    assert!(
        unchecked.code == Some(1) && unchecked.err.contains("run `uwe graph check` on it first"),
        "{}",
        unchecked.err
    );
    std::fs::write(folder.path().join("wrong.toml"), "step = 7\n").unwrap();
    let wrong = run(folder.path(), &["train", "wrong.toml", "--graph", "graph", "--output", "run"]);
    assert!(wrong.code == Some(2) && wrong.err.contains("unknown field `step`"), "{}", wrong.err);
    let nothing = run(folder.path(), &["train"]);
    assert_eq!(
        nothing.code,
        Some(if nothing.err.contains("name a recipe") { 1 } else { 2 }),
        "{}",
        nothing.err
    );
    let child = uwe(folder.path()).args(BEGIN).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let log = folder.path().join("run/log.jsonl");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() > 8) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let ended = common::ran(child.wait_with_output().unwrap());
    assert!(
        ended.code == Some(1) && ended.err.contains("`uwe train resume run` goes on at step"),
        "{}",
        ended.err
    );
    assert!(folder.path().join("run/checkpoint.safetensors").exists());
}
