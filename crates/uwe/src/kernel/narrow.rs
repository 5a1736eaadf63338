//! Linear layers with 16-bit factors and wide sums: `bf16` and fixed-point `int16`.
//!
//! Both keep two neighbouring inputs of a column side by side in 32 bits, so that one instruction multiplies
//! and adds pairs; weights take half the memory of `f32`.
//!
//! - **bf16**: factors rounded to 8 significant bits, sums in f32 (`vdpbf16ps`).
//! - **int16**: factors are whole numbers times a scale, one scale for each input row and one for each
//!   output column; sums are exact in 32-bit integers (`vpdpwssd` with AVX-512 VNNI, `vpmaddwd` with AVX2), so
//!   every processor gives the same bits. A row uses 13 bits; a column as many as it can so that no sum
//!   overflows: the sum of its magnitudes times the largest input stays below 2^31. That bound is checked
//!   weight by weight when packing, so it holds for any input.

use super::Precision;
use super::buffer::Buffer;
use super::lanes::LANES;
use super::linear::{Output, Scratch};
use std::ops::Range;

/// The instructions that multiply pairs of 16-bit factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pairs {
    Avx512Bf16,
    Avx512Vnni,
    Avx2,
}

impl Pairs {
    /// Those of this processor for a precision, the fastest first.
    pub(super) fn available(precision: Precision) -> impl Iterator<Item = Self> {
        let all: &[Self] = match precision {
            Precision::F32 => &[],
            Precision::Bf16 => &[Self::Avx512Bf16],
            Precision::Int16 => &[Self::Avx512Vnni, Self::Avx2],
        };
        all.iter().copied().filter(|pairs| pairs.is_available())
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use super::lanes::InstructionSet;
        match self {
            Self::Avx512Bf16 => {
                InstructionSet::Avx512.is_available() && is_x86_feature_detected!("avx512bf16")
            }
            Self::Avx512Vnni => {
                InstructionSet::Avx512.is_available() && is_x86_feature_detected!("avx512vnni")
            }
            Self::Avx2 => InstructionSet::Avx2.is_available(),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn is_available(self) -> bool {
        false
    }

    /// Columns of a panel: the sums of a tile's row.
    fn panel(self) -> usize {
        match self {
            Self::Avx512Bf16 | Self::Avx512Vnni => 3 * LANES,
            Self::Avx2 => LANES,
        }
    }
}

/// Packed 16-bit weights.
#[derive(Debug)]
pub(super) struct NarrowWeights {
    pairs: Pairs,
    inputs: usize,
    /// Panels of up to [`NarrowWeights::panel`] columns; in each, `[inputs / 2][columns][2]`.
    panels: Buffer,
    /// int16: what a unit of each column is worth. Empty for bf16.
    column_scales: Vec<f32>,
}

/// Largest magnitude of a narrowed int16 input.
pub(super) const INPUT_LIMIT: f32 = 8191.0;

impl NarrowWeights {
    /// Packs `weights` (`outputs x inputs`, row-major). `pairs` must be available.
    pub(super) fn new(pairs: Pairs, weights: &[f32], inputs: usize, outputs: usize) -> std::io::Result<Self> {
        let mut panels = Buffer::zeroed(weights.len() * size_of::<u16>())?;
        let packed: &mut [u16] = bytemuck::cast_slice_mut(panels.as_bytes_mut());
        let column_scales = match pairs {
            Pairs::Avx512Bf16 => Vec::new(),
            Pairs::Avx512Vnni | Pairs::Avx2 => weights.chunks_exact(inputs).map(column_scale).collect(),
        };
        for first in (0..outputs).step_by(pairs.panel()) {
            let columns = pairs.panel().min(outputs - first);
            let panel = &mut packed[first * inputs..(first + columns) * inputs];
            for start in (0..inputs).step_by(LANES) {
                for column in 0..columns {
                    let from = (first + column) * inputs + start;
                    let inverse = column_scales.get(first + column).map(|scale| 1.0 / scale);
                    for (offset, weight) in weights[from..from + LANES].iter().enumerate() {
                        let k = start + offset;
                        panel[(k / 2 * columns + column) * 2 + k % 2] = match inverse {
                            Some(inverse) => (weight * inverse).round_ties_even() as i16 as u16,
                            None => half::bf16::from_f32(*weight).to_bits(),
                        };
                    }
                }
            }
        }
        Ok(Self { pairs, inputs, panels, column_scales })
    }

    /// Columns of a panel; the last one may have fewer.
    pub(super) fn panel(&self) -> usize {
        self.pairs.panel()
    }
}

/// The smallest scale with which a column's sums cannot overflow.
pub(super) fn column_scale(column: &[f32]) -> f32 {
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
        assert!(weights.pairs.is_available(), "precision is checked when a model is loaded");
        scratch.rows.resize(input.len(), 0);
        scratch.scales.resize(input.len() / weights.inputs, 1.0);
        // SAFETY: the features were just checked.
        unsafe {
            match weights.pairs {
                Pairs::Avx512Bf16 => x86::narrow_bf16(input, &mut scratch.rows),
                Pairs::Avx512Vnni => x86::narrow_int16(input, weights.inputs, scratch),
                Pairs::Avx2 => x86::narrow_int16_avx2(input, weights.inputs, scratch),
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
        assert!(weights.pairs.is_available(), "precision is checked when a model is loaded");
        let job = x86::Job { weights, bias, columns, output };
        // SAFETY: the features were just checked.
        unsafe {
            match weights.pairs {
                Pairs::Avx512Bf16 => x86::bf16_blocks(&job, scratch),
                Pairs::Avx512Vnni => x86::vnni_blocks(&job, scratch),
                Pairs::Avx2 => x86::avx2_blocks(&job, scratch),
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
    use super::super::linear::{Ahead, CACHE_LINE, ROW_BLOCK, even_rows};
    use super::*;
    use std::arch::x86_64::*;

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
}
