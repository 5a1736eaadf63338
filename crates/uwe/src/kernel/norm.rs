//! Row-wise operations between the matrix products: residual with layer normalisation, mean, norm.

use super::lanes::{InstructionSet, LANES, Lanes, Operation};

/// Scale, shift and epsilon of a layer normalisation.
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    /// Multiplied in, one entry a column.
    pub(crate) scale: Vec<f32>,
    /// Added, one entry a column.
    pub(crate) shift: Vec<f32>,
    /// Added to the variance.
    pub(crate) epsilon: f32,
}

impl LayerNorm {
    /// Replaces each row `x` of `rows` by `normalise(x + residual)`; no residual when it is empty.
    ///
    /// Rows have as many columns as the scale, a multiple of sixteen. The variance is the biased one,
    /// around the mean (two passes).
    pub(crate) fn apply(&self, set: InstructionSet, rows: &mut [f32], residual: &[f32]) {
        let width = self.scale.len();
        debug_assert!(width.is_multiple_of(LANES) && rows.len().is_multiple_of(width));
        debug_assert!(residual.is_empty() || residual.len() == rows.len());
        set.run(ApplyLayerNorm { norm: self, rows, residual });
    }
}

struct ApplyLayerNorm<'a> {
    norm: &'a LayerNorm,
    rows: &'a mut [f32],
    residual: &'a [f32],
}

impl Operation for ApplyLayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<L: Lanes>(self) {
        let width = self.norm.scale.len();
        for (index, row) in self.rows.chunks_exact_mut(width).enumerate() {
            let residual = self.residual.get(index * width..(index + 1) * width);
            // SAFETY: `row`, `scale` and `shift` have `width` entries, `residual` too where there is one,
            // and `width` is a multiple of sixteen.
            unsafe {
                let mut sum = L::splat(0.0);
                for column in (0..width).step_by(LANES) {
                    let mut x = L::load(row.as_ptr().add(column));
                    if let Some(residual) = residual {
                        x = L::add(x, L::load(residual.as_ptr().add(column)));
                        L::store(row.as_mut_ptr().add(column), x);
                    }
                    sum = L::add(sum, x);
                }
                let mean = L::splat(L::sum(sum) / width as f32);
                let mut squares = L::splat(0.0);
                for column in (0..width).step_by(LANES) {
                    let centred = L::sub(L::load(row.as_ptr().add(column)), mean);
                    squares = L::fma(centred, centred, squares);
                }
                let variance = L::sum(squares) / width as f32;
                let inverse = L::splat(1.0 / (variance + self.norm.epsilon).sqrt());
                for column in (0..width).step_by(LANES) {
                    let centred = L::sub(L::load(row.as_ptr().add(column)), mean);
                    let scale = L::mul(inverse, L::load(self.norm.scale.as_ptr().add(column)));
                    let y = L::fma(centred, scale, L::load(self.norm.shift.as_ptr().add(column)));
                    L::store(row.as_mut_ptr().add(column), y);
                }
            }
        }
    }
}

/// Mean of the rows of a `rows x width` matrix, added up in row order.
pub(crate) fn mean_of_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let mut mean = vec![0.0f32; width];
    let count = rows.len() / width;
    for row in rows.chunks_exact(width) {
        for (total, value) in mean.iter_mut().zip(row) {
            *total += value;
        }
    }
    for total in &mut mean {
        *total /= count.max(1) as f32;
    }
    mean
}

/// Euclidean norm, added up in double precision in index order.
pub(crate) fn norm(vector: &[f32]) -> f32 {
    vector.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt() as f32
}

/// `1 / norm`, or 0 for a vector that is zero or next to it: its cosine with anything is then 0, never NaN.
pub(crate) fn inverse_norm(vector: &[f32]) -> f32 {
    let norm = norm(vector);
    if norm > 1e-30 { 1.0 / norm } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_equals_the_formula_and_all_sets_agree() {
        for width in [16, 48, 384] {
            let norm = LayerNorm {
                scale: (0..width).map(|c| 1.0 + c as f32 * 0.01).collect(),
                shift: (0..width).map(|c| c as f32 * 0.1 - 1.0).collect(),
                epsilon: 1e-12,
            };
            let rows: Vec<f32> = (0..3 * width).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.3).collect();
            let residual: Vec<f32> = (0..3 * width).map(|i| ((i * 53 % 89) as f32 - 44.0) * 0.2).collect();
            let mut expected = rows.clone();
            norm.apply(InstructionSet::Scalar, &mut expected, &residual);
            for (index, row) in expected.chunks(width).enumerate() {
                let x: Vec<f64> = (0..width)
                    .map(|c| f64::from(rows[index * width + c]) + f64::from(residual[index * width + c]))
                    .collect();
                let mean = x.iter().sum::<f64>() / width as f64;
                let variance = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
                for (c, value) in row.iter().enumerate() {
                    let exact = (x[c] - mean) / (variance + 1e-12).sqrt() * f64::from(norm.scale[c])
                        + f64::from(norm.shift[c]);
                    assert!((f64::from(*value) - exact).abs() < 1e-4, "{value} {exact}");
                }
            }
            for set in InstructionSet::all() {
                let mut values = rows.clone();
                norm.apply(set, &mut values, &residual);
                assert_eq!(values, expected);
            }
        }
    }

    #[test]
    fn constant_rows_stay_finite() {
        let norm = LayerNorm { scale: vec![1.0; 16], shift: vec![0.5; 16], epsilon: 1e-12 };
        let mut rows = vec![3.0; 16];
        norm.apply(InstructionSet::detect(), &mut rows, &[]);
        assert_eq!(rows, vec![0.5; 16]);
    }

    #[test]
    fn zero_vector_has_inverse_norm_zero() {
        assert_eq!(inverse_norm(&[0.0; 4]), 0.0);
        assert_eq!(inverse_norm(&[3.0, 4.0]), 0.2);
    }
}
