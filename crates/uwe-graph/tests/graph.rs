//! Graphs from recipes, and what the leak check finds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use uwe_graph::{Edge, FindingKind, Graph, GraphFile, Part, Provenance, Recipe, build, check, fold};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn starter() -> GraphFile {
    let recipe = Recipe::read(&project().join("recipes/starter.toml")).unwrap();
    build(&recipe, (&project(), &project()), &mut |_| {}).unwrap()
}

/// A data folder whose tests are one occupation with two skills, one annotated sentence and alternative labels.
fn tests() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let header = "conceptUri,preferredLabel,altLabels,description\n";
    write(
        "esco/1.1.0/skills_en.csv",
        &format!(
            "{header}s:1,bake bread,\"make loaves\nprepare bread\",Bakes.\ns:2,weld pipes,\"join pipes\nfuse pipes\",Welds.\n"
        ),
    );
    write(
        "esco/1.1.0/occupations_en.csv",
        &format!("{header}o:1,artisan baker,\"bread maker\nartisan baker\",\n"),
    );
    write("esco/1.1.0/occupationSkillRelations.csv", "occupationUri,skillUri\no:1,s:1\n");
    write(
        "skill-extraction/house_test_annotations.csv",
        "sentence,label\nEvery night you bake our bread and rolls with a small team,bake bread\n",
    );
    folder
}

fn edge(graph: Graph, skill: &str, text: &str) -> Edge {
    Edge {
        graph,
        skill: skill.into(),
        skill_id: skill.into(),
        text: text.into(),
        source: "smuggled".into(),
        weight: 1.0,
        provenance: Provenance::Real,
        part: Part::Train,
    }
}

#[test]
fn the_starter_graph_is_whole_and_the_same_each_time() {
    let graph = starter();
    let count = |graph_: Graph| graph.edges.iter().filter(|edge| edge.graph == graph_).count();
    assert!(count(Graph::Job) > 5000 && count(Graph::Sentence) > 1000 && count(Graph::Alternative) > 1500);
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    graph.write(&a).unwrap();
    // What a killed process was writing goes.
    std::fs::create_dir(&b).unwrap();
    std::fs::write(b.join(".part-left"), "half").unwrap();
    starter().write(&b).unwrap();
    assert!(!b.join(".part-left").exists());
    let edges = format!("edges-{}.parquet", graph.manifest.fingerprint);
    for name in [&edges[..], "graph.json"] {
        assert_eq!(std::fs::read(a.join(name)).unwrap(), std::fs::read(b.join(name)).unwrap(), "{name}");
    }
    assert_eq!(GraphFile::read(&a).unwrap(), graph);
}

#[test]
fn held_out_texts_are_in_no_training_edge_of_their_graph() {
    let graph = starter();
    let texts = |part: Part| -> HashSet<(Graph, String)> {
        graph.edges.iter().filter(|e| e.part == part).map(|e| (e.graph, fold(&e.text))).collect()
    };
    let (train, val) = (texts(Part::Train), texts(Part::Val));
    assert!(train.is_disjoint(&val));
    let share = val.len() as f64 / (train.len() + val.len()) as f64;
    assert!((0.07..0.13).contains(&share), "{share}");
}

#[test]
fn what_is_smuggled_in_is_found_and_named() {
    let data = tests();
    let clean = vec![
        edge(Graph::Job, "bake bread", "night baker in a supermarket"),
        edge(Graph::Sentence, "bake bread", "You look after the ovens of our bakery in the morning"),
        edge(Graph::Alternative, "bake bread", "make loaves"),
    ];
    let found = check(&clean, data.path()).unwrap();
    assert!(found.passed(), "{found:?}");
    assert!(found.sets.len() >= 4, "{:?}", found.sets);
    assert!(found.missing.contains(&"jobnorm.test.en".to_string()), "{:?}", found.missing);
    for (smuggled, kind, set) in [
        // A test query, other case and punctuation.
        (edge(Graph::Job, "weld pipes", "Artisan-Baker!"), FindingKind::Query, "job2skill-esco1.1.0.test.en"),
        // A relation of ESCO between occupation and skill.
        (edge(Graph::Job, "Bake bread", "artisan baker"), FindingKind::Pair, "job2skill-esco1.1.0.test.en"),
        // A sentence with a word more and one changed.
        (
            edge(
                Graph::Sentence,
                "weld pipes",
                "Every night you will bake our bread and rolls with a small team.",
            ),
            FindingKind::NearlyQuery,
            "skillextract-house.test.en",
        ),
        // The same pair the other way round, and in another graph.
        (edge(Graph::Job, "artisan baker", "bake bread"), FindingKind::Pair, "job2skill-esco1.1.0.test.en"),
        (
            edge(Graph::Sentence, "artisan baker", "bake bread"),
            FindingKind::Pair,
            "job2skill-esco1.1.0.test.en",
        ),
        // A test query on the skill side.
        (
            edge(Graph::Alternative, "fuse pipes", "melt pipes"),
            FindingKind::Query,
            "skillnorm-esco1.1.0.test.en",
        ),
        // A sentence that holds a whole test sentence, and more; a soft hyphen hides nothing.
        (
            edge(
                Graph::Sentence,
                "weld pipes",
                "We are a family firm. Every night you bake our bread and rolls with a small te\u{ad}am. You get a bicycle.",
            ),
            FindingKind::NearlyQuery,
            "skillextract-house.test.en",
        ),
        // An alternative label of the test part.
        (
            edge(Graph::Alternative, "weld pipes", "fuse pipes"),
            FindingKind::Pair,
            "skillnorm-esco1.1.0.test.en",
        ),
    ] {
        let mut edges = clean.clone();
        edges.insert(1, smuggled);
        let found = check(&edges, data.path()).unwrap();
        assert_eq!(found.findings.len(), 1, "{found:?}");
        let finding = &found.findings[0];
        assert_eq!((finding.edge, finding.kind, &finding.set[..]), (1, kind, set));
    }
}

#[test]
fn a_build_leaves_test_texts_out_and_says_how_many() {
    let data = tests();
    std::fs::write(
        data.path().join("mine.csv"),
        "skill,title\nweld pipes,Artisan Baker\nweld pipes,pipe fitter\nweld pipes,Pipe Fitter\nweld pipes,\nweld pipes,Weld Pipes\n",
    )
    .unwrap();
    let recipe = data.path().join("r.toml");
    std::fs::write(
        &recipe,
        "name = \"r\"\nseed = 1\nheld_out = 0.0\nesco = \"1.1.0\"\n[[source]]\nname = \"mine\"\nkind = \"table\"\nfile = \"mine.csv\"\ngraph = \"job\"\nskill = \"skill\"\ntext = \"title\"\nprovenance = \"real\"\nlicence = \"own\"\n[[source]]\nname = \"alternatives\"\nkind = \"esco-alternatives\"\nlicence = \"x\"\n[[source]]\nname = \"descriptions\"\nkind = \"esco-descriptions\"\nlicence = \"x\"\n[[source]]\nname = \"occupations\"\nkind = \"esco-occupations\"\nlicence = \"x\"\n",
    )
    .unwrap();
    let graph = build(&Recipe::read(&recipe).unwrap(), (data.path(), data.path()), &mut |_| {}).unwrap();
    let note = &graph.manifest.sources[0];
    assert_eq!((note.read, note.left_out_as_test, note.repeated, note.unusable), (5, 1, 1, 2));
    let texts: Vec<&str> = graph.edges.iter().map(|edge| &edge.text[..]).collect();
    assert_eq!(texts, ["pipe fitter", "make loaves", "join pipes", "bread maker"]);
    assert!(check(&graph.edges, data.path()).unwrap().passed());
}

#[test]
fn a_changed_graph_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut graph = starter();
    graph.write(folder.path()).unwrap();
    graph.edges.truncate(10);
    graph.write(folder.path()).unwrap();
    let error = GraphFile::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("other edges than its manifest says"), "{error}");
    std::fs::write(folder.path().join("graph.json"), "{}").unwrap();
    assert!(GraphFile::read(folder.path()).unwrap_err().to_string().contains("is no manifest"));
}
