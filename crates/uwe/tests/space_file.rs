//! Space files: every bit is guarded, a file is whole or absent, and bad places are told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by a panic"
)]

use std::path::{Path, PathBuf};
use uwe::{
    BuildOptions, Compute, Encoder, EncoderOptions, Error, Ranker, Scorer, Scoring, Space, StateType, Targets,
};

fn encoder(name: &str) -> Encoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    Encoder::open(&folder, EncoderOptions::default(), Compute::new(1, None).unwrap()).unwrap()
}

fn targets(count: usize) -> Targets {
    let mut targets = Targets::new("test", &["id", "note"]);
    for index in 0..count {
        targets.push(&format!("bake bread {index}"), vec![format!("skill/{index}"), "warm".into()]);
    }
    targets
}

fn build(folder: &Path, count: usize) -> PathBuf {
    let file = folder.join("test.space");
    Space::build(&encoder("tiny-bert"), &targets(count), BuildOptions::default(), &file, &mut |_| true)
        .unwrap();
    file
}

/// Opens a file and uses every number in it.
fn use_all(path: &Path, encoder: &Encoder) -> uwe::Result<()> {
    let space = Space::open(path)?;
    for scorer in [Scoring::default().scorer, Scorer::Cosine] {
        let ranker = Ranker::new(encoder, &space, Scoring { scorer, special_tokens: true })?;
        ranker.rank(&["bake"], 5)?;
    }
    Ok(())
}

#[test]
fn flipping_any_single_bit_gives_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let encoder = encoder("tiny-bert");
    let file = build(folder.path(), 3);
    let sound = std::fs::read(&file).unwrap();
    use_all(&file, &encoder).unwrap();
    let damaged = folder.path().join("damaged.space");
    for bit in 0..sound.len() * 8 {
        let mut bytes = sound.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A new file each time: a mapped file must not be written over.
        let _ = std::fs::remove_file(&damaged);
        std::fs::write(&damaged, &bytes).unwrap();
        let result = use_all(&damaged, &encoder);
        assert!(matches!(result, Err(Error::Space { .. })), "bit {bit} of {}: {result:?}", sound.len() * 8);
    }
}

#[test]
fn a_file_cut_anywhere_gives_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = build(folder.path(), 3);
    let sound = std::fs::read(&file).unwrap();
    let cut = folder.path().join("cut.space");
    for length in (0..sound.len()).step_by(7).chain([sound.len() - 1]) {
        let _ = std::fs::remove_file(&cut);
        std::fs::write(&cut, &sound[..length]).unwrap();
        assert!(matches!(Space::open(&cut), Err(Error::Space { .. })), "{length}");
    }
    let _ = std::fs::remove_file(&cut);
    std::fs::write(&cut, [&sound[..], &[0; 64]].concat()).unwrap();
    assert!(matches!(Space::open(&cut), Err(Error::Space { .. })));
}

#[test]
fn the_same_targets_give_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (build(a.path(), 40), build(b.path(), 40));
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn files_of_every_version_stay_readable() {
    // Written by version 0.1.0 from three lines of CSV; never written again.
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version-1.space");
    let space = Space::open(&file).unwrap();
    space.verify().unwrap();
    let encoder = encoder("tiny-bert");
    let hit = Ranker::new(&encoder, &space, Scoring::default()).unwrap().rank(&["weld pipes"], 1).unwrap()[0]
        .hits[0];
    let target = space.target(hit.target).unwrap();
    assert_eq!(
        (target.text(), target.id(), target.field("note")),
        ("weld pipes", Some("skill/2"), Some("hot"))
    );
}

#[test]
fn targets_keep_their_order_and_columns() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::open(&build(folder.path(), 40)).unwrap();
    space.verify().unwrap();
    assert_eq!(space.len(), 40);
    for (index, target) in space.targets().enumerate() {
        assert_eq!(target.text(), format!("bake bread {index}"));
        assert_eq!(target.id(), Some(&*format!("skill/{index}")));
        assert_eq!(target.field("note"), Some("warm"));
        assert_eq!(target.field("nothing"), None);
    }
    assert!(space.target(40).is_none());
}

#[test]
fn a_space_of_another_model_is_refused_with_both_fingerprints() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::open(&build(folder.path(), 3)).unwrap();
    let other = encoder("tiny-mpnet");
    let error = Ranker::new(&other, &space, Scoring::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(&space.meta().model_fingerprint), "{message}");
    assert!(message.contains(&other.info().fingerprint), "{message}");
    assert!(error.hint().is_some());
}

#[test]
fn an_interrupted_build_leaves_the_old_file_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = build(folder.path(), 3);
    let old = std::fs::read(&file).unwrap();
    let encoder = encoder("tiny-bert");
    for stop_at in [0, 256, 512, 600] {
        let result = Space::build(&encoder, &targets(600), BuildOptions::default(), &file, &mut |progress| {
            progress.done < stop_at
        });
        assert!(matches!(result, Err(Error::Interrupted)), "{stop_at}");
        assert_eq!(std::fs::read(&file).unwrap(), old);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{stop_at}");
    }
}

#[test]
fn what_killed_builds_left_behind_is_removed_and_running_ones_are_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join(".test.space.partial-left");
    std::fs::write(&left, b"half").unwrap();
    let running = folder.path().join(".test.space.partial-running");
    let held = std::fs::File::create(&running).unwrap();
    held.lock().unwrap();
    build(folder.path(), 3);
    assert!(!left.exists());
    assert!(running.exists());
}

#[test]
fn bad_places_and_empty_lists_are_told() {
    let encoder = encoder("tiny-bert");
    let go = |path: &Path, count| {
        Space::build(&encoder, &targets(count), BuildOptions::default(), path, &mut |_| true).unwrap_err()
    };
    let missing = go(Path::new("/nowhere/at/all/x.space"), 2);
    assert!(
        matches!(missing, Error::Io { .. }) && missing.to_string().contains("/nowhere/at/all"),
        "{missing}"
    );
    let empty = go(Path::new("x.space"), 0);
    assert!(matches!(empty, Error::Argument { .. }), "{empty}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.space");
    assert!(matches!(Space::open(&file), Err(Error::Io { .. })));
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(Space::open(&file), Err(Error::Space { .. })));
    assert!(matches!(Space::open(folder.path()), Err(Error::Io { .. } | Error::Space { .. })));
}

#[test]
fn states_in_single_precision_are_kept_as_they_are() {
    let encoder = encoder("tiny-mpnet");
    let mut one = Targets::new("test", &[]);
    one.push("provide nursing care", Vec::new());
    let space = Space::in_memory(&encoder, &one, BuildOptions { states: StateType::F32 }).unwrap();
    let ranker =
        Ranker::new(&encoder, &space, Scoring { scorer: Scorer::Cosine, special_tokens: true }).unwrap();
    let score = ranker.rank(&["provide nursing care"], 1).unwrap()[0].hits[0].score;
    assert!((score - 1.0).abs() < 1e-6, "{score}");
}
