//! The command in a folder of its own, with the tiny model.

#![allow(dead_code, reason = "not every test file uses everything")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../uwe/tests/golden").join(name)
}

/// The command with the tiny model and a cache of its own.
pub(crate) fn uwe(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_uwe"));
    command
        .env_clear()
        .env("UWE_MODEL", golden("tiny-bert"))
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("HOME", folder)
        .current_dir(folder);
    command
}

pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn ran(output: Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran
}

pub(crate) fn run(folder: &Path, arguments: &[&str]) -> Ran {
    ran(uwe(folder).args(arguments).stdin(Stdio::null()).output().unwrap())
}
