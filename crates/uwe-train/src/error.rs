//! What can go wrong, and what to do then.

use std::path::{Path, PathBuf};

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong while training.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The encoder for serving, a tokenizer or a model folder.
    #[error(transparent)]
    Model(#[from] uwe::Error),
    /// Graphs and validation sets.
    #[error(transparent)]
    Data(#[from] workbench::Error),
    /// A weight file.
    #[error("{}: {problem}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A recipe or an option.
    #[error("{what}: {problem}")]
    Recipe {
        /// The file or field.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder of a training.
    #[error("{}: {problem}", path.display())]
    Run {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A step whose loss or gradient is no number. The last checkpoint is sound.
    #[error("step {step}: the {what} is not finite; batch {batch}, skills {skills}")]
    NotFinite {
        /// The step.
        step: u64,
        /// Loss or gradient.
        what: &'static str,
        /// Fingerprint of the batch.
        batch: String,
        /// Identifiers of its first skills.
        skills: String,
    },
    /// A device.
    #[error("the device fails: {problem}")]
    Device {
        /// What it says.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The caller asked to stop; the last checkpoint holds all steps that are done.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// What to do next, where that is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Model(error) => return error.hint(),
            Self::Data(error) => return error.hint(),
            Self::Weights { .. } => "get the model again, as sentence-transformers writes it",
            Self::Recipe { .. } => "recipes/ in the project has one that works, with comments",
            Self::Run { .. } => "give another folder, or delete this one",
            Self::NotFinite { .. } => "lower the learning rate, and resume from the last checkpoint",
            Self::Device { .. } => {
                "a smaller batch needs less memory; without --device, the processor trains"
            }
            Self::Io { .. } | Self::Interrupted => return None,
        };
        Some(hint.to_string())
    }
}
