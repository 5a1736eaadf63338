//! Linear layers with 16-bit factors and wide sums: `bf16` and fixed-point `int16`.
//!
//! Both keep two neighbouring inputs of a column side by side in 32 bits, so that one instruction multiplies
//! and adds pairs; weights take half the memory of `f32`.
//!
//! - **bf16**: factors rounded to 8 significant bits, sums in f32 (`vdpbf16ps`).
//! - **int16**: factors are whole numbers times a scale, one scale for each input row and one for each
//!   output column; sums are exact in 32-bit integers (`vpdpwssd`, on every processor with AVX-512 VNNI). A
//!   row uses 13 bits; a column as many as it can so that no sum overflows: the sum of its magnitudes
//!   times the largest input stays below 2^31. That bound is checked weight by weight when packing, so it
//!   holds for any input.

use super::Precision;
use super::buffer::Buffer;
use super::lanes::LANES;
use super::linear::{Output, Scratch};
use std::ops::Range;

/// Packed 16-bit weights.
#[derive(Debug)]
pub(super) struct NarrowWeights {
    precision: Precision,
    inputs: usize,
    /// Panels of up to 48 columns; in each, `[inputs / 2][columns][2]`.
    panels: Buffer,
    /// int16: what a unit of each column is worth. Empty for bf16.
    column_scales: Vec<f32>,
}

/// Columns of a panel: three vectors of sixteen sums.
pub(super) const PANEL: usize = 3 * LANES;
/// Rows of a tile: with three vectors each they fill 24 of 32 registers.
const TILE_ROWS: usize = 8;
/// How many pairs of inputs ahead a tile asks for weights.
const PREFETCH: usize = 16;
/// Largest magnitude of a narrowed int16 input.
const INPUT_LIMIT: f32 = 8191.0;

impl NarrowWeights {
    /// Packs `weights` (`outputs x inputs`, row-major).
    pub(super) fn new(
        precision: Precision,
        weights: &[f32],
        inputs: usize,
        outputs: usize,
    ) -> std::io::Result<Self> {
        let mut panels = Buffer::zeroed(weights.len() * size_of::<u16>())?;
        let packed: &mut [u16] = bytemuck::cast_slice_mut(panels.as_bytes_mut());
        let column_scales = match precision {
            Precision::Int16 => weights.chunks_exact(inputs).map(column_scale).collect(),
            _ => Vec::new(),
        };
        for first in (0..outputs).step_by(PANEL) {
            let columns = PANEL.min(outputs - first);
            let panel = &mut packed[first * inputs..(first + columns) * inputs];
            for start in (0..inputs).step_by(LANES) {
                for column in 0..columns {
                    let from = (first + column) * inputs + start;
                    let inverse = column_scales.get(first + column).map_or(0.0, |scale| 1.0 / scale);
                    for (offset, weight) in weights[from..from + LANES].iter().enumerate() {
                        let k = start + offset;
                        panel[(k / 2 * columns + column) * 2 + k % 2] = match precision {
                            Precision::Int16 => (weight * inverse).round_ties_even() as i16 as u16,
                            _ => half::bf16::from_f32(*weight).to_bits(),
                        };
                    }
                }
            }
        }
        Ok(Self { precision, inputs, panels, column_scales })
    }
}

/// The smallest scale with which a column's sums cannot overflow.
fn column_scale(column: &[f32]) -> f32 {
    let largest = column.iter().fold(0.0f64, |largest, w| largest.max(f64::from(w.abs())));
    let total: f64 = column.iter().map(|w| f64::from(w.abs())).sum();
    // Rounding adds at most half a unit to each magnitude.
    let room = f64::from(i32::MAX) / f64::from(INPUT_LIMIT) - column.len() as f64;
    let scale = (largest / 32_766.0).max(total / room);
    if scale > 0.0 { scale as f32 * 1.000_001 } else { 1.0 }
}

/// Narrows the rows of `input` into `scratch`.
pub(super) fn narrow_rows(weights: &NarrowWeights, input: &[f32], scratch: &mut Scratch) {
    #[cfg(target_arch = "x86_64")]
    {
        assert!(weights.precision.is_available(), "precision is checked when a model is loaded");
        scratch.rows.resize(input.len(), 0);
        scratch.scales.resize(input.len() / weights.inputs, 1.0);
        // SAFETY: the features were just checked.
        unsafe {
            if weights.precision == Precision::Int16 {
                x86::narrow_int16(input, weights.inputs, scratch);
            } else {
                x86::narrow_bf16(input, &mut scratch.rows);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (weights, input, scratch);
        unreachable!("16-bit precisions are refused on this processor when a model is loaded");
    }
}

/// Some columns, whole panels, of `input * weightsᵀ + bias`, with the rows that `scratch` holds.
pub(super) fn multiply(
    weights: &NarrowWeights,
    scratch: &Scratch,
    bias: &[f32],
    (columns, output): (Range<usize>, Output<'_>),
) {
    #[cfg(target_arch = "x86_64")]
    {
        assert!(weights.precision.is_available(), "precision is checked when a model is loaded");
        let job = x86::Job { weights, bias, columns, output };
        // SAFETY: the features were just checked.
        unsafe {
            if weights.precision == Precision::Int16 {
                x86::int16_blocks(&job, scratch);
            } else {
                x86::bf16_blocks(&job, scratch);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (weights, scratch, bias, columns, output);
        unreachable!("16-bit precisions are refused on this processor when a model is loaded");
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::linear::{ROW_BLOCK, even_rows};
    use super::*;
    use std::arch::x86_64::*;

    /// Multiplies pairs of 16-bit factors and adds them to sixteen sums.
    trait PairProduct {
        type Sums: Copy;
        fn zero() -> Self::Sums;
        fn add(sums: Self::Sums, inputs: __m512i, weights: __m512i) -> Self::Sums;
        fn widen(sums: Self::Sums) -> __m512;
    }

    struct Bf16;
    impl PairProduct for Bf16 {
        type Sums = __m512;
        #[inline(always)]
        fn zero() -> __m512 {
            // SAFETY: called only from `tile`, instantiated inside `bf16_blocks`, with the features enabled.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        fn add(sums: __m512, inputs: __m512i, weights: __m512i) -> __m512 {
            // SAFETY: as above; the types are the same 512 bits.
            unsafe {
                let inputs = std::mem::transmute::<__m512i, __m512bh>(inputs);
                _mm512_dpbf16_ps(sums, inputs, std::mem::transmute::<__m512i, __m512bh>(weights))
            }
        }
        #[inline(always)]
        fn widen(sums: __m512) -> __m512 {
            sums
        }
    }

    struct Int16;
    impl PairProduct for Int16 {
        type Sums = __m512i;
        #[inline(always)]
        fn zero() -> __m512i {
            // SAFETY: called only from `tile`, instantiated inside `int16_blocks`, with the features enabled.
            unsafe { _mm512_setzero_si512() }
        }
        #[inline(always)]
        fn add(sums: __m512i, inputs: __m512i, weights: __m512i) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpwssd_epi32(sums, inputs, weights) }
        }
        #[inline(always)]
        fn widen(sums: __m512i) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_cvtepi32_ps(sums) }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn narrow_bf16(input: &[f32], output: &mut [u16]) {
        for (from, to) in input.chunks_exact(LANES).zip(output.chunks_exact_mut(LANES)) {
            // SAFETY: both chunks have sixteen entries.
            unsafe {
                let narrow = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                let narrow = std::mem::transmute::<__m256bh, __m256i>(narrow);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), narrow);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn narrow_int16(input: &[f32], width: usize, scratch: &mut Scratch) {
        let rows = input.chunks_exact(width).zip(scratch.rows.chunks_exact_mut(width));
        for ((from, to), scale) in rows.zip(&mut scratch.scales) {
            // SAFETY: chunks of sixteen within rows whose width is a multiple of sixteen.
            unsafe {
                let mut largest = _mm512_setzero_ps();
                for chunk in from.chunks_exact(LANES) {
                    largest = _mm512_max_ps(largest, _mm512_abs_ps(_mm512_loadu_ps(chunk.as_ptr())));
                }
                let largest = _mm512_reduce_max_ps(largest);
                *scale = if largest > 0.0 { largest / INPUT_LIMIT } else { 1.0 };
                let inverse = _mm512_set1_ps(1.0 / *scale);
                for (from, to) in from.chunks_exact(LANES).zip(to.chunks_exact_mut(LANES)) {
                    let whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(from.as_ptr()), inverse));
                    _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtsepi32_epi16(whole));
                }
            }
        }
    }

    /// What stays the same over all tiles of a product.
    pub(super) struct Job<'a> {
        pub(super) weights: &'a NarrowWeights,
        pub(super) bias: &'a [f32],
        pub(super) columns: Range<usize>,
        pub(super) output: Output<'a>,
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn bf16_blocks(job: &Job<'_>, scratch: &Scratch) {
        blocks::<Bf16>(job, scratch);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn int16_blocks(job: &Job<'_>, scratch: &Scratch) {
        blocks::<Int16>(job, scratch);
    }

    #[inline(always)]
    fn blocks<P: PairProduct>(job: &Job<'_>, scratch: &Scratch) {
        let inputs = job.weights.inputs;
        let panels: &[u16] = bytemuck::cast_slice(job.weights.panels.as_bytes());
        let blocks = scratch.rows.chunks(ROW_BLOCK * inputs).zip(scratch.scales.chunks(ROW_BLOCK));
        for (block, (input, scales)) in blocks.enumerate() {
            let rows = scales.len();
            let most = even_rows(rows, TILE_ROWS);
            for first in job.columns.clone().step_by(PANEL) {
                let columns = PANEL.min(job.columns.end - first);
                let mut row = 0;
                while row < rows {
                    let count = most.min(rows - row);
                    let tile = Tile {
                        input: &input[row * inputs..(row + count) * inputs],
                        panel: &panels[first * inputs..(first + columns) * inputs],
                        bias: &job.bias[first..first + columns],
                        row_scales: &scales[row..row + count],
                        column_scales: job.weights.column_scales.get(first..first + columns).unwrap_or(&[]),
                    };
                    let output = job.output.at((block * ROW_BLOCK + row, count), (first, columns));
                    tile.write::<P>((count, columns / LANES), output, job.output.stride());
                    row += count;
                }
            }
        }
    }

    struct Tile<'a> {
        input: &'a [u16],
        panel: &'a [u16],
        bias: &'a [f32],
        row_scales: &'a [f32],
        column_scales: &'a [f32],
    }

    impl Tile<'_> {
        #[inline(always)]
        fn write<P: PairProduct>(&self, size: (usize, usize), output: *mut f32, stride: usize) {
            macro_rules! choose {
                ($($rows:literal)*) => {
                    match size {
                        $(($rows, 1) => self.sized::<P, $rows, 1>(output, stride),
                          ($rows, 2) => self.sized::<P, $rows, 2>(output, stride),
                          ($rows, 3) => self.sized::<P, $rows, 3>(output, stride),)*
                        _ => unreachable!("tiles have 1 to 8 rows and 1 to 3 vectors"),
                    }
                };
            }
            choose!(1 2 3 4 5 6 7 8)
        }

        #[inline(always)]
        fn sized<P: PairProduct, const ROWS: usize, const COLUMNS: usize>(
            &self,
            output: *mut f32,
            stride: usize,
        ) {
            let inputs = self.input.len() / ROWS;
            let width = COLUMNS * LANES;
            assert!(self.input.len() == ROWS * inputs && self.panel.len() == width * inputs);
            assert!(self.bias.len() == width);
            assert!(self.column_scales.is_empty() || self.column_scales.len() == width);
            assert!(self.row_scales.len() == ROWS && inputs.is_multiple_of(2));
            let input = self.input.as_ptr();
            let mut panel = self.panel.as_ptr();
            // SAFETY: the assertions bound every read, `Output::at` every write; features are those of the caller.
            unsafe {
                let mut sums = [[P::zero(); COLUMNS]; ROWS];
                for k in (0..inputs).step_by(2) {
                    let mut weights = [_mm512_setzero_si512(); COLUMNS];
                    for (column, weight) in weights.iter_mut().enumerate() {
                        *weight = _mm512_loadu_si512(panel.add(column * 2 * LANES).cast());
                        let ahead = panel.wrapping_add(PREFETCH * 2 * width + column * 2 * LANES);
                        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                    }
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let pair = input.add(row * inputs + k).cast::<i32>().read_unaligned();
                        let pair = _mm512_set1_epi32(pair);
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum = P::add(*sum, pair, weight);
                        }
                    }
                    panel = panel.add(2 * width);
                }
                for (row, sums) in sums.into_iter().enumerate() {
                    for (column, sum) in sums.into_iter().enumerate() {
                        let bias = _mm512_loadu_ps(self.bias.as_ptr().add(column * LANES));
                        let sum = P::widen(sum);
                        let value = if self.column_scales.is_empty() {
                            _mm512_add_ps(sum, bias)
                        } else {
                            let scale = _mm512_loadu_ps(self.column_scales.as_ptr().add(column * LANES));
                            let scale = _mm512_mul_ps(scale, _mm512_set1_ps(self.row_scales[row]));
                            _mm512_fmadd_ps(sum, scale, bias)
                        };
                        _mm512_storeu_ps(output.add(row * stride + column * LANES), value);
                    }
                }
            }
        }
    }
}
