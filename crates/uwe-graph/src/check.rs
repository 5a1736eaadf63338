//! The leak check: nothing of a test set may stand in a graph.
//!
//! Texts are compared folded ([`crate::fold`]). An edge leaks
//!
//! - when its two texts, in whichever order and graph, are a relevant pair of a test set, or two skills that ESCO relates;
//! - when one of its texts is a test query of its graph's task family: Job2Skill and job normalisation for the job graph (and
//!   the preferred labels of occupations in every ESCO release), skill extraction for sentences, skill and job normalisation
//!   for alternatives. On the skill side a text may be a query that is a target of that family too: targets are known;
//! - when its sentence nearly equals a test query: they share four fifths of all their words, or it holds nine tenths of
//!   the query's. Titles and alternative labels have no such rule: two names of one thing are alike by nature.
//!
//! Every language of the data folder's ESCO releases is compared. Of skill normalisation, the test is that of the newest release.

use crate::edge::{Edge, Graph};
use crate::fold::{fold, words};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use workbench::sources::esco::{Releases, Table};
use workbench::{Catalogue, CatalogueOptions, Error, RankingSet, Result, Split, Task};

/// Least share of common words (Jaccard) of two sentences that are nearly equal.
const NEARLY: f64 = 0.8;
/// Least share of a test sentence's words in a text that holds it.
const HELD: f64 = 0.9;
/// Test sentences of fewer words are compared whole only.
const FEWEST_WORDS: usize = 5;

/// How an edge leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// One of its texts equals a test query.
    Query,
    /// Skill and text are a relevant pair of a test set.
    Pair,
    /// Its sentence nearly equals a test query.
    NearlyQuery,
}

impl std::fmt::Display for FindingKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Query => "a text is a test query",
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
    /// Test sets that the data folder cannot give, and which nothing was compared with.
    pub missing: Vec<String>,
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
    Ok(Check { findings, sets: tests.sets, missing: tests.missing })
}

/// Test texts and pairs, folded.
#[derive(Default)]
pub(crate) struct Tests {
    /// Query and its set, by graph and folded text.
    queries: HashMap<(Graph, String), (String, String)>,
    /// Folded targets of the sets whose queries a graph must not hold.
    targets: HashSet<(Graph, String)>,
    /// Query and its set, by two folded texts in order.
    pairs: HashMap<(String, String), (String, String)>,
    /// Sentences as sets of words, and which sentences have a word.
    sentences: Vec<(HashSet<String>, String, String)>,
    by_word: HashMap<String, Vec<usize>>,
    sets: BTreeMap<String, String>,
    missing: Vec<String>,
}

/// Graphs in which queries of a task must not stand.
fn graphs(task: &Task) -> &'static [Graph] {
    match task {
        Task::JobToSkill => &[Graph::Job],
        Task::JobNormalization => &[Graph::Job, Graph::Alternative],
        Task::SkillExtraction => &[Graph::Sentence],
        Task::SkillNormalization => &[Graph::Alternative],
        // Their queries are skills, which every graph holds: pairs alone are the test.
        Task::SkillToJob | Task::SkillSimilarity | Task::SkillSimilarityProxy | Task::Other => &[],
    }
}

fn ordered(a: &str, b: &str) -> (String, String) {
    if a <= b { (a.into(), b.into()) } else { (b.into(), a.into()) }
}

impl Tests {
    /// All test sets that a data folder gives, in every language and of every ESCO release.
    pub(crate) fn read(data: &Path) -> Result<Self> {
        let releases = Releases::discover(data)?;
        let mut languages = releases.languages();
        if languages.is_empty() {
            languages.push("en".into());
        }
        let mut tests = Self::default();
        for language in languages {
            let catalogue =
                Catalogue::open(data, CatalogueOptions { language: language.clone(), esco: None })?;
            for entry in catalogue.entries().iter().filter(|entry| entry.identity.task != Task::Other) {
                // Validation pairs of skills are no tests, but nothing trains on them either.
                let task = &entry.identity.task;
                let guarded = entry.identity.split == Split::Test
                    || matches!(task, Task::SkillSimilarity | Task::SkillSimilarityProxy);
                // The first alternatives of one release are other ones in another: the test is the reported one.
                let reported = *task != Task::SkillNormalization || entry.identity.in_average;
                if !(guarded && reported) {
                    continue;
                }
                match catalogue.load(entry) {
                    Ok(set) => tests.add(&set),
                    // Its files are missing, or hold nothing that could leak.
                    Err(Error::Set { .. }) if language == "en" => tests.missing.push(entry.identity.key()),
                    Err(Error::Set { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            tests.add_releases(&releases, &language)?;
        }
        Ok(tests)
    }

    /// Labels of occupations and relations between skills, of every release.
    fn add_releases(&mut self, releases: &Releases, language: &str) -> Result<()> {
        for version in releases.versions(Table::Occupations, language) {
            let key = format!("occupations of ESCO {version}, {language}");
            for occupation in releases.concepts(version, Table::Occupations, language)? {
                let note = (key.clone(), occupation.label.clone());
                self.queries.entry((Graph::Job, fold(&occupation.label))).or_insert(note);
            }
        }
        for version in releases.versions(Table::SkillSkillRelations, "") {
            if !releases.has(version, Table::Skills, language) {
                continue;
            }
            let skills = releases.concepts(version, Table::Skills, language)?;
            let labels: HashMap<&str, &str> =
                skills.iter().map(|skill| (&skill.uri[..], &skill.label[..])).collect();
            let key = format!("skill-skill relations of ESCO {version}, {language}");
            for [first, second] in releases.skill_skills(version)? {
                if let (Some(a), Some(b)) = (labels.get(&first[..]), labels.get(&second[..])) {
                    let note = (key.clone(), (*a).to_string());
                    self.pairs.entry(ordered(&fold(a), &fold(b))).or_insert(note);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, set: &RankingSet) {
        let key = set.identity.key();
        self.sets.insert(key.clone(), set.fingerprint());
        let folded_targets: Vec<String> = set.targets.iter().map(|target| fold(target)).collect();
        for graph in graphs(&set.identity.task) {
            self.targets.extend(folded_targets.iter().map(|target| (*graph, target.clone())));
        }
        for (query, labels) in set.queries.iter().zip(&set.relevance) {
            let folded = fold(query);
            let note = (key.clone(), query.clone());
            for graph in graphs(&set.identity.task) {
                self.queries.entry((*graph, folded.clone())).or_insert_with(|| note.clone());
            }
            for label in labels {
                let pair = ordered(&folded_targets[label.target as usize], &folded);
                self.pairs.entry(pair).or_insert_with(|| note.clone());
            }
            if set.identity.task == Task::SkillExtraction {
                self.add_sentence(&folded, note);
            }
        }
    }

    fn add_sentence(&mut self, folded: &str, (key, query): (String, String)) {
        let words: HashSet<String> = words(folded).into_iter().map(String::from).collect();
        if words.len() < FEWEST_WORDS {
            return;
        }
        for word in &words {
            self.by_word.entry(word.clone()).or_default().push(self.sentences.len());
        }
        self.sentences.push((words, key, query));
    }

    /// The test sentence that a text is most like, if it nearly equals or holds it.
    fn nearly(&self, folded: &str) -> Option<(String, String)> {
        let words = words(folded);
        let mut shared: HashMap<usize, usize> = HashMap::new();
        for place in words.iter().filter_map(|word| self.by_word.get(*word)).flatten() {
            *shared.entry(*place).or_default() += 1;
        }
        let likeness = |place: usize, common: usize| {
            let test = self.sentences[place].0.len();
            let jaccard = common as f64 / (words.len() + test - common) as f64;
            (jaccard / NEARLY).max(common as f64 / test as f64 / HELD)
        };
        let best = shared
            .into_iter()
            .map(|(place, common)| (likeness(place, common), place))
            .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)))?;
        let (_, set, query) = &self.sentences[best.1];
        (best.0 >= 1.0).then(|| (set.clone(), query.clone()))
    }

    /// How an edge with these folded texts leaks: kind, set and query.
    pub(crate) fn leak(
        &self,
        graph: Graph,
        skill: &str,
        text: &str,
    ) -> Option<(FindingKind, (String, String))> {
        if let Some(note) = self.pairs.get(&ordered(skill, text)) {
            return Some((FindingKind::Pair, note.clone()));
        }
        if let Some(note) = self.queries.get(&(graph, text.to_string())) {
            return Some((FindingKind::Query, note.clone()));
        }
        let on_skill_side = (graph, skill.to_string());
        if let Some(note) =
            self.queries.get(&on_skill_side).filter(|_| !self.targets.contains(&on_skill_side))
        {
            return Some((FindingKind::Query, note.clone()));
        }
        if graph == Graph::Sentence {
            return Some((FindingKind::NearlyQuery, self.nearly(text)?));
        }
        None
    }

    fn finding(&self, place: usize, edge: &Edge) -> Option<Finding> {
        let (kind, (set, query)) = self.leak(edge.graph, &fold(&edge.skill), &fold(&edge.text))?;
        Some(Finding { edge: place, kind, set, query })
    }
}
