//! Multi-head self-attention over a ragged batch: each sequence sees itself alone, whatever its neighbours.

use super::lanes::{InstructionSet, LANES, Lanes, Operation};
use super::linear::{Ahead, add_products, even_rows};
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

/// The attention of one sequence.
struct Attend<'a> {
    attention: &'a Attention,
    projected: &'a [f32],
    output: &'a mut [f32],
    scratch: &'a mut Scratch,
}

impl Operation for Attend<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self) {
        let Attention { heads, head_width, .. } = *self.attention;
        let width = heads * head_width;
        let length = self.output.len() / width;
        assert!(self.projected.len() == length * 3 * width && self.output.len() == length * width);
        // Keys are laid out with positions as lanes, padded to whole vectors; the padding gets weight 0.
        let padded = length.next_multiple_of(LANES);
        self.scratch.keys.clear();
        self.scratch.keys.resize(head_width * padded, 0.0);
        let rows = even_rows(length, L::TILE_ROWS);
        self.scratch.weights.resize(rows * padded, 0.0);
        for head in 0..heads {
            self.lay_out_keys(head, padded);
            for first in (0..length).step_by(rows) {
                macro_rules! choose {
                    ($($rows:literal)*) => {
                        match rows.min(length - first) {
                            $($rows if $rows <= L::TILE_ROWS => self.positions::<L, $rows>(head, first),)*
                            _ => unreachable!("tiles have 1 to 8 rows"),
                        }
                    };
                }
                choose!(1 2 3 4 5 6 7 8);
            }
        }
    }
}

impl Attend<'_> {
    /// Writes the keys of a head with positions as lanes, `padded` of them.
    #[inline(always)]
    fn lay_out_keys(&mut self, head: usize, padded: usize) {
        let Attention { heads, head_width, .. } = *self.attention;
        let width = heads * head_width;
        assert!(self.scratch.keys.len() == head_width * padded);
        for (position, projected) in self.projected.chunks_exact(3 * width).enumerate().take(padded) {
            let key = &projected[width + head * head_width..][..head_width];
            for (k, value) in key.iter().enumerate() {
                // SAFETY: `k` is below the width of the head, `position` below `padded`. A check of each number would
                // take longer than to move it.
                unsafe { *self.scratch.keys.get_unchecked_mut(k * padded + position) = *value };
            }
        }
    }

    /// What `ROWS` positions from `first` on make of the whole sequence, in one head.
    #[inline(always)]
    fn positions<L: Lanes, const ROWS: usize>(&mut self, head: usize, first: usize) {
        let Attention { heads, head_width, ref bias } = *self.attention;
        let width = heads * head_width;
        let length = self.output.len() / width;
        let padded = length.next_multiple_of(LANES);
        assert!(first + ROWS <= length && self.scratch.weights.len() >= ROWS * padded);
        let scale = L::splat(1.0 / (head_width as f32).sqrt());
        let mut padding = [f32::NEG_INFINITY; LANES];
        padding[..LANES - (padded - length)].fill(0.0);
        let bias = bias.as_ref().map(|bias| (&bias.table[head * (2 * bias.limit + 1)..], bias.limit));
        let at = head * head_width;
        // Queries, then values, of this head at the first position of each.
        let queries = self.projected[first * 3 * width + at..].as_ptr();
        let values = self.projected[2 * width + at..].as_ptr();
        let keys = self.scratch.keys.as_ptr();
        let weights = self.scratch.weights.as_mut_ptr();
        // All of it is in the cache.
        let near = Ahead { from: keys.cast(), step: 0 };
        let mut largest = [L::splat(f32::NEG_INFINITY); ROWS];
        let mut inverse = [L::splat(0.0); ROWS];
        // SAFETY: `projected` has `length` rows of queries, keys and values, each with `head_width` numbers of this
        // head; `keys` has `head_width` rows of `padded` numbers, a multiple of sixteen; `weights` has `ROWS` such rows;
        // the bias table has sixteen spare entries; the width of a head is a multiple of sixteen.
        unsafe {
            for lane in (0..padded).step_by(LANES) {
                let zero = [[L::splat(0.0)]; ROWS];
                let keys = (keys.add(lane), padded);
                let scores =
                    add_products::<L, f32, ROWS, 1>(zero, (queries, 3 * width), keys, (head_width, near));
                for (row, [score]) in scores.into_iter().enumerate() {
                    let mut score = L::mul(score, scale);
                    if let Some((table, limit)) = bias {
                        let from = limit + lane - (first + row);
                        assert!(from + LANES <= table.len());
                        score = L::add(score, L::load(table.as_ptr().add(from)));
                    }
                    if lane + LANES > length {
                        score = L::add(score, L::load(padding.as_ptr()));
                    }
                    largest[row] = L::max(score, largest[row]);
                    L::store(weights.add(row * padded + lane), score);
                }
            }
            for row in 0..ROWS {
                let largest = L::splat(L::largest(largest[row]));
                let mut total = L::splat(0.0);
                for lane in (0..padded).step_by(LANES) {
                    let place = weights.add(row * padded + lane);
                    let weight = math::exp::<L>(L::sub(L::load(place), largest));
                    total = L::add(total, weight);
                    L::store(place, weight);
                }
                inverse[row] = L::splat(1.0 / L::sum(total));
            }
            for column in (0..head_width).step_by(LANES) {
                let zero = [[L::splat(0.0)]; ROWS];
                let values = (values.add(column), 3 * width);
                let mixed = add_products::<L, f32, ROWS, 1>(zero, (weights, padded), values, (length, near));
                for (row, [mixed]) in mixed.into_iter().enumerate() {
                    let to = self.output.as_mut_ptr().add((first + row) * width + at + column);
                    L::store(to, L::mul(mixed, inverse[row]));
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
