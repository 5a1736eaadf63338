//! Hard negatives: which skills a model takes for nearly the same.

use crate::matrix::{Matrix, product, zeros};
use crate::threads::Threads;

/// Vectors whose neighbours are looked for at once.
const BLOCK: usize = 256;

/// For each unit vector, the places of the nearest others, nearest first: at most `count`, and none with a cosine above
/// `most_similar`. Equal cosines come in the order of their places.
pub(crate) fn neighbours(
    vectors: &[f32],
    width: usize,
    (count, most_similar): (usize, f32),
    threads: &Threads,
) -> Vec<Vec<u32>> {
    let rows = vectors.len() / width;
    let blocks: Vec<_> = (0..rows).step_by(BLOCK).map(|start| start..(start + BLOCK).min(rows)).collect();
    let found = threads.map(blocks, |block| {
        let own = &vectors[block.start * width..block.end * width];
        let mut cosines = zeros(block.len() * rows);
        product(Matrix::new(own, width), Matrix::new(vectors, width).t(), &mut cosines, false);
        let nearest = |(place, cosines): (usize, &[f32])| {
            let mut order: Vec<u32> = (0..rows as u32)
                .filter(|other| *other as usize != place && cosines[*other as usize] <= most_similar)
                .collect();
            let nearer =
                |a: &u32, b: &u32| cosines[*b as usize].total_cmp(&cosines[*a as usize]).then(a.cmp(b));
            if order.len() > count {
                order.select_nth_unstable_by(count, nearer);
                order.truncate(count);
            }
            order.sort_unstable_by(nearer);
            order
        };
        block.clone().zip(cosines.chunks_exact(rows)).map(nearest).collect::<Vec<_>>()
    });
    found.concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first_and_the_all_too_near_not_at_all() {
        let at = |angle: f32| [angle.cos(), angle.sin()];
        let vectors: Vec<f32> = [0.0, 0.01, 0.5, 0.9, 3.0].into_iter().flat_map(at).collect();
        let found = neighbours(&vectors, 2, (2, 0.99), &Threads::new(2).unwrap());
        assert_eq!(found, [vec![2, 3], vec![2, 3], vec![3, 1], vec![2, 1], vec![3, 2]]);
    }
}
