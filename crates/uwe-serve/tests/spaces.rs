//! Target spaces: made in the background, swapped while they are used, whole after every interruption.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{Running, files};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};

const CSV: [(&str, &str); 1] = [("content-type", "text/csv")];

fn csv(count: usize, word: &str) -> Vec<u8> {
    let rows: String = (0..count).map(|index| format!("{word} number {index},u:{index},x\n")).collect();
    format!("name,uri,more\n{rows}").into_bytes()
}

fn hits(service: &Running, space: &str, text: &str) -> Value {
    let answer = service.post("/v1/rank", &json!({ "texts": [text], "space": space, "top": 3 }));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["results"][0]["hits"].clone()
}

#[test]
fn uploads_become_spaces_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |_| {}, "");
    let made = service.send("PUT", "/v1/spaces/a", &CSV, &csv(50, "bread"));
    assert_eq!((made.status, made.header("location")), (202, Some("/v1/spaces/a")));
    let info = service.wait_for("a", "ready");
    assert_eq!((&info["targets"], &info["columns"]), (&json!(50), &json!(["text", "id", "more"])));
    assert_eq!(
        hits(&service, "a", "bread number 7")[0],
        json!({ "rank": 1, "target": "bread number 7", "id": "u:7", "score": hits(&service, "a", "bread number 7")[0]["score"] })
    );
    let objects = json!({ "targets": [{ "text": "weld pipes", "id": "9" }, "bake bread"] }).to_string();
    let lines = b"{\"t\": \"weld pipes\"}\n{\"t\": \"bake bread\"}\n";
    for (path, kind, body) in [
        ("/v1/spaces/b", "application/json", objects.as_bytes()),
        ("/v1/spaces/c?text_column=t", "application/x-ndjson", &lines[..]),
        (
            "/v1/spaces/d?text_column=t",
            "text/tab-separated-values",
            &b"n\tt\n1\tweld pipes\n2\tbake bread\n"[..],
        ),
    ] {
        let made = service.send("PUT", path, &[("content-type", kind)], body);
        assert_eq!(made.status, 202, "{path}: {}", made.text());
        let name = path.split(['/', '?']).nth(3).unwrap();
        service.wait_for(name, "ready");
        assert_eq!(hits(&service, name, "weld pipes")[0]["target"], "weld pipes", "{path}");
    }
    let names = service.get("/v1/spaces").json()["spaces"].as_array().unwrap().len();
    assert_eq!(names, 5);
    assert_eq!(service.send("DELETE", "/v1/spaces/a", &[], b"").status, 204);
    assert_eq!(service.get("/v1/spaces/a").code(), (404, "not_found".into()));
    assert!(!folder.path().join("a.space").exists());
}

#[test]
fn uploads_that_make_no_sense_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(
        folder.path(),
        |config| {
            config.limits.upload_bytes = 10_000;
            config.limits.text_bytes = 5_000;
            config.limits.spaces = 2;
        },
        "",
    );
    let put = |path: &str, kind: &str, body: &[u8]| {
        service.send("PUT", path, &[("content-type", kind)], body).code()
    };
    for (path, kind, body, status, code) in [
        ("/v1/spaces/a", "text/csv", &b""[..], 422, "invalid_value"),
        ("/v1/spaces/a", "text/csv", &b"text\n"[..], 422, "invalid_value"),
        ("/v1/spaces/a", "text/csv", &b"words\nbread\n"[..], 422, "invalid_value"),
        ("/v1/spaces/a", "text/csv", &b"text\n\xff\n"[..], 422, "invalid_value"),
        ("/v1/spaces/a", "text/csv", &[b'a'; 20_000][..], 413, "too_large"),
        ("/v1/spaces/a", "text/csv", &[&b"text\n"[..], &[b'!'; 6_000]].concat()[..], 422, "invalid_value"),
        ("/v1/spaces/a", "application/x-ndjson", &b"{\"text\": 1}\n"[..], 422, "invalid_value"),
        ("/v1/spaces/a", "application/json", &b"{\"targets\": [1]}"[..], 400, "invalid_body"),
        ("/v1/spaces/a", "application/json", &b"{\"targets\": 1}"[..], 400, "invalid_body"),
        ("/v1/spaces/a", "application/xml", &b"<a/>"[..], 415, "unsupported_type"),
        ("/v1/spaces/a?columns=t", "text/csv", &b"text\nbread\n"[..], 422, "invalid_value"),
        ("/v1/spaces/A", "text/csv", &b"text\nbread\n"[..], 422, "invalid_value"),
    ] {
        assert_eq!(put(path, kind, body), (status, code.into()), "{path} {kind} {body:?}");
    }
    assert_eq!(files(folder.path()), [folder.path().join(".lock")]);
    assert_eq!(service.send("PUT", "/v1/spaces/a", &CSV, b"text\nbread\n").status, 202);
    service.wait_for("a", "ready");
    assert_eq!(put("/v1/spaces/b", "text/csv", b"text\nbread\n"), (413, "too_large".into()));
}

#[test]
fn spaces_are_swapped_without_a_failed_request() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |_| {}, "");
    service.send("PUT", "/v1/spaces/a", &CSV, &csv(300, "bread"));
    service.wait_for("a", "ready");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut answers = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let hits = hits(&service, "a", "number 7");
                        assert_eq!(hits.as_array().unwrap().len(), 3);
                        answers += 1;
                    }
                    answers
                })
            })
            .collect();
        for word in ["rolls", "cakes", "pies"] {
            let made = service.send("PUT", "/v1/spaces/a", &CSV, &csv(300, word));
            assert_eq!(made.status, 202, "{}", made.text());
            assert_eq!(made.json()["state"], "replacing");
            service.wait_for("a", "ready");
            let target = hits(&service, "a", "number 7")[0]["target"].as_str().unwrap().to_string();
            assert!(target.starts_with(word), "{target}");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(asking.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>() > 0);
    });
}

#[test]
fn spaces_and_uploads_outlive_the_service() {
    let folder = tempfile::tempdir().unwrap();
    {
        let service = Running::start(folder.path(), |_| {}, "");
        service.send("PUT", "/v1/spaces/a", &CSV, &csv(50, "bread"));
        service.wait_for("a", "ready");
        // Long enough to be interrupted.
        assert_eq!(service.send("PUT", "/v1/spaces/b", &CSV, &csv(20_000, "rolls")).status, 202);
        let info = service.get("/v1/spaces/b").json();
        assert_eq!(info["state"], "building", "{info}");
        let again = service.send("PUT", "/v1/spaces/b", &CSV, &csv(5, "pies")).code();
        assert_eq!(again, (409, "conflict".into()));
        assert_eq!(
            service.post("/v1/rank", &json!({ "texts": ["a"], "space": "b" })).code(),
            (409, "not_ready".into())
        );
    }
    // A file that is no space, and one that was cut.
    std::fs::write(folder.path().join("c.space"), "nonsense").unwrap();
    let whole = std::fs::read(folder.path().join("a.space")).unwrap();
    std::fs::write(folder.path().join("d.space"), &whole[..whole.len() / 2]).unwrap();
    let service = Running::start(folder.path(), |_| {}, "");
    assert_eq!(hits(&service, "a", "bread number 7")[0]["target"], "bread number 7");
    for name in ["c", "d"] {
        let info = service.get(&format!("/v1/spaces/{name}")).json();
        assert_eq!(info["state"], "failed", "{info}");
        assert!(!info["error"].as_str().unwrap().contains('/'), "no folder of this machine: {info}");
    }
    service.wait_for("b", "ready");
    assert_eq!(service.get("/v1/spaces/b").json()["targets"], 20_000);
    assert!(!folder.path().join("b.upload").exists());
}

#[test]
fn a_space_that_is_deleted_while_it_is_built_stays_away() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |_| {}, "");
    assert_eq!(service.send("PUT", "/v1/spaces/a", &CSV, &csv(20_000, "rolls")).status, 202);
    assert_eq!(service.send("DELETE", "/v1/spaces/a", &[], b"").status, 204);
    assert_eq!(service.send("PUT", "/v1/spaces/b", &CSV, &csv(5, "pies")).status, 202);
    service.wait_for("b", "ready");
    assert_eq!(service.get("/v1/spaces/a").status, 404);
    let names: Vec<_> =
        files(folder.path()).iter().map(|file| file.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, [".lock", "b.space"]);
}
