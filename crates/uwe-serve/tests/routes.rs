//! What the routes answer: the library's numbers, in the forms that clients know.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{Running, encoder, targets};
use serde_json::{Value, json};
use std::collections::HashSet;
use uwe::{BuildOptions, Ranker, Scoring, Space};

fn start() -> (tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), |_| {}, "");
    (folder, running)
}

#[test]
fn ranking_gives_the_numbers_of_the_library() {
    let (_folder, service) = start();
    let encoder = encoder();
    let space = Space::in_memory(&encoder, &targets(200), BuildOptions::default()).unwrap();
    let texts = ["task 7", "many words", ""];
    for scorer in ["soft", "soft-pooled", "maxsim", "cosine"] {
        let scoring = Scoring::named(scorer, encoder.scoring()).unwrap();
        let expected = Ranker::new(&encoder, &space, scoring).unwrap().rank(&texts, 5).unwrap();
        let body = json!({ "texts": texts, "space": "tasks", "top": 5, "scorer": scorer });
        // Twice: the second answer comes from the states that are kept.
        for _ in 0..2 {
            let answer = service.post("/v1/rank", &body);
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert!(answer.header("server-timing").unwrap().contains("encode;dur="));
            assert!(answer.header("x-request-id").is_some());
            let results = answer.json();
            for (index, ranking) in expected.iter().enumerate().take(2) {
                let result = &results["results"][index];
                assert_eq!((&result["query"], &result["truncated"]), (&json!(texts[index]), &json!(false)));
                for (place, hit) in ranking.hits.iter().enumerate() {
                    let found = &result["hits"][place];
                    let target = space.target(hit.target).unwrap();
                    assert_eq!(
                        (&found["rank"], &found["target"]),
                        (&json!(place + 1), &json!(target.text()))
                    );
                    assert_eq!(found["id"], json!(target.id().unwrap()));
                    assert_eq!(found["score"].as_f64().unwrap() as f32, hit.score, "{scorer}");
                }
            }
            assert_eq!(results["results"][2]["hits"], json!([]), "an empty text has no hits");
        }
    }
    let body =
        json!({ "texts": ["task 7"], "space": "tasks", "top": 200, "threshold": 0.9, "evidence": false });
    let hits = service.post("/v1/rank", &body).json()["results"][0]["hits"].as_array().unwrap().clone();
    assert!(hits.iter().all(|hit| hit["score"].as_f64().unwrap() >= 0.9));
}

#[test]
fn evidence_adds_up_to_the_score() {
    let (_folder, service) = start();
    let body = json!({ "texts": ["task 7"], "space": "tasks", "top": 2, "evidence": true });
    let answer = service.post("/v1/rank", &body).json();
    let score = json!({ "query": "task 7", "targets": [" task 7 with words", ""], "evidence": true });
    let scored = service.post("/v1/score", &score).json();
    assert_eq!(scored["scores"][1], json!({ "target": "", "truncated": false, "score": 0.0 }));
    for found in [&answer["results"][0]["hits"][0], &scored["scores"][0]] {
        let evidence = &found["evidence"];
        let sum: f64 = evidence["pairs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| pair["contribution"].as_f64().unwrap())
            .sum();
        let whole = sum + evidence["rest"].as_f64().unwrap();
        assert!((whole - found["score"].as_f64().unwrap()).abs() < 1e-3, "{found}");
    }
}

#[test]
fn clients_of_other_services_are_answered() {
    let (_folder, service) = start();
    let vectors = service.post("/embed", &json!({ "inputs": ["task", "words"] })).json();
    let one = service.post("/embed", &json!({ "inputs": "task", "normalize": true })).json();
    assert_eq!((vectors.as_array().unwrap().len(), &vectors[0]), (2, &one[0]));
    let length: f64 = one[0].as_array().unwrap().iter().map(|value| value.as_f64().unwrap().powi(2)).sum();
    assert!((length - 1.0).abs() < 1e-4);

    let float = service.post("/v1/embeddings", &json!({ "input": ["task", "words"], "model": "any" })).json();
    assert_eq!((&float["object"], &float["data"][1]["index"]), (&json!("list"), &json!(1)));
    assert_eq!(float["data"][0]["embedding"], one[0]);
    let text = json!({ "input": "task", "encoding_format": "base64" });
    let text =
        service.post("/v1/embeddings", &text).json()["data"][0]["embedding"].as_str().unwrap().to_string();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    let first = f32::from_le_bytes(bytes[..4].try_into().unwrap());
    assert_eq!(first, one[0][0].as_f64().unwrap() as f32);

    let documents = json!({ "query": "task 7", "documents": ["many words", {"text": "task 7"}], "top_n": 1, "return_documents": true });
    for path in ["/v1/rerank", "/v2/rerank"] {
        let answer = service.post(path, &documents).json();
        assert_eq!(answer["results"].as_array().unwrap().len(), 1);
        assert_eq!(answer["results"][0]["document"]["text"], "task 7");
    }
    let texts = json!({ "query": "task 7", "texts": ["many words", "task 7"], "return_text": true });
    let answer = service.post("/rerank", &texts).json();
    assert_eq!((&answer[0]["index"], &answer[0]["text"]), (&json!(1), &json!("task 7")));
    let info = service.get("/info").json();
    assert_eq!(
        (&info["model_type"]["embedding"]["pooling"], &info["model_id"]),
        (&json!("mean"), &json!("tiny-bert"))
    );
    assert_eq!(service.get("/health").status, 200);
}

#[test]
fn refusals_name_what_is_wrong_in_the_form_of_the_route() {
    let (_folder, service) = start();
    let rank = |body: Value| service.post("/v1/rank", &body).code();
    let good = json!({ "texts": ["a"], "space": "tasks" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for (body, status, code) in [
        (with("top", json!(0)), 422, "invalid_value"),
        (with("top", json!(1001)), 422, "invalid_value"),
        (with("scorer", json!("best")), 422, "invalid_value"),
        (
            with(
                "scoring",
                json!({"scorer": "soft-pooled", "temperature": -1, "logits": "raw", "special_tokens": true}),
            ),
            422,
            "invalid_value",
        ),
        (with("space", json!("none")), 404, "not_found"),
        (with("space", json!("../../etc/passwd")), 404, "not_found"),
        (with("texts", json!([])), 422, "invalid_value"),
        (with("texts", json!(vec!["a"; 257])), 413, "too_large"),
        (with("texts", json!(["a".repeat(40_000)])), 413, "too_large"),
        (json!({ "texts": vec!["a"; 11], "space": "tasks", "top": 1000 }), 413, "too_large"),
        (json!({ "texts": vec!["a"; 11], "space": "tasks", "top": 100, "evidence": true }), 413, "too_large"),
        (with("texts", json!([1])), 400, "invalid_body"),
        (with("textss", json!([])), 400, "invalid_body"),
    ] {
        assert_eq!(rank(body.clone()), (status, code.into()), "{body}");
    }
    assert_eq!(service.get("/v1/rank").code(), (405, "method_not_allowed".into()));
    assert_eq!(service.get("/nothing").code(), (404, "not_found".into()));
    let plain = service.send("POST", "/v1/rank", &[("content-type", "text/plain")], b"{}");
    assert_eq!(plain.code(), (415, "unsupported_type".into()));
    assert_eq!(service.get("/v1/spaces/%ff").code(), (422, "invalid_value".into()));
    let zip = [("content-type", "application/json"), ("content-encoding", "zip")];
    assert_eq!(service.send("POST", "/v1/rank", &zip, b"{}").code(), (415, "unsupported_type".into()));
    let explained = json!({ "query": "a", "targets": vec!["b"; 101], "evidence": true });
    assert_eq!(service.post("/v1/score", &explained).code(), (413, "too_large".into()));
    // Other families say it in their own way.
    let long = "word ".repeat(200);
    let embed = service.post("/embed", &json!({ "inputs": long }));
    assert_eq!((embed.status, &embed.json()["error_type"]), (413, &json!("validation")));
    assert_eq!(service.post("/embed", &json!({ "inputs": long, "truncate": true })).status, 200);
    let openai = service.post("/v1/embeddings", &json!({ "input": [] }));
    assert_eq!((openai.status, &openai.json()["error"]["type"]), (422, &json!("invalid_request_error")));
    let cut = service.post("/v1/embeddings", &json!({ "input": ["a", long] })).json();
    assert_eq!(cut["truncated"], json!([1]));
    let rerank = service.post("/v1/rerank", &json!({ "query": "a", "documents": [] }));
    assert_eq!(rerank.status, 422);
    assert!(rerank.json()["message"].is_string());
}

#[test]
fn metrics_stand_at_zero_and_count() {
    let (_folder, service) = start();
    for name in [
        "uwe_requests_total{route=\"/v1/rank\",status=\"200\"}",
        "uwe_refusals_total{code=\"overloaded\"}",
        "uwe_texts_cached_total",
    ] {
        assert_eq!(service.metric(name), 0.0, "{name}");
    }
    let body = json!({ "texts": ["a", "b"], "space": "tasks" });
    assert_eq!(service.post("/v1/rank", &body).status, 200);
    assert_eq!(service.post("/v1/rank", &body).status, 200);
    assert_eq!(service.metric("uwe_requests_total{route=\"/v1/rank\",status=\"200\"}"), 2.0);
    assert_eq!((service.metric("uwe_texts_total"), service.metric("uwe_texts_cached_total")), (4.0, 2.0));
    assert_eq!(service.metric("uwe_spaces"), 1.0);
    assert_eq!(service.get("/livez").status, 200);
    assert_eq!(service.get("/readyz").status, 200);
}

#[test]
fn the_document_is_the_one_that_is_checked_in() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let document = uwe_serve::document() + "\n";
    let parsed: Value = serde_json::from_str(&document).unwrap();
    let operations =
        parsed["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let names: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    let distinct: HashSet<&str> = names.iter().copied().collect();
    assert!(names.len() > 15 && names.len() == distinct.len(), "{names:?}");
    if std::env::var_os("UWE_BLESS").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == document,
        "openapi.json differs from the routes; UWE_BLESS=1 cargo test -p uwe-serve writes it anew"
    );
    let (_folder, service) = start();
    assert_eq!(service.get("/openapi.json").text() + "\n", document);
}
