//! Sixteen `f32` lanes, four ways: AVX-512, AVX2 with FMA, NEON, and plain Rust.
//!
//! Every kernel is written once, over [`Lanes`]. All implementations do the same operations in the same
//! order (a fused multiply-add is rounded once on each, a sum over lanes is always the same tree), so a
//! kernel gives **the same bits** on every processor. That is what lets the plain form stand as the
//! reference in tests, and what keeps a score from depending on the machine.
//!
//! A kernel is an [`Operation`]; [`InstructionSet::run`] instantiates it for the chosen instruction set
//! inside a function that has the target features enabled. Everything on the way is `#[inline(always)]`,
//! or the intrinsics would not be inlined.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt;

/// The instruction set that the kernels use, chosen once at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// 512-bit vectors (x86-64 with AVX-512 F, BW, DQ and VL).
    Avx512,
    /// 256-bit vectors (x86-64 with AVX2, FMA and F16C).
    Avx2,
    /// 128-bit vectors (every 64-bit ARM processor).
    Neon,
    /// Plain Rust without intrinsics: the reference, and what runs on other processors.
    Scalar,
}

impl InstructionSet {
    /// The fastest instruction set of this processor.
    pub fn detect() -> Self {
        Self::all().into_iter().find(|set| set.is_available()).unwrap_or(Self::Scalar)
    }

    /// All instruction sets, fastest first.
    pub fn all() -> [Self; 4] {
        [Self::Avx512, Self::Avx2, Self::Neon, Self::Scalar]
    }

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Neon => cfg!(target_arch = "aarch64"),
            Self::Scalar => true,
        }
    }

    /// The name used in options and reports: `avx512`, `avx2`, `neon`, `scalar`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Avx512 => "avx512",
            Self::Avx2 => "avx2",
            Self::Neon => "neon",
            Self::Scalar => "scalar",
        }
    }

    /// Runs a kernel on this instruction set.
    ///
    /// The set must be available; [`Compute`](crate::Compute) is the one place that chooses it and checks
    /// that. An unavailable set falls back to [`InstructionSet::Scalar`], which gives the same bits.
    #[inline]
    pub(crate) fn run<O: Operation>(self, operation: O) -> O::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 if self.is_available() => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn go<O: Operation>(operation: O) -> O::Output {
                    operation.run::<x86::Avx512>()
                }
                // SAFETY: the features were detected in the guard of this arm.
                unsafe { go(operation) }
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 if self.is_available() => {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn go<O: Operation>(operation: O) -> O::Output {
                    operation.run::<x86::Avx2>()
                }
                // SAFETY: the features were detected in the guard of this arm.
                unsafe { go(operation) }
            }
            // Part of every such processor, and of every function that is compiled for one.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => operation.run::<neon::Neon>(),
            _ => operation.run::<Scalar>(),
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A kernel, ready to run: its arguments, and its body over any [`Lanes`].
pub(crate) trait Operation {
    /// What the kernel returns.
    type Output;
    /// The body. Must be `#[inline(always)]`.
    fn run<L: Lanes>(self) -> Self::Output;
}

/// Number of lanes of a vector, on every instruction set.
pub(crate) const LANES: usize = 16;

/// Operations on sixteen `f32` lanes.
///
/// Implementations must give the same bits. Comparisons with NaN are false, so `max(a, b)` is `b` when
/// either is NaN (as the hardware does).
pub(crate) trait Lanes: Copy + 'static {
    /// Sixteen lanes.
    type V: Copy;
    /// Column vectors of a matrix-product tile: how many sixteens of output columns one tile holds.
    const TILE_COLUMNS: usize;
    /// Rows of a matrix-product tile.
    const TILE_ROWS: usize;
    /// Query tokens of a late-interaction tile.
    const TILE_TOKENS: usize;
    /// Target positions of a late-interaction tile.
    const TILE_POSITIONS: usize;

    /// All lanes set to `value`.
    fn splat(value: f32) -> Self::V;
    /// Loads sixteen numbers.
    ///
    /// # Safety
    /// `from` must be valid for reading 16 `f32`; no alignment needed.
    unsafe fn load(from: *const f32) -> Self::V;
    /// Loads sixteen IEEE half-precision numbers and widens them (exact).
    ///
    /// # Safety
    /// `from` must be valid for reading 16 `u16`; no alignment needed.
    unsafe fn load_f16(from: *const u16) -> Self::V;
    /// Stores sixteen numbers.
    ///
    /// # Safety
    /// `to` must be valid for writing 16 `f32`; no alignment needed.
    unsafe fn store(to: *mut f32, value: Self::V);
    /// `a * b + c`, rounded once.
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `a + b`
    fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`, correctly rounded.
    fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `if a > b { a } else { b }`
    fn max(a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { a } else { b }`
    fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `if a < b { yes } else { no }`, lane by lane.
    fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// `value * 2^n` where `n` is the integer in the low mantissa bits of `shifted` (see `math::exp`).
    fn scale_by_power(value: Self::V, shifted: Self::V) -> Self::V;
    /// Asks for the cache line at `address`, which need not be readable.
    #[inline(always)]
    fn prefetch(_address: *const f32) {}
    /// The lanes as an array.
    #[inline(always)]
    fn to_array(value: Self::V) -> [f32; LANES] {
        let mut array = [0.0; LANES];
        // SAFETY: `array` has room for the sixteen lanes.
        unsafe { Self::store(array.as_mut_ptr(), value) };
        array
    }
    /// Sum of the lanes, always as the same tree: halves are added until one lane is left.
    #[inline(always)]
    fn sum(value: Self::V) -> f32 {
        let mut array = Self::to_array(value);
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                array[lane] += array[lane + width];
            }
        }
        array[0]
    }
    /// Largest lane.
    #[inline(always)]
    fn largest(value: Self::V) -> f32 {
        let mut array = Self::to_array(value);
        for width in [8, 4, 2, 1] {
            for lane in 0..width {
                if array[lane + width] > array[lane] {
                    array[lane] = array[lane + width];
                }
            }
        }
        array[0]
    }
}

/// Sixteen lanes in plain Rust.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

#[inline(always)]
fn each(mut lane: impl FnMut(usize) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (index, value) in out.iter_mut().enumerate() {
        *value = lane(index);
    }
    out
}

impl Lanes for Scalar {
    type V = [f32; LANES];
    const TILE_COLUMNS: usize = 1;
    const TILE_ROWS: usize = 4;
    const TILE_TOKENS: usize = 4;
    const TILE_POSITIONS: usize = 1;

    #[inline(always)]
    fn splat(value: f32) -> Self::V {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::V {
        // SAFETY: the caller promises sixteen readable numbers.
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self::V {
        // SAFETY: the caller promises sixteen readable numbers.
        let halves = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        each(|lane| half::f16::from_bits(halves[lane]).to_f32())
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::V) {
        // SAFETY: the caller promises sixteen writable numbers.
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(value) }
    }
    #[inline(always)]
    fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        each(|lane| a[lane].mul_add(b[lane], c[lane]))
    }
    #[inline(always)]
    fn add(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    fn sub(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] - b[lane])
    }
    #[inline(always)]
    fn mul(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] * b[lane])
    }
    #[inline(always)]
    fn div(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| a[lane] / b[lane])
    }
    #[inline(always)]
    fn max(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    fn min(a: Self::V, b: Self::V) -> Self::V {
        each(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }
    #[inline(always)]
    fn select_less(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        each(|lane| if a[lane] < b[lane] { yes[lane] } else { no[lane] })
    }
    #[inline(always)]
    fn scale_by_power(value: Self::V, shifted: Self::V) -> Self::V {
        each(|lane| f32::from_bits(value[lane].to_bits().wrapping_add(shifted[lane].to_bits() << 23)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies every operation to the same numbers.
    struct Everything<'a> {
        a: &'a [f32; LANES],
        b: &'a [f32; LANES],
    }

    impl Operation for Everything<'_> {
        type Output = Vec<[u32; LANES]>;
        #[inline(always)]
        fn run<L: Lanes>(self) -> Self::Output {
            let halves: [u16; LANES] =
                std::array::from_fn(|lane| half::f16::from_f32(self.a[lane]).to_bits());
            // SAFETY: all arrays have sixteen entries.
            let (a, b, h) =
                unsafe { (L::load(self.a.as_ptr()), L::load(self.b.as_ptr()), L::load_f16(halves.as_ptr())) };
            let all = [
                a,
                h,
                L::fma(a, b, h),
                L::add(a, b),
                L::sub(a, b),
                L::mul(a, b),
                L::div(a, b),
                L::max(a, b),
                L::min(a, b),
                L::select_less(a, b, L::splat(1.0), L::splat(2.0)),
                L::scale_by_power(L::splat(1.25), L::splat(12_582_912.0 - 3.0)),
                L::splat(L::sum(a)),
                L::splat(L::largest(b)),
            ];
            all.iter().map(|v| L::to_array(*v).map(f32::to_bits)).collect()
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let a: [f32; LANES] = std::array::from_fn(|lane| (lane as f32 * 0.7 - 4.0) * 1.37);
        let b: [f32; LANES] = std::array::from_fn(|lane| 19.0 - lane as f32 * 2.3);
        let expected = InstructionSet::Scalar.run(Everything { a: &a, b: &b });
        assert_eq!(f32::from_bits(expected[10][0]), 1.25 / 8.0);
        for set in InstructionSet::all().into_iter().filter(|set| set.is_available()) {
            assert_eq!(set.run(Everything { a: &a, b: &b }), expected, "{set}");
        }
    }
}
