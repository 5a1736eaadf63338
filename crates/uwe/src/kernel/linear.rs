//! Linear layers: `output = input * weightsᵀ + bias`, the product that takes nearly all of the time.
//!
//! Weights are packed once, when a model is loaded, into panels of a few vectors of output columns, with
//! the input dimension running through memory; a tile of a few rows and one panel then keeps all its sums
//! in registers. A sum always runs over the input dimension in order, so a row's result depends neither on
//! the other rows nor on how the rows were cut into tiles.
//!
//! This file holds the reference precision, `f32`; `narrow` holds the 16-bit ones. An 8-bit one would join
//! as one more variant of [`Packed`].

use super::Precision;
use super::buffer::Buffer;
use super::lanes::{InstructionSet, LANES, Lanes, Operation};
use super::narrow::{self, NarrowWeights};

/// Rows that one pass over all panels serves: their inputs stay in the second-level cache.
pub(super) const ROW_BLOCK: usize = 128;

/// How many inputs ahead a tile asks for weights.
const PREFETCH: usize = 16;

/// Rows of each tile when `rows` are cut into tiles of at most `most`: nine become five and four, not eight and
/// one, since a tile of one row waits for its own sums most of the time.
pub(super) fn even_rows(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

/// A linear layer with packed weights.
#[derive(Debug)]
pub(crate) struct Linear {
    set: InstructionSet,
    inputs: usize,
    outputs: usize,
    bias: Vec<f32>,
    packed: Packed,
}

#[derive(Debug)]
enum Packed {
    F32(Buffer),
    Narrow(NarrowWeights),
}

/// Room for narrowed inputs, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(super) rows: Vec<u16>,
    pub(super) scales: Vec<f32>,
}

impl Linear {
    /// Packs `weights` (`outputs x inputs`, row-major, as PyTorch stores a linear layer).
    ///
    /// Both dimensions must be multiples of sixteen, and `precision` available with `set`.
    pub(crate) fn new(
        set: InstructionSet,
        precision: Precision,
        weights: &[f32],
        bias: Vec<f32>,
    ) -> std::io::Result<Self> {
        let outputs = bias.len();
        let inputs = weights.len() / outputs.max(1);
        assert!(
            inputs * outputs == weights.len()
                && inputs.is_multiple_of(LANES)
                && outputs.is_multiple_of(LANES),
            "linear layer of {outputs} x {inputs}: dimensions are checked when a model is loaded"
        );
        let packed = match precision {
            Precision::F32 => Packed::F32(set.run(Pack { weights, inputs, outputs })?),
            Precision::Bf16 | Precision::Int16 => {
                Packed::Narrow(NarrowWeights::new(precision, weights, inputs, outputs)?)
            }
        };
        Ok(Self { set, inputs, outputs, bias, packed })
    }

    /// `output = input * weightsᵀ + bias`; `input` is `rows x inputs`, `output` becomes `rows x outputs`.
    pub(crate) fn apply(&self, input: &[f32], output: &mut Vec<f32>, scratch: &mut Scratch) {
        let rows = input.len() / self.inputs;
        assert_eq!(rows * self.inputs, input.len());
        // Every entry is written below; what was there before does not matter.
        output.resize(rows * self.outputs, 0.0);
        match &self.packed {
            Packed::F32(panels) => self.set.run(Multiply {
                input,
                panels: panels.as_f32(),
                bias: &self.bias,
                inputs: self.inputs,
                output,
            }),
            Packed::Narrow(weights) => narrow::multiply(weights, input, &self.bias, output, scratch),
        }
    }
}

/// Packs weights into panels of `TILE_COLUMNS` vectors; the last panel may be narrower.
struct Pack<'a> {
    weights: &'a [f32],
    inputs: usize,
    outputs: usize,
}

impl Operation for Pack<'_> {
    type Output = std::io::Result<Buffer>;
    #[inline(always)]
    fn run<L: Lanes>(self) -> Self::Output {
        let mut buffer = Buffer::zeroed(size_of_val(self.weights))?;
        let packed = buffer.as_f32_mut();
        let width = L::TILE_COLUMNS * LANES;
        for first in (0..self.outputs).step_by(width) {
            let columns = width.min(self.outputs - first);
            let panel = &mut packed[first * self.inputs..(first + columns) * self.inputs];
            // Sixteen inputs at a time: reads and writes both stay within a few cache lines.
            for start in (0..self.inputs).step_by(LANES) {
                for column in 0..columns {
                    let from = (first + column) * self.inputs + start;
                    for (offset, weight) in self.weights[from..from + LANES].iter().enumerate() {
                        panel[(start + offset) * columns + column] = *weight;
                    }
                }
            }
        }
        Ok(buffer)
    }
}

struct Multiply<'a> {
    input: &'a [f32],
    panels: &'a [f32],
    bias: &'a [f32],
    inputs: usize,
    output: &'a mut [f32],
}

impl Operation for Multiply<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let outputs = self.bias.len();
        let blocks = self.input.chunks(ROW_BLOCK * self.inputs);
        for (input, output) in blocks.zip(self.output.chunks_mut(ROW_BLOCK * outputs)) {
            let rows = input.len() / self.inputs;
            let most = even_rows(rows, L::TILE_ROWS);
            for first in (0..outputs).step_by(L::TILE_COLUMNS * LANES) {
                let columns = (L::TILE_COLUMNS * LANES).min(outputs - first);
                let panel = &self.panels[first * self.inputs..(first + columns) * self.inputs];
                let mut row = 0;
                while row < rows {
                    let tile_rows = most.min(rows - row);
                    let tile = Tile {
                        input: &input[row * self.inputs..(row + tile_rows) * self.inputs],
                        panel,
                        bias: &self.bias[first..first + columns],
                        inputs: self.inputs,
                    };
                    let target = &mut output[row * outputs + first..];
                    tile.write::<L>((tile_rows, columns / LANES), target, outputs);
                    row += tile_rows;
                }
            }
        }
    }
}

/// A few rows times one panel.
struct Tile<'a> {
    input: &'a [f32],
    panel: &'a [f32],
    bias: &'a [f32],
    inputs: usize,
}

impl Tile<'_> {
    /// Chooses the tile of the given (rows, column vectors).
    #[inline(always)]
    fn write<L: Lanes>(&self, size: (usize, usize), output: &mut [f32], stride: usize) {
        macro_rules! choose {
            ($($rows:literal)*) => {
                match size {
                    $(($rows, 1) if $rows <= L::TILE_ROWS => self.sized::<L, $rows, 1>(output, stride),
                      ($rows, 2) if $rows <= L::TILE_ROWS && L::TILE_COLUMNS >= 2 =>
                          self.sized::<L, $rows, 2>(output, stride),
                      ($rows, 3) if $rows <= L::TILE_ROWS && L::TILE_COLUMNS >= 3 =>
                          self.sized::<L, $rows, 3>(output, stride),)*
                    _ => unreachable!("tiles have 1 to 8 rows and 1 to 3 vectors"),
                }
            };
        }
        choose!(1 2 3 4 5 6 7 8)
    }

    #[inline(always)]
    fn sized<L: Lanes, const ROWS: usize, const COLUMNS: usize>(&self, output: &mut [f32], stride: usize) {
        let width = COLUMNS * LANES;
        assert!(self.input.len() == ROWS * self.inputs && self.panel.len() == width * self.inputs);
        assert!(self.bias.len() == width && output.len() >= (ROWS - 1) * stride + width);
        let input = self.input.as_ptr();
        let mut panel = self.panel.as_ptr();
        // SAFETY: the assertions bound every access: rows of `inputs` numbers, a panel of `width` numbers
        // for each input, and `width` numbers at each output row.
        unsafe {
            let mut sums = [[L::splat(0.0); COLUMNS]; ROWS];
            for (column, vector) in self.bias.chunks_exact(LANES).enumerate() {
                for row in &mut sums {
                    row[column] = L::load(vector.as_ptr());
                }
            }
            for k in 0..self.inputs {
                let mut weights = [L::splat(0.0); COLUMNS];
                for (column, weight) in weights.iter_mut().enumerate() {
                    *weight = L::load(panel.add(column * LANES));
                    L::prefetch(panel.wrapping_add(PREFETCH * width + column * LANES));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let x = L::splat(*input.add(row * self.inputs + k));
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = L::fma(x, weight, *sum);
                    }
                }
                panel = panel.add(width);
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (column, sum) in sums.into_iter().enumerate() {
                    L::store(output.as_mut_ptr().add(row * stride + column * LANES), sum);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0).collect()
    }

    #[test]
    fn equals_the_formula_for_every_tile_size_and_all_sets_agree() {
        let mut scratch = Scratch::default();
        for (inputs, outputs) in [(16, 16), (32, 48), (64, 80), (48, 112)] {
            let weights = numbers(inputs * outputs, 1);
            let bias = numbers(outputs, 2);
            for rows in (0..=33).chain([64, 65]) {
                let input = numbers(rows * inputs, 3);
                let mut expected = Vec::new();
                Linear::new(InstructionSet::Scalar, Precision::F32, &weights, bias.clone()).unwrap().apply(
                    &input,
                    &mut expected,
                    &mut scratch,
                );
                for row in 0..rows {
                    for column in 0..outputs {
                        let exact: f64 = (0..inputs)
                            .map(|k| {
                                f64::from(input[row * inputs + k]) * f64::from(weights[column * inputs + k])
                            })
                            .sum::<f64>()
                            + f64::from(bias[column]);
                        assert!((f64::from(expected[row * outputs + column]) - exact).abs() < 1e-5);
                    }
                }
                for set in InstructionSet::all() {
                    let mut output = vec![f32::NAN; 7];
                    Linear::new(set, Precision::F32, &weights, bias.clone()).unwrap().apply(
                        &input,
                        &mut output,
                        &mut scratch,
                    );
                    assert_eq!(output, expected, "{set} {rows} x {inputs} x {outputs}");
                }
            }
        }
    }

    #[test]
    fn sixteen_bit_products_are_close_and_do_not_depend_on_neighbours() {
        let (inputs, outputs) = (384, 112);
        let weights = numbers(inputs * outputs, 1);
        let bias = numbers(outputs, 2);
        let mut scratch = Scratch::default();
        for precision in [Precision::Bf16, Precision::Int16].into_iter().filter(|p| p.is_available()) {
            let layer = Linear::new(InstructionSet::detect(), precision, &weights, bias.clone()).unwrap();
            let input = numbers(33 * inputs, 3);
            let (mut all, mut alone) = (Vec::new(), Vec::new());
            layer.apply(&input, &mut all, &mut scratch);
            for row in 0..33 {
                let x = &input[row * inputs..(row + 1) * inputs];
                layer.apply(x, &mut alone, &mut scratch);
                assert_eq!(alone, all[row * outputs..(row + 1) * outputs], "{precision}");
                for column in 0..outputs {
                    let exact: f64 = x
                        .iter()
                        .zip(&weights[column * inputs..])
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum::<f64>()
                        + f64::from(bias[column]);
                    // The sum of 384 products has a standard deviation of about 6.5.
                    let tolerance = if precision == Precision::Bf16 { 0.1 } else { 0.02 };
                    assert!((f64::from(alone[column]) - exact).abs() < tolerance, "{precision}");
                }
            }
        }
    }
}
