//! The fuzzers' corpus (`fuzz/corpus`), replayed: what was ever found stays found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

#[path = "../../../fuzz/harness.rs"]
mod harness;

use std::path::Path;

/// Replays the inputs of one target, each as it is and cut in the middle.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| {
            run(&bytes);
            run(&bytes[..bytes.len() / 2]);
        });
        assert!(outcome.is_ok(), "{}", path.display());
        inputs += 1;
    }
    assert!(inputs > 0, "{} has no input", folder.display());
}

#[test]
fn space_files() {
    replay("space", harness::space);
    // The kept sample, with sound checksums made anew after each byte is changed.
    let sample =
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../uwe/tests/golden/version-1.space"));
    let mut bytes = [&[1][..], &sample.unwrap()].concat();
    for at in 1..bytes.len().min(2048) {
        for change in [0x01, 0x80, 0xff] {
            bytes[at] ^= change;
            harness::space(&bytes);
            bytes[at] ^= change;
        }
    }
}

#[test]
fn model_folders() {
    replay("model", harness::model);
}

#[test]
fn texts() {
    replay("tokenizer", harness::tokenizer);
}

#[test]
fn target_lists() {
    replay("targets", harness::targets);
}

#[test]
fn request_bodies() {
    replay("requests", harness::requests);
}
