//! `uwe graph` as a contract, on the starter taxonomy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::run;
use std::path::Path;

#[test]
fn a_graph_is_built_checked_described_and_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let (recipe, root) = (project.join("recipes/starter.toml"), project.display().to_string());
    let recipe = recipe.display().to_string();
    let built = run(folder.path(), &["graph", "build", &recipe, "--data", &root, "--output", "g"]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(built.out.starts_with("source ") && built.out.contains("alternative"), "{}", built.out);
    let data = folder.path().join("data/esco/1.1.0");
    std::fs::create_dir_all(&data).unwrap();
    let header = "conceptUri,preferredLabel,altLabels,description\n";
    // The starter taxonomy's own first skill with one of its other names twice over: the second is a test.
    let taken = |text: &str| format!("{header}s:1,{text},\"first name\nshelter attendant\",x\n");
    std::fs::write(data.join("skills_en.csv"), taken("some skill")).unwrap();
    let passed = run(folder.path(), &["graph", "check", "g", "--against", "data"]);
    assert_eq!((passed.code, &passed.out[..]), (Some(0), ""), "{}", passed.err);
    let manifest = run(folder.path(), &["graph", "stats", "g", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&manifest.out).unwrap();
    assert!(json["checked_against"]["skillnorm-esco1.1.0.test.en"].is_string(), "{json}");
    // A name that the graph does use.
    let edge = run(folder.path(), &["graph", "sample", "g", "-n", "4000"]);
    let row: Vec<&str> = edge
        .out
        .lines()
        .map(|l| l.split('\t').collect())
        .find(|r: &Vec<&str>| r[1] == "alternative")
        .unwrap();
    let leak = format!("{header}s:1,some skill,\"first name\n{}\",x\n", row[4]);
    std::fs::write(data.join("skills_en.csv"), leak).unwrap();
    let failed = run(folder.path(), &["graph", "check", "g", "--against", "data"]);
    assert_eq!(failed.code, Some(1));
    assert!(
        failed.out.contains(row[4]) && failed.err.contains("edges leak"),
        "{} {}",
        failed.out,
        failed.err
    );
    let manifest = run(folder.path(), &["graph", "stats", "g", "--json"]);
    assert!(manifest.out.contains("\"checked_against\": {}"), "{}", manifest.out);
    let nothing = run(folder.path(), &["graph", "check", "g", "--against", "g"]);
    assert!(nothing.code == Some(1) && nothing.err.contains("no test set"), "{}", nothing.err);
    let wrong = run(folder.path(), &["graph", "sample", "g", "--source", "nope"]);
    assert!(wrong.code == Some(1) && wrong.err.contains("uwe graph stats"), "{}", wrong.err);
}
