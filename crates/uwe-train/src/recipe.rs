//! Recipes: one TOML file holds everything that a training depends on, beside the model and the graph.

use crate::error::{Error, Result};
use crate::loss::{Margin, Variant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uwe::Scoring;
use uwe_graph::Graph;

/// How a model is trained. What a recipe leaves out has the default that stands here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Name of the training.
    pub name: String,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// Skills of a step, and linked texts of each graph.
    pub batch: usize,
    /// Most tokens of a text, special tokens included.
    pub max_tokens: usize,
    /// Probability that a sentence is joined with another one.
    pub join_sentences: f64,
    /// How skills are drawn.
    pub draw: Draw,
    /// Whether activations are kept for the way back; without, they are made again: a third more time, memory of a few blocks.
    pub keep_activations: bool,
    /// What counts as positive.
    pub variant: Variant,
    /// Whose score the reverse direction uses.
    pub reverse: Reverse,
    /// How two texts become one score.
    pub scoring: Scoring,
    /// The graphs that are trained on, by name: those of the graph file, or parts of them.
    pub graphs: BTreeMap<String, GraphOptions>,
    /// Share of a source's skills that an epoch takes, where it is not 1; 0 leaves the source out.
    pub sources: BTreeMap<String, f64>,
    /// Thresholds that all queries share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<Margin>,
    /// A teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// Batches of skills that are hard to tell apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<Negatives>,
    /// The optimiser.
    pub optimizer: OptimizerOptions,
    /// Validation and checkpoints.
    pub validation: ValidationOptions,
}

/// How skills are drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Draw {
    /// Each skill once an epoch.
    #[default]
    Skills,
    /// Each skill in proportion to its edges.
    Edges,
}

/// Whose score the reverse direction of the loss uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reverse {
    /// The forward score, read column by column.
    #[default]
    Same,
    /// The score with the other side as query, as ranking in that direction will use it.
    Own,
}

/// What a graph consists of, and how much it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphOptions {
    /// Weight of its loss.
    pub weight: f32,
    /// Divides the scores.
    pub temperature: f32,
    /// Pairs of a step, where they are not as many as the recipe's batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// The graph that it is a part of; without, the one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Graph>,
    /// Its sources; without, those that no other part of the same graph names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
}

/// A teacher, whose differences between linked and other pairs are learned beside the links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Its folder.
    pub model: PathBuf,
    /// How much it counts beside InfoNCE.
    pub weight: f32,
    /// How it scores.
    pub scoring: Scoring,
}

/// Hard negatives: a drawn skill brings the skills that the model takes for nearest to it. What the graph links is a positive all
/// the same, and what is nearer than `most_similar` is taken for another name of the same skill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Negatives {
    /// Skills that a drawn skill brings.
    pub neighbours: usize,
    /// Highest cosine of pooled vectors.
    pub most_similar: f32,
    /// Steps until they are looked for again, with the weights of then; 0: never.
    #[serde(default)]
    pub refresh: u64,
}

/// AdamW with a linear warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerOptions {
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Share of the steps until it is reached.
    pub warm_up: f64,
    /// What follows.
    pub schedule: Schedule,
    /// Decay of weights; biases and normalisations have none.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Longest gradient; a longer one is scaled down.
    pub clip: f64,
    /// Lowest layers that stay as they are.
    pub frozen_layers: usize,
    /// Whether the embeddings stay as they are.
    pub frozen_embeddings: bool,
    /// Decay of a running mean of the weights, which is validated and exported in their place; 0: none.
    pub averaging: f64,
}

/// What follows the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Down to 0 in a line.
    #[default]
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
    /// The highest rate to the end.
    Constant,
}

/// When a model is validated and kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ValidationOptions {
    /// Steps between two validations.
    pub every: u64,
    /// Queries of a set; a seeded sample of larger ones.
    pub queries: usize,
    /// Validations without a better mean after which a training ends; 0: never.
    pub patience: usize,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
}

impl Default for Recipe {
    fn default() -> Self {
        let graph =
            |graph: Graph, weight, temperature| (graph.to_string(), GraphOptions::new(weight, temperature));
        Self {
            name: "uwe".into(),
            seed: 1,
            steps: 300,
            batch: 512,
            max_tokens: uwe::DEFAULT_MAX_TOKENS,
            join_sentences: 0.8,
            draw: Draw::Skills,
            keep_activations: true,
            variant: Variant::ManyToMany,
            reverse: Reverse::Same,
            scoring: Scoring::default(),
            graphs: BTreeMap::from([
                graph(Graph::Job, 1.0, 0.05),
                graph(Graph::Sentence, 0.5, 0.02),
                graph(Graph::Alternative, 0.5, 0.02),
            ]),
            sources: BTreeMap::new(),
            margin: None,
            distillation: None,
            negatives: None,
            optimizer: OptimizerOptions::default(),
            validation: ValidationOptions::default(),
        }
    }
}

/// The graphs of a graph file.
const GRAPHS: [Graph; 3] = [Graph::Job, Graph::Sentence, Graph::Alternative];

impl GraphOptions {
    /// A whole graph.
    pub fn new(weight: f32, temperature: f32) -> Self {
        Self { weight, temperature, batch: None, of: None, sources: Vec::new() }
    }
}

impl Default for OptimizerOptions {
    fn default() -> Self {
        Self {
            learning_rate: 8e-5,
            warm_up: 0.1,
            schedule: Schedule::Linear,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            clip: 1.0,
            frozen_layers: 0,
            frozen_embeddings: false,
            averaging: 0.0,
        }
    }
}

impl Default for ValidationOptions {
    fn default() -> Self {
        Self { every: 50, queries: 500, patience: 0, checkpoint_every: 25 }
    }
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field at fault; [`Error::Io`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a recipe from its text; `name` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the field at fault.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let wrong = |problem: String| Error::Recipe { what: name.into(), problem };
        let recipe: Self = toml::from_str(text).map_err(|error| wrong(format!("is no recipe: {error}")))?;
        recipe.check().map_err(|(field, problem)| wrong(format!("{field} {problem}")))?;
        Ok(recipe)
    }

    /// The graph of the file that a graph of the recipe belongs to.
    pub(crate) fn graph_of(&self, name: &str) -> Option<Graph> {
        let named = || GRAPHS.into_iter().find(|graph| graph.to_string() == name);
        self.graphs.get(name)?.of.or_else(named)
    }

    /// The graph of the recipe that an edge belongs to, where it is trained on.
    pub(crate) fn part_of(&self, graph: Graph, source: &str) -> Option<&str> {
        let parts = || self.graphs.iter().filter(|(name, _)| self.graph_of(name) == Some(graph));
        let names = |options: &GraphOptions| options.sources.iter().any(|own| own == source);
        let by_name = parts().find(|(_, options)| names(options));
        let found = by_name.or_else(|| parts().find(|(_, options)| options.sources.is_empty()));
        found.map(|(name, _)| name.as_str())
    }

    fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        let is = |sound: bool, field: &'static str, what: &str| {
            if sound { Ok(()) } else { Err((field, what.to_string())) }
        };
        is(self.batch >= 2, "batch", "must be at least 2")?;
        is(self.steps >= 1, "steps", "must be at least 1")?;
        is((0.0..=1.0).contains(&self.join_sentences), "join_sentences", "is no probability")?;
        is(!self.graphs.is_empty(), "graphs", "names no graph")?;
        for (name, options) in &self.graphs {
            let known = options.of.is_some() || GRAPHS.iter().any(|graph| graph.to_string() == *name);
            is(
                known,
                "graphs",
                &format!("has `{name}`, which is no graph; say which one it is a part `of`"),
            )?;
            is(options.batch.is_none_or(|batch| batch >= 2), "graphs", "has a batch below 2")?;
            is(options.temperature > 0.0, "graphs", "has a temperature that is not positive")?;
            is(options.weight >= 0.0, "graphs", "has a negative weight")?;
        }
        is(
            self.sources.values().all(|share| (0.0..=1.0).contains(share)),
            "sources",
            "has a share beyond 0 to 1",
        )?;
        let optimizer = &self.optimizer;
        is(optimizer.learning_rate > 0.0, "learning_rate", "must be positive")?;
        is((0.0..=1.0).contains(&optimizer.warm_up), "warm_up", "is no share")?;
        is(optimizer.clip > 0.0, "clip", "must be positive")?;
        is((0.0..1.0).contains(&optimizer.averaging), "averaging", "is no decay from 0 to below 1")?;
        if let Some(margin) = &self.margin {
            is(
                margin.positive > margin.negative,
                "margin",
                "has a positive threshold below the negative one",
            )?;
            is(margin.weight >= 0.0, "margin", "has a negative weight")?;
        }
        if let Some(distillation) = &self.distillation {
            is(distillation.weight >= 0.0, "distillation", "has a negative weight")?;
            distillation.scoring.check().map_err(|error| ("distillation", error.to_string()))?;
        }
        if let Some(negatives) = &self.negatives {
            is(negatives.neighbours >= 1, "negatives.neighbours", "must be at least 1")?;
        }
        is(self.validation.every > 0, "validation.every", "must be at least 1")?;
        is(self.validation.checkpoint_every > 0, "validation.checkpoint_every", "must be at least 1")?;
        self.scoring.check().map_err(|error| ("scoring", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_belongs_to_the_part_that_names_its_source() {
        let text = "[graphs.alternative]\nweight = 1.0\ntemperature = 0.1\n[graphs.occupation]\nof = \"alternative\"\n\
                    sources = [\"titles\"]\nweight = 1.0\ntemperature = 0.1\nbatch = 32\n";
        let recipe = Recipe::parse(text, "r.toml").unwrap();
        assert_eq!(recipe.part_of(Graph::Alternative, "titles"), Some("occupation"));
        assert_eq!(recipe.part_of(Graph::Alternative, "labels"), Some("alternative"));
        assert_eq!(recipe.part_of(Graph::Job, "titles"), None);
        assert_eq!(recipe.graph_of("occupation"), Some(Graph::Alternative));
    }

    #[test]
    fn recipes_are_read_and_what_is_wrong_is_named() {
        let recipe = Recipe::parse("steps = 7\n[optimizer]\nlearning_rate = 1e-4\n", "r.toml").unwrap();
        assert_eq!((recipe.steps, recipe.batch, recipe.optimizer.learning_rate), (7, 512, 1e-4));
        assert_eq!(recipe.graphs["job"].temperature, 0.05);
        let written = toml::to_string(&recipe).unwrap();
        assert_eq!(Recipe::parse(&written, "r.toml").unwrap(), recipe);
        for (text, problem) in [
            ("step = 7\n", "unknown field `step`"),
            ("batch = 1\n", "batch must be at least 2"),
            ("[graphs.job]\nweight = 1.0\ntemperature = 0.0\n", "temperature that is not positive"),
            ("[graphs.jobs]\nweight = 1.0\ntemperature = 0.1\n", "`jobs`, which is no graph"),
            ("join_sentences = 2.0\n", "join_sentences is no probability"),
            (
                "[margin]\nweight = 1.0\npositive = 0.2\nnegative = 0.4\n",
                "margin has a positive threshold below",
            ),
            ("[optimizer]\naveraging = 1.0\n", "averaging is no decay"),
            ("[negatives]\nneighbours = 0\nmost_similar = 0.9\n", "negatives.neighbours must be at least 1"),
        ] {
            let error = Recipe::parse(text, "r.toml").unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
