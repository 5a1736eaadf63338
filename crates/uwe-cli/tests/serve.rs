//! `uwe serve` as a process: its settings, its end, and what is left of it after it was killed.

#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{Served, run, uwe};
use std::time::Duration;

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
fn twenty_stops_under_load_lose_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for trial in 0..20u64 {
        let mut served = Served::start(folder.path(), &[]);
        let (send, statuses) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for client in 0..6 {
                let (served, send) = (&served, send.clone());
                scope.spawn(move || {
                    for turn in 0.. {
                        let text = format!("baker {trial} {client} {turn}");
                        let question = format!(r#"{{"texts": ["{text}"], "space": "starter", "top": 3}}"#);
                        let (status, body) = served.send("POST", "/v1/rank", &question);
                        send.send((status, body.ends_with('}'))).unwrap();
                        // It is told that the service stops, and asks elsewhere.
                        if ![200, 429].contains(&status) {
                            break;
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(40 + trial * 7));
            served.terminate();
        });
        drop(send);
        assert_eq!(served.child.wait().unwrap().code(), Some(0));
        for (status, whole) in statuses {
            assert!([200, 429, 503].contains(&status) && whole, "trial {trial}: {status}");
            answered += usize::from(status == 200);
        }
    }
    assert!(answered > 20, "{answered} answers before the stops");
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
    let (code, text) = refused(&["--space", "My Space=esco.space"]);
    assert!(code == 1 && text.contains("lower-case") && text.contains("--space esco=esco.space"), "{text}");
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
