//! What is measured: an encoder with a scorer, a lexical baseline, or scores that were made elsewhere.

mod given;
mod kept;

use crate::error::{Error, Result};
use crate::lexical::{Index, Lexical};
use crate::set::RankingSet;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::PathBuf;
use uwe::{BuildOptions, Encoded, Encoder, Ranker, Scoring, Space, Targets};

pub use given::GivenScores;

/// What a system is: results of systems that differ in any of this are never mixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Name for people.
    pub name: String,
    /// `encoder`, `lexical` or `given`.
    pub kind: String,
    /// Identifies weights and tokenizer, or the files of given scores; empty for lexical baselines.
    pub fingerprint: String,
    /// Everything else that a score depends on.
    pub options: serde_json::Value,
}

/// Called between batches with (done, all); returns whether to go on.
pub type Watch<'a> = dyn FnMut(usize, usize) -> bool + 'a;

/// A system that can be measured.
pub trait System {
    /// What it is.
    fn description(&self) -> Description;

    /// Makes the targets of a set ready. `watch` follows along.
    ///
    /// # Errors
    /// Whatever encoding or reading gives; [`Error::Interrupted`] when `watch` says so.
    fn open<'a>(&'a self, set: &'a RankingSet, watch: &mut Watch<'_>) -> Result<Box<dyn Scores + 'a>>;
}

/// A system with the targets of a set at hand.
pub trait Scores {
    /// Scores of all targets for some neighbouring queries. Called with ascending ranges that leave none out.
    ///
    /// # Errors
    /// Whatever encoding or reading gives.
    fn rows(&mut self, queries: Range<usize>) -> Result<Vec<Vec<f32>>>;

    /// How many texts were cut at the encoder's token limit so far: queries, targets.
    fn truncated(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// Which side of a set is the scorer's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The set's queries.
    #[default]
    Forward,
    /// The set's targets: `score(target, query)` instead of `score(query, target)`. Scorers that treat their two
    /// sides differently give other rankings.
    Reverse,
}

/// An encoder with a scorer.
#[derive(Debug)]
pub struct EncoderSystem<'a> {
    /// The encoder.
    pub encoder: &'a Encoder,
    /// How two texts become one score.
    pub scoring: Scoring,
    /// Which side is the scorer's query.
    pub direction: Direction,
    /// Folder in which target spaces are kept; the same targets are encoded once for all scorers.
    pub spaces: PathBuf,
    /// Folder in which encoded queries are kept, 4 bytes a number: other scorers of this encoder need not encode them
    /// again. `None`: they are not kept.
    pub queries: Option<PathBuf>,
}

impl System for EncoderSystem<'_> {
    fn description(&self) -> Description {
        let info = self.encoder.info();
        Description {
            name: encoder_name(self.encoder),
            kind: "encoder".into(),
            fingerprint: format!("{}+{}", info.fingerprint, self.encoder.tokenizer().fingerprint()),
            options: serde_json::json!({
                "scoring": self.scoring,
                "direction": self.direction,
                "precision": self.encoder.options().precision.to_string(),
                "max_tokens": self.encoder.tokenizer().max_tokens(),
                "target_states": "f16",
            }),
        }
    }

    fn open<'a>(&'a self, set: &'a RankingSet, watch: &mut Watch<'_>) -> Result<Box<dyn Scores + 'a>> {
        match self.direction {
            Direction::Forward => {
                let targets = list(set, &set.targets)?;
                let options = BuildOptions::default();
                let fingerprint = Space::fingerprint(self.encoder, &targets, options);
                let file = self.spaces.join(format!("{fingerprint}.space"));
                let space = match Space::open(&file) {
                    Ok(space) if space.meta().fingerprint == fingerprint => space,
                    _ => {
                        std::fs::create_dir_all(&self.spaces).map_err(Error::io("create", &self.spaces))?;
                        let mut report = |progress: uwe::Progress| watch(progress.done, progress.total);
                        Space::build(self.encoder, &targets, options, &file, &mut report)?
                    }
                };
                Ok(Box::new(Forward { system: self, set, space, cut: 0 }))
            }
            Direction::Reverse => {
                let targets = self.encoder.encode(&set.targets)?;
                Ok(Box::new(Reverse { system: self, set, targets, cut: 0 }))
            }
        }
    }
}

/// A list of unique texts in the form of a space's targets.
fn list(set: &RankingSet, texts: &[String]) -> Result<Targets> {
    let mut targets = Targets::new("benchmark targets", &[]);
    for text in texts {
        if !targets.push(text, Vec::new()) {
            return Err(Error::Set {
                set: set.identity.key(),
                problem: format!("`{text}` is empty or stands there twice"),
            });
        }
    }
    Ok(targets)
}

struct Forward<'a> {
    system: &'a EncoderSystem<'a>,
    set: &'a RankingSet,
    space: Space,
    cut: usize,
}

impl Scores for Forward<'_> {
    fn rows(&mut self, queries: Range<usize>) -> Result<Vec<Vec<f32>>> {
        let kept =
            kept::encode(self.system.encoder, &self.set.queries[queries], self.system.queries.as_deref())?;
        self.cut += kept.truncated;
        let ranker = Ranker::new(self.system.encoder, &self.space, self.system.scoring)?;
        Ok(ranker.score_all(&kept.states)?)
    }

    fn truncated(&self) -> (usize, usize) {
        (self.cut, self.space.truncated().len())
    }
}

struct Reverse<'a> {
    system: &'a EncoderSystem<'a>,
    set: &'a RankingSet,
    targets: Encoded,
    cut: usize,
}

impl Scores for Reverse<'_> {
    fn rows(&mut self, queries: Range<usize>) -> Result<Vec<Vec<f32>>> {
        let texts = list(self.set, &self.set.queries[queries.clone()])?;
        let space = Space::in_memory(self.system.encoder, &texts, BuildOptions::default())?;
        self.cut += space.truncated().len();
        let ranker = Ranker::new(self.system.encoder, &space, self.system.scoring)?;
        let columns = ranker.score_all(&self.targets.states)?;
        let mut rows = vec![vec![0.0; columns.len()]; queries.len()];
        for (target, column) in columns.into_iter().enumerate() {
            rows.iter_mut().zip(column).for_each(|(row, score)| row[target] = score);
        }
        Ok(rows)
    }

    fn truncated(&self) -> (usize, usize) {
        (self.cut, self.targets.tokens.iter().filter(|tokens| tokens.truncated).count())
    }
}

/// A lexical baseline.
#[derive(Clone, Copy, Debug)]
pub struct LexicalSystem {
    /// Which one.
    pub lexical: Lexical,
    /// Seed of random scores.
    pub seed: u64,
}

impl System for LexicalSystem {
    fn description(&self) -> Description {
        let options = match self.lexical {
            Lexical::Random => serde_json::json!({"seed": self.seed}),
            _ => serde_json::json!({}),
        };
        Description {
            name: self.lexical.to_string(),
            kind: "lexical".into(),
            fingerprint: String::new(),
            options,
        }
    }

    fn open<'a>(&'a self, set: &'a RankingSet, _: &mut Watch<'_>) -> Result<Box<dyn Scores + 'a>> {
        Ok(Box::new(LexicalScores { index: Index::new(self.lexical, &set.targets, self.seed), set }))
    }
}

struct LexicalScores<'a> {
    index: Index,
    set: &'a RankingSet,
}

impl Scores for LexicalScores<'_> {
    fn rows(&mut self, queries: Range<usize>) -> Result<Vec<Vec<f32>>> {
        Ok(queries.into_par_iter().map(|place| self.index.scores(&self.set.queries[place], place)).collect())
    }
}

/// Name of the model folder.
fn encoder_name(encoder: &Encoder) -> String {
    let path = &encoder.info().path;
    path.file_name().map_or_else(|| "encoder".into(), |name| name.to_string_lossy().into_owned())
}
