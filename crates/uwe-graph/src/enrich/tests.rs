//! Enrichment against a hostile server and a recorded one; the model is the tiny encoder of the golden tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use super::*;
use crate::edge::{Manifest, counts};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use uwe::{Compute, EncoderOptions};

fn encoder() -> Encoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../uwe/tests/golden/tiny-bert");
    Encoder::open(&folder, EncoderOptions::default(), Compute::new(1, None).unwrap()).unwrap()
}

/// A data folder of twelve skills, the first of which has a known title, and an empty graph but for that.
fn thin_graph() -> (tempfile::TempDir, GraphFile) {
    let folder = tempfile::tempdir().unwrap();
    let release = folder.path().join("esco/1.2.0");
    std::fs::create_dir_all(&release).unwrap();
    let mut table = "conceptUri,preferredLabel,altLabels,description\n".to_string();
    for i in 0..12 {
        table += &format!("s:{i},skill number {i},,Does {i}.\n");
    }
    std::fs::write(release.join("skills_en.csv"), table).unwrap();
    let edges = vec![Edge {
        graph: Graph::Job,
        skill: "skill number 0".into(),
        skill_id: "s:0".into(),
        text: "known worker".into(),
        source: "mine".into(),
        weight: 1.0,
        provenance: Provenance::Real,
        part: Part::Train,
    }];
    let manifest = Manifest {
        schema: crate::edge::SCHEMA,
        written_by: "test".into(),
        name: "thin".into(),
        seed: 1,
        held_out: 0.0,
        fingerprint: GraphFile::fingerprint(&edges),
        sources: Vec::new(),
        counts: counts(&edges),
        checked_against: BTreeMap::new(),
        not_checked_against: Vec::new(),
        enriched: Vec::new(),
    };
    (folder, GraphFile { edges, manifest })
}

/// A server that treats each connection by its number; returns its address and the count of requests.
fn server(
    behave: impl Fn(usize, &str, &mut TcpStream) + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let (seen, behave) = (Arc::clone(&count), Arc::new(behave));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let (seen, behave) = (Arc::clone(&seen), Arc::clone(&behave));
            std::thread::spawn(move || {
                if let Some(body) = read_request(&mut stream) {
                    behave(seen.fetch_add(1, Ordering::SeqCst), &body, &mut stream);
                }
            });
        }
    });
    (address, count)
}

fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend(&buffer[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        })?;
        if body.len() >= length {
            return Some(body.to_string());
        }
    }
}

fn reply(stream: &mut TcpStream, status: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    let _ = stream.write_all(format!("{head}Retry-After: 0\r\n\r\n{body}").as_bytes());
}

fn chat(content: &str) -> String {
    json!({"choices": [{"message": {"role": "assistant", "content": content}}], "usage": {"total_tokens": 100}}).to_string()
}

/// Answers with three titles that name the skill's number.
fn good(body: &str) -> String {
    let request: Value = serde_json::from_str(body).unwrap();
    let user = request["messages"][1]["content"].as_str().unwrap();
    let number = user.split("skill number ").nth(1).unwrap().split('\n').next().unwrap();
    let texts = [format!("worker of {number}"), format!("chief {number}"), format!("skill number {number}")];
    chat(&json!({"texts": texts}).to_string())
}

fn options() -> EnrichOptions {
    // Nothing is similar enough to be merged by the random tiny encoder, but equals.
    EnrichOptions { model: "m".into(), workers: 3, similarity: 1.1, ..EnrichOptions::default() }
}

fn endpoint(base_url: &str) -> Endpoint {
    let (base_url, key_variable) = (base_url.to_string(), "UWE_TEST_NO_SUCH_KEY".to_string());
    Endpoint { base_url, key_variable, timeout_seconds: 2, attempts: 12, ..Endpoint::default() }
}

fn run(
    graph: &GraphFile,
    data: &Path,
    cache: &Path,
    address: &str,
    options: EnrichOptions,
) -> Result<(GraphFile, Outcome, usize)> {
    let enrichment = Enrichment::new(graph, (data, "1.2.0"), cache, options)?;
    let client = Client::new(&endpoint(address))?.without_pauses();
    let enriched = enrichment.run_with(&client, &encoder(), &|_| true)?;
    let outcome = enriched.note().unwrap().outcome.clone();
    Ok((enriched.graph, outcome, enriched.requests))
}

#[test]
fn a_hostile_server_loses_nothing_and_is_never_asked_twice_for_the_same() {
    let (folder, graph) = thin_graph();
    let (address, _) = server(|number, body, stream| match number % 9 {
        0 => reply(stream, "429 Too Many Requests", "{}"),
        1 => reply(stream, "500 Internal Server Error", "oops"),
        2 => {} // The connection is closed without a word.
        3 => reply(stream, "200 OK", "{\"choices\": [{\"mess"),
        4 => {
            // Ten megabytes: more than is read.
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\nConnection: close\r\n\r\n");
            let block = vec![b' '; 100_000];
            while stream.write_all(&block).is_ok() {}
        }
        5 => {
            // A slow drip, slower than the time-out.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n");
            for _ in 0..30 {
                std::thread::sleep(std::time::Duration::from_millis(100));
                if stream.write_all(b" ").is_err() {
                    break;
                }
            }
        }
        _ => reply(stream, "200 OK", &good(body)),
    });
    let cache = folder.path().join("cache");
    let (enriched, outcome, sent) = run(&graph, folder.path(), &cache, &address, options()).unwrap();
    assert_eq!((outcome.skills, outcome.valid_at_first, outcome.lost), (12, 12, 0), "{outcome:?}");
    // The bare label is left out each time.
    assert_eq!((outcome.texts, outcome.unusable, outcome.added), (36, 12, 24));
    assert_eq!(enriched.edges.len(), 25);
    assert_eq!((sent, outcome.answers), (12, 12));
    assert_eq!(enriched.manifest.enriched[0].samples.len(), 12);
    // Everything comes from the cache now: no server is needed, and the graph is the same.
    let (again, outcome, sent) =
        run(&graph, folder.path(), &cache, "http://127.0.0.1:9/v1", options()).unwrap();
    assert_eq!(again, enriched);
    assert_eq!((sent, outcome.tokens), (0, 1200));
}

#[test]
fn invalid_answers_are_sent_back_with_the_reason() {
    let (folder, graph) = thin_graph();
    let (address, count) = server(|_, body, stream| {
        let request: Value = serde_json::from_str(body).unwrap();
        let messages = request["messages"].as_array().unwrap();
        let first = messages[1]["content"].as_str().unwrap();
        let content = match messages.len() {
            // Skill 3 never learns it, the others at the second attempt.
            _ if first.contains("skill number 3\n") => chat("I cannot."),
            2 => chat("{\"titles\": []}"),
            _ => {
                let reason = messages[3]["content"].as_str().unwrap();
                assert!(reason.contains("the answer has no list `texts`"), "{reason}");
                good(body)
            }
        };
        reply(stream, "200 OK", &content);
    });
    let cache = folder.path().join("cache");
    let (_, outcome, _) = run(&graph, folder.path(), &cache, &address, options()).unwrap();
    assert_eq!(
        (outcome.valid_at_first, outcome.valid_after_retries, outcome.lost),
        (0, 11, 1),
        "{outcome:?}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 11 * 2 + 3);
    assert_eq!(outcome.reasons.values().sum::<usize>(), 1);
}

#[test]
fn a_run_that_stops_goes_on_without_paying_twice() {
    let (folder, graph) = thin_graph();
    let (address, count) = server(|_, body, stream| reply(stream, "200 OK", &good(body)));
    let (whole, ..) = run(&graph, folder.path(), &folder.path().join("whole"), &address, options()).unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 12);
    let cache = folder.path().join("broken");
    for stop_after in [1, 2, 5, 9] {
        let enrichment = Enrichment::new(&graph, (folder.path(), "1.2.0"), &cache, options()).unwrap();
        let client = Client::new(&endpoint(&address)).unwrap();
        let stopped = enrichment.run_with(&client, &encoder(), &|done| done < stop_after);
        assert!(matches!(stopped, Err(Error::Interrupted)) || stop_after == 9);
    }
    let (resumed, ..) = run(&graph, folder.path(), &cache, &address, options()).unwrap();
    assert_eq!(resumed, whole);
    assert_eq!(count.load(Ordering::SeqCst), 24, "a request was sent twice");
}

#[test]
fn budgets_and_refusals_are_told() {
    let (folder, graph) = thin_graph();
    let (address, _) = server(|_, body, stream| reply(stream, "200 OK", &good(body)));
    let cache = |name: &str| folder.path().join(name);
    let few = EnrichOptions { requests: Some(5), ..options() };
    let (_, outcome, sent) = run(&graph, folder.path(), &cache("a"), &address, few).unwrap();
    assert_eq!((sent, outcome.valid_at_first, outcome.not_reached), (5, 5, 7));
    let few = EnrichOptions { tokens: Some(350), workers: 1, ..options() };
    let (_, outcome, sent) = run(&graph, folder.path(), &cache("b"), &address, few).unwrap();
    assert_eq!((sent, outcome.not_reached), (4, 8));
    let enrichment = Enrichment::new(
        &graph,
        (folder.path(), "1.2.0"),
        &cache("a"),
        EnrichOptions { skills: Some(6), ..options() },
    )
    .unwrap();
    let plan = enrichment.plan();
    assert_eq!((plan.thin, plan.asked), (12, 6));
    assert!(plan.tokens > 600 && plan.cached >= 4, "{plan:?}");
    let (refusing, count) =
        server(|_, _, stream| reply(stream, "401 Unauthorized", "{\"error\": \"no key\"}"));
    let one = EnrichOptions { workers: 1, ..options() };
    let error = run(&graph, folder.path(), &cache("c"), &refusing, one).unwrap_err();
    assert!(error.to_string().contains("says 401") && error.hint().is_some(), "{error}");
    assert_eq!(count.load(Ordering::SeqCst), 1, "a refusal is final");
    assert!(Client::new(&endpoint("ftp://x")).is_err());
}

#[test]
fn merging_does_not_depend_on_the_order_of_the_texts() {
    let encoder = encoder();
    let texts: BTreeSet<String> = ["night nurse", "nurse", "nurse nurse", "baker"].map(String::from).into();
    let known = vec!["nurse".to_string()];
    let kept = merge(&encoder, &known, &texts, 0.999).unwrap();
    assert!(!kept.contains(&"nurse".to_string()), "{kept:?}");
    assert_eq!(merge(&encoder, &known, &BTreeSet::new(), 0.7).unwrap(), Vec::<String>::new());
    assert_eq!(merge(&encoder, &[], &texts, 1.1).unwrap().len(), 4);
}
