//! TF-IDF vectors and their cosines as scikit-learn computes them: smoothed inverse document frequencies, plain
//! counts, length 1.

use super::is_blank;
use regex::Regex;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Runs of two and more of what Python's `\w` matches: letters, numbers, underscore, but no combining mark.
#[allow(clippy::unwrap_used, reason = "the pattern is a constant that a test compiles")]
static WORD: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[\p{L}\p{N}_]{2,}").unwrap());

/// Terms of a text, each as often as it stands there.
type Analyser = fn(&str) -> Vec<String>;

/// Words of two characters and more.
///
/// A run that touches no other word character is what the pattern `\b\w\w+\b` matches.
pub(super) fn words(text: &str) -> Vec<String> {
    WORD.find_iter(text).map(|word| word.as_str().to_string()).collect()
}

/// One to three neighbouring characters, blanks included; several blanks count as one.
pub(super) fn character_grams(text: &str) -> Vec<String> {
    let mut characters: Vec<char> = Vec::with_capacity(text.len());
    let mut blanks = 0;
    for c in text.chars() {
        blanks = if is_blank(c) { blanks + 1 } else { 0 };
        match blanks {
            0 | 1 => characters.push(c),
            2 => {
                characters.pop();
                characters.push(' ');
            }
            _ => {}
        }
    }
    (1..=3).flat_map(|size| characters.windows(size).map(|gram| gram.iter().collect())).collect()
}

/// Texts by term.
pub(super) struct TfIdf {
    analyser: Analyser,
    terms: HashMap<String, usize>,
    /// Inverse document frequency, and `(text, weight)`, of each term.
    postings: Vec<(f64, Vec<(u32, f64)>)>,
    texts: usize,
}

impl TfIdf {
    pub(super) fn new(texts: &[String], analyser: Analyser) -> Self {
        let mut terms: HashMap<String, usize> = HashMap::new();
        let mut postings: Vec<(f64, Vec<(u32, f64)>)> = Vec::new();
        for (place, text) in texts.iter().enumerate() {
            for term in analyser(text) {
                let next = terms.len();
                let index = *terms.entry(term).or_insert(next);
                if index == postings.len() {
                    postings.push((0.0, Vec::new()));
                }
                let list = &mut postings[index].1;
                match list.last_mut() {
                    Some((last, count)) if *last == place as u32 => *count += 1.0,
                    _ => list.push((place as u32, 1.0)),
                }
            }
        }
        let mut squares = vec![0.0f64; texts.len()];
        for (weight, list) in &mut postings {
            *weight = ((1.0 + texts.len() as f64) / (1.0 + list.len() as f64)).ln() + 1.0;
            for (text, value) in list {
                *value *= *weight;
                squares[*text as usize] += *value * *value;
            }
        }
        for (text, value) in postings.iter_mut().flat_map(|(_, list)| list) {
            *value /= squares[*text as usize].sqrt();
        }
        Self { analyser, terms, postings, texts: texts.len() }
    }

    /// Cosines with all texts; 0 for a query without a known term.
    pub(super) fn scores(&self, query: &str) -> Vec<f32> {
        let mut counts: Vec<(usize, f64)> = Vec::new();
        for term in (self.analyser)(query) {
            let Some(index) = self.terms.get(&term) else { continue };
            match counts.iter_mut().find(|(known, _)| known == index) {
                Some((_, count)) => *count += 1.0,
                None => counts.push((*index, 1.0)),
            }
        }
        let mut square = 0.0;
        for (index, value) in &mut counts {
            *value *= self.postings[*index].0;
            square += *value * *value;
        }
        let length = f64::sqrt(square);
        let mut scores = vec![0.0f64; self.texts];
        for (index, value) in counts {
            for (text, weight) in &self.postings[index].1 {
                scores[*text as usize] += value / length * weight;
            }
        }
        scores.into_iter().map(|score| score as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_python_sees_them() {
        assert_eq!(words("a c++ and c_1, x-ray 2d"), ["and", "c_1", "ray", "2d"]);
        // A combining mark parts words.
        assert_eq!(words("cafe\u{301}s no"), ["cafe", "no"]);
    }

    #[test]
    fn grams_of_characters() {
        assert_eq!(character_grams("ab"), ["a", "b", "ab"]);
        assert_eq!(character_grams("a \t b"), ["a", " ", "b", "a ", " b", "a b"]);
        assert_eq!(character_grams("\ta"), ["\t", "a", "\ta"]);
    }
}
