//! Evidence for people and programs: tokens with their words, and words shaded by what they added.

use crate::output::printable;
use serde::Serialize;
use std::fmt;
use uwe::{Evidence, EvidenceRecord, PairRecord, TokenRecord};

/// Evidence as it is printed: its record, and what shades the words.
#[derive(Serialize)]
pub(crate) struct PrintedEvidence {
    #[serde(flatten)]
    pub(crate) record: EvidenceRecord,
    #[serde(skip)]
    pub(crate) whole: Evidence,
}

impl PrintedEvidence {
    pub(crate) fn new(whole: Evidence, query: &str, target: &str) -> Self {
        let whole = whole.by_words(query, target);
        Self { record: whole.record(query, target), whole }
    }

    /// The pairs of two words, a line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let score = self.whole.score.abs().max(f64::MIN_POSITIVE);
        let words = |pair: &&PairRecord| pair.query.text.is_some() && pair.target.text.is_some();
        self.record.pairs.iter().filter(words).map(move |pair| {
            let text = |token: &TokenRecord| printable(token.text.as_deref().unwrap_or_default());
            format!(
                "{} ~ {}  {:.0} % of the score (cosine {:.2})",
                text(&pair.query),
                text(&pair.target),
                pair.contribution / score * 100.0,
                pair.cosine
            )
        })
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
