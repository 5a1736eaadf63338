//! Evidence for people and programs: tokens with their words, and words shaded by what they added.

use crate::output::printable;
use serde::Serialize;
use std::fmt;
use uwe::{Evidence, Pair, TokenPlace};

/// Evidence as it is printed.
#[derive(Serialize)]
pub(crate) struct EvidenceRecord {
    /// Pairs of tokens, the largest contribution first.
    pub(crate) pairs: Vec<PairRecord>,
    /// What all pairs that are not listed added.
    pub(crate) rest: f64,
    #[serde(skip)]
    all: Vec<Pair>,
}

/// A pair of tokens.
#[derive(Serialize)]
pub(crate) struct PairRecord {
    query: TokenRecord,
    target: TokenRecord,
    weight: f64,
    cosine: f64,
    contribution: f64,
    #[serde(skip)]
    share: f64,
}

/// A token: its text and its character range; both null for a special token.
#[derive(Serialize)]
struct TokenRecord {
    text: Option<String>,
    start: Option<usize>,
    end: Option<usize>,
}

/// Pairs below this share of the score are counted in `rest`.
const LISTED: f64 = 0.01;

impl EvidenceRecord {
    pub(crate) fn new(evidence: Evidence, query: &str, target: &str) -> Self {
        let score = evidence.score.abs().max(f64::MIN_POSITIVE);
        let (listed, other): (Vec<Pair>, Vec<Pair>) =
            evidence.pairs.iter().cloned().partition(|pair| pair.contribution.abs() / score >= LISTED);
        let pairs = listed
            .into_iter()
            .map(|pair| PairRecord {
                query: TokenRecord::new(&pair.query, query),
                target: TokenRecord::new(&pair.target, target),
                weight: pair.weight,
                cosine: pair.cosine,
                contribution: pair.contribution,
                share: pair.contribution / score,
            })
            .collect();
        Self { pairs, rest: other.iter().map(|pair| pair.contribution).sum(), all: evidence.pairs }
    }

    /// Character ranges of the query's tokens with what each added.
    pub(crate) fn query_shares(&self) -> Vec<(std::ops::Range<usize>, f64)> {
        self.shares(|pair| &pair.query)
    }

    /// Character ranges of the target's tokens with what each added.
    pub(crate) fn target_shares(&self) -> Vec<(std::ops::Range<usize>, f64)> {
        self.shares(|pair| &pair.target)
    }

    fn shares(&self, side: impl Fn(&Pair) -> &TokenPlace) -> Vec<(std::ops::Range<usize>, f64)> {
        let mut shares: Vec<(std::ops::Range<usize>, f64)> = Vec::new();
        for pair in &self.all {
            let Some(range) = &side(pair).range else { continue };
            match shares.iter_mut().find(|(known, _)| known == range) {
                Some((_, share)) => *share += pair.contribution,
                None => shares.push((range.clone(), pair.contribution)),
            }
        }
        shares
    }
}

impl PairRecord {
    /// Whether one of the two is a special token.
    pub(crate) fn is_special(&self) -> bool {
        self.query.text.is_none() || self.target.text.is_none()
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let text = |token: &TokenRecord| printable(token.text.as_deref().unwrap_or("(special)"));
        format!(
            "{} ~ {}  {:.0} % of the score (cosine {:.2})",
            text(&self.query),
            text(&self.target),
            self.share * 100.0,
            self.cosine
        )
    }
}

impl TokenRecord {
    fn new(place: &TokenPlace, text: &str) -> Self {
        match &place.range {
            None => Self { text: None, start: None, end: None },
            Some(range) => Self {
                text: Some(text.chars().skip(range.start).take(range.len()).collect()),
                start: Some(range.start),
                end: Some(range.end),
            },
        }
    }
}

/// A text whose characters are shaded by their token's share. Without colours it is the plain text.
pub(crate) struct Shading {
    characters: Vec<(char, u8)>,
}

impl Shading {
    /// Levels from 0 (nothing) to 4 (the largest share).
    pub(crate) fn new(text: &str, shares: Vec<(std::ops::Range<usize>, f64)>) -> Self {
        let largest = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
        let mut characters: Vec<(char, u8)> = printable(text).chars().map(|c| (c, 0)).collect();
        for (range, share) in shares {
            let level = if largest > 0.0 { (share.max(0.0) / largest * 4.0).round() as u8 } else { 0 };
            for (_, place) in characters.iter_mut().skip(range.start).take(range.len()) {
                *place = level;
            }
        }
        Self { characters }
    }
}

impl fmt::Display for Shading {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From pale to strong blue, with a foreground that can be read on each.
        const BACKGROUNDS: [(u8, u8, u8); 4] =
            [(219, 234, 254), (147, 197, 253), (59, 130, 246), (30, 64, 175)];
        for run in self.characters.chunk_by(|a, b| a.1 == b.1) {
            let level = run[0].1;
            let style = match level {
                0 => anstyle::Style::new(),
                _ => {
                    let (r, g, b) = BACKGROUNDS[usize::from(level.min(4)) - 1];
                    let text = if level >= 3 {
                        anstyle::RgbColor(255, 255, 255)
                    } else {
                        anstyle::RgbColor(15, 23, 42)
                    };
                    text.on(anstyle::RgbColor(r, g, b))
                }
            };
            let text: String = run.iter().map(|(c, _)| *c).collect();
            write!(formatter, "{style}{text}{style:#}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shading_without_colours_is_the_text() {
        let shading = Shading::new("pastry chef", vec![(0..6, 0.5), (7..11, 0.1)]);
        let coloured = shading.to_string();
        assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), "pastry chef");
        assert!(coloured.len() > "pastry chef".len());
    }
}
