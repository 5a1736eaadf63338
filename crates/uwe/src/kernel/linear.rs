//! Linear layers: `output = input * weightsᵀ + bias`, the product that takes nearly all of the time.
//!
//! Weights are packed once, when a model is loaded, into panels of a few vectors of output columns, with
//! the input dimension running through memory; a tile of a few rows and one panel then keeps all its sums
//! in registers. A sum always runs over the input dimension in order, so a row's result depends neither on
//! the other rows nor on how the rows were cut into tiles.
//!
//! This file holds the reference precision, `f32`; `narrow` holds the 16-bit ones. An 8-bit one would join
//! as one more variant of [`Packed`].
//!
//! Weights that 16 bits hold exactly, as those of a model that was stored so, stay in 16 bits: the same results, and half the
//! memory to read, which is what a short text waits for.

use super::Precision;
use super::buffer::Buffer;
use super::lanes::{InstructionSet, LANES, Lanes, Operation};
use super::math;
use super::narrow::{self, NarrowWeights, Pairs};
use crate::team::Team;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows that one pass over all panels serves: their inputs stay in the second-level cache.
///
/// A multiple of the rows of every tile, since the last tile of a block would be a slow one.
pub(super) const ROW_BLOCK: usize = 120;

/// Values of k in one turn of a tile's loop: what a turn takes beside the products counts where two threads share a core.
const TURN: usize = 4;

pub(super) const CACHE_LINE: usize = 64;

/// How many bytes ahead a tile alone asks for weights: what main memory delivers while it answers.
const PREFETCH: usize = 3072;

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
    /// The same weights, each of them an IEEE half-precision number.
    F16(Buffer),
    Narrow(NarrowWeights),
}

/// What is done with each output before it is written for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// The exact GELU, by the thread that has the outputs in its cache.
    Gelu,
}

/// The output of a product, `rows x stride`; threads of a team write different columns of it.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    start: *mut f32,
    rows: usize,
    stride: usize,
    borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: an exclusive borrow of numbers; its users divide the columns among them (`Output::at`).
unsafe impl Send for Output<'_> {}
// SAFETY: as above.
unsafe impl Sync for Output<'_> {}

impl<'a> Output<'a> {
    fn new(values: &'a mut [f32], stride: usize) -> Self {
        let rows = values.len() / stride;
        Self { start: values.as_mut_ptr(), rows, stride, borrow: PhantomData }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Where `rows` rows of `columns` columns begin; all of them are within the output.
    ///
    /// To write there, no other thread may use these columns meanwhile.
    pub(super) fn at(&self, (row, rows): (usize, usize), (column, columns): (usize, usize)) -> *mut f32 {
        assert!(row + rows <= self.rows && column + columns <= self.stride);
        self.start.wrapping_add(row * self.stride + column)
    }
}

/// Room for narrowed inputs, kept between calls.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "16-bit kernels are of x86-64 so far"))]
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
        let packed = if precision == Precision::F32 {
            match exact_halves(weights) {
                Some(halves) => Packed::F16(set.run(Pack { weights: &halves[..], inputs, outputs })?),
                None => Packed::F32(set.run(Pack { weights, inputs, outputs })?),
            }
        } else if let Some(pairs) = Pairs::available(precision).next() {
            Packed::Narrow(NarrowWeights::new(pairs, weights, inputs, outputs)?)
        } else {
            unreachable!("precision is checked when a model is loaded")
        };
        Ok(Self { set, inputs, outputs, bias, packed })
    }

    /// `output = then(input * weightsᵀ + bias)`; `input` is `rows x inputs`, `output` becomes `rows x outputs`. The
    /// threads of `team` share the columns.
    pub(crate) fn apply(
        &self,
        team: &Team,
        input: &[f32],
        (output, then): (&mut Vec<f32>, Then),
        scratch: &mut Scratch,
    ) {
        let rows = input.len() / self.inputs;
        assert_eq!(rows * self.inputs, input.len());
        // Every entry is written below; what was there before does not matter.
        output.resize(rows * self.outputs, 0.0);
        let output = Output::new(output, self.outputs);
        if let Packed::Narrow(weights) = &self.packed {
            narrow::narrow_rows(weights, input, scratch);
        }
        let scratch = &*scratch;
        let part = |columns: Range<usize>| {
            match &self.packed {
                Packed::F32(panels) => self.multiply(input, panels.as_f32(), columns.clone(), output),
                Packed::F16(panels) => self.multiply(input, panels.as_u16(), columns.clone(), output),
                Packed::Narrow(weights) => {
                    narrow::multiply(weights, scratch, &self.bias, (columns.clone(), output));
                }
            }
            if then == Then::Gelu {
                self.set.run(GeluColumns { columns, output });
            }
        };
        if team.members() == 1 {
            // Whole blocks of rows, panel after panel: their inputs stay in the second-level cache.
            return part(0..self.outputs);
        }
        // Whole panels, some four parts for each thread.
        let panel = self.panel_columns();
        let width = panel * self.outputs.div_ceil(panel).div_ceil(4 * team.members()).max(1);
        team.split(self.outputs.div_ceil(width), &|index| {
            part(index * width..self.outputs.min((index + 1) * width));
        });
    }

    /// Columns of a panel; the last one may have fewer.
    fn panel_columns(&self) -> usize {
        match &self.packed {
            Packed::F32(_) | Packed::F16(_) => self.set.run(PanelColumns),
            Packed::Narrow(weights) => weights.panel(),
        }
    }

    fn multiply<W: Stored>(&self, input: &[f32], panels: &[W], columns: Range<usize>, output: Output<'_>) {
        self.set.run(Multiply { input, panels, bias: &self.bias, inputs: self.inputs, columns, output });
    }
}

/// The weights as half-precision numbers, where each of them is one.
fn exact_halves(weights: &[f32]) -> Option<Vec<u16>> {
    /// Weights at a time; the first of them tell a model whose weights are longer.
    const BLOCK: usize = 1024;
    let mut widened = [0.0; BLOCK];
    let mut halves = Vec::new();
    for block in weights.chunks(BLOCK) {
        let start = halves.len();
        halves.resize(start + block.len(), 0);
        let bits = halves[start..].reinterpret_cast_mut::<half::f16>();
        bits.convert_from_f32_slice(block);
        let widened = &mut widened[..block.len()];
        bits.convert_to_f32_slice(widened);
        if widened != block {
            return None;
        }
    }
    Some(halves)
}

/// A factor as it lies in memory.
pub(super) trait Stored: Copy + Sync + 'static {
    /// Widening takes as long as a few products; a panel that serves many rows is widened once.
    const WIDE: bool;

    /// Loads sixteen factors.
    ///
    /// # Safety
    /// `from` must be valid for reading sixteen of them.
    unsafe fn load<L: Lanes>(from: *const Self) -> L::V;
}

impl Stored for f32 {
    const WIDE: bool = true;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L::V {
        // SAFETY: promised by the caller.
        unsafe { L::load(from) }
    }
}

impl Stored for u16 {
    const WIDE: bool = false;
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const Self) -> L::V {
        // SAFETY: promised by the caller.
        unsafe { L::load_f16(from) }
    }
}

/// Memory that will be needed: [`add_products`] asks for it as it goes.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) from: *const u8,
    /// Bytes to ask for with each value of k.
    pub(super) step: usize,
}

impl Ahead {
    /// What tile number `tile` of `tiles` on one panel asks for, over `count` values of k.
    ///
    /// Several tiles ask for the next panel, each for a part of it, so that memory delivers while all of them work; asked
    /// for by the first tile that needs it, ten rows take a fifth longer. A tile alone asks for what it needs soon.
    #[inline(always)]
    pub(super) fn new<W>(panel: &[W], count: usize, (tile, tiles): (usize, usize)) -> Self {
        let (from, step) = (panel.as_ptr().cast::<u8>(), size_of_val(panel) / count);
        if tiles == 1 {
            return Self { from: from.wrapping_add(PREFETCH), step };
        }
        let share = step.div_ceil(tiles);
        Self { from: from.wrapping_add((step + tile * share) * count), step: share }
    }
}

/// `sums[row][..] += sum over k of input[row][k] * panel[k][..]`, for `count` values of k, in order.
///
/// `input` and `panel` are where the first row begins and how far apart rows are.
///
/// # Safety
/// `input` must be valid for reading `ROWS` rows of `count` numbers, `panel` for `count` rows of `COLUMNS` vectors.
#[inline(always)]
pub(super) unsafe fn add_products<L: Lanes, W: Stored, const ROWS: usize, const COLUMNS: usize>(
    mut sums: [[L::V; COLUMNS]; ROWS],
    (mut input, input_stride): (*const f32, usize),
    (mut panel, panel_stride): (*const W, usize),
    (count, mut ahead): (usize, Ahead),
) -> [[L::V; COLUMNS]; ROWS] {
    let lines = TURN * COLUMNS * LANES * size_of::<W>() / CACHE_LINE;
    let line = ahead.step * TURN / lines;
    // SAFETY: promised by the caller; a prefetch may be of any address.
    unsafe {
        for _ in 0..count / TURN {
            for index in 0..lines {
                L::prefetch(ahead.from.wrapping_add(index * line).cast());
            }
            for k in 0..TURN {
                let (input, panel) = ((input.add(k), input_stride), panel.add(k * panel_stride));
                sums = add_product::<L, W, ROWS, COLUMNS>(sums, input, panel);
            }
            input = input.add(TURN);
            panel = panel.wrapping_add(TURN * panel_stride);
            ahead.from = ahead.from.wrapping_add(TURN * ahead.step);
        }
        for k in 0..count % TURN {
            let (input, panel) = ((input.add(k), input_stride), panel.add(k * panel_stride));
            sums = add_product::<L, W, ROWS, COLUMNS>(sums, input, panel);
        }
    }
    sums
}

/// `sums[row][..] += input[row] * panel[..]`.
///
/// # Safety
/// As for [`add_products`], with one value of k.
#[inline(always)]
unsafe fn add_product<L: Lanes, W: Stored, const ROWS: usize, const COLUMNS: usize>(
    mut sums: [[L::V; COLUMNS]; ROWS],
    (input, stride): (*const f32, usize),
    panel: *const W,
) -> [[L::V; COLUMNS]; ROWS] {
    // SAFETY: promised by the caller.
    unsafe {
        let mut factors = [L::splat(0.0); COLUMNS];
        for (column, factor) in factors.iter_mut().enumerate() {
            *factor = W::load::<L>(panel.add(column * LANES));
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let x = L::splat(*input.add(row * stride));
            for (sum, factor) in sums.iter_mut().zip(factors) {
                *sum = L::fma(x, factor, *sum);
            }
        }
    }
    sums
}

struct PanelColumns;

impl Operation for PanelColumns {
    type Output = usize;
    #[inline(always)]
    fn run<L: Lanes>(self) -> usize {
        L::TILE_COLUMNS * LANES
    }
}

/// Packs weights into panels of `TILE_COLUMNS` vectors; the last panel may be narrower.
struct Pack<'a, W> {
    weights: &'a [W],
    inputs: usize,
    outputs: usize,
}

impl<W: bytemuck::Pod> Operation for Pack<'_, W> {
    type Output = std::io::Result<Buffer>;
    #[inline(always)]
    fn run<L: Lanes>(self) -> Self::Output {
        let mut buffer = Buffer::zeroed(size_of_val(self.weights))?;
        let packed: &mut [W] = bytemuck::cast_slice_mut(buffer.as_bytes_mut());
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

/// Some columns of the product, whole panels of them.
struct Multiply<'a, W> {
    input: &'a [f32],
    panels: &'a [W],
    bias: &'a [f32],
    inputs: usize,
    columns: Range<usize>,
    output: Output<'a>,
}

thread_local! {
    /// A panel that many rows need, widened.
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl<W: Stored> Operation for Multiply<'_, W> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        for (index, input) in self.input.chunks(ROW_BLOCK * self.inputs).enumerate() {
            let rows = (index * ROW_BLOCK, input.len() / self.inputs);
            for first in self.columns.clone().step_by(L::TILE_COLUMNS * LANES) {
                let columns = (L::TILE_COLUMNS * LANES).min(self.columns.end - first);
                let panel = &self.panels[first * self.inputs..(first + columns) * self.inputs];
                if W::WIDE || rows.1 <= L::TILE_ROWS {
                    self.panel::<L, W>(input, panel, rows, (first, columns));
                } else {
                    // Taken out, not borrowed: a closure would be compiled without this instruction set.
                    let mut wide = WIDENED.take();
                    wide.resize(wide.len().max(panel.len()), 0.0);
                    for (from, to) in panel.chunks_exact(LANES).zip(wide.chunks_exact_mut(LANES)) {
                        // SAFETY: both chunks have sixteen entries.
                        unsafe { L::store(to.as_mut_ptr(), W::load::<L>(from.as_ptr())) };
                    }
                    self.panel::<L, f32>(input, &wide[..panel.len()], rows, (first, columns));
                    WIDENED.set(wide);
                }
            }
        }
    }
}

impl<W> Multiply<'_, W> {
    /// A block of rows times one panel.
    #[inline(always)]
    fn panel<L: Lanes, P: Stored>(
        &self,
        input: &[f32],
        panel: &[P],
        (first_row, rows): (usize, usize),
        (first, columns): (usize, usize),
    ) {
        // Not the panel itself where that is a widened copy.
        let stored = &self.panels[first * self.inputs..(first + columns) * self.inputs];
        let most = even_rows(rows, L::TILE_ROWS);
        let tiles = rows.div_ceil(most);
        for index in 0..tiles {
            let row = index * most;
            let count = most.min(rows - row);
            let tile = Tile {
                input: &input[row * self.inputs..(row + count) * self.inputs],
                panel,
                bias: &self.bias[first..first + columns],
                inputs: self.inputs,
                ahead: Ahead::new(stored, self.inputs, (index, tiles)),
            };
            let output = self.output.at((first_row + row, count), (first, columns));
            tile.write::<L>((count, columns / LANES), output, self.output.stride());
        }
    }
}

/// Applies the exact GELU to some columns.
struct GeluColumns<'a> {
    columns: Range<usize>,
    output: Output<'a>,
}

impl Operation for GeluColumns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        for row in 0..self.output.rows() {
            for column in self.columns.clone().step_by(LANES) {
                let at = self.output.at((row, 1), (column, LANES));
                // SAFETY: sixteen entries of the output, in columns that are this caller's.
                unsafe { L::store(at, math::gelu::<L>(L::load(at))) };
            }
        }
    }
}

/// A few rows times one panel.
struct Tile<'a, W> {
    input: &'a [f32],
    panel: &'a [W],
    bias: &'a [f32],
    inputs: usize,
    ahead: Ahead,
}

impl<W: Stored> Tile<'_, W> {
    /// Chooses the tile of the given (rows, column vectors). `output` is room for it, rows `stride` apart.
    #[inline(always)]
    fn write<L: Lanes>(&self, size: (usize, usize), output: *mut f32, stride: usize) {
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
    fn sized<L: Lanes, const ROWS: usize, const COLUMNS: usize>(&self, output: *mut f32, stride: usize) {
        let width = COLUMNS * LANES;
        assert!(self.input.len() == ROWS * self.inputs && self.panel.len() == width * self.inputs);
        assert!(self.bias.len() == width);
        // SAFETY: the assertions bound every read: rows of `inputs` numbers, a panel of `width` numbers for each
        // input; `Output::at` has bounded `width` numbers at each output row.
        unsafe {
            let mut sums = [[L::splat(0.0); COLUMNS]; ROWS];
            for (column, vector) in self.bias.chunks_exact(LANES).enumerate() {
                for row in &mut sums {
                    row[column] = L::load(vector.as_ptr());
                }
            }
            let (input, panel) = ((self.input.as_ptr(), self.inputs), (self.panel.as_ptr(), width));
            let sums = add_products::<L, W, ROWS, COLUMNS>(sums, input, panel, (self.inputs, self.ahead));
            for (row, sums) in sums.into_iter().enumerate() {
                for (column, sum) in sums.into_iter().enumerate() {
                    L::store(output.add(row * stride + column * LANES), sum);
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

    fn layer(set: InstructionSet, precision: Precision, weights: &[f32], bias: &[f32]) -> Linear {
        Linear::new(set, precision, weights, bias.to_vec()).unwrap()
    }

    fn product(layer: &Linear, team: &Team, input: &[f32], then: Then) -> Vec<f32> {
        // What was in the output before does not matter.
        let mut output = vec![f32::NAN; 7];
        layer.apply(team, input, (&mut output, then), &mut Scratch::default());
        output
    }

    #[test]
    fn equals_the_formula_for_every_tile_size_and_all_sets_agree() {
        let alone = Team::default();
        for (inputs, outputs) in [(16, 16), (32, 48), (64, 80), (48, 112)] {
            let weights = numbers(inputs * outputs, 1);
            let bias = numbers(outputs, 2);
            for rows in (0..=33).chain([64, 65]) {
                let input = numbers(rows * inputs, 3);
                let scalar = layer(InstructionSet::Scalar, Precision::F32, &weights, &bias);
                let expected = product(&scalar, &alone, &input, Then::Nothing);
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
                    let output =
                        product(&layer(set, Precision::F32, &weights, &bias), &alone, &input, Then::Nothing);
                    assert_eq!(output, expected, "{set} {rows} x {inputs} x {outputs}");
                }
            }
        }
    }

    #[test]
    fn weights_that_are_held_in_16_bits_give_the_same_bits() {
        let (inputs, outputs) = (48, 112);
        let rounded = |weight: f32| half::f16::from_f32(weight).to_f32();
        let weights: Vec<f32> = numbers(inputs * outputs, 1).into_iter().map(rounded).collect();
        let bias = numbers(outputs, 2);
        for set in InstructionSet::all() {
            let short = layer(set, Precision::F32, &weights, &bias);
            assert!(matches!(short.packed, Packed::F16(_)));
            let packed = Packed::F32(set.run(Pack { weights: &weights[..], inputs, outputs }).unwrap());
            let long = Linear { packed, bias: bias.clone(), ..short };
            let short = layer(set, Precision::F32, &weights, &bias);
            for rows in (0..=33).chain([64, 129, 300]) {
                let input = numbers(rows * inputs, 3);
                let [short, long] =
                    [&short, &long].map(|layer| product(layer, &Team::default(), &input, Then::Nothing));
                assert_eq!(short, long, "{set} {rows}");
            }
        }
    }

    #[test]
    fn a_team_and_a_gelu_within_give_the_same_bits() {
        let (inputs, outputs) = (48, 400);
        let weights = numbers(inputs * outputs, 1);
        let bias = numbers(outputs, 2);
        let compute = crate::Compute::new(3, None).unwrap();
        for precision in Precision::all().into_iter().filter(|p| p.is_available()) {
            let layer = layer(InstructionSet::detect(), precision, &weights, &bias);
            for rows in [0, 1, 2, 9, 130] {
                let input = numbers(rows * inputs, 3);
                let plain = product(&layer, &Team::default(), &input, Then::Nothing);
                assert_eq!(
                    product(&layer, &compute.team(), &input, Then::Nothing),
                    plain,
                    "{precision} {rows}"
                );
                let wide = product(&layer, &Team::default(), &input, Then::Gelu);
                assert_eq!(product(&layer, &compute.team(), &input, Then::Gelu), wide, "{precision} {rows}");
                for (x, y) in plain.iter().zip(wide) {
                    // GELU lies between the function that is x above 0 and the one that is 0 throughout.
                    assert!((x.max(0.0) - 0.18..=x.max(0.0) + 1e-6).contains(&y), "gelu({x}) = {y}");
                }
            }
        }
    }

    #[test]
    fn whole_numbers_give_the_same_bits_whatever_multiplies_them() {
        /// The scale of a row of inputs and its whole numbers.
        fn whole_row(row: &[f32]) -> (f32, Vec<i32>) {
            let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let scale = if largest > 0.0 { largest / narrow::INPUT_LIMIT } else { 1.0 };
            (scale, row.iter().map(|value| (value * (1.0 / scale)).round_ties_even() as i32).collect())
        }
        for (inputs, outputs) in [(16, 16), (32, 48), (48, 112), (384, 64)] {
            // One column's sum is as large as it can be, another column is zero throughout.
            let mut weights = numbers(inputs * outputs, 1);
            weights[..inputs].fill(1.0);
            weights[inputs..2 * inputs].fill(0.0);
            let bias = numbers(outputs, 2);
            let columns: Vec<_> = weights
                .chunks_exact(inputs)
                .map(|column| {
                    let scale = narrow::column_scale(column);
                    let whole = |weight: &f32| (weight * (1.0 / scale)).round_ties_even() as i32;
                    (scale, column.iter().map(whole).collect::<Vec<_>>())
                })
                .collect();
            for rows in 0..=33 {
                let mut input = numbers(rows * inputs, 3);
                input.iter_mut().take(inputs).for_each(|value| *value = -1.0);
                input.iter_mut().skip(inputs).take(inputs).for_each(|value| *value = 0.0);
                let mut expected = Vec::new();
                for (row, whole) in input.chunks_exact(inputs).map(whole_row) {
                    for ((column, weights), bias) in columns.iter().zip(&bias) {
                        let products = whole.iter().zip(weights).map(|(a, b)| i64::from(*a) * i64::from(*b));
                        let sum = i32::try_from(products.sum::<i64>()).unwrap();
                        expected.push((sum as f32).mul_add(column * row, *bias));
                    }
                }
                for pairs in Pairs::available(Precision::Int16) {
                    let packed =
                        Packed::Narrow(NarrowWeights::new(pairs, &weights, inputs, outputs).unwrap());
                    let set = InstructionSet::detect();
                    let layer = Linear { set, inputs, outputs, bias: bias.clone(), packed };
                    let found = product(&layer, &Team::default(), &input, Then::Nothing);
                    assert_eq!(found, expected, "{pairs:?} {rows} x {inputs} x {outputs}");
                }
            }
        }
    }

    #[test]
    fn sixteen_bit_products_are_close_and_do_not_depend_on_neighbours() {
        let (inputs, outputs) = (384, 112);
        let weights = numbers(inputs * outputs, 1);
        let bias = numbers(outputs, 2);
        for precision in [Precision::Bf16, Precision::Int16].into_iter().filter(|p| p.is_available()) {
            let layer = layer(InstructionSet::detect(), precision, &weights, &bias);
            let input = numbers(33 * inputs, 3);
            let all = product(&layer, &Team::default(), &input, Then::Nothing);
            for row in 0..33 {
                let x = &input[row * inputs..(row + 1) * inputs];
                let alone = product(&layer, &Team::default(), x, Then::Nothing);
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
