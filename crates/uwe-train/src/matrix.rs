//! Matrix products and the loops around them: row-major `f32`, one thread each.
//!
//! Every function does the same operations in the same order whatever the number of threads of the step: work is cut into
//! blocks of a fixed size, and a block is one thread's.

use gemm::Parallelism;

/// A row-major matrix, `rows x columns`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Whether it is read as its transpose.
    transposed: bool,
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows follow each other.
    pub(crate) fn new(values: &'a [f32], columns: usize) -> Self {
        let rows = values.len() / columns.max(1);
        Self { values, rows, columns, transposed: false }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Rows and columns as it is read, and the steps from one to the next.
    fn shape(&self) -> ((usize, usize), (isize, isize)) {
        let (row, column) = (self.columns as isize, 1);
        if self.transposed {
            ((self.columns, self.rows), (column, row))
        } else {
            ((self.rows, self.columns), (row, column))
        }
    }
}

/// Runs loops with the widest vectors of this processor. They must be inlined into the closure, and the closure is inlined here: mark
/// it `#[inline(always)]`.
#[inline(always)]
pub(crate) fn wide<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2")]
        fn avx512<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        #[target_feature(enable = "avx2,fma,bmi1,bmi2")]
        fn avx2<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        let modern = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        let widest = modern
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if widest {
            // SAFETY: every feature that the function is compiled for was found on this processor.
            return unsafe { avx512(work) };
        }
        if modern {
            // SAFETY: every feature that the function is compiled for was found on this processor.
            return unsafe { avx2(work) };
        }
    }
    work()
}

/// So many zeros, written one by one: memory that the system only promises to be zero is mapped twice when it is read first, and
/// every thread stops for that.
pub(crate) fn zeros(count: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(count);
    values.resize(count, 0.0);
    values
}

/// `out = left * right`, or `out += left * right` when `add`. `out` is row-major with as many columns as `right` has.
pub(crate) fn product(left: Matrix<'_>, right: Matrix<'_>, out: &mut [f32], add: bool) {
    let ((rows, inner), (left_row, left_column)) = left.shape();
    let ((inner_too, columns), (right_row, right_column)) = right.shape();
    assert!(inner == inner_too && out.len() == rows * columns);
    assert!(left.values.len() >= rows * inner && right.values.len() >= inner * columns);
    if rows == 0 || columns == 0 {
        return;
    }
    // SAFETY: the assertions above say that every entry that the steps lead to lies inside its slice, and `out`
    // is borrowed mutably, so that nothing else refers to it.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            inner,
            out.as_mut_ptr(),
            1,
            columns as isize,
            add,
            left.values.as_ptr(),
            left_column,
            left_row,
            right.values.as_ptr(),
            right_column,
            right_row,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `e^x`, relative error 2e-7, for `x` from -87 to 87; what lies beyond counts as the nearer end. Made of additions and multiplications
/// alone, so that loops over it become vector code.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// Adding it leaves a whole number in the lowest bits.
    const SHIFT: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    // x = n ln 2 + r, with ln 2 in two parts so that r is exact.
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let n = shifted - SHIFT;
    let r = (x - n * 0.693_145_75) - n * 1.428_606_8e-6;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    y * f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23))
}

/// The normal distribution at `x`: its share below `x`, and its density. Error 2e-7.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    // Abramowitz and Stegun 7.1.26, with the error function's argument x / sqrt 2.
    let half = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let p = t * (0.254_829_6 + t * (-0.284_496_73 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let upper = 0.5 * p * half;
    (if x < 0.0 { upper } else { 1.0 - upper }, half * 0.398_942_3)
}

/// `gelu(x)` by the error function.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    x * normal(x).0
}

/// Each entry of `values` through GELU, into `out`.
pub(crate) fn gelu_forward(values: &[f32], out: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for (out, x) in out.iter_mut().zip(values) {
                *out = gelu(*x);
            }
        },
    );
}

/// `values` becomes its GELU, and `gradient` that of the input.
pub(crate) fn gelu_backward(values: &mut [f32], gradient: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for (x, gradient) in values.iter_mut().zip(gradient) {
                let (share, density) = normal(*x);
                *gradient *= share + *x * density;
                *x *= share;
            }
        },
    );
}

/// Adds `bias` to each row.
pub(crate) fn add_to_rows(values: &mut [f32], bias: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for row in values.chunks_exact_mut(bias.len()) {
                for (value, bias) in row.iter_mut().zip(bias) {
                    *value += bias;
                }
            }
        },
    );
}

/// Adds all rows to `sum`.
pub(crate) fn sum_rows(values: &[f32], sum: &mut [f32]) {
    wide(
        #[inline(always)]
        || {
            for row in values.chunks_exact(sum.len()) {
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += value;
                }
            }
        },
    );
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    wide(
        #[inline(always)]
        || {
            for (to, from) in to.iter_mut().zip(from) {
                *to += from;
            }
        },
    );
}

/// A sum in sixteen lanes, so that it becomes vector code with one order on every processor.
#[inline(always)]
fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let chunks = values.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|value| of(*value)).sum();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += of(*value);
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// A dot product in sixteen lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (left, right) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = left.remainder().iter().zip(right.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in left.zip(right) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// `to += factor * from`.
#[inline(always)]
pub(crate) fn add_scaled(to: &mut [f32], from: &[f32], factor: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

/// Layer normalisation of each row: `values` becomes the normalised rows (before scale and shift), `out` the result, `rates` the
/// reciprocal deviation of each row.
pub(crate) fn norm_forward(
    values: &mut [f32],
    (scale, shift): (&[f32], &[f32]),
    epsilon: f32,
    (out, rates): (&mut [f32], &mut [f32]),
) {
    let width = scale.len();
    wide(
        #[inline(always)]
        || {
            let rows = values.chunks_exact_mut(width).zip(out.chunks_exact_mut(width));
            for ((row, out), rate) in rows.zip(rates) {
                let mean = sum(row, |x| x) / width as f32;
                let variance = sum(row, |x| (x - mean) * (x - mean)) / width as f32;
                *rate = 1.0 / (variance + epsilon).sqrt();
                let rest = out.iter_mut().zip(scale.iter().zip(shift));
                for (value, (out, (scale, shift))) in row.iter_mut().zip(rest) {
                    *value = (*value - mean) * *rate;
                    *out = *value * scale + shift;
                }
            }
        },
    );
}

/// The way back: `gradient`, of the result, becomes that of the input; the gradients of scale and shift are added to.
pub(crate) fn norm_backward(
    gradient: &mut [f32],
    (normalised, rates): (&[f32], &[f32]),
    scale: &[f32],
    (to_scale, to_shift): (&mut [f32], &mut [f32]),
) {
    let width = scale.len();
    wide(
        #[inline(always)]
        || {
            let rows = gradient.chunks_exact_mut(width).zip(normalised.chunks_exact(width));
            for ((row, normalised), rate) in rows.zip(rates) {
                let sums = to_scale.iter_mut().zip(to_shift.iter_mut());
                let rest = normalised.iter().zip(scale).zip(sums);
                for (value, ((normalised, scale), (to_scale, to_shift))) in row.iter_mut().zip(rest) {
                    *to_scale += *value * normalised;
                    *to_shift += *value;
                    *value *= scale;
                }
                let mean = sum(row, |x| x) / width as f32;
                let along = dot(row, normalised) / width as f32;
                for (value, normalised) in row.iter_mut().zip(normalised) {
                    *value = (*value - mean - normalised * along) * rate;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_and_gelu_are_those_of_f64() {
        for i in -8000..800 {
            let x = i as f32 * 0.01;
            let right = f64::from(x).exp();
            assert!((f64::from(exp(x)) - right).abs() <= right * 4e-7 + 1e-37, "{x}");
        }
        // Phi(1) and Phi(-2), and their densities.
        for (x, share, density) in [(1.0, 0.841_344_8, 0.241_970_72), (-2.0, 0.022_750_132, 0.053_990_97)] {
            let found = normal(x);
            assert!((found.0 - share).abs() < 3e-7 && (found.1 - density).abs() < 3e-7, "{found:?}");
        }
    }

    #[test]
    fn products_of_transposes() {
        let a = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let b = [1.0, 0.0, 2.0, 0.0, 1.0, 1.0];
        let mut out = [0.0; 4];
        product(Matrix::new(&a, 3), Matrix::new(&b, 3).t(), &mut out, false);
        assert_eq!(out, [7.0, 5.0, 16.0, 11.0]);
        product(Matrix::new(&a, 3), Matrix::new(&b, 3).t(), &mut out, true);
        assert_eq!(out, [14.0, 10.0, 32.0, 22.0]);
        let mut square = [0.0; 9];
        product(Matrix::new(&a, 3).t(), Matrix::new(&b, 3), &mut square, false);
        assert_eq!(square, [1.0, 4.0, 6.0, 2.0, 5.0, 9.0, 3.0, 6.0, 12.0]);
    }

    #[test]
    fn normalisation_goes_back_by_finite_differences() {
        let width = 20;
        let scale: Vec<f32> = (0..width).map(|i| 0.5 + i as f32 * 0.1).collect();
        let shift = vec![0.2; width];
        let input: Vec<f32> = (0..width).map(|i| ((i * 7) % 11) as f32 * 0.3 - 1.0).collect();
        let weights: Vec<f32> = (0..width).map(|i| ((i * 5) % 7) as f32 - 3.0).collect();
        let loss = |input: &[f32]| -> f64 {
            let (mut values, mut out, mut rates) = (input.to_vec(), vec![0.0; width], vec![0.0]);
            norm_forward(&mut values, (&scale, &shift), 1e-5, (&mut out, &mut rates));
            out.iter().zip(&weights).map(|(a, b)| f64::from(a * b)).sum()
        };
        let (mut values, mut out, mut rates) = (input.clone(), vec![0.0; width], vec![0.0]);
        norm_forward(&mut values, (&scale, &shift), 1e-5, (&mut out, &mut rates));
        let mut gradient = weights.clone();
        let (mut to_scale, mut to_shift) = (vec![0.0; width], vec![0.0; width]);
        norm_backward(&mut gradient, (&values, &rates), &scale, (&mut to_scale, &mut to_shift));
        for place in 0..width {
            let mut moved = [input.clone(), input.clone()];
            moved[0][place] += 1e-2;
            moved[1][place] -= 1e-2;
            let slope = (loss(&moved[0]) - loss(&moved[1])) / 2e-2;
            assert!(
                (slope - f64::from(gradient[place])).abs() < 5e-3,
                "{place}: {slope} {}",
                gradient[place]
            );
        }
        assert_eq!(to_shift, weights);
    }
}
