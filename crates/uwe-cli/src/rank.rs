//! `uwe rank` and `uwe score`.

use crate::arguments::{RankArguments, ScoreArguments};
use crate::evidence::PrintedEvidence;
use crate::input::Texts;
use crate::output::{HitRecord, Output, RankingRecord};
use crate::setup::{note, note_cut, starter_space};
use anyhow::Result;
use uwe::{BuildOptions, Ranker, Ranking, Space, StateType, Targets};

/// Ranks texts as they come.
pub(crate) fn rank(arguments: &RankArguments) -> Result<()> {
    // The texts first: a file that is missing is told before a model is loaded.
    let mut texts = Texts::open(&arguments.texts)?;
    let encoder = arguments.model.open()?;
    let space = match &arguments.space {
        Some(file) => Space::open(file)?,
        None => starter_space(&encoder)?,
    };
    let ranker = Ranker::new(&encoder, &space, arguments.scoring.resolve(encoder.scoring())?)?;
    let mut output = Output::open(arguments.format)?;
    let mut cut = 0;
    loop {
        let (group, problem) = texts.next_group();
        let end = group.is_empty();
        for (query, ranking) in group.iter().zip(ranker.rank(&group, arguments.top)?) {
            cut += usize::from(ranking.truncated);
            output.write(&record(&ranker, &space, (query, &ranking), arguments.evidence)?)?;
        }
        output.flush()?;
        problem?;
        if end {
            break;
        }
    }
    note_cut(&encoder, cut, "of the texts");
    Ok(())
}

fn record<'a>(
    ranker: &Ranker<'_>,
    space: &'a Space,
    (query, ranking): (&'a str, &Ranking),
    evidence: bool,
) -> Result<RankingRecord<'a>> {
    // An empty text has special tokens only; whatever they meet says nothing about it.
    let hits = if query.trim().is_empty() { &[][..] } else { &ranking.hits[..] };
    let encoded = evidence.then(|| ranker.encoder().encode(&[query])).transpose()?;
    let hits = hits
        .iter()
        .enumerate()
        .filter_map(|(index, hit)| space.target(hit.target).map(|target| (index, hit, target)))
        .map(|(index, hit, target)| {
            let evidence = match &encoded {
                Some(encoded) => {
                    let evidence = ranker.evidence_for(query, encoded, hit.target)?;
                    Some(PrintedEvidence::new(evidence, query, target.text()))
                }
                None => None,
            };
            Ok(HitRecord {
                rank: index + 1,
                target: target.text(),
                id: target.id(),
                score: hit.score,
                evidence,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(RankingRecord { query, truncated: ranking.truncated, hits })
}

/// Scores one text against another.
pub(crate) fn score(arguments: &ScoreArguments) -> Result<()> {
    let encoder = arguments.model.open()?;
    let mut targets = Targets::new("--target", &[]);
    targets.push(&arguments.target, Vec::new());
    if targets.is_empty() || arguments.query.trim().is_empty() {
        return Err(
            uwe::Error::Argument { name: "query and target", problem: "must not be empty".into() }.into()
        );
    }
    let space = Space::in_memory(&encoder, &targets, BuildOptions { states: StateType::F32 })?;
    let ranker = Ranker::new(&encoder, &space, arguments.scoring.resolve(encoder.scoring())?)?;
    let rankings = ranker.rank(&[&arguments.query], 1)?;
    let mut output = Output::open(arguments.format)?;
    for ranking in &rankings {
        output.write(&record(&ranker, &space, (&arguments.query, ranking), arguments.evidence)?)?;
    }
    output.flush()?;
    if rankings.iter().any(|ranking| ranking.truncated) || !space.truncated().is_empty() {
        note(&format!(
            "a text was cut at {} tokens; --max-tokens sets the limit",
            encoder.tokenizer().max_tokens()
        ));
    }
    Ok(())
}
