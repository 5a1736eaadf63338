//! The tagger: from raw vacancies to edges, in bounded memory.
//!
//! ```text
//! OUT/tag.json                 what is tagged, with what; written first
//! OUT/sentences/00000.parquet  a shard of the input: sentence, skill, identifier, score
//! OUT/titles/00000.parquet     the same shard: title and its skills, vacancy by vacancy; written last
//! OUT/vacancies/00000.parquet  vacancies of equal title merged, as the source `vacancies` of a recipe reads them
//! ```
//!
//! A shard is a fixed number of rows, so that a run that was killed goes on behind the last whole shard and ends
//! with the same files. Memory is that of one shard's tags and of one batch of texts in the encoder, whatever the
//! length of the input, and that of the hits of the last half million different texts (at most 16 + 8 `top` bytes each,
//! and what a hash table adds); merging holds the titles of one partition at a time.

use crate::builders::sentences;
use crate::fold::fold;
use crate::recipe::{Recipe, SourceKind};
use arrow_array::builder::{Float64Builder, ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, Float32Array, Int64Array, StringArray};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uwe::{BuildOptions, Encoder, Ranker, Space, Targets};
use workbench::sources::esco::{Releases, Table, Version};
use workbench::sources::vacancies::{Vacancy, read as read_vacancies};
use workbench::{Error, Result, clear_partial, write_parquet, write_whole};

mod rows;

pub use rows::{RowColumns, Rows};

/// How vacancies are tagged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TagOptions {
    /// Least score of a skill.
    pub threshold: f32,
    /// Most skills of a text.
    pub top: usize,
    /// Rows of a shard.
    pub shard: usize,
}

impl Default for TagOptions {
    fn default() -> Self {
        Self { threshold: 0.6, top: 10, shard: 10_000 }
    }
}

/// What identifies a tagging: a folder of another one is not gone on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    input: String,
    bytes: u64,
    columns: RowColumns,
    space: String,
    scoring: uwe::Scoring,
    options: TagOptions,
}

/// How far a tagging has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tagged {
    /// Rows that are in whole shards.
    pub rows: u64,
    /// Of these, rows that were there before this run.
    pub rows_before: u64,
    /// Pairs of sentence and skill of this run.
    pub sentence_pairs: u64,
    /// Pairs of title and skill of this run.
    pub title_pairs: u64,
}

/// Folders of a tagging.
const KINDS: [&str; 3] = ["sentences", "titles", "vacancies"];
/// Texts that are encoded together.
const BATCH: usize = 512;
/// Fewest words of a sentence that is worth tagging.
const FEWEST_WORDS: usize = 3;
/// Vacancies of one partition when titles are merged.
const PARTITION: u64 = 200_000;
/// Texts whose hits are remembered over shards: vacancies repeat each other's titles and sentences.
const REMEMBERED: usize = 500_000;

/// Tags a file of vacancies; goes on where an earlier run of the same kind has ended. `watch` is called after each batch
/// and returns whether to go on.
///
/// # Errors
/// [`Error::Run`] when `output` holds a tagging of another input, space or options; [`Error::Interrupted`]; whatever
/// reading and encoding give.
pub fn tag(
    ranker: &Ranker<'_>,
    input: (&Path, &RowColumns),
    options: &TagOptions,
    output: &Path,
    watch: &mut dyn FnMut(&Tagged) -> bool,
) -> Result<Tagged> {
    let (path, columns) = input;
    begin(ranker, input, options, output)?;
    let mut done = Tagged::default();
    let mut rows = Rows::open(path, columns)?;
    let mut memory = Memory::default();
    for shard in 0.. {
        let title_file = shard_file(output, "titles", shard);
        if title_file.is_file() {
            let count =
                rows.by_ref().take(options.shard).try_fold(0u64, |count, row| row.map(|_| count + 1))?;
            done.rows += count;
            done.rows_before += count;
            continue;
        }
        let chunk: Vec<(String, String)> = rows.by_ref().take(options.shard).collect::<Result<_>>()?;
        if chunk.is_empty() {
            break;
        }
        let tags = Shard::tag((ranker, &mut memory), &chunk, options, &mut || watch(&done))?;
        done.sentence_pairs += tags.sentences.len() as u64;
        done.title_pairs += tags.titles.iter().map(|title| title.skills.len() as u64).sum::<u64>();
        tags.write(&shard_file(output, "sentences", shard), &title_file)?;
        done.rows += chunk.len() as u64;
        if !watch(&done) {
            return Err(Error::Interrupted);
        }
    }
    merge(output, done.rows)?;
    Ok(done)
}

/// Where the tags of a recipe's source lie in the work folder.
pub(crate) fn folder(work: &Path, source: &str) -> PathBuf {
    work.join("tags").join(source)
}

/// Tags every source of raw vacancies of a recipe into `work`, against the skills of the recipe's ESCO release; goes on where
/// an earlier run has ended. `watch` is told of the source and how far it is, and returns whether to go on.
///
/// # Errors
/// As [`tag`]; [`Error::Data`] when the data folder lacks the release.
pub fn tag_sources(
    recipe: &Recipe,
    (data, work): (&Path, &Path),
    encoder: &Encoder,
    watch: &mut dyn FnMut(&str, &Tagged) -> bool,
) -> Result<()> {
    let mut space = None;
    for source in &recipe.sources {
        let SourceKind::RawVacancies { file, title, description, threshold, top, .. } = &source.kind else {
            continue;
        };
        if space.is_none() {
            space = Some(skill_space(encoder, data, recipe.release()?)?);
        }
        let Some(space) = &space else { continue };
        let ranker = Ranker::new(encoder, space, encoder.scoring())?;
        let columns = RowColumns { title: title.clone(), description: description.clone() };
        let options = TagOptions { threshold: *threshold, top: *top, ..TagOptions::default() };
        let output = folder(work, &source.name);
        tag(&ranker, (&data.join(file), &columns), &options, &output, &mut |done| watch(&source.name, done))?;
    }
    Ok(())
}

/// The skills of an ESCO release as a target space: labels, with URIs as identifiers.
fn skill_space(encoder: &Encoder, data: &Path, release: Version) -> Result<Space> {
    let skills = Releases::discover(data)?.concepts(release, Table::Skills, "en")?;
    let mut targets = Targets::new(format!("skills of ESCO {release}"), &["id"]);
    for skill in skills {
        targets.push(skill.label.trim(), vec![skill.uri]);
    }
    Ok(Space::in_memory(encoder, &targets, BuildOptions::default())?)
}

fn shard_file(output: &Path, kind: &str, index: usize) -> PathBuf {
    output.join(kind).join(format!("{index:05}.parquet"))
}

/// Writes the manifest of a new tagging, or compares that of an old one.
fn begin(
    ranker: &Ranker<'_>,
    (path, columns): (&Path, &RowColumns),
    options: &TagOptions,
    output: &Path,
) -> Result<()> {
    if options.shard == 0 || options.top == 0 {
        return Err(Error::Argument { name: "options", problem: "a shard and `top` need at least 1".into() });
    }
    let bytes = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    let manifest = Manifest {
        input: path.display().to_string(),
        bytes,
        columns: columns.clone(),
        space: ranker.space().meta().fingerprint.clone(),
        scoring: *ranker.scoring(),
        options: options.clone(),
    };
    let place = output.join("tag.json");
    KINDS.iter().for_each(|kind| clear_partial(&output.join(kind)));
    if place.is_file() {
        let bytes = std::fs::read(&place).map_err(Error::io("read", &place))?;
        let found: Option<Manifest> = serde_json::from_slice(&bytes).ok();
        if found.as_ref() != Some(&manifest) {
            return Err(Error::Run {
                path: output.to_path_buf(),
                problem: "holds tags of another input, space, scorer or other options".into(),
                hint: "give another folder, or delete this one".into(),
            });
        }
        return Ok(());
    }
    for kind in KINDS {
        let folder = output.join(kind);
        std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    }
    let mut bytes = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| Error::data(place.display(), error.to_string(), ""))?;
    bytes.push(b'\n');
    write_whole(&place, &bytes)
}

/// A sentence with one of its skills.
struct Pair {
    sentence: String,
    target: usize,
    score: f32,
}

/// Hits of a text: targets and scores, best first.
type Hits = Box<[(u32, f32)]>;

/// Hits of texts of earlier shards, by hash. Forgets everything when full: a text's hits never depend on it.
#[derive(Default)]
struct Memory {
    hits: HashMap<[u8; 16], Hits>,
}

impl Memory {
    fn key(text: &str) -> [u8; 16] {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
        key
    }

    fn put(&mut self, text: &str, hits: Hits) {
        if self.hits.len() >= REMEMBERED {
            self.hits.clear();
        }
        self.hits.insert(Self::key(text), hits);
    }
}

/// The tags of some neighbouring rows.
struct Shard {
    sentences: Vec<Pair>,
    titles: Vec<Vacancy>,
    /// Label and identifier of each target that was found.
    names: BTreeMap<usize, (String, String)>,
}

impl Shard {
    fn tag(
        (ranker, memory): (&Ranker<'_>, &mut Memory),
        chunk: &[(String, String)],
        options: &TagOptions,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Self> {
        // Each text once, though vacancies repeat their sentences.
        let mut texts: Vec<&str> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut parts: Vec<Vec<usize>> = Vec::with_capacity(chunk.len());
        for (title, description) in chunk {
            let texts_of = std::iter::once(title.trim()).chain(sentences(description, FEWEST_WORDS));
            parts.push(
                texts_of
                    .map(|text| {
                        *places.entry(text).or_insert_with(|| {
                            texts.push(text);
                            texts.len() - 1
                        })
                    })
                    .collect(),
            );
        }
        let mut hits: Vec<Hits> = texts
            .iter()
            .map(|text| memory.hits.get(&Memory::key(text)).cloned().unwrap_or_default())
            .collect();
        let unknown: Vec<usize> =
            (0..texts.len()).filter(|place| !memory.hits.contains_key(&Memory::key(texts[*place]))).collect();
        for batch in unknown.chunks(BATCH) {
            let batch_texts: Vec<&str> = batch.iter().map(|place| texts[*place]).collect();
            for (place, ranking) in batch.iter().zip(ranker.rank(&batch_texts, options.top)?) {
                let kept = ranking.hits.into_iter().filter(|hit| hit.score >= options.threshold);
                hits[*place] = kept.map(|hit| (hit.target as u32, hit.score)).collect();
                memory.put(texts[*place], hits[*place].clone());
            }
            if !go_on() {
                return Err(Error::Interrupted);
            }
        }
        let mut shard = Self { sentences: Vec::new(), titles: Vec::new(), names: BTreeMap::new() };
        for target in hits.iter().flat_map(|hits| hits.iter()).map(|hit| hit.0 as usize) {
            shard.names.entry(target).or_insert_with(|| name(ranker, target));
        }
        let mut written = vec![false; texts.len()];
        for ((title, _), parts) in chunk.iter().zip(parts) {
            let mut best: BTreeMap<usize, f32> = BTreeMap::new();
            for (index, part) in parts.iter().enumerate() {
                for &(target, score) in &hits[*part] {
                    let target = target as usize;
                    best.entry(target).and_modify(|old| *old = old.max(score)).or_insert(score);
                    // The first part is the title itself.
                    if index > 0 && !written[*part] {
                        let sentence = texts[*part].to_string();
                        shard.sentences.push(Pair { sentence, target, score });
                    }
                }
                written[*part] |= index > 0;
            }
            let mut found: Vec<(usize, f32)> = best.into_iter().collect();
            found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            shard.titles.push(Vacancy {
                title: title.trim().to_string(),
                skills: found.iter().map(|(target, _)| shard.names[target].0.clone()).collect(),
                probabilities: found.iter().map(|(_, score)| f64::from(*score)).collect(),
                shares: vec![1.0; found.len()],
            });
        }
        Ok(shard)
    }

    fn write(&self, sentence_file: &Path, title_file: &Path) -> Result<()> {
        let text = |value: &dyn Fn(&Pair) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.sentences.iter().map(value)))
        };
        let scores: Vec<f32> = self.sentences.iter().map(|pair| pair.score).collect();
        let columns: Vec<(String, ArrayRef)> = vec![
            ("text".into(), text(&|pair| pair.sentence.clone())),
            ("skill".into(), text(&|pair| self.names[&pair.target].0.clone())),
            ("skill_id".into(), text(&|pair| self.names[&pair.target].1.clone())),
            ("score".into(), Arc::new(Float32Array::from(scores))),
        ];
        write_parquet(sentence_file, columns)?;
        let counts = vec![1; self.titles.len()];
        write_titles(title_file, &self.titles, &counts)
    }
}

/// Label and identifier of a target.
fn name(ranker: &Ranker<'_>, target: usize) -> (String, String) {
    let Some(target) = ranker.space().target(target) else { return Default::default() };
    let label = target.text().to_string();
    let id = target.id().filter(|id| !id.is_empty()).map_or_else(|| label.clone(), str::to_string);
    (label, id)
}

/// Titles with their skills, and of how many vacancies each is.
fn write_titles(path: &Path, titles: &[Vacancy], merged: &[i64]) -> Result<()> {
    let mut skills = ListBuilder::new(StringBuilder::new());
    let mut probabilities = ListBuilder::new(Float64Builder::new());
    let mut shares = ListBuilder::new(Float64Builder::new());
    for title in titles {
        title.skills.iter().for_each(|skill| skills.values().append_value(skill));
        skills.append(true);
        probabilities.values().append_slice(&title.probabilities);
        probabilities.append(true);
        shares.values().append_slice(&title.shares);
        shares.append(true);
    }
    let names = StringArray::from_iter_values(titles.iter().map(|title| &title.title));
    let columns: Vec<(String, ArrayRef)> = vec![
        ("title".into(), Arc::new(names)),
        ("skill_name".into(), Arc::new(skills.finish())),
        ("skill_prob_avg".into(), Arc::new(probabilities.finish())),
        ("skill_occurrence_pct".into(), Arc::new(shares.finish())),
        ("nb_merged_entries".into(), Arc::new(Int64Array::from(merged.to_vec()))),
    ];
    write_parquet(path, columns)
}

/// Vacancies of one title.
#[derive(Default)]
struct Merged {
    title: String,
    count: u64,
    /// Sum of the scores and number of vacancies, by skill.
    skills: BTreeMap<String, (f64, u64)>,
}

/// Merges vacancies of equal title (folded): mean score and share of the vacancies for each skill. Partition by
/// partition: a title's partition is a hash of it.
fn merge(output: &Path, rows: u64) -> Result<()> {
    let shards = crate::builders::parquet_files(&output.join("titles"))?;
    let partitions = rows.div_ceil(PARTITION).max(1);
    for partition in 0..partitions {
        let file = shard_file(output, "vacancies", partition as usize);
        if file.is_file() {
            continue;
        }
        let mut order: Vec<Merged> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for shard in &shards {
            for vacancy in read_vacancies(shard)? {
                let key = fold(&vacancy.title);
                let hash = blake3::hash(key.as_bytes());
                let lot = hash.as_bytes()[..8].iter().fold(0u64, |lot, byte| lot << 8 | u64::from(*byte));
                if lot % partitions != partition || key.is_empty() {
                    continue;
                }
                let place = *places.entry(key).or_insert_with(|| {
                    order.push(Merged { title: vacancy.title.clone(), ..Merged::default() });
                    order.len() - 1
                });
                let merged = &mut order[place];
                merged.count += 1;
                for (skill, score) in vacancy.skills.into_iter().zip(vacancy.probabilities) {
                    let sums = merged.skills.entry(skill).or_default();
                    *sums = (sums.0 + score, sums.1 + 1);
                }
            }
        }
        let counts: Vec<i64> = order.iter().map(|merged| merged.count as i64).collect();
        let titles: Vec<Vacancy> = order.into_iter().map(Merged::finish).collect();
        write_titles(&file, &titles, &counts)?;
    }
    Ok(())
}

impl Merged {
    /// Skills by mean score, descending.
    fn finish(self) -> Vacancy {
        let mut skills: Vec<(String, f64, f64)> = self
            .skills
            .into_iter()
            .map(|(skill, (sum, count))| (skill, sum / count as f64, count as f64 / self.count as f64))
            .collect();
        skills.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut vacancy =
            Vacancy { title: self.title, skills: Vec::new(), probabilities: Vec::new(), shares: Vec::new() };
        for (skill, probability, share) in skills {
            vacancy.skills.push(skill);
            vacancy.probabilities.push(probability);
            vacancy.shares.push(share);
        }
        vacancy
    }
}
