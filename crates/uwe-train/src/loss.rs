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

/// Two thresholds that all queries share: what is linked should score above the one, what is not below the other.
///
/// Source: "Threshold-Consistent Margin Loss for Open-World Deep Metric Learning", ICLR 2024.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margin {
    /// How much the term counts beside InfoNCE.
    pub weight: f32,
    /// Linked pairs that score less are pulled up.
    pub positive: f32,
    /// Other pairs that score more are pushed down.
    pub negative: f32,
}

/// How far pairs lie on the wrong side of two thresholds: the mean over those that do, of linked pairs and of others, added.
/// A query without a link is left out. Adds `factor` times the gradient of the scores to `slopes`.
pub fn threshold_margin(
    scores: &[f32],
    links: &[Vec<u32>],
    margin: &Margin,
    factor: f32,
    slopes: &mut [f32],
) -> f64 {
    let width = scores.len() / links.len().max(1);
    // Of each side: pairs on the wrong side, and by how much they are.
    let (mut low, mut high) = ((Vec::new(), 0.0), (Vec::new(), 0.0));
    for (row, links) in links.iter().enumerate().filter(|(_, links)| !links.is_empty()) {
        for (column, score) in scores[row * width..(row + 1) * width].iter().enumerate() {
            let linked = links.binary_search(&(column as u32)).is_ok();
            let (side, short) = if linked {
                (&mut low, margin.positive - score)
            } else {
                (&mut high, score - margin.negative)
            };
            if short > 0.0 {
                side.0.push(row * width + column);
                side.1 += f64::from(short);
            }
        }
    }
    let mut loss = 0.0;
    for ((pairs, sum), sign) in [(low, -1.0), (high, 1.0)] {
        if !pairs.is_empty() {
            loss += sum / pairs.len() as f64;
            let slope = sign * factor / pairs.len() as f32;
            pairs.iter().for_each(|pair| slopes[*pair] += slope);
        }
    }
    loss
}

/// How far the differences between linked and other targets are from a teacher's: their mean square over all such pairs of a
/// query, and the mean over the queries that have both. Adds `factor` times the gradient of the scores to `slopes`.
///
/// Source: "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge Distillation", arXiv 2010.02666
/// (Margin-MSE).
pub fn margin_mse(
    scores: &[f32],
    teacher: &[f32],
    links: &[Vec<u32>],
    factor: f32,
    slopes: &mut [f32],
) -> f64 {
    let width = scores.len() / links.len().max(1);
    let counts = |links: &Vec<u32>| !links.is_empty() && links.len() < width;
    let count = links.iter().filter(|links| counts(links)).count();
    let mut loss = 0.0;
    for (row, links) in links.iter().enumerate().filter(|(_, links)| counts(links)) {
        let place = row * width..(row + 1) * width;
        let apart: Vec<f64> = scores[place.clone()]
            .iter()
            .zip(&teacher[place.clone()])
            .map(|(own, other)| f64::from(own - other))
            .collect();
        // With what is apart of both sides, the mean over pairs of (p - n)^2 is mean p^2 + mean n^2 - 2 mean p mean n.
        let is_linked = |column: usize| links.binary_search(&(column as u32)).is_ok();
        let mut sides = [(0.0, 0.0, 0.0); 2];
        for (column, apart) in apart.iter().enumerate() {
            let side = &mut sides[usize::from(is_linked(column))];
            *side = (side.0 + 1.0, side.1 + apart, side.2 + apart * apart);
        }
        let [others, linked] = sides;
        let (other_mean, linked_mean) = (others.1 / others.0, linked.1 / linked.0);
        loss += linked.2 / linked.0 + others.2 / others.0 - 2.0 * linked_mean * other_mean;
        let each = f64::from(factor) / count as f64;
        for (column, (slope, apart)) in slopes[place].iter_mut().zip(&apart).enumerate() {
            let (of, mean) = if is_linked(column) { (linked.0, other_mean) } else { (others.0, linked_mean) };
            *slope += (each * 2.0 * (apart - mean) / of) as f32;
        }
    }
    if count == 0 { 0.0 } else { loss / count as f64 }
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
        slopes_hold(&scores, &slopes, |scores| info_nce(scores, &links, 0.2, 1.0, &mut [0.0; 9]));
    }

    /// What a loss changes by when one score does, against the slope that it gave.
    fn slopes_hold(scores: &[f32], slopes: &[f32], loss: impl Fn(&[f32]) -> f64) {
        for place in 0..scores.len() {
            let at = |step: f32| {
                let mut moved = scores.to_vec();
                moved[place] += step;
                loss(&moved)
            };
            let slope = (at(1e-3) - at(-1e-3)) / 2e-3;
            assert!((slope - f64::from(slopes[place])).abs() < 1e-3, "{place}: {slope} {}", slopes[place]);
        }
    }

    #[test]
    fn margins_count_pairs_on_the_wrong_side_of_a_threshold() {
        let links = vec![vec![0, 2], vec![], vec![1]];
        let scores = [0.9, 0.1, 0.4, 0.9, 0.9, 0.9, 0.5, 0.2, 0.25];
        let margin = Margin { weight: 1.0, positive: 0.6, negative: 0.3 };
        let mut slopes = vec![0.0; 9];
        let loss = threshold_margin(&scores, &links, &margin, 1.0, &mut slopes);
        // Linked and too low: 0.4 and 0.2; not linked and too high: 0.5.
        assert!((loss - ((0.2 + 0.4) / 2.0 + 0.2)).abs() < 1e-6, "{loss}");
        assert_eq!(slopes, [0.0, 0.0, -0.5, 0.0, 0.0, 0.0, 1.0, -0.5, 0.0]);
        slopes_hold(&scores, &slopes, |scores| threshold_margin(scores, &links, &margin, 1.0, &mut [0.0; 9]));
    }

    #[test]
    fn margins_to_a_teacher_are_those_of_all_pairs() {
        let links = vec![vec![0, 2], vec![], vec![1]];
        let scores: Vec<f32> = (0..9).map(|i| ((i * 5) % 7) as f32 * 0.1).collect();
        let teacher: Vec<f32> = (0..9).map(|i| ((i * 3) % 5) as f32 * 0.2).collect();
        let mut slopes = vec![0.0; 9];
        let loss = margin_mse(&scores, &teacher, &links, 1.0, &mut slopes);
        let pair = |row: usize, linked: usize, other: usize| {
            let apart = |values: &[f32]| f64::from(values[row * 3 + linked] - values[row * 3 + other]);
            (apart(&scores) - apart(&teacher)).powi(2)
        };
        let expected = ((pair(0, 0, 1) + pair(0, 2, 1)) / 2.0 + (pair(2, 1, 0) + pair(2, 1, 2)) / 2.0) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss} {expected}");
        slopes_hold(&scores, &slopes, |scores| margin_mse(scores, &teacher, &links, 1.0, &mut [0.0; 9]));
        // A teacher's own scores are right, whatever is added to a row.
        let moved: Vec<f32> = teacher.iter().map(|score| score + 0.25).collect();
        assert!(margin_mse(&moved, &teacher, &links, 1.0, &mut [0.0; 9]).abs() < 1e-9);
    }

    #[test]
    fn transposing_twice_changes_nothing() {
        let values: Vec<f32> = (0..6u8).map(f32::from).collect();
        assert_eq!(transpose(&values, 3), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(transpose(&transpose(&values, 3), 2), values);
    }
}
