//! Intervals and tests by resampling, with stated seeds: the same numbers on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Resamples of a bootstrap.
pub const RESAMPLES: usize = 1000;
/// Random sign assignments of a randomisation test.
pub const ASSIGNMENTS: usize = 10_000;

/// A mean with the 95 % interval of its bootstrap distribution.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// The 2.5 % quantile of the resampled means.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

/// The generator of one stream: streams of one seed are independent of each other, and of threads.
fn generator(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    generator.set_stream(stream);
    generator
}

/// A seeded permutation of `0..count`.
pub(crate) fn permutation(count: usize, seed: u64) -> Vec<usize> {
    let mut generator = generator(seed, 0);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, generator.random_range(0..=last as u64) as usize);
    }
    order
}

/// A number in `[0, 1)` for a stream and a place in it.
pub(crate) fn uniform_row(seed: u64, stream: u64, count: usize) -> Vec<f32> {
    let mut generator = generator(seed, stream);
    (0..count).map(|_| generator.random::<f32>()).collect()
}

/// Mean of some values; 0 for none.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Means of [`RESAMPLES`] samples of the rows, drawn with replacement: `resampled[column][resample]`. All columns
/// share the draws. Every column must have equally many values.
pub fn resampled_means(columns: &[Vec<f64>], seed: u64) -> Vec<Vec<f64>> {
    let rows = columns.first().map_or(0, Vec::len);
    assert!(columns.iter().all(|column| column.len() == rows));
    if rows == 0 {
        return vec![vec![0.0; RESAMPLES]; columns.len()];
    }
    let draws: Vec<Vec<f64>> = (0..RESAMPLES as u64)
        .into_par_iter()
        .map(|stream| {
            let mut generator = generator(seed, stream);
            let mut sums = vec![0.0; columns.len()];
            for _ in 0..rows {
                let row = generator.random_range(0..rows as u64) as usize;
                sums.iter_mut().zip(columns).for_each(|(sum, column)| *sum += column[row]);
            }
            sums.iter().map(|sum| sum / rows as f64).collect()
        })
        .collect();
    (0..columns.len()).map(|column| draws.iter().map(|draw| draw[column]).collect()).collect()
}

/// The interval of a mean whose resampled values are given.
pub fn interval(mean: f64, resampled: &[f64]) -> Interval {
    let mut sorted = resampled.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    Interval { mean, low: quantile(&sorted, 0.025), high: quantile(&sorted, 0.975) }
}

/// Quantile of sorted values, by linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// What two runs differ by on the same queries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of second minus first, with its paired bootstrap interval.
    pub interval: Interval,
    /// Two-sided p-value of the paired randomisation test.
    pub p_value: f64,
    /// Queries on which the second is better, equal, worse.
    pub better_equal_worse: [usize; 3],
}

/// Compares two runs query by query. The p-value is the share of [`ASSIGNMENTS`] random swaps of the two runs'
/// values that differ at least as much as the runs do, the observed assignment counted in.
pub fn compare(first: &[f64], second: &[f64], seed: u64) -> Difference {
    assert_eq!(first.len(), second.len());
    let differences: Vec<f64> = second.iter().zip(first).map(|(b, a)| b - a).collect();
    let resampled = resampled_means(std::slice::from_ref(&differences), seed);
    let observed = differences.iter().sum::<f64>().abs();
    // Queries without a difference change nothing; a rounding error must not tip the balance.
    let moved: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    let extreme = (0..ASSIGNMENTS as u64)
        .into_par_iter()
        .filter(|stream| {
            let mut generator = generator(seed ^ 0x5157_4150, *stream);
            let (mut sum, mut bits, mut left) = (0.0, 0u64, 0);
            for difference in &moved {
                if left == 0 {
                    (bits, left) = (generator.random(), 64);
                }
                sum += if bits & 1 == 0 { *difference } else { -difference };
                bits >>= 1;
                left -= 1;
            }
            f64::abs(sum) >= observed * (1.0 - 1e-12)
        })
        .count();
    let count = |wanted: fn(&f64) -> bool| differences.iter().filter(|value| wanted(value)).count();
    Difference {
        interval: interval(mean(&differences), &resampled[0]),
        p_value: (extreme + 1) as f64 / (ASSIGNMENTS + 1) as f64,
        better_equal_worse: [count(|d| *d > 0.0), count(|d| *d == 0.0), count(|d| *d < 0.0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_the_width_that_theory_gives() {
        // Values 0 and 1 in equal parts: the standard error of the mean is 0.5 / sqrt(n).
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let resampled = resampled_means(std::slice::from_ref(&values), 1);
        let interval = interval(mean(&values), &resampled[0]);
        let expected = 1.96 * 0.5 / 20.0;
        assert!((interval.high - 0.5 - expected).abs() < 0.006, "{interval:?}");
        assert!((0.5 - interval.low - expected).abs() < 0.006, "{interval:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers_on_any_number_of_threads() {
        let values: Vec<f64> = (0..97).map(|i| f64::from(i * i % 31)).collect();
        let all = resampled_means(&[values.clone(), values.clone()], 7);
        assert_eq!(all[0], all[1]);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| resampled_means(std::slice::from_ref(&values), 7))[0], all[0]);
        assert_ne!(resampled_means(std::slice::from_ref(&values), 8)[0], all[0]);
        // A number that must never change: results say which seed made them.
        assert_eq!(permutation(5, 1), [4, 3, 1, 0, 2]);
    }

    #[test]
    fn differences_are_found_where_there_are_some() {
        let first: Vec<f64> = (0..200).map(|i| f64::from(i % 10) / 10.0).collect();
        let better: Vec<f64> = first.iter().map(|value| value + 0.05).collect();
        let same = compare(&first, &first, 1);
        assert_eq!((same.p_value, same.better_equal_worse), (1.0, [0, 200, 0]));
        let difference = compare(&first, &better, 1);
        assert!(difference.p_value < 0.001 && difference.interval.low > 0.049);
        // Differences of either sign in equal parts.
        let noise: Vec<f64> =
            first.iter().enumerate().map(|(i, v)| v + if i % 2 == 0 { 0.1 } else { -0.1 }).collect();
        assert!(compare(&first, &noise, 1).p_value > 0.5);
    }

    #[test]
    fn a_few_queries_have_the_exact_p_value() {
        // Three differences of one sign: 2 of the 8 assignments are as extreme.
        let difference = compare(&[0.0; 3], &[1.0; 3], 3);
        assert!((difference.p_value - 0.25).abs() < 0.02, "{}", difference.p_value);
    }
}
