//! The command line as a contract: standard output, standard error and exit code.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

mod common;

use common::{Ran, golden, ran, run, uwe};

fn run_with_input(folder: &Path, arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = uwe(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command that ends early closes the pipe; that is its right.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    ran(output)
}

const SKILLS: &str = "uri,label,note\nskill/1,bake bread,warm\nskill/2,weld pipes,hot\nskill/3,plan work,\n";

/// A folder with `skills.csv` and the space that it builds.
fn with_space() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("skills.csv"), SKILLS).unwrap();
    let built = run(folder.path(), &["space", "build", "skills.csv", "-o", "s.space"]);
    assert_eq!((built.code, built.out.as_str()), (Some(0), ""), "{}", built.err);
    assert!(built.err.starts_with("note: s.space: 3 targets"), "{}", built.err);
    folder
}

#[test]
fn json_has_one_object_a_line_with_the_stated_fields() {
    let folder = with_space();
    let ran = run(folder.path(), &["rank", "-s", "s.space", "-f", "json", "-k", "2", "bake bread", "weld"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    let names: Vec<&String> = lines[0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["query", "truncated", "hits"]);
    assert_eq!(lines[0]["query"], "bake bread");
    assert_eq!(lines[0]["truncated"], false);
    let hit = &lines[0]["hits"][0];
    let names: Vec<&String> = hit.as_object().unwrap().keys().collect();
    assert_eq!(names, ["rank", "target", "id", "score"]);
    assert_eq!(
        (&hit["rank"], &hit["target"], &hit["id"]),
        (&1.into(), &"bake bread".into(), &"skill/1".into())
    );
    let score = hit["score"].as_f64().unwrap();
    assert!(score > 0.7 && score < 1.0001, "{score}");
    assert_eq!(lines[0]["hits"].as_array().unwrap().len(), 2);
}

#[test]
fn evidence_stands_in_json_and_in_the_table() {
    let folder = with_space();
    let json = run(folder.path(), &["rank", "-s", "s.space", "-f", "json", "-e", "-k", "1", "bake"]);
    let line: serde_json::Value = serde_json::from_str(json.out.trim()).unwrap();
    let evidence = &line["hits"][0]["evidence"];
    let sum: f64 =
        evidence["pairs"].as_array().unwrap().iter().map(|p| p["contribution"].as_f64().unwrap()).sum();
    let score = line["hits"][0]["score"].as_f64().unwrap();
    assert!((sum + evidence["rest"].as_f64().unwrap() - score).abs() < 1e-3, "{line}");
    let table = run(folder.path(), &["rank", "-s", "s.space", "-e", "-k", "1", "bake"]);
    assert!(table.out.contains("% of the score"), "{}", table.out);
    assert!(!table.out.contains('\u{1b}'), "no colours when piped: {}", table.out);
}

#[test]
fn csv_has_a_header_and_a_row_for_each_hit() {
    let folder = with_space();
    let ran = run(folder.path(), &["rank", "-s", "s.space", "-f", "csv", "-k", "1", "plan work", "a, \"b\""]);
    let rows: Vec<&str> = ran.out.lines().collect();
    assert_eq!(rows[0], "query,truncated,rank,target,id,score");
    assert!(rows[1].starts_with("plan work,false,1,plan work,skill/3,"), "{}", ran.out);
    assert!(rows[2].starts_with("\"a, \"\"b\"\"\",false,1,"), "{}", ran.out);
}

#[test]
fn lines_come_from_standard_input_or_a_file_and_keep_their_order() {
    let folder = with_space();
    let lines: Vec<String> = (0..700).map(|i| format!("bake {i}")).collect();
    let input = lines.join("\n");
    std::fs::write(folder.path().join("texts.txt"), &input).unwrap();
    let arguments = ["rank", "-s", "s.space", "-f", "json", "-k", "1"];
    let piped = run_with_input(folder.path(), &arguments, input.as_bytes());
    let read = run(folder.path(), &[&arguments[..], &["--input", "texts.txt"]].concat());
    assert_eq!(piped.out, read.out);
    let queries: Vec<String> = piped
        .out
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["query"].as_str().unwrap().to_string()
        })
        .collect();
    assert_eq!(queries, lines);
}

#[test]
fn a_line_is_answered_before_the_next_one_comes() {
    let folder = with_space();
    let mut child = uwe(folder.path())
        .args(["rank", "-s", "s.space", "-f", "json", "-k", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for text in ["bake", "weld"] {
        writeln!(stdin, "{text}").unwrap();
        assert!(lines.next().unwrap().unwrap().contains(text));
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn hostile_texts_get_a_sound_answer() {
    let folder = with_space();
    let mut input = b"nul \0 inside\n\n\x1b[31mred\n".to_vec();
    input.extend(vec![b'x'; 1 << 20]);
    input.extend(b"\nbake bread and ");
    input.extend("work ".repeat(200).as_bytes());
    let ran = run_with_input(folder.path(), &["rank", "-s", "s.space", "-f", "json", "-k", "1"], &input);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let lines: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[1]["hits"].as_array().unwrap().len(), 0, "an empty text has no hits");
    assert_eq!(lines[4]["truncated"], true);
    assert!(ran.err.contains("1 of the texts were cut at 64 tokens"), "{}", ran.err);
    let table = run(folder.path(), &["rank", "-s", "s.space", "-k", "1", "\u{1b}[31mred"]);
    assert!(!table.out.contains('\u{1b}'));
}

#[test]
fn invalid_utf8_is_told_with_its_line_after_the_lines_before_it() {
    let folder = with_space();
    let arguments = ["rank", "-s", "s.space", "-f", "json", "-k", "1"];
    let ran = run_with_input(folder.path(), &arguments, b"bake\nweld\n\xff\xfe\nplan\n");
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.out.lines().count(), 2);
    assert!(ran.err.starts_with("error: standard input, line 3: is not valid UTF-8\nhint: "), "{}", ran.err);
}

#[test]
fn k_of_zero_is_refused_and_k_beyond_the_space_gives_all() {
    let folder = with_space();
    let ran = run(folder.path(), &["rank", "-s", "s.space", "-k", "0", "bake"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("must be at least 1"), "{}", ran.err);
    let ran = run(folder.path(), &["rank", "-s", "s.space", "-k", "99", "-f", "csv", "bake"]);
    assert_eq!(ran.out.lines().count(), 4);
}

#[test]
fn command_lines_that_make_no_sense_end_with_2() {
    let folder = with_space();
    for arguments in [
        &["rank", "--scorer", "guess", "bake"][..],
        &["rank", "-s", "s.space", "--temperature", "0", "bake"],
        &["rank", "-s", "s.space", "--temperature", "NaN", "bake"],
        &["rank", "-s", "s.space", "--scorer", "cosine", "--axis", "both", "bake"],
        &["rank", "-s", "s.space", "--max-tokens", "2", "bake"],
        &["rank", "-s", "s.space", "--max-tokens", "100000", "bake"],
        &["score", "--query", "a", "--target", " "],
        &["nothing"],
        &[],
    ] {
        let ran = run(folder.path(), arguments);
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{arguments:?} {}", ran.err);
        assert!(!ran.err.is_empty());
    }
}

#[test]
fn what_is_missing_is_named_with_a_hint() {
    let folder = with_space();
    let ran = run(folder.path(), &["rank", "-s", "no.space", "bake"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    assert!(ran.err.contains("no.space"), "{}", ran.err);
    let ran = run(folder.path(), &["rank", "--input", "no.txt"]);
    assert!(ran.code == Some(1) && ran.err.contains("no.txt"), "{}", ran.err);
    let ran = run(folder.path(), &["rank", "--model", "nowhere", "bake"]);
    assert!(ran.code == Some(1) && ran.err.contains("nowhere") && ran.err.contains("hint:"), "{}", ran.err);
    let ran =
        run(folder.path(), &["space", "build", "skills.csv", "--text-column", "skill", "-o", "t.space"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("`skill`") && ran.err.contains("uri, label, note"), "{}", ran.err);
    assert!(!folder.path().join("t.space").exists());
    std::fs::write(folder.path().join("empty.csv"), "label\n\n").unwrap();
    let ran = run(folder.path(), &["space", "build", "empty.csv", "-o", "t.space"]);
    assert!(ran.code == Some(2) && ran.err.contains("no target"), "{}", ran.err);
    let ran = run(folder.path(), &["space", "build", "skills.csv", "-o", "/proc/t.space"]);
    assert!(ran.code == Some(1) && ran.err.contains("/proc/t.space"), "{}", ran.err);
}

#[test]
fn a_space_of_another_model_is_refused_with_both_fingerprints() {
    let folder = with_space();
    let other = golden("tiny-mpnet");
    let ran = run(folder.path(), &["rank", "-m", other.to_str().unwrap(), "-s", "s.space", "bake"]);
    assert_eq!(ran.code, Some(1));
    let fingerprints =
        ran.err.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 32).count();
    assert_eq!(fingerprints, 2, "{}", ran.err);
    assert!(ran.err.contains("hint:"), "{}", ran.err);
}

#[test]
fn damaged_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    let fresh = || {
        let _ = std::fs::remove_dir_all(&model);
        std::fs::create_dir_all(model.join("1_Pooling")).unwrap();
        for file in
            ["config.json", "modules.json", "tokenizer.json", "model.safetensors", "1_Pooling/config.json"]
        {
            std::fs::copy(golden("tiny-bert").join(file), model.join(file)).unwrap();
        }
        std::fs::read(model.join("model.safetensors")).unwrap()
    };
    let told = |expected: &[&str]| {
        let ran = run(folder.path(), &["model", "info", "-m", "model"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
        for word in expected {
            assert!(ran.err.contains(word), "`{word}` is missing in: {}", ran.err);
        }
    };
    let weights = fresh();
    assert_eq!(run(folder.path(), &["model", "info", "-m", "model"]).code, Some(0));
    for length in [0, 7, 8, 100, weights.len() / 2, weights.len() - 1] {
        std::fs::write(model.join("model.safetensors"), &weights[..length]).unwrap();
        told(&["model.safetensors", "hint:"]);
    }
    // A header that promises more than there is.
    let mut lying = weights.clone();
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), &lying).unwrap();
    told(&["model.safetensors"]);
    // Not a number, in the last entry of some tensor.
    let mut poisoned = weights.clone();
    let end = poisoned.len();
    poisoned[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(model.join("model.safetensors"), &poisoned).unwrap();
    told(&["tensor `", "NaN"]);
    fresh();
    std::fs::rename(model.join("model.safetensors"), model.join("pytorch_model.bin")).unwrap();
    told(&["pickled", "safe_serialization"]);
    fresh();
    std::fs::write(model.join("tokenizer.json"), "{").unwrap();
    told(&["tokenizer.json"]);
    fresh();
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    told(&["tokenizer.json", "missing"]);
    fresh();
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    std::fs::write(model.join("config.json"), config.replace("\"hidden_size\": 32", "\"hidden_size\": 64"))
        .unwrap();
    told(&["tensor `embeddings.word_embeddings.weight`", "shape"]);
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = with_space();
    std::fs::write(folder.path().join("many.txt"), "bake\n".repeat(20_000)).unwrap();
    for format in ["json", "csv", "table"] {
        let mut child = uwe(folder.path())
            .args(["rank", "-s", "s.space", "-f", format, "--input", "many.txt"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = [0; 64];
        std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut first).unwrap();
        // The pipe is closed here.
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{format} {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn the_starter_space_is_built_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let first = run(folder.path(), &["rank", "-k", "1", "-f", "csv", "bake bread"]);
    assert_eq!(first.code, Some(0));
    assert!(first.err.contains("encoding the starter taxonomy once"), "{}", first.err);
    let second = run(folder.path(), &["rank", "-k", "1", "-f", "csv", "bake bread"]);
    assert_eq!((second.err.as_str(), second.out), ("", first.out));
    // A folder that happens to have its name does not stand in its way.
    std::fs::create_dir(folder.path().join("starter")).unwrap();
    assert_eq!(run(folder.path(), &["space", "build", "starter", "-o", "starter.space"]).code, Some(0));
    // A damaged cache is built again.
    let cache = std::fs::read_dir(folder.path().join("cache/uwe")).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&cache).unwrap();
    std::fs::write(&cache, b"rubbish").unwrap();
    assert_eq!(run(folder.path(), &["rank", "-k", "1", "bake bread"]).code, Some(0));
    // Without a place for a cache it works all the same.
    let bare =
        ran(uwe(folder.path()).env("XDG_CACHE_HOME", "/proc/none").args(["rank", "bake"]).output().unwrap());
    assert_eq!(bare.code, Some(0), "{}", bare.err);
}

#[test]
fn embed_and_score_print_what_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["embed", "bake bread"]);
    let line: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let vector: Vec<f64> = line["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(vector.len(), 32);
    assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    let ran = run(folder.path(), &["embed", "--tokens", "bake bread"]);
    let line: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(line["tokens"].as_array().unwrap().len(), 4);
    assert_eq!((&line["tokens"][1]["start"], &line["tokens"][1]["end"]), (&0.into(), &4.into()));
    for scorer in ["soft", "soft-pooled", "maxsim", "cosine"] {
        let arguments = ["score", "-q", "bake", "-t", "bake", "-f", "json", "--scorer", scorer, "-e"];
        let ran = run(folder.path(), &arguments);
        let line: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let score = line["hits"][0]["score"].as_f64().unwrap();
        assert!(score > 0.7 && score < 1.0001, "{scorer} {score}");
    }
}

#[test]
fn spaces_and_models_describe_and_verify_themselves() {
    let folder = with_space();
    let info = run(folder.path(), &["space", "info", "s.space"]);
    assert!(info.out.contains("targets      3\n") && info.out.contains("text, id, note"), "{}", info.out);
    let json = run(folder.path(), &["space", "info", "--json", "s.space"]);
    let value: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(value["targets"], 3);
    assert_eq!(run(folder.path(), &["space", "verify", "s.space"]).out, "s.space: sound, 3 targets\n");
    let info = run(folder.path(), &["model", "info"]);
    assert!(info.out.contains("kernels") && info.out.contains("scalar"), "{}", info.out);
    let reference = golden("tiny-bert.safetensors");
    let arguments = ["model", "verify", "--reference", reference.to_str().unwrap()];
    let verified = run(folder.path(), &arguments);
    assert_eq!(verified.code, Some(0), "{}", verified.err);
    assert!(verified.out.ends_with("equal to the reference\n"), "{}", verified.out);
    let other = golden("tiny-mpnet.safetensors");
    let refused = run(folder.path(), &["model", "verify", "--reference", other.to_str().unwrap()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("differ"), "{}", refused.err);
}

#[test]
fn completions_manual_and_help_are_there() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(run(folder.path(), &["completions", shell]).out.contains("uwe"));
    }
    assert!(run(folder.path(), &["manual"]).out.contains(".TH"));
    for arguments in [&["--help"][..], &["rank", "--help"], &["space", "build", "--help"]] {
        let help = run(folder.path(), arguments);
        assert!(help.code == Some(0) && help.out.contains("Example"), "{arguments:?}");
    }
    assert!(run(folder.path(), &["--version"]).out.starts_with("uwe "));
}

/// Targets enough that a build takes a while.
fn many(folder: &Path) -> PathBuf {
    let file = folder.join("many.txt");
    let lines: Vec<String> = (0..6000).map(|i| format!("bake bread and plan work {i}")).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    file
}

#[test]
fn a_build_killed_at_any_moment_leaves_the_old_file_or_the_new_one() {
    let folder = with_space();
    let space = folder.path().join("s.space");
    let old = std::fs::read(&space).unwrap();
    many(folder.path());
    let started = std::time::Instant::now();
    assert_eq!(run(folder.path(), &["space", "build", "many.txt", "-o", "n.space"]).code, Some(0));
    let whole = started.elapsed();
    let new = std::fs::read(folder.path().join("n.space")).unwrap();
    let (mut kept, mut replaced) = (0, 0);
    let mut random = 0x2545_f491_4f6c_dd1du64;
    for _ in 0..50 {
        std::fs::copy(&space, folder.path().join("t.space")).unwrap();
        let mut child = uwe(folder.path())
            .args(["space", "build", "many.txt", "-o", "t.space"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(whole.mul_f64((random % 1000) as f64 / 900.0));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = std::fs::read(folder.path().join("t.space")).unwrap();
        if found == old {
            kept += 1;
        } else {
            assert!(found == new, "neither the old file nor the new one");
            replaced += 1;
        }
        std::fs::remove_file(folder.path().join("t.space")).unwrap();
    }
    assert_eq!(kept + replaced, 50);
    // The next build clears away what the killed ones left.
    assert_eq!(run(folder.path(), &["space", "build", "many.txt", "-o", "t.space"]).code, Some(0));
    let left = std::fs::read_dir(folder.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("partial"));
    assert_eq!(left.count(), 0);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_build_with_nothing_left_behind() {
    let folder = with_space();
    let old = std::fs::read(folder.path().join("s.space")).unwrap();
    let lines: Vec<String> = (0..60_000).map(|i| format!("bake bread and plan work {i}")).collect();
    std::fs::write(folder.path().join("many.txt"), lines.join("\n")).unwrap();
    let child = uwe(folder.path())
        .args(["space", "build", "many.txt", "-o", "s.space"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.trim()), (Some(1), "error: interrupted"));
    assert_eq!(std::fs::read(folder.path().join("s.space")).unwrap(), old);
    let names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("partial"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// A file system of 256 KiB, where the system lets an unprivileged process have one of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    many(folder.path());
    std::fs::create_dir(folder.path().join("small")).unwrap();
    let script = "mount -t tmpfs -o size=256k none small && \"$UWE\" space build many.txt -o small/t.space; \
                  code=$?; ls -A small; exit $code";
    let mut command = uwe(folder.path());
    let environment: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    command = Command::new("unshare");
    command.args(["-rm", "sh", "-c", script]).current_dir(folder.path()).envs(environment);
    let probe = Command::new("unshare").args(["-rm", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this system gives no private mounts, so there is no small disk to fill");
        return;
    }
    let ran = ran(command.env("UWE", env!("CARGO_BIN_EXE_uwe")).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{}", ran.err);
    assert!(ran.err.contains("small/t.space") && ran.err.contains("free some space"), "{}", ran.err);
}
