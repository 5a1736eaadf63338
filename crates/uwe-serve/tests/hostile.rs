//! Clients that are slow, many, gone or hostile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{Answer, Running, files, request};
use serde_json::json;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn slow_headers_and_bodies_are_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(
        folder.path(),
        |config| {
            config.limits.header_ms = 200;
            config.limits.body_ms = 200;
        },
        "",
    );
    // A header that never ends, a byte at a time.
    let mut slow = service.connect();
    slow.write_all(b"POST /v1/rank HTTP/1.1\r\nhost: a\r\n").unwrap();
    // Until it is cut off, long before the usual ten seconds.
    let ended = (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        slow.write_all(b"x").is_err() || slow.write_all(b"y").is_err()
    });
    assert!(ended);
    // A body that never comes, and one that comes a byte at a time.
    for trickle in [false, true] {
        let mut slow = service.connect();
        let head = "POST /v1/rank HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n";
        slow.write_all(head.as_bytes()).unwrap();
        if trickle {
            let mut writer = slow.try_clone().unwrap();
            std::thread::spawn(move || {
                while writer.write_all(b" ").is_ok() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        let answer = Answer::read(&mut slow);
        assert_eq!(answer.code(), (408, "body_timeout".into()), "trickle: {trickle}");
    }
}

#[test]
fn large_and_compressed_bodies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |_| {}, "");
    let json = [("content-type", "application/json")];
    let large = vec![b' '; 10 << 20];
    let answer = service.send("POST", "/v1/rank", &json, &large);
    assert!(answer.status == 413 || answer.status == 0, "{answer:?}");
    // 10 MB of blanks in 10 kB.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&large).unwrap();
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 20_000);
    let headers = [("content-type", "application/json"), ("content-encoding", "gzip")];
    assert_eq!(service.send("POST", "/v1/rank", &headers, &bomb).code(), (413, "too_large".into()));
    // What is compressed honestly is read; what is not compressed as it says is refused.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(json!({ "texts": ["a"], "space": "tasks" }).to_string().as_bytes()).unwrap();
    assert_eq!(service.send("POST", "/v1/rank", &headers, &encoder.finish().unwrap()).status, 200);
    assert_eq!(service.send("POST", "/v1/rank", &headers, b"no gzip").code(), (400, "invalid_body".into()));
    let odd = [("content-type", "application/json"), ("content-encoding", "zip")];
    assert_eq!(service.send("POST", "/v1/rank", &odd, b"{}").status, 415);
}

#[test]
fn hostile_texts_get_an_answer_without_nan() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(
        folder.path(),
        |config| {
            config.limits.text_bytes = 2 << 20;
            config.limits.body_bytes = 8 << 20;
        },
        "",
    );
    let million = "w".repeat(1 << 20);
    for text in [
        "\0",
        "a\0b",
        "\u{301}\u{301}\u{301}",
        "\u{202e}abc",
        "🦀".repeat(500).as_str(),
        &million,
        " ",
        "\u{feff}",
    ] {
        let answer =
            service.post("/v1/rank", &json!({ "texts": [text], "space": "tasks", "evidence": true }));
        assert_eq!(answer.status, 200, "{:?}: {}", &text[..text.len().min(20)], answer.text());
        assert!(!answer.text().contains("NaN") && !answer.text().contains("\"score\":null"));
        for (path, body) in [
            ("/embed", json!({ "inputs": text, "truncate": true })),
            ("/v1/score", json!({ "query": text, "targets": [text], "evidence": true })),
            ("/v1/rerank", json!({ "query": text, "documents": [text] })),
        ] {
            let status = service.post(path, &body).status;
            assert!(status == 200, "{path} {status}");
        }
    }
    let raw =
        |body: &[u8]| service.send("POST", "/v1/rank", &[("content-type", "application/json")], body).status;
    assert_eq!(raw(br#"{"texts":["\ud800"],"space":"tasks"}"#), 400);
    assert_eq!(raw(br#"{"texts":["a"],"space":"tasks","threshold":NaN}"#), 400);
    assert_eq!(raw(br#"{"texts":["a"],"space":"tasks","threshold":1e999}"#), 400);
    assert_eq!(raw(b"{\"texts\":[\"\xff\"],\"space\":\"tasks\"}"), 400);
    assert_eq!(raw("[".repeat(100_000).as_bytes()), 400);
    assert_eq!(raw(b""), 400);
}

#[test]
fn names_cannot_leave_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let data = outer.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(outer.path().join("secret.space"), "secret").unwrap();
    let service = Running::start(&data, |_| {}, "");
    let before = files(outer.path());
    let dots = ["..", "%2e%2e", "%2E%2e", ".%2e", "..%00", "%252e%252e", "..;", "..\u{2215}"];
    let slashes = ["/", "%2f", "%2F", "%5c", "\\", "%252f", "//"];
    let mut names: Vec<String> =
        dots.iter().flat_map(|dot| slashes.iter().map(move |slash| format!("{dot}{slash}secret"))).collect();
    names.extend(["secret%00".into(), ".hidden".into(), "a.space".into(), "CON".into(), "a%0ab".into()]);
    assert!(names.len() >= 50);
    for name in &names {
        for method in ["GET", "PUT", "DELETE"] {
            let path = format!("/v1/spaces/{name}");
            let headers = [("content-type", "text/csv")];
            let answer = service.send(method, &path, &headers, b"text\nbake bread\n");
            assert!((400..500).contains(&answer.status), "{method} {path}: {answer:?}");
        }
        let ranked = service.post("/v1/rank", &json!({ "texts": ["a"], "space": name }));
        assert_eq!(ranked.status, 404, "{name}");
    }
    assert_eq!(files(outer.path()), before);
}

#[test]
fn keys_guard_everything_but_health() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |_| {}, "secret-secret-secret\nreader-reader-reader read\n");
    let body = json!({ "texts": ["a"], "space": "tasks" }).to_string();
    let ask = |key: &str| {
        let headers = [("content-type", "application/json"), ("authorization", key)];
        service.send("POST", "/v1/rank", &headers, body.as_bytes()).status
    };
    assert_eq!(
        service.send("POST", "/v1/rank", &[("content-type", "application/json")], body.as_bytes()).status,
        401
    );
    assert_eq!((ask("Bearer secret-secret-secret"), ask("Bearer reader-reader-reader")), (200, 200));
    assert_eq!((ask("Bearer wrong"), ask(""), ask("Bearer \u{e4}")), (401, 401, 401));
    // Before a byte of the body is read.
    let mut stream = service.connect();
    stream.write_all(b"POST /v1/rank HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n").unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 401");
    for path in ["/livez", "/readyz", "/health", "/metrics", "/"] {
        assert_eq!(service.get(path).status, 200, "{path}");
    }
    for path in ["/v1/spaces", "/info", "/openapi.json"] {
        assert_eq!(service.get(path).status, 401, "{path}");
    }
    // Whoever refuses, in the form of the route.
    assert!(service.get("/info").json()["error"].is_string());
    {}
    let put = |key| {
        let headers = [("content-type", "text/csv"), ("authorization", key)];
        service.send("PUT", "/v1/spaces/new", &headers, b"text\nbake bread\n").status
    };
    assert_eq!((put("Bearer reader-reader-reader"), put("Bearer secret-secret-secret")), (403, 202));
}

/// Work that takes a while with the tiny model.
fn heavy(index: usize, texts: usize) -> serde_json::Value {
    let texts: Vec<String> =
        (0..texts).map(|text| format!("{index} {text} {}", "some words ".repeat(20))).collect();
    json!({ "texts": texts, "space": "tasks", "top": 50, "evidence": true })
}

#[test]
fn what_nobody_waits_for_is_not_computed() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(
        folder.path(),
        |config| {
            config.limits.queue_texts = 100_000;
            config.limits.queue_ms = 60_000;
            config.limits.request_ms = 120_000;
            config.limits.evidence_hits = 500;
        },
        "",
    );
    // The worker is busy; forty more wait, and half of them go. A client that says beforehand that it will close its connection
    // cannot be seen to go.
    let json = [("content-type", "application/json"), ("connection", "keep-alive")];
    let mut busy = service.connect();
    busy.write_all(&request("POST", "/v1/rank", &json, heavy(1000, 100).to_string().as_bytes())).unwrap();
    while service.metric("uwe_queue_duration_seconds_count") < 1.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut waiting = Vec::new();
    for index in 0..40 {
        let mut stream = service.connect();
        stream
            .write_all(&request("POST", "/v1/rank", &json, heavy(index, 1).to_string().as_bytes()))
            .unwrap();
        waiting.push(stream);
    }
    while service.metric("uwe_texts_waiting") < 40.0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut index = 0;
    waiting.retain(|_| {
        index += 1;
        index % 2 == 0
    });
    let statuses: Vec<String> = waiting
        .iter_mut()
        .map(|stream| {
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            String::from_utf8_lossy(&start[9..]).into_owned()
        })
        .collect();
    let gone = service.metric("uwe_requests_gone_total");
    // Those that stayed are answered; those that went are not worked on, but for the few that the worker had begun.
    assert!(statuses.iter().all(|status| status == "200"), "{statuses:?}");
    assert!(gone >= 18.0, "{gone} of 20 gone");
}

#[test]
fn overload_gives_answers_or_429_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(
        folder.path(),
        |config| {
            config.limits.requests = 8;
            config.limits.queue_texts = 100;
        },
        "",
    );
    let (fine, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for client in 0..24 {
            let (service, fine, refused) = (&service, &fine, &refused);
            scope.spawn(move || {
                for turn in 0..6 {
                    let answer = service.post("/v1/rank", &heavy(client * 100 + turn, 16));
                    match answer.status {
                        200 => fine.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            assert_eq!(answer.header("retry-after"), Some("1"));
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("{other}: {answer:?}"),
                    };
                }
            });
        }
    });
    let (fine, refused) = (fine.into_inner(), refused.into_inner());
    assert!(fine > 0 && refused > 0 && fine + refused == 144, "{fine} fine, {refused} refused");
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn connections_beyond_the_limit_are_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |config| config.limits.connections = 50, "");
    let idle: Vec<_> = (0..50).map(|_| service.connect()).collect();
    std::thread::sleep(Duration::from_millis(100));
    let answer = Answer::read(&mut service.connect());
    assert_eq!(answer.code(), (503, "overloaded".into()));
    drop(idle);
    service.wait_until_live(Duration::from_secs(60));
    assert!(service.metric("uwe_connections_refused_total") >= 1.0);
}

#[test]
fn ten_thousand_connections_leave_those_that_are_served_alone() {
    const MANY: usize = 10_000;
    // Both ends are in this process.
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limits.maximum.unwrap_or(u64::MAX).min(1 << 20);
    if most < MANY as u64 + 2000 {
        println!("skipped: {most} open files are allowed, and ten thousand connections need more");
        return;
    }
    let raised = rustix::process::Rlimit { current: Some(most), maximum: limits.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let service = Running::start(folder.path(), |config| config.limits.header_ms = 120_000, "");
    let mut first = service.connect();
    let json = [("content-type", "application/json"), ("connection", "keep-alive")];
    let question = json!({ "texts": ["a"], "space": "tasks" }).to_string();
    let mut ask = || {
        first.write_all(&request("POST", "/v1/rank", &json, question.as_bytes())).unwrap();
        let mut start = [0; 12];
        first.read_exact(&mut start).unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        // The rest of the answer, in whatever pieces it comes.
        let mut rest = vec![0; 1 << 16];
        while {
            let length = first.read(&mut rest).unwrap();
            !rest[..length].ends_with(b"}")
        } {}
    };
    ask();
    let mut crowd = Vec::with_capacity(MANY);
    for index in 0..MANY {
        crowd.push(service.connect());
        if index % 1000 == 0 {
            ask();
        }
    }
    ask();
    // Whoever is beyond the limit is told so and let go.
    let refused = Answer::read(crowd.last_mut().unwrap());
    assert_eq!(refused.code(), (503, "overloaded".into()));
    drop(crowd);
    service.wait_until_live(Duration::from_secs(60));
    assert!(service.metric("uwe_connections_refused_total") >= (MANY - 1024) as f64);
}

#[test]
fn a_stop_loses_nothing_that_was_accepted() {
    for trial in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let mut service = Running::start(
            folder.path(),
            |config| {
                config.limits.queue_ms = 20_000;
                config.limits.farewell_ms = 3_000;
            },
            "",
        );
        let json = [("content-type", "application/json")];
        let mut waiting: Vec<_> = (0..6)
            .map(|index| {
                let mut stream = service.connect();
                let body = heavy(trial * 10 + index, 16).to_string();
                stream.write_all(&request("POST", "/v1/rank", &json, body.as_bytes())).unwrap();
                stream
            })
            .collect();
        // Accepted: its body is read. A request that is not yet may be refused, but with an answer.
        std::thread::sleep(Duration::from_millis(30));
        service.order_stop();
        // Who watches is still answered, and sees it as soon as the order has arrived.
        let seen = std::iter::repeat_with(|| service.get("/readyz").status).find(|status| *status != 200);
        assert_eq!(seen, Some(503));
        let statuses: Vec<u16> = waiting.iter_mut().map(|stream| Answer::read(stream).status).collect();
        assert!(statuses.iter().all(|status| [200, 429, 503].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&200), "{statuses:?}");
        service.join();
    }
}
