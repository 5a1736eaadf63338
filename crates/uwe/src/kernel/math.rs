//! Exponential and Gaussian error function over [`Lanes`], the same bits on every instruction set.

use super::lanes::Lanes;

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

/// Beyond this, GELU is `x` or zero to within a unit in the last place of `x`.
const GELU_REACH: f32 = 5.5;
/// `(P(N <= x) - 1/2) / x` for a standard normal N is even in x: numerator and denominator of a rational function of
/// `x * x`, lowest power first. Fitted for the smallest largest error over [-5.5, 5.5] (7e-9 of the probability) by least
/// squares, reweighted by the error until it is level (Lawson).
const GELU_NUMERATOR: [f32; 6] =
    [3.989_422_3e-1, 3.385_260_2e-2, 4.677_258e-3, 1.688_252_6e-4, 6.352_119e-6, 2.274_946e-8];
const GELU_DENOMINATOR: [f32; 6] =
    [1.0, 2.515_218e-1, 2.864_584_6e-2, 1.884_442_4e-3, 7.364_739_4e-5, 1.197_506_8e-6];

/// `x * P(N <= x)` for a standard normal N: the exact ("erf") GELU, error below 2e-7 times the larger of |x| and 1.
#[inline(always)]
pub(crate) fn gelu<L: Lanes>(x: L::V) -> L::V {
    let inside = L::max(L::min(x, L::splat(GELU_REACH)), L::splat(-GELU_REACH));
    let square = L::mul(inside, inside);
    let ratio = L::div(polynomial::<L>(GELU_NUMERATOR, square), polynomial::<L>(GELU_DENOMINATOR, square));
    let value = L::mul(x, L::fma(inside, ratio, L::splat(0.5)));
    L::select_less(x, L::splat(-GELU_REACH), L::splat(0.0), value)
}

/// The polynomial with these coefficients, lowest power first, at `x`.
#[inline(always)]
fn polynomial<L: Lanes>(coefficients: [f32; 6], x: L::V) -> L::V {
    let mut value = L::splat(coefficients[5]);
    for power in (0..5).rev() {
        value = L::fma(value, x, L::splat(coefficients[power]));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::lanes::{InstructionSet, LANES, Operation};

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
                    let y = if self.gelu { gelu::<L>(x) } else { exp::<L>(x) };
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
