//! From arguments to an open encoder and space, with the defaults that make the first command short.

use crate::arguments::{Kernels, ModelArguments};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use uwe::{BuildOptions, Columns, Compute, Encoder, EncoderOptions, Format, InstructionSet, Space, Targets};

/// Folder names of default models, the best first.
const DEFAULT_MODELS: [&str; 2] = ["uwe-mini", "all-MiniLM-L6-v2"];

/// Skills of the starter taxonomy, so that a ranking needs no other file.
const STARTER_SKILLS: &str = include_str!("../../../starter/skills.csv");

impl ModelArguments {
    /// Opens the encoder.
    pub(crate) fn open(&self) -> Result<Encoder> {
        let set = self.kernels.map(|kernels| match kernels {
            Kernels::Avx512 => InstructionSet::Avx512,
            Kernels::Avx2 => InstructionSet::Avx2,
            Kernels::Neon => InstructionSet::Neon,
            Kernels::Scalar => InstructionSet::Scalar,
        });
        let options = EncoderOptions {
            precision: self.precision.into(),
            max_tokens: self.max_tokens,
            ..EncoderOptions::default()
        };
        let folder = match &self.model {
            Some(folder) => folder.clone(),
            None => default_model()?,
        };
        Ok(Encoder::open(&folder, options, Compute::new(self.threads, set)?)?)
    }
}

/// The first default model among `models/` here, in the program's checkout, and in the user's data folder.
pub(crate) fn default_model() -> Result<PathBuf> {
    let mut places = vec![PathBuf::from("models")];
    if let Ok(program) = std::env::current_exe() {
        // target/release/uwe lies three levels below the checkout.
        places.extend(program.ancestors().nth(3).map(|root| root.join("models")));
    }
    // A program that `cargo install` has put elsewhere finds the checkout that it was built from, while that is there.
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models"));
    places.extend(user_folder("XDG_DATA_HOME", ".local/share").map(|folder| folder.join("models")));
    for place in &places {
        if let Some(folder) = DEFAULT_MODELS
            .iter()
            .map(|name| place.join(name))
            .find(|folder| folder.join("config.json").is_file())
        {
            return Ok(folder);
        }
    }
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    bail!(
        "no model: there is no {} in {}\nhint: copy models/uwe-mini of the project to one of these places, or name a folder with --model",
        DEFAULT_MODELS.join(" or "),
        places.join(", ")
    )
}

fn user_folder(variable: &str, fallback: &str) -> Option<PathBuf> {
    let base = match std::env::var_os(variable).filter(|value| Path::new(value).is_absolute()) {
        Some(base) => PathBuf::from(base),
        None => PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(fallback),
    };
    Some(base.join("uwe"))
}

/// The user's cache folder for this program.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    user_folder("XDG_CACHE_HOME", ".cache")
}

/// The targets of the starter taxonomy.
pub(crate) fn starter_targets() -> Result<Targets> {
    let columns = Columns { text: Some("label".into()), id: Some("id".into()) };
    Ok(Targets::from_reader(STARTER_SKILLS.as_bytes(), "starter taxonomy", Format::Csv, &columns)?)
}

/// The space of the starter taxonomy for this encoder: from the user's cache, or built (and cached) now.
pub(crate) fn starter_space(encoder: &Encoder) -> Result<Space> {
    let targets = starter_targets()?;
    let options = BuildOptions::default();
    let fingerprint = Space::fingerprint(encoder, &targets, options);
    let file = cache_folder().map(|folder| folder.join(format!("starter-{fingerprint}.space")));
    if let Some(file) = &file {
        if let Ok(space) = Space::open(file) {
            return Ok(space);
        }
        let made = file.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok());
        if made {
            note(&format!("encoding the starter taxonomy once ({} skills)", targets.len()));
            // A cache that cannot be written is no reason to fail.
            if let Ok(space) = Space::build(encoder, &targets, options, file, &mut |_| true) {
                return Ok(space);
            }
        }
    }
    Space::in_memory(encoder, &targets, options).context("cannot encode the starter taxonomy")
}

/// A flag that Ctrl-C raises, for work that ends between two batches.
pub(crate) fn watch_for_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("cannot watch for Ctrl-C")?;
    Ok(stop)
}

/// A note on standard error.
#[allow(clippy::print_stderr, reason = "notes go to standard error")]
pub(crate) fn note(text: &str) {
    eprintln!("note: {text}");
}

/// Says how many of `what` were cut at the encoder's token limit; nothing when none was.
pub(crate) fn note_cut(encoder: &Encoder, count: usize, what: &str) {
    if count > 0 {
        let limit = encoder.tokenizer().max_tokens();
        note(&format!("{count} {what} were cut at {limit} tokens; --max-tokens sets the limit"));
    }
}
