//! A run: one system measured on sets, kept in a folder so that it can be interrupted and resumed.
//!
//! ```text
//! RUN/run.json                    what is measured, and how; written first
//! RUN/sets/KEY.queries.parquet    every query: ranks of its relevant targets, best hits, metrics
//! RUN/sets/KEY.targets.parquet    texts of the targets
//! RUN/sets/KEY.json               summary; written last, so that a set is measured when it is there
//! RUN/results.json                all summaries and the averages
//! RUN/timings.json                what took how long, and on which machine
//! ```
//!
//! Everything but the timings is the same, byte for byte, for the same inputs.

use crate::error::{Error, Result};
use crate::metrics::{Metric, Ranks};
use crate::results::{
    Queries, Results, SetResult, averages, clear_partial, read_targets, write_targets, write_whole,
};
use crate::set::{Identity, RankingSet};
use crate::sources::sorted_entries;
use crate::statistics::{Difference, RESAMPLES, compare};
use crate::systems::{Description, System};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Queries that are scored together. Memory of a run is about `CHUNK x targets x 8` bytes for two sets of rows,
/// `queries x (depth x 8 + relevant x 12 + metrics x 8)` bytes for what is kept, and the mapped target space.
const CHUNK: usize = 512;

/// The best targets of a query with their scores.
type Hits = Vec<(u32, f32)>;

/// Version of the files' form.
const SCHEMA: u32 = 1;

/// How a run measures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunOptions {
    /// Names of the metrics.
    pub metrics: Vec<String>,
    /// How many hits of each query are kept.
    pub depth: usize,
    /// Seed of the bootstrap, and of a sample.
    pub seed: u64,
    /// Language of ESCO's labels.
    #[serde(default = "english")]
    pub language: String,
    /// ESCO release that was asked for.
    #[serde(default)]
    pub esco: Option<String>,
    /// Number of queries of each larger set that were measured.
    #[serde(default)]
    pub sample: Option<usize>,
}

fn english() -> String {
    "en".into()
}

impl Default for RunOptions {
    fn default() -> Self {
        let metrics = Metric::all().iter().map(Metric::to_string).collect();
        Self { metrics, depth: 100, seed: 1, language: english(), esco: None, sample: None }
    }
}

/// How far a set has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Whether targets are encoded (true) or queries ranked.
    pub targets: bool,
    /// Texts done.
    pub done: usize,
    /// All texts of this stage.
    pub total: usize,
}

#[derive(Serialize, Deserialize, PartialEq)]
struct Manifest {
    schema: u32,
    system: Description,
    options: RunOptions,
}

/// Seconds of a set.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Timing {
    seconds: f64,
    machine: String,
    peak_resident_mb: Option<f64>,
}

/// A folder of results.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
    system: Description,
    options: RunOptions,
    /// Held while this process measures; a second one is refused.
    lock: Option<Arc<std::fs::File>>,
}

impl Run {
    /// Begins a run in a new or empty folder, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`Error::Run`] when the folder holds a run of another system or with other options, or anything else, or
    /// when another process is measuring into it.
    pub fn begin(folder: &Path, system: Description, options: RunOptions) -> Result<Self> {
        for metric in &options.metrics {
            metric.parse::<Metric>()?;
        }
        let manifest = Manifest { schema: SCHEMA, system, options };
        let path = folder.join("run.json");
        let sets = folder.join("sets");
        if path.exists() {
            let mut run = Self::open(folder)?;
            run.lock = Some(lock(folder)?);
            clear_partial(folder);
            clear_partial(&sets);
            let found = Manifest { schema: SCHEMA, system: run.system.clone(), options: run.options.clone() };
            if found != manifest {
                return Err(Error::Run {
                    path: folder.to_path_buf(),
                    problem: format!("holds results of something else: {}", difference(&found, &manifest)),
                    hint: "give another folder, or delete this one".into(),
                });
            }
            return Ok(run);
        }
        let others = std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
            let empty_sets = entry.file_name() == "sets"
                && std::fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none());
            entry.file_name() != LOCK && !empty_sets
        });
        if others {
            return Err(Error::Run {
                path: folder.to_path_buf(),
                problem: "holds other files, and no run.json".into(),
                hint: "give a new or empty folder".into(),
            });
        }
        std::fs::create_dir_all(&sets).map_err(Error::io("create", &sets))?;
        let lock = Some(lock(folder)?);
        write_json(&path, &manifest)?;
        Ok(Self { folder: folder.to_path_buf(), system: manifest.system, options: manifest.options, lock })
    }

    /// Opens the run of a folder.
    ///
    /// # Errors
    /// [`Error::Run`] when there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("run.json");
        if !path.is_file() {
            return Err(Error::Run {
                path: folder.to_path_buf(),
                problem: "is no run: it has no run.json".into(),
                hint: "name a folder that `uwe bench run` has written".into(),
            });
        }
        let manifest: Manifest = read_json(&path).map_err(|error| Error::Run {
            path: folder.to_path_buf(),
            problem: format!("cannot be gone on with: {error}"),
            hint: "measure again into another folder".into(),
        })?;
        if manifest.schema != SCHEMA {
            return Err(Error::Run {
                path: folder.to_path_buf(),
                problem: format!("has form {}; this program knows form {SCHEMA}", manifest.schema),
                hint: "measure again, or use the program that wrote it".into(),
            });
        }
        let (system, options) = (manifest.system, manifest.options);
        Ok(Self { folder: folder.to_path_buf(), system, options, lock: None })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was measured.
    pub fn system(&self) -> &Description {
        &self.system
    }

    fn file(&self, key: &str, ending: &str) -> PathBuf {
        self.folder.join("sets").join(format!("{key}.{ending}"))
    }

    /// The result of a set, if it was measured already.
    ///
    /// # Errors
    /// [`Error::Run`] when a set of this name was measured on other data.
    pub fn done(&self, set: &RankingSet) -> Result<Option<SetResult>> {
        let key = set.identity.key();
        let path = self.file(&key, "json");
        // A summary whose queries were lost is measured again.
        if !path.is_file() || !self.file(&key, "queries.parquet").is_file() {
            return Ok(None);
        }
        let result: SetResult = read_json(&path)?;
        let data = set.fingerprint();
        if result.data != data || result.identity != set.identity {
            let what = match result.data == data {
                false => format!("on other data ({}, now {data})", result.data),
                true => "in another place of the average".into(),
            };
            return Err(Error::Run {
                path: self.folder.clone(),
                problem: format!("has measured {key} {what}"),
                hint: "give another folder, or delete this one".into(),
            });
        }
        Ok(Some(result))
    }

    /// Measures a system on a set, unless that is done already. `watch` follows along and returns whether to go on.
    ///
    /// # Errors
    /// Those of the system; [`Error::Interrupted`] when `watch` says so: nothing of the set is kept then, and all
    /// of the sets before it.
    pub fn measure(
        &self,
        system: &dyn System,
        set: &RankingSet,
        watch: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<SetResult> {
        if system.description() != self.system {
            return Err(Error::Argument { name: "system", problem: "is another than the run's".into() });
        }
        if let Some(result) = self.done(set)? {
            return Ok(result);
        }
        let started = Instant::now();
        let key = set.identity.key();
        let (queries, truncated) = self.rank(system, set, watch)?;
        queries.write(&self.file(&key, "queries.parquet"))?;
        write_targets(&self.file(&key, "targets.parquet"), set)?;
        let tied = queries.ties.iter().filter(|ties| **ties > 0).count() as f64;
        let result = SetResult {
            identity: set.identity.clone(),
            data: set.fingerprint(),
            queries: set.queries.len(),
            targets: set.targets.len(),
            judgements: set.judgements(),
            unjudged: set.unjudged,
            truncated_queries: truncated.0,
            truncated_targets: truncated.1,
            tied: tied / set.queries.len() as f64,
            metrics: queries.summary(&key, self.options.seed),
        };
        self.note_time(&key, started.elapsed().as_secs_f64())?;
        write_json(&self.file(&key, "json"), &result)?;
        Ok(result)
    }

    /// Ranks all queries of a set; also how many queries and targets were cut.
    fn rank(
        &self,
        system: &dyn System,
        set: &RankingSet,
        watch: &mut dyn FnMut(Progress) -> bool,
    ) -> Result<(Queries, (usize, usize))> {
        let mut scores =
            system.open(set, &mut |done, total| watch(Progress { targets: true, done, total }))?;
        let total = set.queries.len();
        let mut queries = Queries { texts: set.queries.clone(), ..Queries::default() };
        for first in (0..total).step_by(CHUNK) {
            if !watch(Progress { targets: false, done: first, total }) {
                return Err(Error::Interrupted);
            }
            let range = first..(first + CHUNK).min(total);
            let rows = scores.rows(range.clone())?;
            let ranked: Vec<Result<(Ranks, Hits)>> = rows
                .into_par_iter()
                .zip(&set.relevance[range])
                .map(|(row, relevant)| {
                    let hits = uwe::best(&row, self.options.depth);
                    let hits = hits.into_iter().map(|hit| (hit.target as u32, hit.score)).collect();
                    Ok((Ranks::of(&row, relevant)?, hits))
                })
                .collect();
            for (offset, ranked) in ranked.into_iter().enumerate() {
                let (ranks, hits) = ranked.map_err(|error| Error::Set {
                    set: set.identity.key(),
                    problem: format!("query {} (`{}`): {error}", first + offset, set.queries[first + offset]),
                })?;
                queries.relevant.push(ranks.relevant);
                queries.ties.push(ranks.ties);
                queries.hits.push(hits);
            }
        }
        let metrics: Vec<Metric> =
            self.options.metrics.iter().map(|metric| metric.parse()).collect::<Result<_>>()?;
        queries.measure(&metrics, set.targets.len());
        Ok((queries, scores.truncated()))
    }

    fn note_time(&self, key: &str, seconds: f64) -> Result<()> {
        let path = self.folder.join("timings.json");
        // Damaged timings are no reason to lose a measurement.
        let mut timings: BTreeMap<String, Timing> = read_json(&path).unwrap_or_default();
        let timing = Timing { seconds, machine: machine(), peak_resident_mb: peak_resident_mb() };
        timings.insert(key.to_string(), timing);
        write_json(&path, &timings)
    }

    /// Summaries of all measured sets, in the order of the benchmark.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged file.
    pub fn sets(&self) -> Result<Vec<SetResult>> {
        let folder = self.folder.join("sets");
        let mut names = sorted_entries(&folder)?;
        names.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        let mut sets: Vec<SetResult> = names.iter().map(|path| read_json(path)).collect::<Result<_>>()?;
        sets.sort_by(|a, b| {
            let order = |identity: &Identity| {
                (identity.task.clone(), !identity.in_average, identity.name.clone(), identity.split)
            };
            order(&a.identity).cmp(&order(&b.identity)).then(a.identity.key().cmp(&b.identity.key()))
        });
        Ok(sets)
    }

    /// Every query of a measured set.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged file.
    pub fn queries(&self, identity: &Identity) -> Result<Queries> {
        Queries::read(&self.file(&identity.key(), "queries.parquet"))
    }

    /// Texts of the targets of a measured set.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged file.
    pub fn targets(&self, identity: &Identity) -> Result<Vec<String>> {
        read_targets(&self.file(&identity.key(), "targets.parquet"))
    }

    /// Gathers all summaries and the averages, and writes them to `results.json`.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged file, [`Error::Io`] when it cannot be written.
    pub fn finish(&self) -> Result<Results> {
        let results = self.gather()?;
        write_json(&self.folder.join("results.json"), &results)?;
        Ok(results)
    }

    /// Gathers all summaries and the averages; averages that `results.json` has of the same sets are not resampled again.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged file.
    pub fn gather(&self) -> Result<Results> {
        let mut results = Results {
            schema: SCHEMA,
            written_by: format!("workbench {}", env!("CARGO_PKG_VERSION")),
            system: self.system.clone(),
            seed: self.options.seed,
            resamples: RESAMPLES,
            sets: self.sets()?,
            averages: Vec::new(),
        };
        // Whatever is wrong with an older file is not in the way: it is made again.
        if let Ok(older) = read_json::<Results>(&self.folder.join("results.json")) {
            let averages = older.averages.clone();
            if (Results { averages: Vec::new(), ..older }) == results {
                return Ok(Results { averages, ..results });
            }
        }
        let with_queries = |set: &SetResult| Ok((set.clone(), self.queries(&set.identity)?));
        let sets = results.sets.iter().map(with_queries).collect::<Result<Vec<_>>>()?;
        results.averages = averages(&sets, self.options.seed);
        Ok(results)
    }

    /// Compares another run with this one, set by set, on the sets that both have.
    ///
    /// # Errors
    /// [`Error::Run`] when no set was measured by both on the same data.
    pub fn compare(&self, other: &Self, metric: &str) -> Result<Comparison> {
        let (first, second) = (self.sets()?, other.sets()?);
        let mut sets = Vec::new();
        for a in &first {
            let Some(b) = second.iter().find(|b| b.identity == a.identity && b.data == a.data) else {
                continue;
            };
            let (x, y) = (self.queries(&a.identity)?, other.queries(&b.identity)?);
            let (Some(x), Some(y)) = (x.metric(metric), y.metric(metric)) else {
                return Err(Error::Argument {
                    name: "metric",
                    problem: format!("`{metric}` was not measured by both runs"),
                });
            };
            let means = (a.metric(metric), b.metric(metric));
            let (Some(first), Some(second)) = means else { continue };
            sets.push(SetComparison {
                identity: a.identity.clone(),
                first: first.mean,
                second: second.mean,
                difference: compare(x, y, self.options.seed),
            });
        }
        if sets.is_empty() {
            return Err(Error::Run {
                path: other.folder.clone(),
                problem: format!("has no set in common with {}", self.folder.display()),
                hint: "measure both systems on the same sets".into(),
            });
        }
        Ok(Comparison {
            metric: metric.to_string(),
            first: self.system.clone(),
            second: other.system.clone(),
            sets,
        })
    }
}

/// Two runs on the same queries.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The metric.
    pub metric: String,
    /// The first system.
    pub first: Description,
    /// The second system.
    pub second: Description,
    /// One entry a set that both have.
    pub sets: Vec<SetComparison>,
}

/// Two runs on one set.
#[derive(Clone, Debug, Serialize)]
pub struct SetComparison {
    /// The set.
    #[serde(flatten)]
    pub identity: Identity,
    /// Mean of the first system.
    pub first: f64,
    /// Mean of the second system.
    pub second: f64,
    /// Second minus first.
    pub difference: Difference,
}

/// Name of the file that a measuring process holds.
const LOCK: &str = ".lock";

fn lock(folder: &Path) -> Result<Arc<std::fs::File>> {
    let path = folder.join(LOCK);
    let file = std::fs::File::create(&path).map_err(Error::io("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Arc::new(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Run {
            path: folder.to_path_buf(),
            problem: "is being measured by another process".into(),
            hint: "wait for it, or give another folder".into(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(Error::Io { action: "lock", path, source }),
    }
}

/// Names the first thing in which two manifests differ.
fn difference(found: &Manifest, wanted: &Manifest) -> String {
    let value = |manifest: &Manifest| serde_json::to_value(manifest).unwrap_or_default();
    let (mut found, mut wanted, mut path) = (value(found), value(wanted), String::new());
    loop {
        let differing = found.as_object().and_then(|object| {
            object.iter().find(|(key, value)| wanted.get(key) != Some(value)).map(|(key, _)| key.clone())
        });
        let Some(key) = differing else { break };
        path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        (found, wanted) = (found[&key].clone(), wanted[&key].clone());
    }
    format!("{path} is {found} there and {wanted} here")
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::data(path.display(), format!("is damaged: {error}"), "delete it and run again")
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::data(path.display(), format!("cannot be written: {error}"), ""))?;
    bytes.push(b'\n');
    write_whole(path, &bytes)
}

/// Processor and number of cores, as far as the system tells.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(':').nth(1))
        .map_or(std::env::consts::ARCH, str::trim);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}, {cores} cores, {}", std::env::consts::OS)
}

/// Most memory that this process has held, where the system tells.
fn peak_resident_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_ascii_whitespace().next()?.parse::<f64>().ok().map(|kilobytes| kilobytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lexical::Lexical;
    use crate::set::{RawSet, Split, Task, tests::identity};
    use crate::systems::LexicalSystem;

    fn set(name: &str, task: Task, count: usize) -> RankingSet {
        let identity =
            Identity { name: name.into(), task, in_average: true, split: Split::Test, ..identity("x") };
        let targets: Vec<String> = (0..40).map(|i| format!("target {i} {}", i % 7)).collect();
        let queries = (0..count).map(|i| (format!("query {i} {}", i % 5), vec![(i % 40, 1.0)])).collect();
        RankingSet::prepare(identity, RawSet { targets, queries }).unwrap()
    }

    fn system(lexical: Lexical) -> LexicalSystem {
        LexicalSystem { lexical, seed: 1 }
    }

    fn begin(folder: &Path, lexical: Lexical) -> Result<Run> {
        Run::begin(folder, system(lexical).description(), RunOptions::default())
    }

    #[test]
    fn a_run_that_was_interrupted_ends_like_one_that_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let sets = [set("a", Task::JobToSkill, 700), set("b", Task::SkillExtraction, 30)];
        let bm25 = system(Lexical::Bm25);
        let whole = begin(&folder.path().join("whole"), Lexical::Bm25).unwrap();
        for set in &sets {
            whole.measure(&bm25, set, &mut |_| true).unwrap();
        }
        let expected = whole.finish().unwrap();
        let broken = folder.path().join("broken");
        let run = begin(&broken, Lexical::Bm25).unwrap();
        let second = begin(&broken, Lexical::Bm25).unwrap_err().to_string();
        assert!(second.contains("by another process"), "{second}");
        let stop = run.measure(&bm25, &sets[0], &mut |progress| progress.done < 512);
        assert!(matches!(stop, Err(Error::Interrupted)));
        assert_eq!(run.sets().unwrap(), []);
        drop(run);
        let run = begin(&broken, Lexical::Bm25).unwrap();
        for set in &sets {
            run.measure(&bm25, set, &mut |_| true).unwrap();
        }
        assert_eq!(run.finish().unwrap(), expected);
        let bytes = |run: &Run, name: &str| std::fs::read(run.folder().join(name)).unwrap();
        for name in ["results.json", "run.json", "sets/a.test.en.queries.parquet", "sets/b.test.en.json"] {
            assert_eq!(bytes(&run, name), bytes(&whole, name), "{name}");
        }
        // What is done is not done again.
        run.measure(&bm25, &sets[0], &mut |_| panic!("measured again")).unwrap();
        assert_eq!(expected.averages[0].tasks.len(), 2);
        assert_eq!(expected.averages[0].not_measured.len(), 4);
        let mean = expected.averages[0].metric("map").unwrap().mean;
        let sets: Vec<f64> = expected.sets.iter().map(|set| set.metric("map").unwrap().mean).collect();
        assert!((mean - (sets[0] + sets[1]) / 2.0).abs() < 1e-12);
    }

    #[test]
    fn results_of_different_things_are_not_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let run = begin(folder.path(), Lexical::Bm25).unwrap();
        run.measure(&system(Lexical::Bm25), &set("a", Task::Other, 9), &mut |_| true).unwrap();
        drop(run);
        let error = begin(folder.path(), Lexical::TfIdfWords).unwrap_err().to_string();
        assert!(error.contains("system.name is \"bm25\" there and \"tfidf-words\" here"), "{error}");
        let options = RunOptions { seed: 2, ..RunOptions::default() };
        let error = Run::begin(folder.path(), system(Lexical::Bm25).description(), options).unwrap_err();
        assert!(error.to_string().contains("options.seed"), "{error}");
        let options = RunOptions { sample: Some(5), ..RunOptions::default() };
        let error = Run::begin(folder.path(), system(Lexical::Bm25).description(), options).unwrap_err();
        assert!(error.to_string().contains("options.sample"), "{error}");
        let run = begin(folder.path(), Lexical::Bm25).unwrap();
        let error = run.done(&set("a", Task::Other, 10)).unwrap_err().to_string();
        assert!(error.contains("on other data"), "{error}");
        assert!(run.measure(&system(Lexical::Random), &set("b", Task::Other, 9), &mut |_| true).is_err());
        // Without its manifest a folder is no run: its results could be anybody's.
        drop(run);
        std::fs::remove_file(folder.path().join("run.json")).unwrap();
        let error = begin(folder.path(), Lexical::TfIdfWords).unwrap_err().to_string();
        assert!(error.contains("holds other files"), "{error}");
    }

    #[test]
    fn queries_are_read_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let run = begin(folder.path(), Lexical::TfIdfCharacters).unwrap();
        let (set, system) = (set("a", Task::Other, 60), system(Lexical::TfIdfCharacters));
        let (queries, _) = run.rank(&system, &set, &mut |_| true).unwrap();
        run.measure(&system, &set, &mut |_| true).unwrap();
        assert_eq!(run.queries(&set.identity).unwrap(), queries);
        assert_eq!(run.targets(&set.identity).unwrap(), set.targets);
        assert_eq!(queries.hits[0].len(), 40);
    }

    #[test]
    fn two_runs_are_compared_on_what_they_share() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let runs = [(a, Lexical::TfIdfWords), (b, Lexical::Random)].map(|(folder, lexical)| {
            let run = begin(&folder, lexical).unwrap();
            run.measure(&system(lexical), &set("s", Task::Other, 60), &mut |_| true).unwrap();
            run
        });
        let comparison = runs[0].compare(&runs[1], "map").unwrap();
        let only = &comparison.sets[0];
        assert!((only.difference.interval.mean - (only.second - only.first)).abs() < 1e-12);
        assert!(runs[0].compare(&runs[1], "rp@7").is_err());
    }
}
