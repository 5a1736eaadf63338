//! `uwe graph` as a contract, on the starter taxonomy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{run, uwe};
use std::path::Path;
use std::process::Stdio;

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

/// All files below a folder with their bytes.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for kind in ["sentences", "titles", "vacancies"] {
        for entry in std::fs::read_dir(folder.join(kind)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{kind}/{}", path.file_name().unwrap().to_string_lossy());
            files.push((name, std::fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn vacancies_are_tagged_merged_and_gone_on_with_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let skills = "id,label\nk:1,bake bread\nk:2,weld pipes\nk:3,teach pupils\n";
    std::fs::write(folder.path().join("skills.csv"), skills).unwrap();
    assert_eq!(run(folder.path(), &["space", "build", "skills.csv", "-o", "s.space"]).code, Some(0));
    let mut table = "title,text\n".to_string();
    for i in 0..600 {
        table +=
            &format!("Baker {},\"You bake bread {i} today. And you plan the work {}.\"\n", i % 50, i % 9);
    }
    std::fs::write(folder.path().join("v.csv"), &table).unwrap();
    let arguments = [
        "graph",
        "tag",
        "v.csv",
        "--space",
        "s.space",
        "--description-column",
        "text",
        "--threshold",
        "-1",
        "--shard",
        "100",
        "--top",
        "2",
        "--output",
    ];
    let started = std::time::Instant::now();
    let whole = run(folder.path(), &[&arguments[..], &["whole"]].concat());
    let taken = started.elapsed();
    assert_eq!(whole.code, Some(0), "{}", whole.err);
    assert!(whole.err.contains("600 vacancies, 600 of them now"), "{}", whole.err);
    for part in 1..8 {
        let mut child =
            uwe(folder.path()).args(arguments).arg("killed").stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(taken.mul_f64(f64::from(part) / 8.0));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let resumed = run(folder.path(), &[&arguments[..], &["killed"]].concat());
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    let found = files(&folder.path().join("killed"));
    assert!(found == files(&folder.path().join("whole")), "a resumed tagging ended with other files");
    assert_eq!(found.iter().filter(|(name, _)| name.starts_with("titles/")).count(), 6);
    let other = run(folder.path(), &[&arguments[..11], &["--top", "1", "--output", "killed"]].concat());
    assert!(other.code == Some(1) && other.err.contains("holds tags of another input"), "{}", other.err);
    // What comes out goes into a recipe.
    let recipe = "name = \"t\"\nseed = 1\nheld_out = 0.0\nesco = \"1.2.0\"\n[[source]]\nname = \"sentences\"\nkind = \"table\"\nfile = \"whole/sentences\"\ngraph = \"sentence\"\nskill = \"skill\"\nskill_id = \"skill_id\"\ntext = \"text\"\nprovenance = \"tagged\"\nlicence = \"own\"\n";
    std::fs::write(folder.path().join("r.toml"), recipe).unwrap();
    let built = run(folder.path(), &["graph", "build", "r.toml", "--data", ".", "--output", "g"]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    assert!(built.out.contains("sentence") && built.out.contains("tagged"), "{}", built.out);
    let column =
        run(folder.path(), &["graph", "tag", "v.csv", "-s", "s.space", "-o", "x", "--title-column", "job"]);
    assert!(column.code == Some(2) && column.err.contains("there is no column `job`"), "{}", column.err);
}
