//! AdamW over the flat parameters, with a warm-up and a schedule.

use crate::parameters::Parameters;
use crate::recipe::{OptimizerOptions, Schedule};
use crate::threads::Threads;

/// Entries of a job.
const CHUNK: usize = 1 << 16;

/// The optimiser with its moments.
#[derive(Clone, Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    steps: u64,
    /// For each parameter: 1 where weights decay, 0 where they do not, -1 where nothing changes.
    kinds: Vec<i8>,
    /// Mean of the gradients.
    pub(crate) first: Vec<f32>,
    /// Mean of the squared gradients.
    pub(crate) second: Vec<f32>,
}

impl Optimizer {
    /// A fresh optimiser for a training of so many steps.
    pub fn new(options: &OptimizerOptions, steps: u64, parameters: &Parameters) -> Self {
        let count = parameters.values.len();
        let mut kinds = vec![1; count];
        for place in &parameters.places {
            let frozen_layer = (0..options.frozen_layers)
                .any(|layer| place.name.starts_with(&format!("encoder.layer.{layer}.")));
            let embeddings = place.name.starts_with("embeddings.") && options.frozen_embeddings;
            let kind = match () {
                () if frozen_layer || embeddings => -1,
                () if place.name.ends_with(".bias") || place.name.contains("LayerNorm") => 0,
                () => 1,
            };
            kinds[place.range.clone()].fill(kind);
        }
        Self { options: options.clone(), steps, kinds, first: vec![0.0; count], second: vec![0.0; count] }
    }

    /// Learning rate of a step, from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let warm_up = (self.steps as f64 * self.options.warm_up).ceil();
        let place = step as f64 + 1.0;
        let share = if place <= warm_up {
            place / warm_up
        } else {
            let left = (self.steps as f64 - step as f64) / (self.steps as f64 - warm_up).max(1.0);
            match self.options.schedule {
                Schedule::Constant => 1.0,
                Schedule::Linear => left.clamp(0.0, 1.0),
                Schedule::Cosine => 0.5 - 0.5 * (std::f64::consts::PI * left.clamp(0.0, 1.0)).cos(),
            }
        };
        self.options.learning_rate * share
    }

    /// Length of a gradient over all parameters that change.
    pub fn norm(&self, gradient: &[f32]) -> f64 {
        let parts = gradient.chunks(CHUNK).zip(self.kinds.chunks(CHUNK)).map(|(gradient, kinds)| {
            let squares = gradient.iter().zip(kinds).filter(|(_, kind)| **kind >= 0);
            squares.map(|(value, _)| f64::from(*value) * f64::from(*value)).sum::<f64>()
        });
        parts.sum::<f64>().sqrt()
    }

    /// Moves the parameters by the gradient, which comes with its length.
    pub fn apply(
        &mut self,
        step: u64,
        parameters: &mut [f32],
        (gradient, norm): (&[f32], f64),
        threads: &Threads,
    ) {
        let options = &self.options;
        let rate = self.learning_rate(step);
        let count = step as i32 + 1;
        let scale = (if norm > options.clip { options.clip / norm } else { 1.0 }) as f32;
        let (beta1, beta2) = (options.beta1 as f32, options.beta2 as f32);
        let first_rate = (rate / (1.0 - options.beta1.powi(count))) as f32;
        let second_rate = (1.0 / (1.0 - options.beta2.powi(count))) as f32;
        let (epsilon, decay) = (options.epsilon as f32, (rate * options.weight_decay) as f32);
        let values = parameters.chunks_mut(CHUNK).zip(gradient.chunks(CHUNK)).zip(self.kinds.chunks(CHUNK));
        let moments = self.first.chunks_mut(CHUNK).zip(self.second.chunks_mut(CHUNK));
        threads.map(values.zip(moments).collect(), |(((values, gradient), kinds), (first, second))| {
            for place in 0..values.len() {
                if kinds[place] < 0 {
                    continue;
                }
                let slope = gradient[place] * scale;
                first[place] = beta1 * first[place] + (1.0 - beta1) * slope;
                second[place] = beta2 * second[place] + (1.0 - beta2) * slope * slope;
                if kinds[place] == 1 {
                    values[place] -= decay * values[place];
                }
                values[place] -= first_rate * first[place] / ((second[place] * second_rate).sqrt() + epsilon);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Place;

    fn parameters() -> Parameters {
        let place =
            |name: &str, range: std::ops::Range<usize>| Place { name: name.into(), shape: vec![2], range };
        Parameters {
            values: vec![1.0, -1.0, 1.0, -1.0, 1.0, -1.0],
            places: vec![
                place("embeddings.word_embeddings.weight", 0..2),
                place("encoder.layer.0.x.weight", 2..4),
                place("encoder.layer.1.x.bias", 4..6),
            ],
        }
    }

    #[test]
    fn the_first_step_is_the_learning_rate_and_decay_spares_biases() {
        let options = OptimizerOptions { learning_rate: 0.1, warm_up: 0.0, ..OptimizerOptions::default() };
        let options = OptimizerOptions { schedule: Schedule::Constant, weight_decay: 0.5, ..options };
        let mut parameters = parameters();
        let mut optimizer = Optimizer::new(&options, 10, &parameters);
        let gradient = [3.0, -3.0, 3.0, -3.0, 3.0, -3.0];
        let norm = optimizer.norm(&gradient);
        assert!((norm - 54.0f64.sqrt()).abs() < 1e-9);
        optimizer.apply(0, &mut parameters.values, (&gradient, norm), &Threads::new(1).unwrap());
        // Adam's first step has the length of the learning rate, whatever the gradient's.
        let expected = [0.85, -0.85, 0.85, -0.85, 0.9, -0.9];
        for (found, expected) in parameters.values.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn frozen_parts_stay() {
        let options =
            OptimizerOptions { frozen_layers: 1, frozen_embeddings: true, ..OptimizerOptions::default() };
        let mut parameters = parameters();
        let mut optimizer = Optimizer::new(&options, 10, &parameters);
        optimizer.apply(0, &mut parameters.values, (&[1.0; 6], 1.0), &Threads::new(1).unwrap());
        assert_eq!(parameters.values[..4], [1.0, -1.0, 1.0, -1.0]);
        assert!(parameters.values[4] < 1.0);
    }

    #[test]
    fn schedules_rise_and_fall() {
        let rate = |schedule, step| {
            let options = OptimizerOptions { schedule, learning_rate: 1.0, ..OptimizerOptions::default() };
            Optimizer::new(&options, 100, &parameters()).learning_rate(step)
        };
        assert!(
            (rate(Schedule::Linear, 0) - 0.1).abs() < 1e-9 && (rate(Schedule::Linear, 9) - 1.0).abs() < 1e-9
        );
        assert!((rate(Schedule::Linear, 55) - 0.5).abs() < 1e-9);
        assert!((rate(Schedule::Cosine, 55) - 0.5).abs() < 1e-9 && rate(Schedule::Cosine, 99) < 0.001);
        assert_eq!(rate(Schedule::Constant, 99), 1.0);
    }
}
