//! `uwe serve` as a process: its settings, its end, and what is left of it after it was killed.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{run, uwe};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A service, and the address that it says it serves on.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command: Command = uwe(folder);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data", "spaces"]).args(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
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
    fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let Ok(mut stream) = TcpStream::connect(&self.address) else { return (0, String::new()) };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let kind = if path.starts_with("/v1/spaces/") { "text/csv" } else { "application/json" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + body).as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
    }

    fn terminate(&self) {
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

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(run(folder.path(), &["space", "build", "starter", "--output", "a.space"]).code, Some(0));
    let mut served = Served::start(folder.path(), &["--space", "mine=a.space"]);
    assert_eq!(served.send("GET", "/livez", "").0, 200);
    for space in ["mine", "starter"] {
        let question = format!(r#"{{"texts": ["pastry chef"], "space": "{space}", "top": 1}}"#);
        let (status, body) = served.send("POST", "/v1/rank", &question);
        assert!(status == 200 && body.contains("\"rank\":1"), "{status} {body}");
    }
    let (status, page) = served.send("GET", "/", "");
    assert!(status == 200 && page.contains("<div id=\"app\">"), "{page}");
    served.terminate();
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn settings_are_checked_before_a_model_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str]| {
        let ran = run(folder.path(), &[&["serve"], arguments].concat());
        assert_eq!(ran.out, "");
        (ran.code.unwrap(), ran.err)
    };
    let (code, text) = refused(&["--listen", "0.0.0.0:0", "--model", "none"]);
    assert!(code == 2 && text.contains("there is no key") && text.contains("hint: give keys"), "{text}");
    std::fs::write(folder.path().join("uwe.toml"), "[limits]\ntexts = \"many\"\n").unwrap();
    let (code, text) = refused(&["--config", "uwe.toml"]);
    assert!(code == 2 && text.contains("uwe.toml") && text.contains("line 2"), "{text}");
    std::fs::write(folder.path().join("keys"), "a-key-that-is-long-enough\nshort\n").unwrap();
    let (code, text) = refused(&["--keys", "keys"]);
    assert!(code == 1 && text.contains("keys, line 2") && !text.contains("long-enough"), "{text}");
    let (code, text) = refused(&["--space", "esco.space"]);
    assert!(code == 1 && text.contains("NAME=FILE"), "{text}");
}

#[test]
fn flags_count_before_environment_and_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("uwe.toml"),
        "listen = \"127.0.0.1:1\"\ndata = \"a\"\n[limits]\ntexts = 7\n",
    )
    .unwrap();
    let ran =
        run(folder.path(), &["serve", "--config", "uwe.toml", "--listen", "127.0.0.1:2", "--print-config"]);
    assert!(ran.out.contains("listen = \"127.0.0.1:2\"") && ran.out.contains("data = \"a\""), "{}", ran.out);
    assert!(ran.out.contains("texts = 7") && ran.out.contains("hits = 1000"), "{}", ran.out);
    let output = uwe(folder.path())
        .args(["serve", "--config", "uwe.toml", "--print-config"])
        .env("UWE_LISTEN", "127.0.0.1:3")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("listen = \"127.0.0.1:3\""));
    assert!(run(folder.path(), &["serve", "--openapi"]).out.starts_with("{\n  \"openapi\""));
}

#[test]
fn uploads_that_are_killed_leave_whole_spaces_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let rows = |trial: usize| -> String {
        let rows: String = (0..400).map(|row| format!("task {row} of trial {trial}\n")).collect();
        format!("text\n{rows}")
    };
    for trial in 0..50 {
        // The folder is free again: the service before has ended.
        let mut served = Served::start(folder.path(), &[]);
        let name = format!("/v1/spaces/s{}", trial % 5);
        // A different moment each time: before, in and after the build.
        let pause = Duration::from_micros(trial as u64 * 700);
        std::thread::scope(|scope| {
            let upload = scope.spawn(|| served.send("PUT", &name, &rows(trial)));
            if trial % 2 == 0 {
                let status = upload.join().unwrap().0;
                // What an earlier trial left may still be under way.
                assert!([202, 409].contains(&status), "{status}");
            }
            std::thread::sleep(pause);
        });
        served.child.kill().unwrap();
        served.child.wait().unwrap();
    }
    let served = Served::start(folder.path(), &[]);
    for space in 0..5 {
        let path = format!("/v1/spaces/s{space}");
        // Those that were acknowledged are there, when their build has gone on to its end.
        let info = (0..400).find_map(|_| {
            std::thread::sleep(Duration::from_millis(25));
            let (_, info) = served.send("GET", &path, "");
            (!info.contains("\"building\"") && !info.contains("\"replacing\"")).then_some(info)
        });
        let info = info.unwrap();
        assert!(info.contains("\"state\":\"ready\"") && info.contains("\"targets\":400"), "{info}");
        let question = format!(r#"{{"texts": ["task 7"], "space": "s{space}", "top": 1}}"#);
        assert_eq!(served.send("POST", "/v1/rank", &question).0, 200);
    }
    let left: Vec<String> = std::fs::read_dir(folder.path().join("spaces"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !name.ends_with(".space") && name != ".lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
