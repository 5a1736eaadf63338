//! BM25 Okapi as the Python package `rank_bm25` computes it.

use super::is_blank;
use std::collections::HashMap;

const K1: f64 = 1.5;
const B: f64 = 0.75;
/// A word in more than half of the texts gets this share of the mean weight instead of a negative one.
const EPSILON: f64 = 0.25;

/// Texts by word.
pub(super) struct Bm25 {
    /// Index of a word.
    words: HashMap<String, usize>,
    /// Weight and `(text, count)` of each word.
    postings: Vec<(f64, Vec<(u32, u32)>)>,
    /// `k1 (1 - b + b length / mean length)` of each text.
    damping: Vec<f64>,
}

impl Bm25 {
    pub(super) fn new(texts: &[String]) -> Self {
        let mut words: HashMap<String, usize> = HashMap::new();
        let mut postings: Vec<(f64, Vec<(u32, u32)>)> = Vec::new();
        let mut lengths = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            let mut length = 0;
            for word in split(text) {
                length += 1;
                let index = *words.entry(word.to_string()).or_insert_with(|| {
                    postings.push((0.0, Vec::new()));
                    postings.len() - 1
                });
                let list = &mut postings[index].1;
                match list.last_mut() {
                    Some((last, count)) if *last == place as u32 => *count += 1,
                    _ => list.push((place as u32, 1)),
                }
            }
            lengths.push(f64::from(length));
        }
        let mean_length = lengths.iter().sum::<f64>() / texts.len().max(1) as f64;
        let mut sum = 0.0;
        for (weight, list) in &mut postings {
            let (all, holding) = (texts.len() as f64, list.len() as f64);
            *weight = (all - holding + 0.5).ln() - (holding + 0.5).ln();
            sum += *weight;
        }
        let floor = EPSILON * sum / postings.len().max(1) as f64;
        for (weight, _) in postings.iter_mut().filter(|(weight, _)| *weight < 0.0) {
            *weight = floor;
        }
        let damping = lengths.iter().map(|length| K1 * (1.0 - B + B * length / mean_length)).collect();
        Self { words, postings, damping }
    }

    /// Scores of all texts; a word that stands twice in the query counts twice.
    pub(super) fn scores(&self, query: &str) -> Vec<f32> {
        let mut scores = vec![0.0f64; self.damping.len()];
        for index in split(query).filter_map(|word| self.words.get(word)) {
            let (weight, list) = &self.postings[*index];
            for (text, count) in list {
                let (text, count) = (*text as usize, f64::from(*count));
                scores[text] += weight * (count * (K1 + 1.0) / (count + self.damping[text]));
            }
        }
        scores.into_iter().map(|score| score as f32).collect()
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_blank).filter(|word| !word.is_empty())
}
