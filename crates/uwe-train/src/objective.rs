//! The loss of a step and its gradient: encoder, scores, InfoNCE, and all the way back.

use crate::interaction::{Counted, Pass, Queries, Targets, scores, scores_back};
use crate::loss::{Links, Variant, info_nce, transpose};
use crate::network::{Batch, Network};
use crate::recipe::Reverse;
use uwe::{Pooling, Scoring};

/// One graph's part of a step, in places of the batch's texts.
#[derive(Clone, Debug)]
pub struct GraphTask {
    /// Texts of the skills.
    pub skills: Vec<usize>,
    /// Texts of the linked items.
    pub items: Vec<usize>,
    /// Links between the two.
    pub links: Links,
    /// Weight of its loss.
    pub weight: f32,
    /// Divides the scores.
    pub temperature: f32,
}

/// How a loss is made.
#[derive(Clone, Debug)]
pub struct Objective {
    /// How two texts become one score.
    pub scoring: Scoring,
    /// What counts as positive.
    pub variant: Variant,
    /// Whose score the reverse direction uses.
    pub reverse: Reverse,
    /// The model's pooling, for pooled scorers.
    pub pooling: Pooling,
    /// Special tokens before and after a text's own.
    pub special_tokens: (usize, usize),
    /// Whether activations are kept for the way back; else they are made again (gradient caching).
    pub keep_activations: bool,
}

/// A step's loss with its gradient.
#[derive(Clone, Debug)]
pub struct Step {
    /// Weighted sum of the graphs' losses.
    pub loss: f64,
    /// Each graph's own loss.
    pub graphs: Vec<f64>,
    /// Gradient of all parameters.
    pub gradient: Vec<f32>,
}

impl Objective {
    /// Loss and gradient of a batch.
    pub fn step(&self, network: &Network, parameters: &[f32], batch: &Batch, graphs: &[GraphTask]) -> Step {
        let forward = network.forward(parameters, batch, self.keep_activations);
        let mut to_states = vec![0.0; forward.states.len()];
        let losses: Vec<f64> = graphs
            .iter()
            .map(|graph| self.graph(network, (batch, &forward.states), graph, &mut to_states))
            .collect();
        let loss = graphs.iter().zip(&losses).map(|(graph, loss)| f64::from(graph.weight) * loss).sum();
        let gradient = network.backward(parameters, batch, forward, &to_states);
        Step { loss, graphs: losses, gradient }
    }

    /// A graph's loss; adds the weighted gradient of the token states.
    fn graph(
        &self,
        network: &Network,
        (batch, states): (&Batch, &[f32]),
        graph: &GraphTask,
        to_states: &mut [f32],
    ) -> f64 {
        let pass = Pass::new(&self.scoring.scorer);
        let links = graph.links.clone().counted(self.variant);
        let counted = |pools: bool| Counted::of(&self.scoring, pools, self.pooling, self.special_tokens);
        let width = network.hidden();
        let mut loss = 0.0;
        // One pass with the skills as queries; where the reverse direction has its own score, one with the items.
        let passes = match (self.variant, self.reverse) {
            (Variant::Plain, _) => vec![(&graph.skills, &graph.items, Some(&links.columns), None)],
            (_, Reverse::Same) => {
                vec![(&graph.skills, &graph.items, Some(&links.columns), Some(&links.rows))]
            }
            (_, Reverse::Own) => vec![
                (&graph.skills, &graph.items, Some(&links.columns), None),
                (&graph.items, &graph.skills, Some(&links.rows), None),
            ],
        };
        for (queries, targets, of_rows, of_columns) in passes {
            let query = Queries::new(batch, states, width, queries, counted(pass.pools_query));
            let target = Targets::new(batch, states, width, targets, counted(pass.pools_target));
            let found = scores(&pass, &query, &target, network.threads());
            let mut slopes = vec![0.0; found.len()];
            if let Some(links) = of_rows {
                loss += info_nce(&found, links, graph.temperature, graph.weight, &mut slopes);
            }
            if let Some(links) = of_columns {
                let columns = transpose(&found, target.len());
                let mut column_slopes = vec![0.0; found.len()];
                loss += info_nce(&columns, links, graph.temperature, graph.weight, &mut column_slopes);
                crate::matrix::add(&mut slopes, &transpose(&column_slopes, query.len()));
            }
            let (to_query, to_target) = scores_back(&pass, &query, &target, &slopes, network.threads());
            query.scatter(batch, &to_query, to_states);
            target.scatter(batch, &to_target, to_states);
        }
        loss
    }
}
