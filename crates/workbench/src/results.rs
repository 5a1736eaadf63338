//! Results of a run: summaries as JSON, and every query as Parquet.

use crate::error::{Error, Result};
use crate::metrics::Metric;
use crate::set::{Identity, Judgement, RankingSet, Split, Task};
use crate::sources::vacancies::{batches, column, strings, wrong_type};
use crate::statistics::{Interval, interval, mean, resampled_means};
use crate::systems::Description;
use arrow_array::builder::{Float32Builder, ListBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float32Type, Float64Type, UInt32Type};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// A metric's mean over the queries of a set, or over sets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Name of the metric, for example `map` or `rp@10`.
    pub metric: String,
    /// The mean with its 95 % bootstrap interval.
    #[serde(flatten)]
    pub interval: Interval,
}

/// What was measured on one set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetResult {
    /// Name and place.
    #[serde(flatten)]
    pub identity: Identity,
    /// Identifies queries, targets and relevance.
    pub data: String,
    /// Number of queries.
    pub queries: usize,
    /// Number of targets.
    pub targets: usize,
    /// Number of relevant pairs.
    pub judgements: usize,
    /// Queries that were left out because no target is relevant.
    pub unjudged: usize,
    /// Queries cut at the encoder's token limit.
    pub truncated_queries: usize,
    /// Targets cut at the encoder's token limit.
    pub truncated_targets: usize,
    /// Share of the queries on which a target that is not relevant has the very score of a relevant one.
    pub tied: f64,
    /// Means over the queries.
    pub metrics: Vec<Measured>,
}

impl SetResult {
    /// The mean of a metric.
    pub fn metric(&self, name: &str) -> Option<Interval> {
        find(&self.metrics, name)
    }
}

fn find(metrics: &[Measured], name: &str) -> Option<Interval> {
    metrics.iter().find(|measured| measured.metric == name).map(|measured| measured.interval)
}

/// The mean over the sets of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskAverage {
    /// The task.
    pub task: Task,
    /// Names of the sets it stands on.
    pub sets: Vec<String>,
    /// Means over these sets.
    pub metrics: Vec<Measured>,
}

impl TaskAverage {
    /// The mean of a metric.
    pub fn metric(&self, name: &str) -> Option<Interval> {
        find(&self.metrics, name)
    }
}

/// Averages over the tasks of WorkBench, for one split and language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Averages {
    /// The part of the data.
    pub split: Split,
    /// The language.
    pub language: String,
    /// Tasks that were measured, each the mean of its sets.
    pub tasks: Vec<TaskAverage>,
    /// Tasks of WorkBench that were not measured, and so do not count.
    pub not_measured: Vec<Task>,
    /// The mean over the measured tasks.
    pub macro_average: Vec<Measured>,
}

impl Averages {
    /// The macro average of a metric.
    pub fn metric(&self, name: &str) -> Option<Interval> {
        find(&self.macro_average, name)
    }
}

/// Everything that a run found: the content of `results.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Version of this form.
    pub schema: u32,
    /// Name and version of the program.
    pub written_by: String,
    /// What was measured.
    pub system: Description,
    /// Seed of the bootstrap, and its number of resamples.
    pub seed: u64,
    /// Number of resamples behind each interval.
    pub resamples: usize,
    /// One entry a set, in the order of the benchmark.
    pub sets: Vec<SetResult>,
    /// One entry a split and language.
    pub averages: Vec<Averages>,
}

/// The queries of a set, with where their relevant targets ended up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Queries {
    /// Texts.
    pub texts: Vec<String>,
    /// `(rank from 1, target)` of each query's relevant targets, by rank.
    pub relevant: Vec<Vec<(u32, Judgement)>>,
    /// See [`crate::Ranks::ties`].
    pub ties: Vec<u32>,
    /// The best targets of each query with their scores.
    pub hits: Vec<Vec<(u32, f32)>>,
    /// Values of each metric, one for each query.
    pub metrics: Vec<(String, Vec<f64>)>,
}

impl Queries {
    /// The values of a metric.
    pub fn metric(&self, name: &str) -> Option<&[f64]> {
        self.metrics.iter().find(|(metric, _)| metric == name).map(|(_, values)| &values[..])
    }

    /// Fills in the metrics from the ranks; a query for which one is not defined counts as 0.
    pub(crate) fn measure(&mut self, metrics: &[Metric], targets: usize) {
        self.metrics = metrics
            .iter()
            .map(|metric| {
                let value = |relevant: &Vec<(u32, Judgement)>| {
                    let ranks: Vec<(u32, f32)> = relevant.iter().map(|(rank, j)| (*rank, j.grade)).collect();
                    metric.of(&ranks, targets).unwrap_or(0.0)
                };
                (metric.to_string(), self.relevant.iter().map(value).collect())
            })
            .collect();
    }

    /// Means with intervals; `key` is the set's.
    pub(crate) fn summary(&self, key: &str, seed: u64) -> Vec<Measured> {
        summarise(&column_means(self, key, seed))
    }

    /// Writes all queries as Parquet.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let numbers = |lists: Vec<Vec<u32>>| -> ArrayRef {
            let mut builder = ListBuilder::new(UInt32Builder::new());
            for list in lists {
                builder.values().append_slice(&list);
                builder.append(true);
            }
            Arc::new(builder.finish())
        };
        let floats = |lists: Vec<Vec<f32>>| -> ArrayRef {
            let mut builder = ListBuilder::new(Float32Builder::new());
            for list in lists {
                builder.values().append_slice(&list);
                builder.append(true);
            }
            Arc::new(builder.finish())
        };
        let relevant = |value: fn(&(u32, Judgement)) -> u32| {
            numbers(self.relevant.iter().map(|list| list.iter().map(value).collect()).collect())
        };
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("query".into(), Arc::new(StringArray::from_iter_values(&self.texts))),
            ("relevant".into(), relevant(|(_, judgement)| judgement.target)),
            (
                "grades".into(),
                floats(self.relevant.iter().map(|l| l.iter().map(|(_, j)| j.grade).collect()).collect()),
            ),
            ("ranks".into(), relevant(|(rank, _)| *rank)),
            ("ties".into(), Arc::new(UInt32Array::from(self.ties.clone()))),
            ("hits".into(), numbers(self.hits.iter().map(|l| l.iter().map(|(t, _)| *t).collect()).collect())),
            (
                "hit_scores".into(),
                floats(self.hits.iter().map(|l| l.iter().map(|(_, s)| *s).collect()).collect()),
            ),
        ];
        for (metric, values) in &self.metrics {
            columns.push((metric.clone(), Arc::new(Float64Array::from(values.clone()))));
        }
        write_parquet(path, columns)
    }

    /// Reads what [`Queries::write`] wrote.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut queries = Self::default();
        for batch in batches(path)? {
            let batch = batch?;
            queries.texts.extend(strings(path, &batch, "query")?.into_iter().map(Option::unwrap_or_default));
            let targets = lists::<UInt32Type>(path, &batch, "relevant")?;
            let grades = lists::<Float32Type>(path, &batch, "grades")?;
            let ranks = lists::<UInt32Type>(path, &batch, "ranks")?;
            for ((targets, grades), ranks) in targets.into_iter().zip(grades).zip(ranks) {
                let judgements =
                    targets.into_iter().zip(grades).map(|(target, grade)| Judgement { target, grade });
                queries.relevant.push(ranks.into_iter().zip(judgements).collect());
            }
            let hits = lists::<UInt32Type>(path, &batch, "hits")?;
            let scores = lists::<Float32Type>(path, &batch, "hit_scores")?;
            queries.hits.extend(hits.into_iter().zip(scores).map(|(h, s)| h.into_iter().zip(s).collect()));
            queries.ties.extend(numbers::<UInt32Type>(path, &batch, "ties")?);
            for field in batch.schema().fields() {
                let Ok(metric) = field.name().parse::<Metric>() else { continue };
                let values = numbers::<Float64Type>(path, &batch, field.name())?;
                match queries.metrics.iter_mut().find(|(name, _)| *name == metric.to_string()) {
                    Some((_, all)) => all.extend(values),
                    None => queries.metrics.push((metric.to_string(), values)),
                }
            }
        }
        Ok(queries)
    }
}

fn numbers<T: ArrowPrimitiveType>(path: &Path, batch: &RecordBatch, name: &str) -> Result<Vec<T::Native>> {
    let column = column(path, batch, name)?;
    let column =
        column.as_primitive_opt::<T>().ok_or_else(|| wrong_type(path, name, "a column of numbers"))?;
    Ok(column.values().to_vec())
}

fn lists<T: ArrowPrimitiveType>(path: &Path, batch: &RecordBatch, name: &str) -> Result<Vec<Vec<T::Native>>> {
    let wrong = || wrong_type(path, name, "a list of numbers");
    let column = column(path, batch, name)?.as_list_opt::<i32>().ok_or_else(wrong)?.clone();
    let values = column.values().as_primitive_opt::<T>().ok_or_else(wrong)?;
    Ok(column
        .offsets()
        .windows(2)
        .map(|ends| values.values()[ends[0] as usize..ends[1] as usize].to_vec())
        .collect())
}

/// Writes the texts of a set's targets.
pub(crate) fn write_targets(path: &Path, set: &RankingSet) -> Result<()> {
    write_parquet(path, vec![("target".into(), Arc::new(StringArray::from_iter_values(&set.targets)))])
}

/// Reads the texts of a set's targets.
pub(crate) fn read_targets(path: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for batch in batches(path)? {
        targets.extend(strings(path, &batch?, "target")?.into_iter().map(Option::unwrap_or_default));
    }
    Ok(targets)
}

/// Writes columns as Parquet (zstd), whole or not at all; the same columns give the same bytes.
///
/// # Errors
/// [`Error::Io`] when it cannot be written.
pub fn write_parquet(path: &Path, columns: Vec<(String, ArrayRef)>) -> Result<()> {
    let broken = |error: &dyn std::fmt::Display| Error::Io {
        action: "write",
        path: path.to_path_buf(),
        source: std::io::Error::other(error.to_string()),
    };
    let batch = RecordBatch::try_from_iter(columns).map_err(|error| broken(&error))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(Default::default()))
        .set_created_by("workbench".into())
        .build();
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).map_err(|error| broken(&error))?;
    writer.write(&batch).map_err(|error| broken(&error))?;
    writer.close().map_err(|error| broken(&error))?;
    write_whole(path, &bytes)
}

/// How the name of a file begins that is not yet whole.
const PARTIAL: &str = ".part-";

/// Removes what [`write_whole`] left half-written in a folder when its process was killed. Nobody misses what cannot be
/// removed.
pub fn clear_partial(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Writes a file that is there whole or not at all.
///
/// # Errors
/// [`Error::Io`] when it cannot be written; an older file stays as it is then.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| Error::Io { action: "write", path: path.to_path_buf(), source };
    let mut file = tempfile::Builder::new().prefix(PARTIAL).tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    // Temporary files are the owner's alone; a result is as readable as any file.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Averages over sets: first inside a task, then over the tasks of WorkBench. Intervals combine the resampled
/// means of the sets, which are independent samples of queries.
pub(crate) fn averages(sets: &[(SetResult, Queries)], seed: u64) -> Vec<Averages> {
    let mut places: Vec<(Split, String)> = sets
        .iter()
        .filter(|(set, _)| set.identity.in_average)
        .map(|(set, _)| (set.identity.split, set.identity.language.clone()))
        .collect();
    places.sort();
    places.dedup();
    places
        .into_iter()
        .map(|(split, language)| {
            let mut tasks = Vec::new();
            for task in Task::WORKBENCH {
                let members: Vec<&(SetResult, Queries)> = sets
                    .iter()
                    .filter(|(set, _)| {
                        let identity = &set.identity;
                        identity.in_average
                            && identity.task == task
                            && identity.split == split
                            && identity.language == language
                    })
                    .collect();
                if !members.is_empty() {
                    let mean = combine(
                        members
                            .iter()
                            .map(|(set, queries)| column_means(queries, &set.identity.key(), seed))
                            .collect(),
                    );
                    let names = members.iter().map(|(set, _)| set.identity.name.clone()).collect();
                    tasks.push((task, names, mean));
                }
            }
            let macro_average = summarise(&combine(tasks.iter().map(|(_, _, mean)| mean.clone()).collect()));
            let not_measured = Task::WORKBENCH
                .into_iter()
                .filter(|task| !tasks.iter().any(|(measured, _, _)| measured == task))
                .collect();
            let tasks = tasks
                .into_iter()
                .map(|(task, sets, mean)| TaskAverage { task, sets, metrics: summarise(&mean) })
                .collect();
            Averages { split, language, tasks, not_measured, macro_average }
        })
        .collect()
}

/// Mean and resampled means of each metric.
type Means = Vec<(String, f64, Vec<f64>)>;

/// Every set has draws of its own: with shared ones, sets of like order would vary together.
fn column_means(queries: &Queries, key: &str, seed: u64) -> Means {
    let hash = blake3::hash(key.as_bytes());
    let seed = hash.as_bytes()[..8].iter().fold(seed, |seed, byte| seed.rotate_left(8) ^ u64::from(*byte));
    let columns: Vec<Vec<f64>> = queries.metrics.iter().map(|(_, values)| values.clone()).collect();
    let resampled = resampled_means(&columns, seed);
    queries
        .metrics
        .iter()
        .zip(resampled)
        .map(|((metric, values), resampled)| (metric.clone(), mean(values), resampled))
        .collect()
}

/// The mean over several means, for the metrics that all have.
fn combine(all: Vec<Means>) -> Means {
    let count = all.len() as f64;
    let Some((first, rest)) = all.split_first() else { return Vec::new() };
    let mut sums = first.clone();
    sums.retain(|(metric, _, _)| rest.iter().all(|means| means.iter().any(|(name, _, _)| name == metric)));
    for (metric, sum, resampled) in &mut sums {
        for (_, mean, values) in rest.iter().flatten().filter(|(name, _, _)| name == metric) {
            *sum += mean;
            resampled.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        *sum /= count;
        resampled.iter_mut().for_each(|value| *value /= count);
    }
    sums
}

fn summarise(means: &Means) -> Vec<Measured> {
    means
        .iter()
        .map(|(metric, mean, resampled)| Measured {
            metric: metric.clone(),
            interval: interval(*mean, resampled),
        })
        .collect()
}
