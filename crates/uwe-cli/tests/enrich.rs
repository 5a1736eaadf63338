//! `uwe graph` with a language model's server: kills, resumption, and recipes that hold every step.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod common;

use common::{run, uwe};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SKILLS: usize = 60;

/// Requests by their idempotency key: how often each came.
type Log = Arc<Mutex<HashMap<String, usize>>>;

/// A chat server that answers each request with two titles after a short while.
fn server() -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    let log = Log::default();
    let kept = Arc::clone(&log);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = Arc::clone(&kept);
            std::thread::spawn(move || while answer(&stream, &log).is_some() {});
        }
    });
    (address, log)
}

fn answer(stream: &TcpStream, log: &Log) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim().split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match &name.to_ascii_lowercase()[..] {
            "content-length" => length = value.parse().ok()?,
            "idempotency-key" => key = value.to_string(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request: Value = serde_json::from_slice(&body).ok()?;
    *log.lock().unwrap().entry(key).or_default() += 1;
    std::thread::sleep(Duration::from_millis(4));
    let prompt = request["messages"][1]["content"].as_str()?;
    let number = prompt.split("skill number ").nth(1)?.split('\n').next()?;
    let content = json!({"texts": [format!("worker of {number}"), format!("chief {number}")]}).to_string();
    let body =
        json!({"choices": [{"message": {"content": content}}], "usage": {"total_tokens": 10}}).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut stream = stream;
    stream.write_all((head + &body).as_bytes()).ok()
}

/// Raw files of some skills, and a recipe with one edge.
fn data(folder: &Path) {
    let release = folder.join("esco/1.2.0");
    std::fs::create_dir_all(&release).unwrap();
    let mut table = "conceptUri,preferredLabel,altLabels,description\n".to_string();
    for i in 0..SKILLS {
        table += &format!("s:{i},skill number {i},,Does {i}.\n");
    }
    std::fs::write(release.join("skills_en.csv"), table).unwrap();
    std::fs::write(folder.join("own.csv"), "title,skill,id\nknown worker,skill number 0,s:0\n").unwrap();
    std::fs::write(folder.join("r.toml"), recipe("")).unwrap();
}

fn recipe(further: &str) -> String {
    let head = "name = \"t\"\nseed = 1\nheld_out = 0.0\nesco = \"1.2.0\"\n";
    let source = "[[source]]\nname = \"own\"\nkind = \"table\"\nfile = \"own.csv\"\ngraph = \"job\"\nskill = \"skill\"\nskill_id = \"id\"\ntext = \"title\"\nprovenance = \"real\"\nlicence = \"own\"\n";
    format!("{head}{source}{further}")
}

/// All files of a graph with their bytes.
fn bytes(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn enrichment_that_is_killed_twenty_times_ends_with_the_same_graph_and_pays_once() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let built = run(folder.path(), &["graph", "build", "r.toml", "--data", ".", "--output", "g"]);
    assert_eq!(built.code, Some(0), "{}", built.err);
    let (address, _) = server();
    let fixed = "graph enrich g --data . --llm m --workers 2 --similarity 1.1";
    let arguments = |address: &str, name: &str| -> Vec<String> {
        let named = format!("{fixed} --base-url {address} --cache {name}-answers --output {name}");
        named.split(' ').map(String::from).collect()
    };
    let started = Instant::now();
    let whole = uwe(folder.path()).args(arguments(&address, "whole")).output().unwrap();
    let taken = started.elapsed();
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let expected = bytes(&folder.path().join("whole"));

    let (address, log) = server();
    let answers = folder.path().join("killed-answers");
    let mut kept: HashSet<String> = HashSet::new();
    // A simple generator is random enough for moments.
    let mut state = 12345u64;
    for kill in 0..20 {
        let before: HashMap<String, usize> = log.lock().unwrap().clone();
        let mut child =
            uwe(folder.path()).args(arguments(&address, "killed")).stderr(Stdio::null()).spawn().unwrap();
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let share = (state >> 33) as f64 / f64::from(1u32 << 31);
        std::thread::sleep(taken.mul_f64(share * 0.9));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = log.lock().unwrap().clone();
        for key in &kept {
            assert_eq!(now.get(key), before.get(key), "kill {kill}: a kept answer was asked for again");
        }
        let files = std::fs::read_dir(&answers).into_iter().flatten().flatten();
        let names = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
        kept = names.filter_map(|name| name.strip_suffix(".json").map(String::from)).collect();
    }
    let resumed = uwe(folder.path()).args(arguments(&address, "killed")).output().unwrap();
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let found = bytes(&folder.path().join("killed"));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected), "the kills left other files");
    assert!(found == expected, "the kills changed the graph");
    let log = log.lock().unwrap();
    // Under one key, a request is the same to the server however often it comes: it is paid once.
    assert_eq!(log.len(), SKILLS);
    // What came twice was under way when a run was killed: two workers, twenty kills.
    assert!(log.values().sum::<usize>() <= SKILLS + 2 * 20, "{log:?}");
}

#[test]
fn one_recipe_holds_tagging_and_enrichment_and_repeats_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    data(folder.path());
    let vacancies: String = (0..30).map(|i| format!("Baker {},You bake bread {i} today.\n", i % 7)).collect();
    std::fs::write(folder.path().join("v.csv"), format!("title,text\n{vacancies}")).unwrap();
    let steps = "[[source]]\nname = \"raw\"\nkind = \"raw-vacancies\"\nfile = \"v.csv\"\ntitle = \"title\"\ndescription = \"text\"\nthreshold = -1.0\ntop = 2\nshare = 0.5\nmost_skills = 200\nlicence = \"own\"\n[[enrich]]\ngraph = \"job\"\nmodel = \"m\"\nminimum = 1\nsimilarity = 1.1\n";
    std::fs::write(folder.path().join("r.toml"), recipe(steps)).unwrap();
    let (address, log) = server();
    let build = |address: &str, output: &str| {
        let line = format!("graph build r.toml --data . --work w --base-url {address} --output {output}");
        run(folder.path(), &line.split(' ').collect::<Vec<_>>())
    };
    let first = build(&address, "a");
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert!(first.out.contains("tagged") && first.out.contains("synthetic"), "{}", first.out);
    assert!(!log.lock().unwrap().is_empty());
    let again = build("http://127.0.0.1:9/v1", "b");
    assert_eq!(again.code, Some(0), "{}", again.err);
    assert!(bytes(&folder.path().join("a")) == bytes(&folder.path().join("b")), "the graphs differ");

    let page = run(folder.path(), &["graph", "report", "a", "--output", "a.html", "--data", "."]);
    assert!(page.code == Some(1) && page.err.contains("broaderRelationsSkillPillar"), "{}", page.err);
    let page = run(folder.path(), &["graph", "report", "a", "--output", "a.html"]);
    assert_eq!(page.code, Some(0), "{}", page.err);
    let page = std::fs::read_to_string(folder.path().join("a.html")).unwrap();
    for part in ["Enrichment of the job graph by m", "Skills by number of job titles", "worker of", "<svg "] {
        assert!(page.contains(part), "the page lacks {part}");
    }

    let merged = run(folder.path(), &["graph", "merge", "a", "b", "--output", "m"]);
    assert_eq!((merged.code, &merged.out), (Some(0), &first.out), "{}", merged.err);
    std::fs::write(folder.path().join("r.toml"), recipe("").replace("licence = \"own\"", "licence = \"x\""))
        .unwrap();
    assert_eq!(build(&address, "c").code, Some(0));
    let clash = run(folder.path(), &["graph", "merge", "a", "c", "--output", "m"]);
    assert!(
        clash.code == Some(2) && clash.err.contains("different sources with the name `own`"),
        "{}",
        clash.err
    );
}
