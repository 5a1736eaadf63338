//! `uwe space`: build, describe and verify.

use crate::arguments::{BuildArguments, PillarArgument, SourceFormat, States};
use crate::output::printable;
use crate::setup::{note, note_cut, starter_targets, watch_for_interrupt};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use uwe::{BuildOptions, Columns, Format, Pillar, Space, StateType, Targets};

/// Encodes a list of targets into a space file.
pub(crate) fn build(arguments: &BuildArguments) -> Result<()> {
    let targets = read(arguments)?;
    if targets.folded() > 0 {
        note(&format!("{} repeated texts were folded into their first", targets.folded()));
    }
    if targets.left_out() > 0 {
        note(&format!("{} empty texts were left out", targets.left_out()));
    }
    let stop = watch_for_interrupt()?;
    let encoder = arguments.model.open()?;
    let bar = ProgressBar::new(targets.len() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} targets, {per_sec}, {eta} left")?
            .progress_chars("█▌ "),
    );
    let options = BuildOptions {
        states: match arguments.states {
            States::F16 => StateType::F16,
            States::F32 => StateType::F32,
        },
    };
    let started = std::time::Instant::now();
    let space = Space::build(&encoder, &targets, options, &arguments.output, &mut |progress| {
        bar.set_position(progress.done as u64);
        !stop.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let space = space?;
    note_cut(&encoder, space.truncated().len(), "targets");
    note(&format!(
        "{}: {} targets, {:.1} MB, in {:.1} s",
        arguments.output.display(),
        space.len(),
        space.bytes() as f64 / 1e6,
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn read(arguments: &BuildArguments) -> Result<Targets> {
    // Always the built-in one; a folder of that name is `./starter`.
    if arguments.source == Path::new("starter") {
        return starter_targets();
    }
    let pillar = match arguments.pillar {
        PillarArgument::Skills => Pillar::Skills,
        PillarArgument::Occupations => Pillar::Occupations,
    };
    let format = match arguments.source_format {
        Some(SourceFormat::Lines) => Format::Lines,
        Some(SourceFormat::Csv) => Format::Csv,
        Some(SourceFormat::Tsv) => Format::Tsv,
        Some(SourceFormat::Jsonl) => Format::JsonLines,
        Some(SourceFormat::Esco) => Format::Esco(pillar),
        None => match Format::of(&arguments.source) {
            Format::Esco(_) => Format::Esco(pillar),
            other => other,
        },
    };
    let columns = Columns { text: arguments.text_column.clone(), id: arguments.id_column.clone() };
    Ok(Targets::read(&arguments.source, format, &columns)?)
}

/// Describes a space.
pub(crate) fn info(file: &Path, json: bool) -> Result<()> {
    let space = Space::open(file)?;
    let meta = space.meta();
    let mut out = std::io::stdout().lock();
    if json {
        let mut value = serde_json::to_value(meta)?;
        value["tokens"] = space.tokens().into();
        value["truncated"] = space.truncated().len().into();
        value["bytes"] = space.bytes().into();
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let rows = [
        ("targets", space.len().to_string()),
        ("tokens", space.tokens().to_string()),
        ("truncated", space.truncated().len().to_string()),
        ("folded", meta.folded.to_string()),
        ("columns", meta.columns.join(", ")),
        ("source", printable(&meta.source)),
        ("model", format!("{} ({})", printable(&meta.model), meta.model_fingerprint)),
        ("tokenizer", meta.tokenizer_fingerprint.clone()),
        ("encoded in", format!("{}, at most {} tokens", meta.precision, meta.max_tokens)),
        ("states", format!("{} x {:?}", meta.dimension, meta.states).to_lowercase()),
        ("size", format!("{:.1} MB", space.bytes() as f64 / 1e6)),
        ("fingerprint", meta.fingerprint.clone()),
        ("written by", printable(&meta.written_by)),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<12} {value}")?;
    }
    Ok(())
}

/// Compares every checksum of a space.
pub(crate) fn verify(file: &Path) -> Result<()> {
    let space = Space::open(file)?;
    space.verify()?;
    writeln!(std::io::stdout().lock(), "{}: sound, {} targets", file.display(), space.len())?;
    Ok(())
}
