//! The loss of a step and its gradient: encoder, scores, InfoNCE, and all the way back.

use crate::error::Result;
use crate::interaction::{Counted, Queries, ScorerPasses, Targets};
use crate::loss::{Links, Margin, Variant, info_nce, margin_mse, threshold_margin, transpose};
use crate::network::{Batch, Network};
use crate::recipe::Reverse;
use uwe::{Pooling, Scoring};

/// One graph's part of a step, in places of the batch's texts.
#[derive(Clone, Debug, Default)]
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
    /// Thresholds for all queries.
    pub margin: Option<Margin>,
    /// What a teacher says of the pairs.
    pub teacher: Option<Lesson>,
}

/// A teacher's scores of a graph's part.
#[derive(Clone, Debug, Default)]
pub struct Lesson {
    /// How much the distance to them counts beside InfoNCE.
    pub weight: f32,
    /// The tables of [`Objective::tables`].
    pub tables: Vec<Vec<f32>>,
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
    ///
    /// # Errors
    /// [`crate::Error::Device`] when a device fails.
    pub fn step(
        &self,
        network: &Network,
        parameters: &[f32],
        batch: &Batch,
        graphs: &[GraphTask],
    ) -> Result<Step> {
        let forward = network.forward(parameters, batch, self.keep_activations)?;
        let mut to_states = vec![0.0; forward.states.len()];
        let mut losses = Vec::with_capacity(graphs.len());
        for graph in graphs {
            losses.push(self.graph(network, (batch, &forward.states), graph, &mut to_states)?);
        }
        let loss = graphs.iter().zip(&losses).map(|(graph, loss)| f64::from(graph.weight) * loss).sum();
        let gradient = network.backward(parameters, batch, forward, &to_states)?;
        Ok(Step { loss, graphs: losses, gradient })
    }

    /// Pooled vectors of a batch's texts, of length 1.
    pub(crate) fn pooled(&self, network: &Network, parameters: &[f32], batch: &Batch) -> Result<Vec<f32>> {
        let states = network.forward(parameters, batch, false)?.states;
        let texts: Vec<usize> = (0..batch.texts()).collect();
        let counted = Counted::Pooled(self.pooling);
        Ok(Queries::new(batch, &states, network.hidden(), &texts, counted).unit_vectors())
    }

    /// A graph's score tables, in the order in which the loss uses them: skills as queries; and where the reverse direction has a
    /// score of its own, items as queries. Row-major.
    ///
    /// # Errors
    /// [`crate::Error::Device`] when a device fails.
    pub fn tables(
        &self,
        network: &Network,
        (batch, states): (&Batch, &[f32]),
        graph: &GraphTask,
    ) -> Result<Vec<Vec<f32>>> {
        let passes = ScorerPasses::new(&self.scoring.scorer);
        let sides = |side: &Side<'_>| self.sides(&passes, (batch, states, network.hidden()), side);
        let table = |side: Side<'_>| {
            let (query, target) = sides(&side);
            network.scores(&passes.passes, &query, &target)
        };
        self.directions(graph, &Links::default()).into_iter().map(table).collect()
    }

    /// What is scored with what: one pass with the skills as queries; where the reverse direction has its own score, one with the
    /// items.
    fn directions<'a>(&self, graph: &'a GraphTask, links: &'a Links) -> Vec<Side<'a>> {
        let forward =
            Side { queries: &graph.skills, targets: &graph.items, of_rows: &links.columns, of_columns: None };
        match (self.variant, self.reverse) {
            (Variant::Plain, _) => vec![forward],
            (_, Reverse::Same) => vec![Side { of_columns: Some(&links.rows), ..forward }],
            (_, Reverse::Own) => {
                let back = Side {
                    queries: &graph.items,
                    targets: &graph.skills,
                    of_rows: &links.rows,
                    of_columns: None,
                };
                vec![forward, back]
            }
        }
    }

    fn sides(
        &self,
        passes: &ScorerPasses,
        (batch, states, width): (&Batch, &[f32], usize),
        side: &Side<'_>,
    ) -> (Queries, Targets) {
        let counted = |pools: bool| Counted::of(&self.scoring, pools, self.pooling, self.special_tokens);
        let query = Queries::new(batch, states, width, side.queries, counted(passes.pools_query));
        let target = Targets::new(batch, states, width, side.targets, counted(passes.pools_target));
        (query, target)
    }

    /// A graph's loss; adds the weighted gradient of the token states.
    fn graph(
        &self,
        network: &Network,
        (batch, states): (&Batch, &[f32]),
        graph: &GraphTask,
        to_states: &mut [f32],
    ) -> Result<f64> {
        let passes = ScorerPasses::new(&self.scoring.scorer);
        let links = graph.links.clone().counted(self.variant);
        let mut loss = 0.0;
        for (place, side) in self.directions(graph, &links).into_iter().enumerate() {
            let (query, target) = self.sides(&passes, (batch, states, network.hidden()), &side);
            let found = network.scores(&passes.passes, &query, &target)?;
            let teacher = graph.teacher.as_ref().and_then(|lesson| lesson.tables.get(place));
            let mut slopes = vec![0.0; found.len()];
            loss += graph.direction(&found, teacher.map(Vec::as_slice), side.of_rows, &mut slopes);
            if let Some(links) = side.of_columns {
                let columns = transpose(&found, target.len());
                let teacher = teacher.map(|teacher| transpose(teacher, target.len()));
                let mut column_slopes = vec![0.0; found.len()];
                loss += graph.direction(&columns, teacher.as_deref(), links, &mut column_slopes);
                crate::matrix::add(&mut slopes, &transpose(&column_slopes, query.len()));
            }
            let (to_query, to_target) = network.scores_back(&passes.passes, &query, &target, &slopes)?;
            query.scatter(batch, &to_query, to_states);
            target.scatter(batch, &to_target, to_states);
        }
        Ok(loss)
    }
}

/// One table of scores, and the links of its rows and, where they count too, of its columns.
struct Side<'a> {
    queries: &'a [usize],
    targets: &'a [usize],
    of_rows: &'a [Vec<u32>],
    of_columns: Option<&'a [Vec<u32>]>,
}

impl GraphTask {
    /// The loss of one direction; adds the weighted gradient of the scores.
    fn direction(
        &self,
        scores: &[f32],
        teacher: Option<&[f32]>,
        links: &[Vec<u32>],
        slopes: &mut [f32],
    ) -> f64 {
        let mut loss = info_nce(scores, links, self.temperature, self.weight, slopes);
        if let Some(margin) = &self.margin {
            let factor = self.weight * margin.weight;
            loss += f64::from(margin.weight) * threshold_margin(scores, links, margin, factor, slopes);
        }
        if let (Some(lesson), Some(teacher)) = (&self.teacher, teacher) {
            let factor = self.weight * lesson.weight;
            loss += f64::from(lesson.weight) * margin_mse(scores, teacher, links, factor, slopes);
        }
        loss
    }
}
