//! Ranking sets: queries, targets, and which target is relevant to which query.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// The tasks. The first six are WorkBench's; a macro average stands on those of them that could be measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Job title to skills.
    JobToSkill,
    /// Skill to job titles.
    SkillToJob,
    /// Title of a vacancy to its occupation.
    JobNormalization,
    /// Alternative label to its skill.
    SkillNormalization,
    /// Sentence of a vacancy to the skills it asks for.
    SkillExtraction,
    /// Skill to the one skill that goes with it (SkillMatch-1K).
    SkillSimilarity,
    /// A stand-in for skill similarity, made of ESCO's skill-skill relations; not WorkBench's task.
    SkillSimilarityProxy,
    /// A set that the user brought.
    Other,
}

impl Task {
    /// The six tasks of WorkBench, in its order.
    pub const WORKBENCH: [Self; 6] = [
        Self::JobToSkill,
        Self::SkillToJob,
        Self::JobNormalization,
        Self::SkillNormalization,
        Self::SkillExtraction,
        Self::SkillSimilarity,
    ];

    /// Name for people.
    pub fn title(&self) -> &'static str {
        match self {
            Self::JobToSkill => "Job2Skill",
            Self::SkillToJob => "Skill2Job",
            Self::JobNormalization => "Job normalisation",
            Self::SkillNormalization => "Skill normalisation",
            Self::SkillExtraction => "Skill extraction",
            Self::SkillSimilarity => "Skill similarity",
            Self::SkillSimilarityProxy => "Skill similarity (proxy)",
            Self::Other => "Other",
        }
    }
}

/// Which part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For choosing.
    #[serde(rename = "val")]
    Validation,
    /// For the one last measurement.
    Test,
    /// For training.
    Train,
}

impl fmt::Display for Split {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Validation => "val",
            Self::Test => "test",
            Self::Train => "train",
        })
    }
}

/// What a set is called and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name, for example `job2skill-esco1.1.1`.
    pub name: String,
    /// The task.
    pub task: Task,
    /// The part.
    pub split: Split,
    /// ISO 639-1 code of the language.
    pub language: String,
    /// Whether the set counts for its task's mean in the macro average.
    pub in_average: bool,
}

impl Identity {
    /// `name.split.language`: unique in a catalogue, and the stem of file names.
    pub fn key(&self) -> String {
        format!("{}.{}.{}", self.name, self.split, self.language)
    }
}

/// A relevant target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// Index of the target.
    pub target: u32,
    /// Degree of relevance; 1 where a set knows only relevant and not.
    pub grade: f32,
}

/// Queries and targets as a source gives them, before they are cleaned.
#[derive(Clone, Debug, Default)]
pub(crate) struct RawSet {
    /// Texts of the targets.
    pub(crate) targets: Vec<String>,
    /// Texts of the queries, each with its relevant targets (indices into `targets`) and their grades.
    pub(crate) queries: Vec<(String, Vec<(usize, f32)>)>,
}

/// A set that is ready to be measured: texts are trimmed and unique, every query has a relevant target.
#[derive(Clone, Debug)]
pub struct RankingSet {
    /// Name and place.
    pub identity: Identity,
    /// Texts to rank for.
    pub queries: Vec<String>,
    /// Texts to rank.
    pub targets: Vec<String>,
    /// Relevant targets of each query, by index; never empty.
    pub relevance: Vec<Vec<Judgement>>,
    /// Queries that were left out because no target is relevant to them.
    pub unjudged: usize,
    /// Queries that were merged into an earlier one of the same text.
    pub merged_queries: usize,
    /// Targets that were folded into an earlier one of the same text.
    pub folded_targets: usize,
}

impl RankingSet {
    /// Cleans a raw set: texts are trimmed; a repeated target is folded into its first; repeated queries become
    /// one with all their labels, the highest grade counting; labels are sorted and unique; queries without a
    /// label are left out.
    ///
    /// # Errors
    /// [`Error::Set`] when no query or no target is left.
    pub(crate) fn prepare(identity: Identity, raw: RawSet) -> Result<Self> {
        let mut targets: Vec<String> = Vec::with_capacity(raw.targets.len());
        let mut places: HashMap<String, u32> = HashMap::with_capacity(raw.targets.len());
        let mut remap = Vec::with_capacity(raw.targets.len());
        for text in &raw.targets {
            let text = text.trim();
            let place = *places.entry(text.to_string()).or_insert_with(|| {
                targets.push(text.to_string());
                targets.len() as u32 - 1
            });
            remap.push(place);
        }
        let folded_targets = remap.len() - targets.len();
        let mut merged: Vec<(String, BTreeMap<u32, f32>)> = Vec::with_capacity(raw.queries.len());
        let mut seen: HashMap<String, usize> = HashMap::with_capacity(raw.queries.len());
        let count = raw.queries.len();
        for (text, labels) in raw.queries {
            let text = text.trim();
            let place = *seen.entry(text.to_string()).or_insert_with(|| {
                merged.push((text.to_string(), BTreeMap::new()));
                merged.len() - 1
            });
            for (label, grade) in labels {
                let target = *remap.get(label).ok_or_else(|| Error::Set {
                    set: identity.key(),
                    problem: format!("query `{text}` names target {label}; there are {}", raw.targets.len()),
                })?;
                // Grade 0 says that a target is not relevant.
                if grade > 0.0 {
                    let kept = merged[place].1.entry(target).or_insert(grade);
                    *kept = kept.max(grade);
                }
            }
        }
        let merged_queries = count - merged.len();
        let all = merged.len();
        merged.retain(|(text, labels)| !text.is_empty() && !labels.is_empty());
        let unjudged = all - merged.len();
        if merged.is_empty() || targets.is_empty() {
            let what = if targets.is_empty() { "target" } else { "query with a relevant target" };
            return Err(Error::Set { set: identity.key(), problem: format!("no {what} is left") });
        }
        let (queries, relevance) = merged
            .into_iter()
            .map(|(text, labels)| {
                let labels = labels.into_iter().map(|(target, grade)| Judgement { target, grade }).collect();
                (text, labels)
            })
            .unzip();
        Ok(Self { identity, queries, targets, relevance, unjudged, merged_queries, folded_targets })
    }

    /// Number of query-target pairs that are relevant.
    pub fn judgements(&self) -> usize {
        self.relevance.iter().map(Vec::len).sum()
    }

    /// Identifies queries, targets and relevance, order included.
    pub fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        text(&self.identity.key());
        self.targets.iter().for_each(|target| text(target));
        self.queries.iter().for_each(|query| text(query));
        for labels in &self.relevance {
            hasher.update(&(labels.len() as u64).to_le_bytes());
            for label in labels {
                hasher.update(&label.target.to_le_bytes());
                hasher.update(&label.grade.to_le_bytes());
            }
        }
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// The first `count` queries of a seeded permutation, in their own order: a smaller set for a quick look.
    /// Its name says so.
    #[must_use]
    pub fn sample(mut self, count: usize, seed: u64) -> Self {
        if count >= self.queries.len() {
            return self;
        }
        let mut chosen = crate::statistics::permutation(self.queries.len(), seed);
        chosen.truncate(count);
        chosen.sort_unstable();
        self.queries = chosen.iter().map(|index| self.queries[*index].clone()).collect();
        self.relevance = chosen.iter().map(|index| self.relevance[*index].clone()).collect();
        self.identity.name = format!("{}-sample{count}", self.identity.name);
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn identity(name: &str) -> Identity {
        Identity {
            name: name.into(),
            task: Task::Other,
            split: Split::Test,
            language: "en".into(),
            in_average: false,
        }
    }

    fn raw(targets: &[&str], queries: &[(&str, &[usize])]) -> RawSet {
        RawSet {
            targets: targets.iter().map(|text| text.to_string()).collect(),
            queries: queries
                .iter()
                .map(|(text, labels)| (text.to_string(), labels.iter().map(|l| (*l, 1.0)).collect()))
                .collect(),
        }
    }

    #[test]
    fn texts_are_trimmed_merged_and_remapped() {
        let set = RankingSet::prepare(
            identity("x"),
            raw(&[" b", "a", "b"], &[("q ", &[2, 1]), ("none", &[]), ("q", &[0]), ("r", &[1, 1])]),
        )
        .unwrap();
        assert_eq!(set.targets, ["b", "a"]);
        assert_eq!(set.queries, ["q", "r"]);
        let labels: Vec<Vec<u32>> =
            set.relevance.iter().map(|l| l.iter().map(|j| j.target).collect()).collect();
        assert_eq!(labels, [vec![0, 1], vec![1]]);
        assert_eq!((set.unjudged, set.merged_queries, set.folded_targets), (1, 1, 1));
    }

    #[test]
    fn grade_0_is_not_relevant_and_the_highest_grade_counts() {
        let labels = |grades: &[(usize, f32)]| grades.to_vec();
        let queries =
            vec![("q".into(), labels(&[(0, 0.0), (1, 1.0)])), ("q".into(), labels(&[(0, 2.0), (1, 0.5)]))];
        let targets = ["a", "b"].map(String::from).to_vec();
        let set = RankingSet::prepare(identity("x"), RawSet { targets: targets.clone(), queries }).unwrap();
        let grades: Vec<f32> = set.relevance[0].iter().map(|judgement| judgement.grade).collect();
        assert_eq!(grades, [2.0, 1.0]);
        let nothing = RawSet { targets, queries: vec![("q".into(), labels(&[(0, 0.0)]))] };
        assert!(RankingSet::prepare(identity("x"), nothing).is_err());
    }

    #[test]
    fn nothing_left_is_an_error_that_names_the_set() {
        let error = RankingSet::prepare(identity("empty"), raw(&["a"], &[("q", &[])])).unwrap_err();
        assert!(error.to_string().contains("empty.test.en"), "{error}");
        let error = RankingSet::prepare(identity("wrong"), raw(&["a"], &[("q", &[7])])).unwrap_err();
        assert!(error.to_string().contains("names target 7"), "{error}");
    }

    #[test]
    fn a_sample_keeps_the_order_and_says_what_it_is() {
        let queries: Vec<String> = (0..50).map(|i| format!("q{i}")).collect();
        let queries: Vec<(&str, &[usize])> = queries.iter().map(|q| (&q[..], &[0usize][..])).collect();
        let set = RankingSet::prepare(identity("x"), raw(&["a"], &queries)).unwrap();
        let sample = set.clone().sample(10, 1);
        assert_eq!(sample.queries.len(), 10);
        assert_eq!(sample.identity.name, "x-sample10");
        assert_eq!(sample.queries, set.clone().sample(10, 1).queries);
        assert_ne!(sample.queries, set.sample(10, 2).queries);
    }
}
