//! The command in a folder of its own, with the tiny model.

#![allow(dead_code, reason = "not every test file uses everything")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

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

/// A service, and the address that it says it serves on.
pub(crate) struct Served {
    pub(crate) child: Child,
    address: String,
}

impl Served {
    pub(crate) fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// Starts it with variables of the environment.
    pub(crate) fn start_with(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command: Command = uwe(folder);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data", "spaces"]).args(arguments);
        let mut child = command
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                line.strip_prefix("note: serving on http://")?.split(';').next().map(str::to_string)
            })
            .unwrap();
        // The log is read on, so that the service never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    /// The status of an answer, and its body; 0 when the connection ends without one.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.send_with(method, path, "", body)
    }

    /// The same with further headers, each with its line's end.
    pub(crate) fn send_with(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return (0, String::new()) };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let kind = if path.starts_with("/v1/spaces/") { "text/csv" } else { "application/json" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}content-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + body).as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
    }

    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
