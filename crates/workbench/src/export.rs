//! Results in the forms of other tools.

use crate::error::{Error, Result};
use crate::results::write_whole;
use crate::run::Run;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// `KEY.run` and `KEY.qrels`, as `trec_eval` reads them, with indices from 0 as identifiers.
    Trec,
    /// One JSON file a set, of the shape of MTEB's task results.
    Mteb,
    /// One table of all metrics.
    Csv,
}

/// Writes the results of a run into a folder; returns the files.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be written, [`Error::Data`] for a damaged run.
pub fn export(run: &Run, format: ExportFormat, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let mut files = Vec::new();
    let mut write = |name: String, text: String| -> Result<()> {
        let path = folder.join(name);
        write_whole(&path, text.as_bytes())?;
        files.push(path);
        Ok(())
    };
    let tag: String = run.system().name.chars().map(|c| if c.is_whitespace() { '-' } else { c }).collect();
    let mut table = "set,split,language,metric,mean,low,high\n".to_string();
    for set in run.sets()? {
        let key = set.identity.key();
        match format {
            ExportFormat::Trec => {
                let queries = run.queries(&set.identity)?;
                let (mut hits, mut judgements) = (String::new(), String::new());
                for (query, list) in queries.hits.iter().enumerate() {
                    for (rank, (target, score)) in list.iter().enumerate() {
                        // Writing to a string cannot fail.
                        let _ = writeln!(hits, "{query} Q0 {target} {} {score} {tag}", rank + 1);
                    }
                }
                for (query, list) in queries.relevant.iter().enumerate() {
                    let mut list: Vec<_> = list.iter().map(|(_, judgement)| *judgement).collect();
                    list.sort_by_key(|judgement| judgement.target);
                    for judgement in list {
                        let _ = writeln!(judgements, "{query} 0 {} {}", judgement.target, judgement.grade);
                    }
                }
                write(format!("{key}.run"), hits)?;
                write(format!("{key}.qrels"), judgements)?;
            }
            ExportFormat::Mteb => {
                let mut scores = serde_json::Map::new();
                for measured in &set.metrics {
                    scores.insert(measured.metric.replace('@', "_at_"), measured.interval.mean.into());
                }
                let main = set.metric("map").map(|interval| interval.mean);
                scores.insert("main_score".into(), main.into());
                scores.insert("hf_subset".into(), "default".into());
                scores.insert("languages".into(), vec![set.identity.language.clone()].into());
                let mut splits = serde_json::Map::new();
                splits.insert(set.identity.split.to_string(), vec![serde_json::Value::Object(scores)].into());
                let json = serde_json::json!({
                    "dataset_revision": set.data,
                    "task_name": set.identity.name,
                    "mteb_version": null,
                    "scores": splits,
                    "evaluation_time": null,
                });
                write(format!("{key}.json"), format!("{json:#}\n"))?;
            }
            ExportFormat::Csv => {
                for measured in &set.metrics {
                    let (identity, interval) = (&set.identity, measured.interval);
                    let _ = writeln!(
                        table,
                        "{},{},{},{},{},{},{}",
                        identity.name,
                        identity.split,
                        identity.language,
                        measured.metric,
                        interval.mean,
                        interval.low,
                        interval.high
                    );
                }
            }
        }
    }
    if format == ExportFormat::Csv {
        write("results.csv".into(), table)?;
    }
    Ok(files)
}
