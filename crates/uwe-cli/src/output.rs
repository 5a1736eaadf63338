//! Rankings as a table, as JSON lines and as CSV.

use crate::arguments::OutputFormat;
use crate::evidence::{PrintedEvidence, Shading};
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

/// One line of JSON.
#[derive(Serialize)]
pub(crate) struct RankingRecord<'a> {
    pub(crate) query: &'a str,
    pub(crate) truncated: bool,
    pub(crate) hits: Vec<HitRecord<'a>>,
}

/// One hit.
#[derive(Serialize)]
pub(crate) struct HitRecord<'a> {
    pub(crate) rank: usize,
    pub(crate) target: &'a str,
    pub(crate) id: Option<&'a str>,
    pub(crate) score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evidence: Option<PrintedEvidence>,
}

/// Writes rankings in one form.
pub(crate) enum Output {
    /// For people.
    Table(Box<dyn Write>),
    /// One object a line.
    Json(Box<dyn Write>),
    /// With a header line.
    Csv(Box<csv::Writer<Box<dyn Write>>>),
}

impl Output {
    /// Writes to standard output.
    pub(crate) fn open(format: OutputFormat) -> Result<Self> {
        Ok(match format {
            OutputFormat::Table => Self::Table(Box::new(anstream::stdout().lock())),
            OutputFormat::Json => Self::Json(Box::new(std::io::stdout().lock())),
            OutputFormat::Csv => {
                let mut writer =
                    csv::Writer::from_writer(Box::new(std::io::stdout().lock()) as Box<dyn Write>);
                writer.write_record(["query", "truncated", "rank", "target", "id", "score"])?;
                Self::Csv(Box::new(writer))
            }
        })
    }

    /// Writes one ranking.
    pub(crate) fn write(&mut self, record: &RankingRecord<'_>) -> Result<()> {
        match self {
            Self::Json(out) => {
                // In one piece, so that a line is whole or absent.
                let mut line = serde_json::to_vec(record)?;
                line.push(b'\n');
                out.write_all(&line)?;
            }
            Self::Csv(writer) => {
                for hit in &record.hits {
                    let (rank, score) = (hit.rank.to_string(), hit.score.to_string());
                    let truncated = if record.truncated { "true" } else { "false" };
                    writer.write_record([
                        record.query,
                        truncated,
                        &rank,
                        hit.target,
                        hit.id.unwrap_or_default(),
                        &score,
                    ])?;
                }
            }
            Self::Table(out) => out.write_all(table(record).as_bytes())?,
        }
        Ok(())
    }

    /// Hands everything written so far to the reader.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Self::Table(out) | Self::Json(out) => out.flush()?,
            Self::Csv(writer) => writer.flush()?,
        }
        Ok(())
    }
}

/// A ranking for people: the query, then a line for each hit, with a bar for its score.
fn table(record: &RankingRecord<'_>) -> String {
    let bold = anstyle::Style::new().bold();
    let dim = anstyle::Style::new().dimmed();
    let cut = if record.truncated { " (cut)" } else { "" };
    let mut text = format!("{bold}{}{bold:#}{cut}\n", printable(record.query));
    let widest = record.hits.iter().map(|hit| hit.rank.to_string().len()).max().unwrap_or(1);
    for hit in &record.hits {
        let id = hit.id.map(|id| format!("  {dim}{}{dim:#}", printable(id))).unwrap_or_default();
        let bar = bar(hit.score);
        let target = printable(hit.target);
        text += &format!("  {:>widest$}  {:.3} {bar}  {target}{id}\n", hit.rank, hit.score);
        if let Some(evidence) = &hit.evidence {
            let indent = " ".repeat(widest + 4);
            text += &format!("{indent}{}\n", Shading::new(record.query, evidence.whole.query_shares()));
            text += &format!("{indent}{}\n", Shading::new(hit.target, evidence.whole.target_shares()));
            for line in evidence.lines().take(4) {
                text += &format!("{indent}{dim}{line}{dim:#}\n");
            }
        }
    }
    if record.hits.is_empty() {
        text += &format!("  {dim}no hits: the text is empty{dim:#}\n");
    }
    text + "\n"
}

/// A bar of eight cells for a score from 0 to 1.
fn bar(score: f32) -> String {
    const PARTS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    let eighths = (score.clamp(0.0, 1.0) * 64.0).round() as usize;
    let mut bar: String = std::iter::repeat_n('█', eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        bar.push(PARTS[eighths % 8 - 1]);
    }
    let width = bar.chars().count();
    bar + &" ".repeat(8 - width)
}

/// Text with its control characters made visible, so that a hostile one cannot steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_eight_cells() {
        assert_eq!(bar(0.0), "        ");
        assert_eq!(bar(1.0), "████████");
        assert_eq!(bar(0.5), "████    ");
        assert_eq!(bar(f32::NAN).chars().count(), 8);
        assert_eq!(bar(-3.0), "        ");
        assert_eq!(bar(0.07), "▌       ");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31m\0b"), "a\u{fffd}[31m\u{fffd}b");
    }
}
