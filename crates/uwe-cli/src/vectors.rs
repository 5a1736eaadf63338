//! `uwe embed`: vectors as JSON lines.

use crate::arguments::EmbedArguments;
use crate::input::Texts;
use crate::setup::note_cut;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

#[derive(Serialize)]
struct Record<'a> {
    text: &'a str,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<Vec<Token<'a>>>,
}

#[derive(Serialize)]
struct Token<'a> {
    id: u32,
    start: usize,
    end: usize,
    state: &'a [f32],
}

/// Prints the vectors of texts as they come.
pub(crate) fn embed(arguments: &EmbedArguments) -> Result<()> {
    let mut texts = Texts::open(&arguments.texts)?;
    let encoder = arguments.model.open()?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut cut = 0;
    loop {
        let (group, problem) = texts.next_group();
        let end = group.is_empty();
        let encoded = encoder.encode(&group)?;
        for (index, text) in group.iter().enumerate() {
            let (tokens, states) = (&encoded.tokens[index], encoded.states.text(index));
            cut += usize::from(tokens.truncated);
            let rows = states.chunks_exact(encoder.info().dimension);
            let record = Record {
                text,
                truncated: tokens.truncated,
                vector: (!arguments.tokens)
                    .then(|| if arguments.raw { encoder.pool(states) } else { encoder.pool_to_unit(states) }),
                tokens: arguments.tokens.then(|| {
                    tokens
                        .ids
                        .iter()
                        .zip(&tokens.ranges)
                        .zip(rows)
                        .map(|((id, range), state)| Token {
                            id: *id,
                            start: range.start,
                            end: range.end,
                            state,
                        })
                        .collect()
                }),
            };
            serde_json::to_writer(&mut out, &record)?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        problem?;
        if end {
            break;
        }
    }
    note_cut(&encoder, cut, "of the texts");
    Ok(())
}
