//! `uwe bench` as a contract, on a small data folder of the project's own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{run, uwe};
use std::path::Path;
use std::process::Stdio;

/// A data folder: an ESCO-like release with relations, annotated sentences and a set of the user's own.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join("data").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let header = "conceptUri,preferredLabel,altLabels,description\n";
    let skills = ["bake bread", "weld pipes", "plan work", "clean floors", "teach pupils", "drive trucks"];
    let mut table = header.to_string();
    for (index, skill) in skills.iter().enumerate() {
        table += &format!("s:{index},{skill},\"{skill} well\nknow how to {skill}\nto {skill}\",\n");
    }
    write("esco/v1.1.0/skills_en.csv", &table);
    let jobs = ["baker", "welder", "teacher", "driver"];
    let mut table = header.to_string();
    for (index, job) in jobs.iter().enumerate() {
        table += &format!("o:{index},{job},,\n");
    }
    write("esco/v1.1.0/occupations_en.csv", &table);
    let mut relations = "occupationUri,relationType,skillType,skillUri\n".to_string();
    for (job, skill) in [(0, 0), (0, 3), (1, 1), (1, 2), (2, 4), (3, 5), (3, 2)] {
        relations += &format!("o:{job},essential,skill,s:{skill}\n");
    }
    write("esco/v1.1.0/occupationSkillRelations.csv", &relations);
    write(
        "skill-extraction/house_test_annotations.csv",
        "sentence,label\nYou bake our bread every night.,bake bread\nNothing fits here.,LABEL NOT PRESENT\n",
    );
    write(
        "sets/mine.json",
        r#"{"queries":["bread","pipes"],"targets":["bake bread","weld pipes"],"relevance":[[0],[1]]}"#,
    );
    folder
}

fn bench(folder: &Path, arguments: &[&str]) -> common::Ran {
    run(folder, &[&["bench"], arguments].concat())
}

#[test]
fn list_says_what_is_ready_and_what_the_others_need() {
    let folder = data();
    let listed = bench(folder.path(), &["list", "--data", "data"]);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    assert!(
        listed.out.contains("ready    counts  Job2Skill                job2skill-esco1.1.0.test.en"),
        "{}",
        listed.out
    );
    assert!(listed.out.contains("missing  counts  Job normalisation        jobnorm.test.en"));
    assert!(listed.out.contains("needs jobbert/titles.test.csv"));
    assert!(listed.out.contains("mine.test.en"));
    let json = bench(folder.path(), &["list", "--data", "data", "--json"]);
    let lines: Vec<serde_json::Value> =
        json.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["name"] == "skillsim-skillmatch" && line["missing"][0].is_string()));
    let missing = bench(folder.path(), &["list", "--data", "nowhere"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("cannot read nowhere"), "{}", missing.err);
    let release = bench(folder.path(), &["list", "--data", "data", "--esco", "9.9.9"]);
    assert_eq!(release.code, Some(2));
    assert!(release.err.contains("there are: 1.1.0"), "{}", release.err);
}

#[test]
fn a_run_says_what_its_average_stands_on() {
    let folder = data();
    let measured = bench(folder.path(), &["run", "--data", "data", "-o", "a", "--scorer", "cosine"]);
    assert_eq!(measured.code, Some(0), "{}", measured.err);
    assert!(measured.err.contains("note: jobnorm.test.en is not measured: it needs"), "{}", measured.err);
    assert!(measured.out.contains("macro average, test, 4 tasks of 6"), "{}", measured.out);
    assert!(measured.out.contains("not measured: Job normalisation, Skill similarity"), "{}", measured.out);
    let results: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("a/results.json")).unwrap()).unwrap();
    assert_eq!(results["sets"].as_array().unwrap().len(), 5);
    assert_eq!(results["averages"][0]["tasks"].as_array().unwrap().len(), 4);
    let set =
        results["sets"].as_array().unwrap().iter().find(|set| set["name"] == "skillextract-house").unwrap();
    assert_eq!((set["queries"].as_u64(), set["unjudged"].as_u64()), (Some(1), Some(1)));
    // Once more: nothing is measured again, and the bytes stay.
    let before = std::fs::read(folder.path().join("a/results.json")).unwrap();
    let again = bench(folder.path(), &["run", "--data", "data", "-o", "a", "--scorer", "cosine"]);
    assert!(again.err.contains("(measured before)"), "{}", again.err);
    assert_eq!(std::fs::read(folder.path().join("a/results.json")).unwrap(), before);
    let other = bench(folder.path(), &["run", "--data", "data", "-o", "a", "--scorer", "maxsim"]);
    assert_eq!(other.code, Some(1));
    assert!(other.err.contains("holds results of something else: system.options.scoring"), "{}", other.err);
    assert!(other.err.contains("hint: give another folder"), "{}", other.err);
}

#[test]
fn both_directions_and_every_scorer_run() {
    let folder = data();
    for (name, arguments) in [
        ("soft", &["--scorer", "soft"][..]),
        ("pooled", &["--scorer", "soft-pooled"]),
        ("maxsim", &["--scorer", "maxsim"]),
        ("reverse", &["--scorer", "maxsim", "--reverse"]),
        ("random", &["--system", "random"]),
        ("edit", &["--system", "edit-distance"]),
    ] {
        let all =
            [&["run", "--data", "data", "-o", name, "--only", "mine", "--only", "job2skill*"], arguments]
                .concat();
        let measured = bench(folder.path(), &all);
        assert_eq!(measured.code, Some(0), "{name}: {}", measured.err);
        assert!(measured.out.contains("mine.test.en"), "{}", measured.out);
    }
    let none = bench(folder.path(), &["run", "--data", "data", "-o", "x", "--only", "nothing"]);
    assert!(none.code == Some(1) && none.err.contains("uwe bench list"), "{}", none.err);
    assert!(!folder.path().join("x").exists());
}

#[test]
fn runs_are_reported_compared_exported_and_read_back() {
    let folder = data();
    for (name, system) in [("a", "bm25"), ("b", "tfidf-characters")] {
        let measured = bench(folder.path(), &["run", "--data", "data", "-o", name, "--system", system]);
        assert_eq!(measured.code, Some(0), "{}", measured.err);
    }
    let report = bench(folder.path(), &["report", "a", "b", "-o", "report"]);
    assert_eq!(report.code, Some(0), "{}", report.err);
    let page = std::fs::read_to_string(folder.path().join("report/report.html")).unwrap();
    for part in
        ["<svg role=\"img\"", "The long tail", "From A to B, query by query", "bm25", "tfidf-characters"]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script") && !page.contains("http://data") && !page.contains("src="));
    let text = std::fs::read_to_string(folder.path().join("report/report.md")).unwrap();
    assert!(text.contains("| A | 4 of 6 |"), "{text}");
    let compared = bench(folder.path(), &["compare", "a", "b", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&compared.out).unwrap();
    assert!(json["sets"][0]["difference"]["p_value"].as_f64().unwrap() > 0.0);
    let wrong = bench(folder.path(), &["compare", "a", "b", "--metric", "rp@77"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err);
    for (format, file) in
        [("trec", "mine.test.en.run"), ("mteb", "mine.test.en.json"), ("csv", "results.csv")]
    {
        let exported = bench(folder.path(), &["export", "a", "--format", format, "-o", "out"]);
        assert_eq!(exported.code, Some(0), "{}", exported.err);
        assert!(folder.path().join("out").join(file).is_file(), "{file}");
    }
    let run_lines = std::fs::read_to_string(folder.path().join("out/mine.test.en.run")).unwrap();
    assert!(run_lines.starts_with("0 Q0 0 1 "), "{run_lines}");
    // What was exported gives the same metrics when it is read back.
    let given = bench(
        folder.path(),
        &["run", "--data", "data", "-o", "g", "--system", "given", "--scores", "out", "--only", "mine"],
    );
    assert_eq!(given.code, Some(0), "{}", given.err);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(
            &std::fs::read(folder.path().join(name).join("sets/mine.test.en.json")).unwrap(),
        )
        .unwrap()
    };
    assert_eq!(read("g")["metrics"], read("a")["metrics"]);
    let no_run = bench(folder.path(), &["report", "data", "-o", "report"]);
    assert!(no_run.code == Some(1) && no_run.err.contains("is no run"), "{}", no_run.err);
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_same_results() {
    let folder = data();
    let texts: Vec<String> = (0..2500).map(|i| format!("bake bread and plan work {i}")).collect();
    let relevance: Vec<[usize; 1]> = (0..2500).map(|i| [i % 40]).collect();
    let big = serde_json::json!({"queries": texts, "targets": &texts[..40], "relevance": relevance});
    std::fs::write(folder.path().join("data/sets/big.json"), big.to_string()).unwrap();
    let arguments = ["bench", "run", "--data", "data", "--scorer", "soft", "-o"];
    let started = std::time::Instant::now();
    assert_eq!(run(folder.path(), &[&arguments[..], &["whole"]].concat()).code, Some(0));
    let whole = started.elapsed();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..10 {
        let mut child = uwe(folder.path())
            .args(arguments)
            .arg("killed")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(whole.mul_f64((random % 1000) as f64 / 1000.0));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(run(folder.path(), &[&arguments[..], &["killed"]].concat()).code, Some(0));
    let files = |name: &str| -> Vec<(String, Vec<u8>)> {
        let mut files = vec![(
            "results.json".to_string(),
            std::fs::read(folder.path().join(name).join("results.json")).unwrap(),
        )];
        for entry in std::fs::read_dir(folder.path().join(name).join("sets")).unwrap() {
            let path = entry.unwrap().path();
            files.push((
                path.file_name().unwrap().to_string_lossy().into_owned(),
                std::fs::read(path).unwrap(),
            ));
        }
        files.sort();
        files
    };
    assert!(files("whole") == files("killed"), "a killed run ended with other files");
}
