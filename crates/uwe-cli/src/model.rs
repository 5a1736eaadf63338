//! `uwe model`: describe and verify.

use crate::arguments::ModelArguments;
use anyhow::{Result, bail};
use std::io::Write;
use std::path::Path;
use uwe::{InstructionSet, Precision};

/// Largest difference from the reference that counts as equal, for precision f32.
const TOLERANCE: f32 = 2e-4;
/// Smallest cosine to the reference that counts as equal, for the 16-bit precisions.
const SMALLEST_COSINE: f64 = 0.9999;

/// Describes a model and what would run it.
pub(crate) fn info(arguments: &ModelArguments, json: bool) -> Result<()> {
    let encoder = arguments.open()?;
    let info = encoder.info();
    let available = |names: Vec<(&str, bool)>| -> String {
        names.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    };
    let sets = available(InstructionSet::all().iter().map(|set| (set.name(), set.is_available())).collect());
    let precisions = available(Precision::all().iter().map(|p| (p.name(), p.is_available())).collect());
    let (before, after) = encoder.tokenizer().special_tokens();
    let mut out = std::io::stdout().lock();
    if json {
        let value = serde_json::json!({
            "path": info.path, "architecture": info.architecture.name(), "layers": info.layers,
            "heads": info.heads, "dimension": info.dimension, "parameters": info.parameters,
            "vocabulary": info.vocabulary, "positions": info.positions, "pooling": info.pooling.name(),
            "stored_as": info.stored_as, "max_tokens": encoder.tokenizer().max_tokens(),
            "special_tokens": [before, after], "fingerprint": info.fingerprint, "scoring": info.scoring,
            "tokenizer_fingerprint": encoder.tokenizer().fingerprint(),
            "kernels": encoder.compute().instruction_set().name(), "precision": encoder.options().precision.name(),
            "threads": encoder.compute().threads(),
        });
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let rows = [
        ("folder", info.path.display().to_string()),
        (
            "architecture",
            format!(
                "{}: {} layers, {} heads, width {}",
                info.architecture.name(),
                info.layers,
                info.heads,
                info.dimension
            ),
        ),
        ("parameters", format!("{:.1} million, stored as {}", info.parameters as f64 / 1e6, info.stored_as)),
        ("vocabulary", info.vocabulary.to_string()),
        ("pooling", info.pooling.name().to_string()),
        ("scorer", info.scoring.map_or_else(|| "none named; soft".into(), |scoring| scoring.to_string())),
        ("tokens", format!("at most {} of {} positions", encoder.tokenizer().max_tokens(), info.positions)),
        ("fingerprint", info.fingerprint.clone()),
        ("tokenizer", encoder.tokenizer().fingerprint().to_string()),
        ("kernels", format!("{} (this processor: {sets})", encoder.compute().instruction_set())),
        ("precision", format!("{} (this processor: {precisions})", encoder.options().precision)),
        ("threads", encoder.compute().threads().to_string()),
    ];
    for (name, value) in rows {
        writeln!(out, "{name:<12} {value}")?;
    }
    Ok(())
}

/// Compares a model's numbers with a reference.
pub(crate) fn verify(arguments: &ModelArguments, reference: Option<&Path>) -> Result<()> {
    let encoder = arguments.open()?;
    let beside = encoder.info().path.join("uwe-reference.safetensors");
    let reference = reference.unwrap_or(&beside);
    if !reference.exists() {
        bail!(
            "there is no reference {}\nhint: name one with --reference; \
             crates/uwe/tests/golden/generate.py makes them",
            reference.display()
        );
    }
    let found = encoder.verify(reference)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} texts, {} tokens", found.texts, found.tokens)?;
    writeln!(out, "texts with other token ids   {}", found.different_tokens.len())?;
    writeln!(out, "largest state difference     {:.1e}", found.largest_state_difference)?;
    writeln!(out, "largest pooled difference    {:.1e}", found.largest_pooled_difference)?;
    writeln!(out, "smallest cosine of a state   {:.7}", found.smallest_cosine)?;
    let close = match encoder.options().precision {
        Precision::F32 => {
            found.largest_state_difference <= TOLERANCE && found.largest_pooled_difference <= TOLERANCE
        }
        Precision::Bf16 | Precision::Int16 => found.smallest_cosine >= SMALLEST_COSINE,
    };
    if !found.different_tokens.is_empty() {
        bail!("token ids differ from the reference for: {}", found.different_tokens.join(" | "));
    }
    if !close {
        bail!(
            "token states differ from the reference by more than {TOLERANCE:e} (16-bit: cosine {SMALLEST_COSINE})"
        );
    }
    writeln!(out, "equal to the reference")?;
    Ok(())
}
