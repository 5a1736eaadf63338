//! Sixteen lanes on x86-64: AVX-512, and AVX2 with FMA.

// Every intrinsic below is called only from code that `InstructionSet::run` instantiated inside a
// function with the features enabled, after detection. That is the SAFETY of each block.
use super::Lanes;
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

impl Lanes for Avx512 {
    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    type V = __m512;
    const TILE_COLUMNS: usize = 3;
    const TILE_ROWS: usize = 8;
    const TILE_TOKENS: usize = 12;
    const TILE_POSITIONS: usize = 2;

    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: as above; the caller promises sixteen readable numbers.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::V {
        // SAFETY: as above; the caller promises sixteen readable numbers.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        // SAFETY: as above; the caller promises sixteen writable numbers.
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    fn scale_by_power(value: Self::V, shifted: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe {
            let power = _mm512_slli_epi32::<23>(_mm512_castps_si512(shifted));
            _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value), power))
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

#[derive(Clone, Copy)]
pub(crate) struct Pair(__m256, __m256);

impl Lanes for Avx2 {
    #[inline(always)]
    fn prefetch(address: *const f32) {
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    type V = Pair;
    const TILE_COLUMNS: usize = 1;
    const TILE_ROWS: usize = 6;
    const TILE_TOKENS: usize = 6;
    const TILE_POSITIONS: usize = 1;

    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        let half = unsafe { _mm256_set1_ps(value) };
        Pair(half, half)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: as above; the caller promises sixteen readable numbers.
        unsafe { Pair(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::V {
        // SAFETY: as above; the caller promises sixteen readable numbers.
        unsafe {
            Pair(
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            )
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        // SAFETY: as above; the caller promises sixteen writable numbers.
        unsafe {
            _mm256_storeu_ps(to, value.0);
            _mm256_storeu_ps(to.add(8), value.1);
        }
    }
    #[inline(always)]
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn sub(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn mul(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn div(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn max(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn min(a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe { Pair(_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        // SAFETY: features detected by `InstructionSet::run`.
        unsafe {
            Pair(
                _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(a.0, b.0)),
                _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_LT_OQ>(a.1, b.1)),
            )
        }
    }
    #[inline(always)]
    fn scale_by_power(value: Self::V, shifted: Self::V) -> Self::V {
        #[inline(always)]
        fn half(value: __m256, shifted: __m256) -> __m256 {
            // SAFETY: features detected by `InstructionSet::run`.
            unsafe {
                let power = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value), power))
            }
        }
        Pair(half(value.0, shifted.0), half(value.1, shifted.1))
    }
}
