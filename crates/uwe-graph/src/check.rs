//! The leak check: nothing of a test set may stand in a graph.
//!
//! | graph | its text may not equal a test query of | an edge may not equal a test pair of |
//! |---|---|---|
//! | job | Job2Skill, job normalisation | Job2Skill, Skill2Job |
//! | sentence | skill extraction; nor nearly equal one | skill extraction |
//! | alternative | skill normalisation, job normalisation | skill normalisation, job normalisation, skill similarity and its stand-in |
//!
//! Texts are compared folded ([`crate::fold`]). Two sentences are nearly equal when they share four fifths of their words.
//! Titles and alternative labels have no such rule: two names of one thing are alike by nature.

use crate::edge::{Edge, Graph};
use crate::fold::{fold, words};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use workbench::{Catalogue, CatalogueOptions, RankingSet, Result, Split, Task};

/// Least share of common words (Jaccard) of two sentences that are nearly equal.
const NEARLY: f64 = 0.8;
/// Sentences of fewer words are compared whole only.
const FEWEST_WORDS: usize = 5;

/// How an edge leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// Its text equals a test query.
    Query,
    /// Skill and text are a relevant pair of a test set.
    Pair,
    /// Its sentence nearly equals a test query.
    NearlyQuery,
}

impl std::fmt::Display for FindingKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Query => "its text is a test query",
            Self::Pair => "skill and text are a test pair",
            Self::NearlyQuery => "its sentence is nearly a test query",
        })
    }
}

/// An edge that leaks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Place of the edge in the graph, from 0.
    pub edge: usize,
    /// How it leaks.
    pub kind: FindingKind,
    /// Key of the test set.
    pub set: String,
    /// The test query.
    pub query: String,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Leaking edges in the graph's order.
    pub findings: Vec<Finding>,
    /// Fingerprints of the test sets that were compared with.
    pub sets: BTreeMap<String, String>,
}

impl Check {
    /// Whether nothing leaks.
    pub fn passed(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Compares every edge with every test set that a data folder gives.
///
/// # Errors
/// Whatever reading the sets gives.
pub fn check(edges: &[Edge], data: &Path) -> Result<Check> {
    let tests = Tests::read(data)?;
    let findings = edges.iter().enumerate().filter_map(|(place, edge)| tests.finding(place, edge)).collect();
    Ok(Check { findings, sets: tests.sets })
}

/// Test texts and pairs, folded.
#[derive(Default)]
pub(crate) struct Tests {
    /// Query and its set, by graph and folded text.
    queries: HashMap<(Graph, String), (String, String)>,
    /// The same for `(graph, folded skill, folded text)`.
    pairs: HashMap<(Graph, String, String), (String, String)>,
    /// Sentences as sets of words, and which sentences have a word.
    sentences: Vec<(HashSet<String>, String, String)>,
    by_word: HashMap<String, Vec<usize>>,
    sets: BTreeMap<String, String>,
}

impl Tests {
    /// All test sets that a data folder gives, those of every ESCO release included.
    pub(crate) fn read(data: &Path) -> Result<Self> {
        let catalogue = Catalogue::open(data, CatalogueOptions::default())?;
        let mut tests = Self::default();
        for entry in catalogue.entries() {
            // Validation parts of the pairs of skills are no tests, but nothing trains on them either.
            let task = &entry.identity.task;
            let guarded = entry.identity.split == Split::Test
                || matches!(task, Task::SkillSimilarity | Task::SkillSimilarityProxy);
            // An older release gives the first alternatives that are to be trained on another place: only the
            // release that is reported is the test.
            let reported = *task != Task::SkillNormalization || entry.identity.in_average;
            if entry.is_ready() && guarded && reported {
                tests.add(&catalogue.load(entry)?);
            }
        }
        Ok(tests)
    }

    fn add(&mut self, set: &RankingSet) {
        let key = set.identity.key();
        self.sets.insert(key.clone(), set.fingerprint());
        let folded_targets: Vec<String> = set.targets.iter().map(|target| fold(target)).collect();
        for (query, labels) in set.queries.iter().zip(&set.relevance) {
            let folded = fold(query);
            let note = (key.clone(), query.clone());
            let graphs: &[Graph] = match set.identity.task {
                Task::JobToSkill => &[Graph::Job],
                Task::JobNormalization => &[Graph::Job, Graph::Alternative],
                Task::SkillExtraction => &[Graph::Sentence],
                Task::SkillNormalization => &[Graph::Alternative],
                _ => &[],
            };
            for graph in graphs {
                self.queries.entry((*graph, folded.clone())).or_insert_with(|| note.clone());
            }
            for label in labels {
                let target = &folded_targets[label.target as usize];
                let mut pair = |graph, skill: &str, text: &str| {
                    self.pairs
                        .entry((graph, skill.to_string(), text.to_string()))
                        .or_insert_with(|| note.clone());
                };
                match set.identity.task {
                    Task::JobToSkill => pair(Graph::Job, target, &folded),
                    Task::SkillToJob => pair(Graph::Job, &folded, target),
                    Task::JobNormalization | Task::SkillNormalization => {
                        pair(Graph::Alternative, target, &folded);
                    }
                    Task::SkillExtraction => pair(Graph::Sentence, target, &folded),
                    Task::SkillSimilarity | Task::SkillSimilarityProxy => {
                        pair(Graph::Alternative, target, &folded);
                        pair(Graph::Alternative, &folded, target);
                    }
                    Task::Other => {}
                }
            }
            if set.identity.task == Task::SkillExtraction {
                let words: HashSet<String> = words(&folded).into_iter().map(String::from).collect();
                if words.len() >= FEWEST_WORDS {
                    let place = self.sentences.len();
                    for word in &words {
                        self.by_word.entry(word.clone()).or_default().push(place);
                    }
                    self.sentences.push((words, key.clone(), query.clone()));
                }
            }
        }
    }

    /// Whether a folded text equals, or as a sentence nearly equals, a test query of its graph's task family.
    pub(crate) fn is_test_text(&self, graph: Graph, folded: &str) -> bool {
        self.queries.contains_key(&(graph, folded.to_string()))
            || (graph == Graph::Sentence && self.nearly(folded).is_some())
    }

    /// The test sentence that shares the most words with a text, if it is nearly equal.
    fn nearly(&self, folded: &str) -> Option<&(HashSet<String>, String, String)> {
        let words = words(folded);
        if words.len() < FEWEST_WORDS {
            return None;
        }
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for place in words.iter().filter_map(|word| self.by_word.get(*word)).flatten() {
            *shared.entry(*place).or_default() += 1;
        }
        let jaccard = |place: usize, common: usize| {
            common as f64 / (words.len() + self.sentences[place].0.len() - common) as f64
        };
        let best = shared
            .into_iter()
            .map(|(place, common)| (jaccard(place, common), place))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
        (best.0 >= NEARLY).then(|| &self.sentences[best.1])
    }

    fn finding(&self, place: usize, edge: &Edge) -> Option<Finding> {
        let (skill, text) = (fold(&edge.skill), fold(&edge.text));
        let found = |kind, (set, query): &(String, String)| Finding {
            edge: place,
            kind,
            set: set.clone(),
            query: query.clone(),
        };
        if let Some(note) = self.pairs.get(&(edge.graph, skill, text.clone())) {
            return Some(found(FindingKind::Pair, note));
        }
        if let Some(note) = self.queries.get(&(edge.graph, text.clone())) {
            return Some(found(FindingKind::Query, note));
        }
        if edge.graph == Graph::Sentence {
            let (_, set, query) = self.nearly(&text)?;
            return Some(found(FindingKind::NearlyQuery, &(set.clone(), query.clone())));
        }
        None
    }
}
