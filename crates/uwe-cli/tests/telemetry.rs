//! `uwe serve` sends traces to a collector (a build with `--features telemetry`).

#![cfg(feature = "telemetry")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::Served;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

/// Takes one request; its path and its body.
fn collect(listener: &TcpListener) -> (String, Vec<u8>) {
    let mut reader = BufReader::new(listener.accept().unwrap().0);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let lower = line.trim_end().to_ascii_lowercase();
        if path.is_empty() {
            path = line.split(' ').nth(1).unwrap().to_string();
        } else if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        } else if lower.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    (path, body)
}

#[test]
fn a_request_is_part_of_its_callers_trace() {
    let collector = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let mut served = Served::start_with(folder.path(), &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let caller = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let question = r#"{"texts": ["baker"], "space": "starter"}"#;
    let (status, answer) = served.send_with("POST", "/v1/rank", caller, question);
    assert_eq!(status, 200, "{answer}");
    // What is left is sent when the service ends.
    served.terminate();
    let (path, spans) = collect(&collector);
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
    let holds = |part: &[u8]| spans.windows(part.len()).any(|window| window == part);
    assert_eq!(path, "/v1/traces");
    let trace =
        [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];
    assert!(holds(&trace) && holds(b"POST /v1/rank") && holds(b"uwe.encode_ms"), "{spans:?}");
}
