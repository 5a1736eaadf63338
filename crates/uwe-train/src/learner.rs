//! An encoder with its weights, tokenizer and way to score: the one that is trained, or its teacher.

use crate::error::Result;
use crate::machine::Machine;
use crate::negatives::neighbours;
use crate::network::{Batch, Network};
use crate::objective::{GraphTask, Objective};
use crate::parameters::Parameters;
use crate::recipe::{Negatives, Recipe};
use crate::sampler::{Neighbours, Sampler};
use std::path::Path;
use uwe::{ModelFolder, Scoring, Tokenizer};

/// Texts that are encoded at once where nothing is learned.
const CHUNK: usize = 512;

pub(crate) struct Learner {
    pub(crate) network: Network,
    pub(crate) parameters: Parameters,
    pub(crate) objective: Objective,
    tokenizer: Tokenizer,
}

impl Learner {
    /// Opens a model folder; what the recipe says of loss and texts holds, but for the scorer.
    pub(crate) fn open(folder: &Path, recipe: &Recipe, scoring: Scoring, machine: Machine) -> Result<Self> {
        let model = ModelFolder::open(folder)?;
        let parameters = Parameters::read(&model.weights, &Network::order(&model.config))?;
        let network = Network::new(&model.config, &parameters, machine.threads)?;
        #[cfg(feature = "device")]
        let network = network.on(machine.device);
        let tokenizer = Tokenizer::open(&model.tokenizer, recipe.max_tokens)?;
        let objective = Objective {
            scoring,
            variant: recipe.variant,
            reverse: recipe.reverse,
            pooling: model.pooling,
            special_tokens: tokenizer.special_tokens(),
            keep_activations: recipe.keep_activations,
        };
        Ok(Self { network, parameters, objective, tokenizer })
    }

    /// Identifies the weights.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        self.parameters.values.iter().for_each(|value| {
            hasher.update(&value.to_le_bytes());
        });
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// Texts as token ids.
    pub(crate) fn batch<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Batch> {
        let ids = texts.into_iter().map(|text| Ok(self.tokenizer.tokenize(text)?.ids));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        Ok(Batch::new(ids.iter().map(Vec::as_slice)))
    }

    /// The score tables of every graph of a step.
    pub(crate) fn tables(&self, texts: &[String], graphs: &[GraphTask]) -> Result<Vec<Vec<Vec<f32>>>> {
        let batch = self.batch(texts.iter().map(String::as_str))?;
        let states = self.network.forward(&self.parameters.values, &batch, false)?.states;
        let tables = |graph| self.objective.tables(&self.network, (&batch, &states), graph);
        graphs.iter().map(tables).collect()
    }

    /// In each graph, the nearest others of each skill.
    pub(crate) fn neighbours(&self, sampler: &Sampler, options: &Negatives) -> Result<Neighbours> {
        let texts: Vec<&str> = sampler.skills().collect();
        let width = self.network.hidden();
        let mut vectors = Vec::with_capacity(texts.len() * width);
        for texts in texts.chunks(CHUNK) {
            let batch = self.batch(texts.iter().copied())?;
            vectors.extend(self.objective.pooled(&self.network, &self.parameters.values, &batch)?);
        }
        let most = (options.neighbours, options.most_similar);
        let of_graph = |(graph, known): (&str, Vec<u32>)| {
            let rows = known.iter().map(|place| *place as usize * width);
            let own: Vec<f32> =
                rows.flat_map(|start| vectors[start..start + width].iter().copied()).collect();
            let mut all = vec![Vec::new(); texts.len()];
            for (place, found) in known.iter().zip(neighbours(&own, width, most, self.network.threads())) {
                all[*place as usize] = found.into_iter().map(|other| known[other as usize]).collect();
            }
            (graph.to_string(), all)
        };
        Ok(sampler.known().map(of_graph).collect())
    }
}
