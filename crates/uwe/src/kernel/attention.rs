//! Multi-head self-attention over a ragged batch: each sequence sees itself alone, whatever its neighbours.

use super::lanes::{InstructionSet, LANES, Lanes, Operation};
use super::math;

/// Shape of the attention of one layer, and the bias by distance where the architecture has one.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Number of heads.
    pub(crate) heads: usize,
    /// Width of a head, a multiple of sixteen.
    pub(crate) head_width: usize,
    /// MPNet: added to the scores, `[head][distance + limit]`, distance = key position - query position.
    pub(crate) bias: Option<DistanceBias>,
}

/// A bias for each head and each distance between two positions.
#[derive(Debug, Clone)]
pub(crate) struct DistanceBias {
    /// Largest distance in the table; sequences are at most one longer.
    pub(crate) limit: usize,
    /// `[head][2 * limit + 1]`, followed by sixteen zeros so that a vector can be read anywhere.
    pub(crate) table: Vec<f32>,
}

/// Room for one sequence, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    keys: Vec<f32>,
    weights: Vec<f32>,
}

impl Attention {
    /// Attends within each sequence.
    ///
    /// `projected` is `tokens x 3 width` (queries, keys, values side by side), `offsets` the boundaries of
    /// the sequences in tokens, `output` becomes `tokens x width`.
    pub(crate) fn apply(
        &self,
        set: InstructionSet,
        projected: &[f32],
        offsets: &[usize],
        buffers: (&mut Vec<f32>, &mut Scratch),
    ) {
        let width = self.heads * self.head_width;
        let (output, scratch) = buffers;
        output.resize(projected.len() / 3, 0.0);
        for bounds in offsets.windows(2) {
            let (start, end) = (bounds[0], bounds[1]);
            if let Some(bias) = &self.bias {
                assert!(end - start <= bias.limit + 1, "lengths are bounded when texts are tokenised");
            }
            set.run(Attend {
                attention: self,
                projected: &projected[start * 3 * width..end * 3 * width],
                output: &mut output[start * width..end * width],
                scratch,
            });
        }
    }
}

struct Attend<'a> {
    attention: &'a Attention,
    projected: &'a [f32],
    output: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Operation for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let Attention { heads, head_width, ref bias } = *self.attention;
        let width = heads * head_width;
        let length = self.output.len() / width;
        // Keys are laid out with positions as lanes, padded to whole vectors; the padding gets weight 0.
        let padded = length.next_multiple_of(LANES);
        self.scratch.keys.clear();
        self.scratch.keys.resize(head_width * padded, 0.0);
        self.scratch.weights.resize(padded, 0.0);
        let scale = L::splat(1.0 / (head_width as f32).sqrt());
        let mut padding = [f32::NEG_INFINITY; LANES];
        padding[..LANES - (padded - length)].fill(0.0);
        for head in 0..heads {
            for position in 0..length {
                let from = position * 3 * width + width + head * head_width;
                for (k, value) in self.projected[from..from + head_width].iter().enumerate() {
                    self.scratch.keys[k * padded + position] = *value;
                }
            }
            let bias = bias.as_ref().map(|bias| (&bias.table[head * (2 * bias.limit + 1)..], bias.limit));
            for position in 0..length {
                let from = position * 3 * width + head * head_width;
                let query = &self.projected[from..from + head_width];
                let weights = &mut self.scratch.weights[..padded];
                let mut largest = L::splat(f32::NEG_INFINITY);
                // SAFETY: `keys` has `head_width` rows of `padded` numbers, a multiple of sixteen; `weights`
                // has `padded`; the bias table has sixteen spare entries; values and outputs are read and
                // written at whole vectors within a head, whose width is a multiple of sixteen.
                unsafe {
                    for first in (0..padded).step_by(LANES) {
                        let mut score = L::splat(0.0);
                        for (k, x) in query.iter().enumerate() {
                            let keys = L::load(self.scratch.keys.as_ptr().add(k * padded + first));
                            score = L::fma(L::splat(*x), keys, score);
                        }
                        score = L::mul(score, scale);
                        if let Some((table, limit)) = bias {
                            let from = limit + first - position;
                            assert!(from + LANES <= table.len());
                            score = L::add(score, L::load(table.as_ptr().add(from)));
                        }
                        if first + LANES > length {
                            score = L::add(score, L::load(padding.as_ptr()));
                        }
                        largest = L::max(score, largest);
                        L::store(weights.as_mut_ptr().add(first), score);
                    }
                    let largest = L::splat(L::largest(largest));
                    let mut total = L::splat(0.0);
                    for first in (0..padded).step_by(LANES) {
                        let score = L::load(weights.as_ptr().add(first));
                        let weight = math::exp::<L>(L::sub(score, largest));
                        total = L::add(total, weight);
                        L::store(weights.as_mut_ptr().add(first), weight);
                    }
                    let inverse = L::splat(1.0 / L::sum(total));
                    for column in (0..head_width).step_by(LANES) {
                        let mut mixed = L::splat(0.0);
                        let mut value = self.projected.as_ptr().add(2 * width + head * head_width + column);
                        for weight in &weights[..length] {
                            mixed = L::fma(L::splat(*weight), L::load(value), mixed);
                            value = value.wrapping_add(3 * width);
                        }
                        let to = position * width + head * head_width + column;
                        L::store(self.output.as_mut_ptr().add(to), L::mul(mixed, inverse));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(attention: &Attention, projected: &[f32], length: usize) -> Vec<f64> {
        let width = attention.heads * attention.head_width;
        let at = |position: usize, part: usize, column: usize| {
            f64::from(projected[position * 3 * width + part * width + column])
        };
        let mut output = vec![0.0; length * width];
        for head in 0..attention.heads {
            let columns = head * attention.head_width..(head + 1) * attention.head_width;
            for i in 0..length {
                let scores: Vec<f64> = (0..length)
                    .map(|j| {
                        let dot: f64 = columns.clone().map(|c| at(i, 0, c) * at(j, 1, c)).sum();
                        let bias = attention.bias.as_ref().map_or(0.0, |bias| {
                            f64::from(bias.table[head * (2 * bias.limit + 1) + bias.limit + j - i])
                        });
                        dot / (attention.head_width as f64).sqrt() + bias
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                for c in columns.clone() {
                    output[i * width + c] =
                        (0..length).map(|j| (scores[j] - largest).exp() / total * at(j, 2, c)).sum();
                }
            }
        }
        output
    }

    #[test]
    fn equals_the_formula_at_every_length_alone_and_in_a_batch() {
        let limit = 64;
        let heads = 3;
        for with_bias in [false, true] {
            let bias = with_bias.then(|| DistanceBias {
                limit,
                table: (0..heads * (2 * limit + 1)).map(|i| (i % 13) as f32 * 0.1).chain([0.0; 16]).collect(),
            });
            let attention = Attention { heads, head_width: 32, bias };
            let width = heads * 32;
            let lengths: Vec<usize> = (1..=34).chain([47, 48, 63, 64]).collect();
            let mut offsets = vec![0];
            offsets.extend(lengths.iter().scan(0, |end, length| {
                *end += length;
                Some(*end)
            }));
            let tokens = *offsets.last().unwrap();
            let projected: Vec<f32> =
                (0..tokens * 3 * width).map(|i| ((i * 7919) % 2003) as f32 / 500.0 - 2.0).collect();
            let mut scratch = Scratch::default();
            let mut expected = Vec::new();
            attention.apply(InstructionSet::Scalar, &projected, &offsets, (&mut expected, &mut scratch));
            for bounds in offsets.windows(2) {
                let part = &projected[bounds[0] * 3 * width..bounds[1] * 3 * width];
                let exact = reference(&attention, part, bounds[1] - bounds[0]);
                for (value, exact) in expected[bounds[0] * width..].iter().zip(exact) {
                    assert!((f64::from(*value) - exact).abs() < 1e-5);
                }
            }
            for set in InstructionSet::all() {
                let mut output = Vec::new();
                attention.apply(set, &projected, &offsets, (&mut output, &mut scratch));
                assert_eq!(output, expected, "{set}");
            }
        }
    }
}
