//! Puts load on a running service and says what came back.
//!
//! ```text
//! cargo run --release -p uwe-serve --example load -- 127.0.0.1:8080 --clients 16 --seconds 20 --route /v1/rank --space esco
//! ```
//!
//! Each client has one connection that is kept; it asks again as soon as it has an answer, or `--rate` times a second in all. All of them are tasks of
//! one thread, so that a service on the same machine loses little to them. Texts are
//! different each time and in each run, so that no answer comes from those that are kept, unless `--repeat` says otherwise. `--route mixed` asks five routes in turn. One line of JSON comes out: answers a second,
//! statuses, and times of the answers that were 200, in milliseconds.

#![allow(clippy::print_stdout, reason = "its result")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Longest wait for an answer.
const LONGEST: Duration = Duration::from_secs(60);

/// What the command line says.
#[derive(Clone)]
struct Plan {
    address: String,
    route: String,
    space: String,
    clients: usize,
    seconds: f64,
    /// Requests a second of all clients; 0: as many as they can.
    rate: f64,
    /// Different texts; 0: as many as requests, and others than in the run before.
    repeat: u64,
    /// Number of the first text.
    first: u64,
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    statuses: BTreeMap<u16, usize>,
    /// Seconds of each 200.
    times: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plan = Arc::new(plan()?);
    let start = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut all = Seen::default();
    let clients: Vec<_> = (0..plan.clients)
        .map(|_| tokio::spawn(client(Arc::clone(&plan), start, Arc::clone(&next))))
        .collect();
    for client in clients {
        let seen = client.await?;
        seen.statuses.iter().for_each(|(status, count)| *all.statuses.entry(*status).or_default() += count);
        all.times.extend(seen.times);
    }
    let elapsed = start.elapsed().as_secs_f64();
    all.times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = ((all.times.len() as f64 * share) as usize).min(all.times.len().saturating_sub(1));
        all.times.get(place).map_or(f64::NAN, |seconds| (seconds * 1e5).round() / 100.0)
    };
    let statuses: serde_json::Map<_, _> =
        all.statuses.iter().map(|(status, count)| (status.to_string(), (*count).into())).collect();
    let result = serde_json::json!({
        "route": plan.route, "clients": plan.clients, "seconds": (elapsed * 10.0).round() / 10.0,
        "answers_a_second": (all.times.len() as f64 / elapsed * 10.0).round() / 10.0,
        "statuses": statuses, "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0),
    });
    println!("{result}");
    Ok(())
}

fn plan() -> Result<Plan, Box<dyn std::error::Error>> {
    let mut plan = Plan {
        address: String::new(),
        route: "/embed".into(),
        space: "starter".into(),
        clients: 1,
        seconds: 10.0,
        rate: 0.0,
        repeat: 0,
        first: 0,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match &argument[..] {
            "--route" => plan.route = value()?,
            "--space" => plan.space = value()?,
            "--clients" => plan.clients = value()?.parse()?,
            "--seconds" => plan.seconds = value()?.parse()?,
            "--rate" => plan.rate = value()?.parse()?,
            "--repeat" => plan.repeat = value()?.parse()?,
            _ if !argument.starts_with('-') && plan.address.is_empty() => plan.address = argument,
            _ => return Err(format!("{argument} is not known").into()),
        }
    }
    if plan.repeat == 0 {
        // A run takes less than a million a second of these.
        plan.first = std::time::UNIX_EPOCH.elapsed()?.as_secs() % (1 << 20) * (1 << 20);
    }
    if plan.address.is_empty() {
        return Err("name an address, such as 127.0.0.1:8080".into());
    }
    Ok(plan)
}

/// One client, until the time is over.
async fn client(plan: Arc<Plan>, start: Instant, next: Arc<AtomicU64>) -> Seen {
    let mut seen = Seen::default();
    let mut connection: Option<BufReader<TcpStream>> = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        // With a rate the time of an answer counts from when it was due to be asked: what waits for a free client waits as well.
        let mut asked = None;
        if plan.rate > 0.0 {
            let due = Duration::from_secs_f64(number as f64 / plan.rate);
            if due.as_secs_f64() >= plan.seconds {
                return seen;
            }
            sleep(due.saturating_sub(start.elapsed())).await;
            asked = Some(start + due);
        }
        if start.elapsed().as_secs_f64() >= plan.seconds {
            return seen;
        }
        let text = plan.first + if plan.repeat > 0 { number % plan.repeat } else { number };
        let request = request(&plan, (number, text));
        let asked = asked.unwrap_or_else(Instant::now);
        let status = ask(&mut connection, &plan.address, &request).await.unwrap_or(0);
        *seen.statuses.entry(status).or_default() += 1;
        match status {
            200 => seen.times.push(asked.elapsed().as_secs_f64()),
            // The connection is not sound any more.
            0 | 503 => connection = None,
            _ => {}
        }
    }
}

/// What `--route mixed` asks in turn.
const MIXED: [&str; 5] = ["/embed", "/v1/rank", "/v1/score", "/v1/embeddings", "/v1/rerank"];

/// Words that make short texts like those of work, without end.
const WORDS: [&str; 16] = [
    "senior",
    "night",
    "assistant",
    "nurse",
    "welder",
    "pastry",
    "software",
    "warehouse",
    "sales",
    "clerk",
    "technician",
    "teacher",
    "driver",
    "accountant",
    "gardener",
    "operator",
];

/// Request `number`, about text `text`.
fn request(plan: &Plan, (number, text): (u64, u64)) -> Vec<u8> {
    let word = |shift: u32| WORDS[(text >> shift) as usize % WORDS.len()];
    let text = format!("{} {} {} {}", word(0), word(4), word(8), text >> 12 & 0xfff_ffff);
    let route = match &plan.route[..] {
        "mixed" => MIXED[number as usize % MIXED.len()],
        route => route,
    };
    let body = match route {
        "/v1/rank" => serde_json::json!({ "texts": [text], "space": plan.space, "top": 10 }),
        "/v1/score" => {
            serde_json::json!({ "query": text, "targets": ["bake bread", text], "evidence": true })
        }
        "/v1/embeddings" => serde_json::json!({ "input": text, "model": "uwe" }),
        "/v1/rerank" => serde_json::json!({ "query": text, "documents": ["bake bread", "drive vans"] }),
        _ => serde_json::json!({ "inputs": text }),
    }
    .to_string();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        route,
        plan.address,
        body.len()
    );
    (head + &body).into_bytes()
}

/// Sends a request and reads its answer to the end; its status.
async fn ask(
    connection: &mut Option<BufReader<TcpStream>>,
    address: &str,
    request: &[u8],
) -> std::io::Result<u16> {
    let mut reader = match connection.take() {
        Some(reader) => reader,
        None => {
            let stream = timeout(LONGEST, TcpStream::connect(address)).await??;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    let answer = timeout(LONGEST, async {
        reader.write_all(request).await?;
        read(&mut reader).await
    });
    let status = answer.await.map_err(std::io::Error::from)??;
    // After a fault it is not used again.
    *connection = Some(reader);
    Ok(status)
}

async fn read(reader: &mut BufReader<TcpStream>) -> std::io::Result<u16> {
    let unsound = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string());
    let mut line = String::new();
    reader.read_line(&mut line).await?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or(unsound("no status"))?;
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line).await?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length.ok_or(unsound("no content-length"))?];
    reader.read_exact(&mut body).await?;
    Ok(status)
}
