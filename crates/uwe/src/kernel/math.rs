//! Exponential and Gaussian error function over [`Lanes`], the same bits on every instruction set.

use super::lanes::{LANES, Lanes};
use std::sync::LazyLock;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts: the high one has trailing zeros, so that `n * HIGH` is exact for the n in use.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = -2.121_944_4e-4;
// Adding 1.5 * 2^23 rounds to a whole number, which then sits in the low bits of the mantissa.
const ROUND: f32 = 12_582_912.0;
/// Below this, `exp` returns zero: the result would be subnormal.
const SMALLEST: f32 = -87.0;
/// Above this, `exp` saturates.
const LARGEST: f32 = 88.0;

/// `e^x`, relative error below 3e-7; 0 below -87, saturating at e^88. NaN is not propagated.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(x: L::V) -> L::V {
    let clamped = L::min(L::max(x, L::splat(SMALLEST)), L::splat(LARGEST));
    let shifted = L::fma(clamped, L::splat(LOG2_E), L::splat(ROUND));
    let n = L::sub(shifted, L::splat(ROUND));
    let r = L::fma(n, L::splat(-LN_2_HIGH), clamped);
    let r = L::fma(n, L::splat(-LN_2_LOW), r);
    // Taylor series: |r| <= ln(2)/2, so the first term left out is below 1e-8.
    let mut p = L::splat(1.0 / 5040.0);
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = L::fma(p, r, L::splat(coefficient));
    }
    let value = L::scale_by_power(p, shifted);
    L::select_less(x, L::splat(SMALLEST), L::splat(0.0), value)
}

/// Width of an interval of the tail table; sixteen of them reach to 6.
const TAIL_STEP: f32 = 6.0 / LANES as f32;
const TAIL_DEGREE: usize = 6;

/// Upper tail of the normal distribution on [0, 6), as a polynomial on each of sixteen intervals:
/// `TAIL[power][interval]`, in the distance from the interval's centre.
static TAIL: LazyLock<[[f32; LANES]; TAIL_DEGREE + 1]> = LazyLock::new(|| {
    let mut table = [[0.0f32; LANES]; TAIL_DEGREE + 1];
    for interval in 0..LANES {
        let centre = (interval as f64 + 0.5) * f64::from(TAIL_STEP);
        let coefficients = interpolate(|t| normal_tail(centre + t), f64::from(TAIL_STEP) / 2.0);
        for (row, coefficient) in table.iter_mut().zip(coefficients) {
            row[interval] = coefficient as f32;
        }
    }
    table
});

/// Probability that a standard normal variable exceeds `x >= 0`, by the series
/// `1/2 - phi(x) (x + x^3/3 + x^5/15 + ...)`, whose terms are all positive.
fn normal_tail(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term > sum * 1e-17 && term > 0.0 {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 - density * sum
}

/// Coefficients of the polynomial that interpolates `function` at the Chebyshev nodes of
/// `[-radius, radius]` (Newton's divided differences, expanded).
fn interpolate(function: impl Fn(f64) -> f64, radius: f64) -> [f64; TAIL_DEGREE + 1] {
    const COUNT: usize = TAIL_DEGREE + 1;
    let nodes: [f64; COUNT] =
        std::array::from_fn(|k| radius * (std::f64::consts::PI * (k as f64 + 0.5) / COUNT as f64).cos());
    let mut differences = nodes.map(&function);
    for order in 1..COUNT {
        for k in (order..COUNT).rev() {
            differences[k] = (differences[k] - differences[k - 1]) / (nodes[k] - nodes[k - order]);
        }
    }
    let mut polynomial = [0.0; COUNT];
    for k in (0..COUNT).rev() {
        for power in (1..COUNT).rev() {
            polynomial[power] = polynomial[power - 1] - nodes[k] * polynomial[power];
        }
        polynomial[0] = differences[k] - nodes[k] * polynomial[0];
    }
    polynomial
}

/// The table that [`gelu`] reads; fetch it once outside the loop.
pub(crate) fn tail_table() -> &'static [[f32; LANES]; TAIL_DEGREE + 1] {
    &TAIL
}

/// `x * P(N <= x)` for a standard normal N: the exact ("erf") GELU, absolute error below 5e-7 for |x| < 6.
#[inline(always)]
pub(crate) fn gelu<L: Lanes>(x: L::V, table: &[[f32; LANES]; TAIL_DEGREE + 1]) -> L::V {
    let zero = L::splat(0.0);
    let magnitude = L::max(x, L::sub(zero, x));
    let inside = L::min(magnitude, L::splat(5.999_999));
    let interval = L::truncate(L::mul(inside, L::splat(1.0 / TAIL_STEP)));
    let centre = L::fma(interval, L::splat(TAIL_STEP), L::splat(TAIL_STEP / 2.0));
    let t = L::sub(inside, centre);
    let mut tail = L::lookup(&table[TAIL_DEGREE], interval);
    for power in (0..TAIL_DEGREE).rev() {
        tail = L::fma(tail, t, L::lookup(&table[power], interval));
    }
    let tail = L::select_less(magnitude, L::splat(6.0), tail, zero);
    let below = L::select_less(x, zero, tail, L::sub(L::splat(1.0), tail));
    L::mul(x, below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lanes::{InstructionSet, Operation};

    struct Apply<'a> {
        values: &'a mut [f32],
        gelu: bool,
    }
    impl Operation for Apply<'_> {
        type Output = ();
        #[inline(always)]
        fn run<L: Lanes>(self) {
            for chunk in self.values.chunks_exact_mut(LANES) {
                // SAFETY: the chunk has sixteen entries.
                unsafe {
                    let x = L::load(chunk.as_ptr());
                    let y = if self.gelu { gelu::<L>(x, tail_table()) } else { exp::<L>(x) };
                    L::store(chunk.as_mut_ptr(), y);
                }
            }
        }
    }

    #[test]
    fn exp_is_accurate_and_equal_everywhere() {
        let xs: Vec<f32> = (0..64_000).map(|i| -100.0 + i as f32 * 0.002_9).collect();
        let mut expected = xs.clone();
        InstructionSet::Scalar.run(Apply { values: &mut expected, gelu: false });
        for (x, y) in xs.iter().zip(&expected) {
            let exact = f64::from(*x).exp();
            if *x < SMALLEST {
                assert_eq!(*y, 0.0);
            } else if *x < LARGEST {
                assert!((f64::from(*y) / exact - 1.0).abs() < 3e-7, "exp({x}) = {y}");
            }
        }
        for set in InstructionSet::all() {
            let mut values = xs.clone();
            set.run(Apply { values: &mut values, gelu: false });
            assert_eq!(values, expected, "{set}");
        }
    }

    #[test]
    fn exp_of_minus_infinity_is_zero() {
        let mut values = [f32::NEG_INFINITY; LANES];
        InstructionSet::detect().run(Apply { values: &mut values, gelu: false });
        assert_eq!(values, [0.0; LANES]);
    }

    #[test]
    fn gelu_is_accurate_and_equal_everywhere() {
        let xs: Vec<f32> = (0..64_000).map(|i| -16.0 + i as f32 * 0.000_5).collect();
        let mut expected = xs.clone();
        InstructionSet::Scalar.run(Apply { values: &mut expected, gelu: true });
        for (x, y) in xs.iter().zip(&expected) {
            let wide = f64::from(*x);
            let tail = normal_tail(wide.abs());
            let exact = if wide < 0.0 { wide * tail } else { wide * (1.0 - tail) };
            assert!(
                (f64::from(*y) - exact).abs() < 2e-7 * wide.abs().max(1.0),
                "gelu({x}) = {y}, not {exact}"
            );
        }
        for set in InstructionSet::all() {
            let mut values = xs.clone();
            set.run(Apply { values: &mut values, gelu: true });
            assert_eq!(values, expected, "{set}");
        }
    }
}
