//! The 16-bit kernels of x86-64 processors.

use super::super::lanes::LANES;
use super::super::linear::{Ahead, CACHE_LINE, Output, ROW_BLOCK, Scratch, even_rows};
use super::{INPUT_LIMIT, NarrowWeights};
use std::arch::x86_64::*;
use std::ops::Range;

// The intrinsics of each implementation below run only within the function that instantiates it with their
// features enabled, after detection. That is the SAFETY of each block.

/// Multiplies pairs of 16-bit factors and adds them to a vector of sums.
trait PairProduct {
    type Factors: Copy;
    type Sums: Copy;
    /// Sums of a vector.
    const LANES: usize;
    /// Rows and vectors of the largest tile: its sums and factors fill the registers.
    const TILE: (usize, usize);
    fn zero() -> Self::Sums;
    /// # Safety
    /// `from` must be valid for reading a pair for each lane.
    unsafe fn load(from: *const u16) -> Self::Factors;
    fn repeat(pair: i32) -> Self::Factors;
    fn add(sums: Self::Sums, inputs: Self::Factors, weights: Self::Factors) -> Self::Sums;
    /// Writes the sums, scaled by what a unit of the row and of each column is worth where they have units, plus the bias.
    ///
    /// # Safety
    /// All three must be valid for a number for each lane.
    unsafe fn store(to: *mut f32, sums: Self::Sums, bias: *const f32, units: Option<(f32, *const f32)>);
}

#[inline(always)]
fn store512(to: *mut f32, sums: __m512, bias: *const f32, units: Option<(f32, *const f32)>) {
    // SAFETY: as above; memory as promised by the caller of `PairProduct::store`.
    unsafe {
        let bias = _mm512_loadu_ps(bias);
        let value = match units {
            None => _mm512_add_ps(sums, bias),
            Some((row, columns)) => {
                let unit = _mm512_mul_ps(_mm512_loadu_ps(columns), _mm512_set1_ps(row));
                _mm512_fmadd_ps(sums, unit, bias)
            }
        };
        _mm512_storeu_ps(to, value);
    }
}

struct Bf16;
impl PairProduct for Bf16 {
    type Factors = __m512i;
    type Sums = __m512;
    const LANES: usize = 16;
    const TILE: (usize, usize) = (8, 3);
    #[inline(always)]
    fn zero() -> __m512 {
        // SAFETY: as above.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u16) -> __m512i {
        // SAFETY: as above, and as promised by the caller.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    fn repeat(pair: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(pair) }
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
    unsafe fn store(to: *mut f32, sums: __m512, bias: *const f32, units: Option<(f32, *const f32)>) {
        store512(to, sums, bias, units);
    }
}

struct Vnni;
impl PairProduct for Vnni {
    type Factors = __m512i;
    type Sums = __m512i;
    const LANES: usize = 16;
    const TILE: (usize, usize) = (8, 3);
    #[inline(always)]
    fn zero() -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u16) -> __m512i {
        // SAFETY: as above, and as promised by the caller.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    fn repeat(pair: i32) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_set1_epi32(pair) }
    }
    #[inline(always)]
    fn add(sums: __m512i, inputs: __m512i, weights: __m512i) -> __m512i {
        // SAFETY: as above.
        unsafe { _mm512_dpwssd_epi32(sums, inputs, weights) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: __m512i, bias: *const f32, units: Option<(f32, *const f32)>) {
        // SAFETY: as above.
        store512(to, unsafe { _mm512_cvtepi32_ps(sums) }, bias, units);
    }
}

struct Avx2;
impl PairProduct for Avx2 {
    type Factors = __m256i;
    type Sums = __m256i;
    const LANES: usize = 8;
    const TILE: (usize, usize) = (6, 2);
    #[inline(always)]
    fn zero() -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_setzero_si256() }
    }
    #[inline(always)]
    unsafe fn load(from: *const u16) -> __m256i {
        // SAFETY: as above, and as promised by the caller.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }
    #[inline(always)]
    fn repeat(pair: i32) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_set1_epi32(pair) }
    }
    #[inline(always)]
    fn add(sums: __m256i, inputs: __m256i, weights: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(inputs, weights)) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: __m256i, bias: *const f32, units: Option<(f32, *const f32)>) {
        // SAFETY: as above, and as promised by the caller.
        unsafe {
            let (sums, bias) = (_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(bias));
            let value = match units {
                None => _mm256_add_ps(sums, bias),
                Some((row, columns)) => {
                    let unit = _mm256_mul_ps(_mm256_loadu_ps(columns), _mm256_set1_ps(row));
                    _mm256_fmadd_ps(sums, unit, bias)
                }
            };
            _mm256_storeu_ps(to, value);
        }
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

#[target_feature(enable = "avx2,fma")]
pub(super) fn narrow_int16_avx2(input: &[f32], width: usize, scratch: &mut Scratch) {
    let rows = input.chunks_exact(width).zip(scratch.rows.chunks_exact_mut(width));
    for ((from, to), scale) in rows.zip(&mut scratch.scales) {
        // SAFETY: chunks of sixteen within rows whose width is a multiple of sixteen.
        unsafe {
            let (mut largest, sign) = (_mm256_setzero_ps(), _mm256_set1_ps(-0.0));
            for chunk in from.chunks_exact(8) {
                let magnitudes = _mm256_andnot_ps(sign, _mm256_loadu_ps(chunk.as_ptr()));
                largest = _mm256_max_ps(largest, magnitudes);
            }
            let mut lanes = [0.0f32; 8];
            _mm256_storeu_ps(lanes.as_mut_ptr(), largest);
            let largest = lanes.into_iter().fold(0.0, f32::max);
            *scale = if largest > 0.0 { largest / INPUT_LIMIT } else { 1.0 };
            let inverse = _mm256_set1_ps(1.0 / *scale);
            for (from, to) in from.chunks_exact(LANES).zip(to.chunks_exact_mut(LANES)) {
                let low = _mm256_mul_ps(_mm256_loadu_ps(from.as_ptr()), inverse);
                let high = _mm256_mul_ps(_mm256_loadu_ps(from.as_ptr().add(8)), inverse);
                // Packing takes turns between the two in units of 64 bits.
                let whole = _mm256_packs_epi32(_mm256_cvtps_epi32(low), _mm256_cvtps_epi32(high));
                let whole = _mm256_permute4x64_epi64::<0b11_01_10_00>(whole);
                _mm256_storeu_si256(to.as_mut_ptr().cast(), whole);
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
pub(super) fn vnni_blocks(job: &Job<'_>, scratch: &Scratch) {
    blocks::<Vnni>(job, scratch);
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn avx2_blocks(job: &Job<'_>, scratch: &Scratch) {
    blocks::<Avx2>(job, scratch);
}

#[inline(always)]
fn blocks<P: PairProduct>(job: &Job<'_>, scratch: &Scratch) {
    let inputs = job.weights.inputs;
    let panels: &[u16] = bytemuck::cast_slice(job.weights.panels.as_bytes());
    let width = job.weights.panel();
    let blocks = scratch.rows.chunks(ROW_BLOCK * inputs).zip(scratch.scales.chunks(ROW_BLOCK));
    for (block, (input, scales)) in blocks.enumerate() {
        let rows = scales.len();
        let most = even_rows(rows, P::TILE.0);
        let tiles = rows.div_ceil(most);
        for first in job.columns.clone().step_by(width) {
            let columns = width.min(job.columns.end - first);
            let panel = &panels[first * inputs..(first + columns) * inputs];
            for index in 0..tiles {
                let row = index * most;
                let count = most.min(rows - row);
                let tile = Tile {
                    input: &input[row * inputs..(row + count) * inputs],
                    inputs,
                    panel,
                    bias: &job.bias[first..first + columns],
                    row_scales: &scales[row..row + count],
                    column_scales: job.weights.column_scales.get(first..first + columns).unwrap_or(&[]),
                    ahead: Ahead::new(panel, inputs / 2, (index, tiles)),
                };
                let output = job.output.at((block * ROW_BLOCK + row, count), (first, columns));
                tile.write::<P>((count, columns / P::LANES), output, job.output.stride());
            }
        }
    }
}

struct Tile<'a> {
    input: &'a [u16],
    inputs: usize,
    panel: &'a [u16],
    bias: &'a [f32],
    row_scales: &'a [f32],
    column_scales: &'a [f32],
    ahead: Ahead,
}

impl Tile<'_> {
    #[inline(always)]
    fn write<P: PairProduct>(&self, size: (usize, usize), output: *mut f32, stride: usize) {
        macro_rules! choose {
            ($($rows:literal)*) => {
                match size {
                    $(($rows, 1) if $rows <= P::TILE.0 => self.sized::<P, $rows, 1>(output, stride),
                      ($rows, 2) if $rows <= P::TILE.0 => self.sized::<P, $rows, 2>(output, stride),
                      ($rows, 3) if $rows <= P::TILE.0 && P::TILE.1 >= 3 =>
                          self.sized::<P, $rows, 3>(output, stride),)*
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
        let inputs = self.inputs;
        let width = COLUMNS * P::LANES;
        assert!(self.input.len() == ROWS * inputs && self.panel.len() == width * inputs);
        assert!(self.bias.len() == width);
        assert!(self.column_scales.is_empty() || self.column_scales.len() == width);
        assert!(self.row_scales.len() == ROWS && inputs.is_multiple_of(2));
        let (mut input, mut panel) = (self.input.as_ptr(), self.panel.as_ptr());
        let mut ahead = self.ahead;
        let lines = 2 * width * size_of::<u16>() / CACHE_LINE;
        let line_step = ahead.step / lines;
        // SAFETY: the assertions bound every read, `Output::at` every write; a prefetch may be of any address.
        unsafe {
            let mut sums = [[P::zero(); COLUMNS]; ROWS];
            // One pair a turn: the compiler would add up the products of several before it adds them to the sums.
            for _ in 0..inputs / 2 {
                for line in 0..lines {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.from.wrapping_add(line * line_step).cast());
                }
                let mut weights = [P::repeat(0); COLUMNS];
                for (column, weight) in weights.iter_mut().enumerate() {
                    *weight = P::load(panel.add(2 * column * P::LANES));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let pair = P::repeat(input.add(row * inputs).cast::<i32>().read_unaligned());
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = P::add(*sum, pair, weight);
                    }
                }
                input = input.add(2);
                panel = panel.add(2 * width);
                ahead.from = ahead.from.wrapping_add(ahead.step);
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (column, sum) in sums.into_iter().enumerate() {
                    let first = column * P::LANES;
                    let scales = self.column_scales.get(first..).filter(|scales| !scales.is_empty());
                    let units = scales.map(|scales| (self.row_scales[row], scales.as_ptr()));
                    let to = output.add(row * stride + first);
                    P::store(to, sum, self.bias.as_ptr().add(first), units);
                }
            }
        }
    }
}
