//! What the fuzzers do with their bytes. `crates/uwe-serve/tests/corpus.rs` does the same with the kept ones, as an ordinary test.
//!
//! Each function panics when a promise is broken: an error is sound, a panic, a wrong status or a text beyond its bounds is not.

#![allow(dead_code, reason = "each target uses one of these")]

use axum::body::Body;
use axum::http::{Method, Request};
use http_body_util::BodyExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tokio::runtime::Runtime;
use tower::ServiceExt;
use uwe::{
    BuildOptions, Columns, Compute, Encoder, EncoderOptions, Format, Ranker, Scoring, Space, Targets,
    Tokenizer,
};
use uwe_serve::{Config, Keys, Service};

/// A tiny random encoder.
fn model_folder() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("../crates/uwe"), here.join("../uwe")];
    let folder =
        places.into_iter().map(|place| place.join("tests/golden/tiny-bert")).find(|place| place.exists());
    folder.expect("the tiny encoder of the tests")
}

fn encoder() -> &'static Encoder {
    static ENCODER: OnceLock<Encoder> = OnceLock::new();
    ENCODER.get_or_init(|| open(&model_folder()).expect("the tiny encoder is sound"))
}

fn open(folder: &Path) -> uwe::Result<Encoder> {
    let options = EncoderOptions { max_tokens: 32, ..EncoderOptions::default() };
    Encoder::open(folder, options, Compute::new(1, None)?)
}

/// A space file: opened, searched with every scorer, verified. The first byte says whether its checksums are made right first:
/// else hardly an input would come past them.
pub(crate) fn space(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if first % 2 == 1 {
        seal(&mut bytes);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fuzzed.space");
    std::fs::write(&path, bytes).expect("a file");
    let Ok(space) = Space::open(&path) else { return };
    let _ = (space.verify(), space.fits(encoder()), space.tokens(), space.truncated().len());
    for target in space.targets() {
        let _ = (target.text().len(), target.id().map(str::len), target.field("id").map(str::len));
    }
    let query = encoder().encode(&["task 1 with words"]).expect("a sound text");
    for scorer in ["soft", "soft-pooled", "maxsim", "cosine"] {
        let scoring = Scoring::named(scorer, Scoring::default()).expect("a known scorer");
        let Ok(ranker) = Ranker::new(encoder(), &space, scoring) else { continue };
        let Ok(ranked) = ranker.rank_encoded(&query, 5) else { continue };
        for ranking in ranked {
            // Scores of what was made up need not be finite: a file with sound checksums was made by who made it.
            assert!(ranking.hits.iter().all(|hit| space.target(hit.target).is_some()));
        }
    }
}

/// Makes the checksums of a space file right, as far as its tables say where they are (docs/format.md).
fn seal(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).map(|part| u64::from_le_bytes(part.try_into().unwrap_or_default()) as usize)
    };
    if bytes.len() < 256 {
        return;
    }
    let length = bytes.len() as u64;
    bytes[..8].copy_from_slice(b"UWESPACE");
    bytes[16..24].copy_from_slice(&length.to_le_bytes());
    // Panels first: their table is itself a section.
    let section = |bytes: &[u8], index: usize| {
        let at = 24 + index * 24;
        let (start, length) = (word(bytes, at + 8)?, word(bytes, at + 16)?);
        let end = start.checked_add(length)?.checked_next_multiple_of(64)?;
        (end <= bytes.len()).then_some((start, length, end))
    };
    if let (Some((states, long, _)), Some((panels, rows, _))) = (section(bytes, 5), section(bytes, 7)) {
        for row in 0..rows / 16 {
            let at = panels + row * 16;
            let start = word(bytes, at);
            let end = if row + 1 < rows / 16 { word(bytes, at + 16) } else { Some(long) };
            if let (Some(start), Some(end)) = (start, end)
                && start <= end
                && end <= long
            {
                let crc = crc32fast::hash(&bytes[states + start..states + end]);
                bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
            }
        }
    }
    for index in 0..8 {
        if let Some((start, _, end)) = section(bytes, index) {
            let crc = crc32fast::hash(&bytes[start..end]);
            bytes[24 + index * 24 + 4..][..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&bytes[..252]);
    bytes[252..256].copy_from_slice(&crc.to_le_bytes());
}

/// Files of a model folder, instead of the sound ones: `NAME\n` and content, parted by lines of `====`.
pub(crate) fn model(data: &[u8]) {
    const FILES: [&str; 7] = [
        "config.json",
        "modules.json",
        "1_Pooling/config.json",
        "tokenizer_config.json",
        "config_uwe.json",
        "tokenizer.json",
        "model.safetensors",
    ];
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("1_Pooling")).expect("a folder");
    for file in FILES {
        let from = model_folder().join(file);
        if from.exists() {
            std::fs::copy(from, folder.path().join(file)).expect("a copy");
        }
    }
    let mut rest = data;
    while !rest.is_empty() {
        let end = rest.windows(6).position(|part| part == b"\n====\n");
        let part = &rest[..end.unwrap_or(rest.len())];
        rest = end.map_or(&[][..], |end| &rest[end + 6..]);
        let name = part.split(|byte| *byte == b'\n').next().unwrap_or_default();
        if let Some(file) = FILES.iter().find(|file| file.as_bytes() == name) {
            let content = part.get(name.len() + 1..).unwrap_or_default();
            std::fs::write(folder.path().join(file), content).expect("a file");
        }
    }
    let Ok(encoder) = open(folder.path()) else { return };
    if let Ok(encoded) = encoder.encode(&["a nurse who welds", ""]) {
        assert_eq!(encoded.states.len(), 2);
        assert!(encoded.states.values().iter().all(|value| value.is_finite()));
    }
}

/// A text: its tokens are at most as many as they may be, and lie in order within it.
pub(crate) fn tokenizer(data: &[u8]) {
    static TOKENIZERS: OnceLock<Vec<Tokenizer>> = OnceLock::new();
    let tokenizers = TOKENIZERS.get_or_init(|| {
        let file = model_folder().join("tokenizer.json");
        [3, 8, 64].map(|most| Tokenizer::open(&file, most).expect("a sound tokenizer")).into()
    });
    let text = String::from_utf8_lossy(data);
    let characters = text.chars().count();
    for tokenizer in tokenizers {
        let tokens = tokenizer.tokenize(&text).expect("every text has tokens");
        assert!(tokens.ids.len() <= tokenizer.max_tokens() && tokens.ids.len() == tokens.ranges.len());
        assert!(tokens.ranges.iter().all(|range| range.start <= range.end && range.end <= characters));
        let own: Vec<_> = tokens.ranges.iter().filter(|range| !range.is_empty()).collect();
        assert!(own.windows(2).all(|pair| pair[0].start <= pair[1].start));
    }
    let encoded = encoder().encode(&[&*text]).expect("every text has states");
    assert!(encoded.states.values().iter().all(|value| value.is_finite()));
}

/// A list of targets; the first byte is the format and whether columns are named.
pub(crate) fn targets(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let format = [Format::Csv, Format::Tsv, Format::JsonLines, Format::Lines][usize::from(first % 4)];
    let columns = match first / 4 % 2 {
        0 => Columns::default(),
        _ => Columns { text: Some("b".into()), id: Some("a".into()) },
    };
    let Ok(targets) = Targets::from_reader(bytes, "fuzzed", format, &columns) else { return };
    for index in 0..targets.len() {
        let text = targets.text(index);
        assert!(!text.is_empty() && text.trim() == text);
    }
    if (1..=32).contains(&targets.len()) {
        let space = Space::in_memory(encoder(), &targets, BuildOptions::default()).expect("sound targets");
        assert_eq!(space.len(), targets.len());
        space.verify().expect("a sound space");
    }
}

/// A request: the first byte is the route, the second the content type.
pub(crate) fn requests(data: &[u8]) {
    const ROUTES: [(Method, &str); 9] = [
        (Method::POST, "/v1/rank"),
        (Method::POST, "/v1/score"),
        (Method::POST, "/v1/embeddings"),
        (Method::POST, "/v1/rerank"),
        (Method::POST, "/v2/rerank"),
        (Method::POST, "/embed"),
        (Method::POST, "/rerank"),
        (Method::PUT, "/v1/spaces/fuzzed"),
        (Method::GET, "/v1/spaces/"),
    ];
    const TYPES: [&str; 4] = ["application/json", "text/csv", "application/x-ndjson", "text/plain"];
    static SERVICE: OnceLock<(Runtime, Service, tempfile::TempDir)> = OnceLock::new();
    let (runtime, service, _) = SERVICE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let config = Config { data: folder.path().to_path_buf(), ..Config::default() };
        let keys = Keys::parse("").expect("no keys");
        let service =
            Service::start(open(&model_folder()).expect("sound"), (config, keys), 1).expect("a service");
        let mut targets = Targets::new("fuzz", &["id"]);
        for index in 0..20 {
            targets.push(&format!("task {index}"), vec![format!("t:{index}")]);
        }
        let space = Space::in_memory(service.encoder(), &targets, BuildOptions::default()).expect("a space");
        service.add_space("tasks", space);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        (runtime.expect("a runtime"), service, folder)
    });
    let [route, kind, body @ ..] = data else { return };
    let (method, path) = &ROUTES[usize::from(*route) % ROUTES.len()];
    let mut request = Request::builder().method(method.clone()).uri(*path);
    if *method == Method::GET {
        // The rest of the path is what is fuzzed.
        let rest: String = body.iter().take(200).map(|byte| format!("%{byte:02x}")).collect();
        request = request.uri(format!("{path}{rest}"));
    }
    let request = request
        .header("content-type", TYPES[usize::from(*kind) % TYPES.len()])
        .body(Body::from(body.to_vec()))
        .expect("a sound request");
    let answer = runtime.block_on(service.router().oneshot(request)).expect("an answer");
    let status = answer.status();
    assert!(status.as_u16() < 500 || status.as_u16() == 503, "{method} {path}: {status}");
    let bytes = runtime.block_on(answer.into_body().collect()).expect("a whole answer").to_bytes();
    if !status.is_success() {
        let _: serde_json::Value = serde_json::from_slice(&bytes).expect("an error is JSON");
    }
}
