//! Validation: the held-out edges of a graph as ranking tasks, and the benchmark's validation sets of skill extraction.
//!
//! Nothing of a test stands in them: held-out texts are in no training edge of their graph, and the leak check has compared both.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use uwe::{BuildOptions, Encoder, Ranker, Scoring, Space, Targets};
use uwe_graph::{Edge, Graph, Part};
use workbench::sources::esco::{Releases, Table, Version, Vocabulary};
use workbench::{Catalogue, CatalogueOptions, Judgement, Metric, Ranks, Split, Task};

/// Queries that are scored at once.
const CHUNK: usize = 64;

/// A ranking task.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidationSet {
    /// Name.
    pub name: String,
    /// The task that it stands for: sets of one task count together as one.
    pub task: String,
    /// Texts to rank for, with the places of their relevant targets.
    pub queries: Vec<(String, Vec<u32>)>,
    /// Number of the target list.
    targets: usize,
}

/// Ranking tasks over a few lists of targets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Validation {
    sets: Vec<ValidationSet>,
    targets: Vec<Vec<String>>,
}

/// What a validation came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Mean average precision of each set, from 0 to 1.
    pub sets: BTreeMap<String, f64>,
    /// Mean over the tasks, each the mean of its sets.
    pub mean: f64,
}

impl Validation {
    /// The sets that a graph and, where there is one, a data folder give: at most so many queries a set, drawn by `seed`.
    ///
    /// # Errors
    /// [`Error::Recipe`] when there is nothing to validate on; whatever reading the data gives.
    pub fn new(edges: &[Edge], data: Option<(&Path, Version)>, queries: usize, seed: u64) -> Result<Self> {
        let mut validation = Self::default();
        match data {
            Some((data, version)) => validation.add_esco(edges, data, version)?,
            None => validation.add_own(edges),
        }
        for set in &mut validation.sets {
            // The order of a hash is as good as a shuffle, and the same whatever else the list holds.
            let lot = |query: &str| *blake3::hash(format!("{seed} {query}").as_bytes()).as_bytes();
            set.queries.sort_by_cached_key(|(query, _)| lot(query));
            set.queries.truncate(queries);
        }
        validation.sets.retain(|set| !set.queries.is_empty());
        if validation.sets.is_empty() {
            let problem =
                "the graph has no held-out edge, and no data folder gives a validation set".to_string();
            return Err(Error::Recipe { what: "validation".into(), problem });
        }
        Ok(validation)
    }

    /// The sets.
    pub fn sets(&self) -> &[ValidationSet] {
        &self.sets
    }

    fn push(&mut self, (name, task): (&str, &str), targets: usize, queries: BTreeMap<String, BTreeSet<u32>>) {
        let queries =
            queries.into_iter().map(|(query, found)| (query, found.into_iter().collect())).collect();
        self.sets.push(ValidationSet { name: name.into(), task: task.into(), queries, targets });
    }

    fn add_esco(&mut self, edges: &[Edge], data: &Path, version: Version) -> Result<()> {
        let releases = Releases::discover(data)?;
        let skills = Vocabulary::of(&releases.concepts(version, Table::Skills, "en")?);
        let occupations = Vocabulary::of(&releases.concepts(version, Table::Occupations, "en")?);
        let held =
            |graph: Graph| edges.iter().filter(move |edge| edge.graph == graph && edge.part == Part::Val);
        let linked = |graph: Graph, vocabulary: &Vocabulary| {
            let mut queries: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for edge in held(graph) {
                if let Some(place) = vocabulary.uri(&edge.skill_id) {
                    queries.entry(edge.text.clone()).or_default().insert(place as u32);
                }
            }
            queries
        };
        let jobs = linked(Graph::Job, &skills);
        let titles: Vec<String> = jobs.keys().cloned().collect();
        let mut reverse: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        for (title, found) in jobs.values().enumerate() {
            for skill in found {
                reverse.entry(skills.labels[*skill as usize].clone()).or_default().insert(title as u32);
            }
        }
        let other_names = linked(Graph::Alternative, &skills);
        let occupation_names = linked(Graph::Alternative, &occupations);
        self.targets = vec![skills.labels.clone(), occupations.labels.clone(), titles];
        self.push(("job2skill", "job2skill"), 0, jobs);
        self.push(("skill2job", "skill2job"), 2, reverse);
        self.push(("jobnorm", "jobnorm"), 1, occupation_names);
        self.push(("skillnorm", "skillnorm"), 0, other_names);
        let options = CatalogueOptions { language: "en".into(), esco: None };
        let catalogue = Catalogue::open(data, options)?;
        for entry in catalogue.entries() {
            let identity = &entry.identity;
            let wanted = identity.task == Task::SkillExtraction
                && identity.split == Split::Validation
                && identity.in_average
                && entry.is_ready();
            if wanted {
                let set = catalogue.load(entry)?;
                let places = |labels: &[Judgement]| labels.iter().map(|label| label.target).collect();
                let queries =
                    set.queries.iter().cloned().zip(set.relevance.iter().map(|l| places(l))).collect();
                // Sets of one release share their targets: they are encoded once.
                let same = self.targets.iter().position(|targets| *targets == set.targets);
                let place = same.unwrap_or_else(|| {
                    self.targets.push(set.targets.clone());
                    self.targets.len() - 1
                });
                self.push((&identity.name, "extraction"), place, queries);
            }
        }
        Ok(())
    }

    /// Held-out texts against all skills of their graph.
    fn add_own(&mut self, edges: &[Edge]) {
        for graph in [Graph::Job, Graph::Sentence, Graph::Alternative] {
            let mut targets: Vec<String> = Vec::new();
            let mut places: HashMap<&str, u32> = HashMap::new();
            let mut queries: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
            for edge in edges.iter().filter(|edge| edge.graph == graph) {
                let place = *places.entry(&edge.skill).or_insert_with(|| {
                    targets.push(edge.skill.clone());
                    targets.len() as u32 - 1
                });
                if edge.part == Part::Val {
                    queries.entry(edge.text.clone()).or_default().insert(place);
                }
            }
            self.targets.push(targets);
            let name = graph.to_string();
            self.push((&name, &name), self.targets.len() - 1, queries);
        }
    }

    /// Identifies queries, targets and what is relevant.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for set in &self.sets {
            text(&set.name);
            set.queries.iter().for_each(|(query, found)| {
                text(query);
                text(&format!("{found:?}"));
            });
            self.targets[set.targets].iter().for_each(|target| text(target));
        }
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// Measures an encoder with a scorer.
    ///
    /// # Errors
    /// Whatever encoding and ranking give.
    pub fn measure(&self, encoder: &Encoder, scoring: Scoring) -> Result<Scored> {
        let mut scored = Scored::default();
        let mut tasks: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for (place, texts) in self.targets.iter().enumerate() {
            let sets: Vec<&ValidationSet> = self.sets.iter().filter(|set| set.targets == place).collect();
            if sets.is_empty() {
                continue;
            }
            let mut targets = Targets::new("validation", &[]);
            // A repeated text is folded into its first; its places are that one's.
            let mut folded: HashMap<&str, u32> = HashMap::new();
            let remap: Vec<u32> = texts
                .iter()
                .map(|text| {
                    let text = text.trim();
                    let next = folded.len() as u32;
                    *folded.entry(text).or_insert_with(|| {
                        targets.push(text, Vec::new());
                        next
                    })
                })
                .collect();
            let space = Space::in_memory(encoder, &targets, BuildOptions::default())?;
            let ranker = Ranker::new(encoder, &space, scoring)?;
            for set in sets {
                let mut sum = 0.0;
                for chunk in set.queries.chunks(CHUNK) {
                    let queries: Vec<&str> = chunk.iter().map(|(query, _)| &query[..]).collect();
                    let rows = ranker.score_all(&encoder.encode(&queries)?.states)?;
                    for (row, (_, found)) in rows.iter().zip(chunk) {
                        let places: BTreeSet<u32> =
                            found.iter().map(|place| remap[*place as usize]).collect();
                        let labels: Vec<Judgement> =
                            places.into_iter().map(|target| Judgement { target, grade: 1.0 }).collect();
                        let precision = Ranks::of(row, &labels)?.metric(Metric::AveragePrecision, row.len());
                        sum += precision.unwrap_or(0.0);
                    }
                }
                let mean = sum / set.queries.len() as f64;
                scored.sets.insert(set.name.clone(), mean);
                tasks.entry(&set.task).or_default().push(mean);
            }
        }
        let means = tasks.values().map(|sets| sets.iter().sum::<f64>() / sets.len() as f64);
        scored.mean = means.sum::<f64>() / tasks.len() as f64;
        Ok(scored)
    }
}
