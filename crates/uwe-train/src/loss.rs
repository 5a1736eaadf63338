//! Many-to-many InfoNCE, exact, with its gradient.
//!
//! Source: "Unified Work Embeddings", arXiv 2511.07969. For each query, the mean over all linked targets of the batch of
//! `-log softmax(score / temperature)`; the mean over the queries; both directions added.

use serde::{Deserialize, Serialize};

/// What counts as positive, and which directions are added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// All linked pairs of the batch, both directions: the paper's.
    #[default]
    ManyToMany,
    /// Each row's own partner alone, both directions; for ablation.
    Symmetric,
    /// Each row's own partner alone, from rows to columns; for ablation.
    Plain,
}

/// Linked pairs of a list of rows and a list of columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Columns linked to each row, ascending.
    pub columns: Vec<Vec<u32>>,
    /// Rows linked to each column, ascending.
    pub rows: Vec<Vec<u32>>,
}

impl Links {
    /// Links from the columns of each row.
    pub fn new(columns: Vec<Vec<u32>>, count: usize) -> Self {
        let mut rows = vec![Vec::new(); count];
        for (row, linked) in columns.iter().enumerate() {
            linked.iter().for_each(|column| rows[*column as usize].push(row as u32));
        }
        Self { columns, rows }
    }

    /// The links that a variant counts, when row `i` was drawn together with column `i`.
    pub fn counted(self, variant: Variant) -> Self {
        if variant == Variant::ManyToMany {
            return self;
        }
        let own = |count: usize, most: usize| (0..count as u32).map(move |i| (i < most as u32).then_some(i));
        let (rows, columns) = (self.columns.len(), self.rows.len());
        let list = |own: Option<u32>| own.into_iter().collect::<Vec<_>>();
        Self {
            columns: own(rows, columns).map(list).collect(),
            rows: if variant == Variant::Plain {
                vec![Vec::new(); columns]
            } else {
                own(columns, rows).map(list).collect()
            },
        }
    }
}

/// The loss of one direction: `scores` are `queries x targets`, `links` the targets of each query. A query without a link is left
/// out. Adds `factor` times the gradient of the scores to `slopes`.
pub fn info_nce(
    scores: &[f32],
    links: &[Vec<u32>],
    temperature: f32,
    factor: f32,
    slopes: &mut [f32],
) -> f64 {
    let count = links.iter().filter(|links| !links.is_empty()).count();
    if count == 0 {
        return 0.0;
    }
    let width = scores.len() / links.len();
    let mut loss = 0.0;
    let each = f64::from(factor) / count as f64 / f64::from(temperature);
    let rows = scores.chunks_exact(width).zip(slopes.chunks_exact_mut(width));
    for ((scores, slopes), links) in rows.zip(links).filter(|(_, links)| !links.is_empty()) {
        let highest = scores.iter().fold(f32::NEG_INFINITY, |highest, score| highest.max(*score));
        let weight = |score: f32| (f64::from(score - highest) / f64::from(temperature)).exp();
        let sum: f64 = scores.iter().map(|score| weight(*score)).sum();
        let share = 1.0 / links.len() as f64;
        for column in links {
            let score = scores[*column as usize];
            loss += share * (sum.ln() - f64::from(score - highest) / f64::from(temperature));
            slopes[*column as usize] -= (each * share) as f32;
        }
        for (slope, score) in slopes.iter_mut().zip(scores) {
            *slope += (each * weight(*score) / sum) as f32;
        }
    }
    loss / count as f64
}

/// The transpose of a row-major matrix with so many columns.
pub fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    let mut out = vec![0.0; values.len()];
    for row in 0..rows {
        for column in 0..columns {
            out[column * rows + row] = values[row * columns + column];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_the_variants() {
        let links = || Links::new(vec![vec![0, 2], vec![1], vec![]], 3);
        assert_eq!(links().rows, [vec![0], vec![1], vec![0]]);
        assert_eq!(links().counted(Variant::ManyToMany), links());
        assert_eq!(links().counted(Variant::Symmetric).columns, [vec![0], vec![1], vec![2]]);
        assert_eq!(links().counted(Variant::Plain).rows, [vec![], Vec::<u32>::new(), vec![]]);
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let links = vec![vec![0, 2], vec![], vec![1]];
        let scores: Vec<f32> = (0..9).map(|i| ((i * 5) % 7) as f32 * 0.1).collect();
        let mut slopes = vec![0.0; 9];
        let loss = info_nce(&scores, &links, 0.2, 1.0, &mut slopes);
        // By hand, in one expression a row.
        let term = |row: usize, column: usize| {
            let weight = |j: usize| (f64::from(scores[row * 3 + j]) / 0.2).exp();
            -(weight(column) / (0..3).map(weight).sum::<f64>()).ln()
        };
        assert!((loss - ((term(0, 0) + term(0, 2)) / 2.0 + term(2, 1)) / 2.0).abs() < 1e-6);
        for place in 0..9 {
            let at = |step: f32| {
                let mut moved = scores.clone();
                moved[place] += step;
                info_nce(&moved, &links, 0.2, 1.0, &mut [0.0; 9])
            };
            let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!((slope - f64::from(slopes[place])).abs() < 1e-3, "{place}: {slope} {}", slopes[place]);
        }
    }

    #[test]
    fn transposing_twice_changes_nothing() {
        let values: Vec<f32> = (0..6u8).map(f32::from).collect();
        assert_eq!(transpose(&values, 3), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(transpose(&transpose(&values, 3), 2), values);
    }
}
