//! Measures this engine for `benches/peers/compare.py`; prints one JSON object.
//!
//! ```text
//! measure encode FOLDER PRECISION THREADS TEXTS ROUNDS      seconds for all lines of TEXTS, each round
//! measure one    FOLDER PRECISION THREADS TEXTS ROUNDS      seconds for each line of TEXTS alone
//! measure score  FOLDER SCORER    THREADS TARGETS QUERIES ROUNDS   seconds to rank all lines of QUERIES
//! measure open   SPACE ROUNDS                                      seconds to open a space
//! ```
#![allow(clippy::print_stdout, reason = "a measurement is printed")]

use std::error::Error;
use std::path::Path;
use std::time::Instant;
use uwe::{
    Axis, BuildOptions, Compute, Encoder, EncoderOptions, Logits, Precision, Ranker, Reduction, Scorer,
    Scoring, Space, Targets,
};

/// Processor seconds of this process so far (all threads), where the system tells.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // Fields 14 and 15 of the line, counted behind the name; Linux reports hundredths of a second.
    (ticks(11) + ticks(12)) / 100.0
}

fn lines(path: &str) -> Result<Vec<String>, Box<dyn Error>> {
    Ok(std::fs::read_to_string(path)?.lines().map(str::to_string).collect())
}

fn open(folder: &str, precision: &str, threads: &str) -> Result<Encoder, Box<dyn Error>> {
    let precision =
        Precision::all().into_iter().find(|p| p.name() == precision).ok_or("no such precision")?;
    let options = EncoderOptions { precision, ..EncoderOptions::default() };
    Ok(Encoder::open(Path::new(folder), options, Compute::new(threads.parse()?, None)?)?)
}

fn rounds<T>(
    count: usize,
    warm_up: impl FnOnce() -> uwe::Result<T>,
    mut work: impl FnMut() -> uwe::Result<T>,
) -> Result<serde_json::Value, Box<dyn Error>> {
    warm_up()?;
    let (mut wall, mut cpu) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (started, used) = (Instant::now(), cpu_seconds());
        work()?;
        wall.push(started.elapsed().as_secs_f64());
        cpu.push(cpu_seconds() - used);
    }
    Ok(serde_json::json!({"wall": wall, "cpu": cpu}))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["encode", folder, precision, threads, texts, count] => {
            let (encoder, texts) = (open(folder, precision, threads)?, lines(texts)?);
            rounds(
                count.parse()?,
                || encoder.encode(&texts[..texts.len().min(64)]),
                || encoder.encode(&texts),
            )?
        }
        ["one", folder, precision, threads, texts, count] => {
            let (encoder, texts) = (open(folder, precision, threads)?, lines(texts)?);
            let mut seconds = Vec::new();
            for text in texts.iter().cycle().take(count.parse::<usize>()? + 20) {
                let started = Instant::now();
                encoder.encode(&[text])?;
                seconds.push(started.elapsed().as_secs_f64());
            }
            serde_json::json!({"wall": &seconds[20..]})
        }
        ["score", folder, scorer, threads, targets, queries, count] => {
            let encoder = open(folder, "f32", threads)?;
            // Built by the first call, kept for the next ones.
            let file = format!("{targets}.{}.space", encoder.info().fingerprint);
            if !Path::new(&file).exists() {
                let mut list = Targets::new(targets, &[]);
                lines(targets)?.iter().for_each(|text| {
                    list.push(text, Vec::new());
                });
                Space::build(&encoder, &list, BuildOptions::default(), Path::new(&file), &mut |_| true)?;
            }
            let space = Space::open(Path::new(&file))?;
            let scorer = match scorer {
                "soft" => Scorer::SoftLateInteraction {
                    temperature: 1.0,
                    logits: Logits::Raw,
                    axis: Axis::Target,
                    reduction: Reduction::Mean,
                },
                _ => Scorer::SoftPooled { temperature: 1.0, logits: Logits::Raw },
            };
            let ranker = Ranker::new(&encoder, &space, Scoring { scorer, special_tokens: true })?;
            let queries = encoder.encode(&lines(queries)?)?;
            let rank = || ranker.rank_encoded(&queries, 100);
            let mut result = rounds(count.parse()?, rank, rank)?;
            let first: Vec<usize> =
                ranker.rank_encoded(&queries, 10)?[0].hits.iter().map(|hit| hit.target).collect();
            result["first"] = first.into();
            result["target_tokens"] = space.tokens().into();
            result["query_tokens"] = queries.states.offsets()[queries.states.len()].into();
            result
        }
        ["open", space, count] => {
            let open = || Space::open(Path::new(space));
            rounds(count.parse()?, open, open)?
        }
        _ => return Err("see the head of this file for the arguments".into()),
    };
    println!("{result}");
    Ok(())
}
