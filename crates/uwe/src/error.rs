//! Errors: a kind that a program can match, a message that names the file and the field, and a hint that
//! says what to do next.

use std::path::{Path, PathBuf};

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A model folder lacks something, or holds something that this crate does not know.
    #[error("model {}: {problem}", path.display())]
    Model {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A weight tensor is missing, has the wrong shape or type, or holds a number that is not finite.
    #[error("weights {}: tensor `{tensor}` {problem}", path.display())]
    Weights {
        /// The weight file.
        path: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A text could not be turned into tokens.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The encoder's numbers ran out of range for a text.
    #[error("text {index} (from 0) has token states that are not finite or beyond a million")]
    NotFinite {
        /// Index of the text in the call.
        index: usize,
    },
    /// A space file is damaged or not a space file.
    #[error("space {}: {problem}", path.display())]
    Space {
        /// The space file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A space was built with another model or tokenizer.
    #[error(
        "space {} does not fit the model: its {part} has fingerprint {space}, the model's is {model}",
        path.display()
    )]
    Mismatch {
        /// The space file.
        path: PathBuf,
        /// "weights" or "tokenizer".
        part: &'static str,
        /// Fingerprint stored in the space.
        space: String,
        /// Fingerprint of the model at hand.
        model: String,
    },
    /// A list of texts could not be read.
    #[error("{source_name}{}: {problem}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Input {
        /// The file, or "standard input".
        source_name: String,
        /// Line from 1, where one is at fault.
        line: Option<u64>,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// An argument has a value that makes no sense.
    #[error("{name}: {problem}")]
    Argument {
        /// The argument's name.
        name: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What to do next, where there is more to say than the message does.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Model { hint, .. } | Self::Input { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            Self::Weights { .. } => {
                Some("the weight file is damaged or of another architecture; get it again".into())
            }
            Self::NotFinite { .. } => Some("try precision f32; if it stays, the weights are unsound".into()),
            Self::Space { .. } => Some("build the space again with `uwe space build`".into()),
            Self::Mismatch { .. } => {
                Some("use the model that built the space, or build the space again with this model".into())
            }
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => Some("free some space on the disk and try again".into()),
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose a place that you may read and write".into())
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn model(path: &Path, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Model { path: path.to_path_buf(), problem: problem.into(), hint: hint.into() }
    }

    pub(crate) fn space(path: &Path, problem: impl Into<String>) -> Self {
        Self::Space { path: path.to_path_buf(), problem: problem.into() }
    }
}
