//! Errors of the benchmark: each names the file or set at fault and says what to do next.

use std::path::{Path, PathBuf};

/// Result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what its kind should hold.
    #[error("{source_name}: {problem}")]
    Data {
        /// The file, with the line where one is at fault.
        source_name: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A ranking set cannot be made or measured.
    #[error("set {set}: {problem}")]
    Set {
        /// Name of the set.
        set: String,
        /// What is wrong.
        problem: String,
    },
    /// A run folder holds results of something else.
    #[error("run {}: {problem}", path.display())]
    Run {
        /// The run folder.
        path: PathBuf,
        /// What does not fit.
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
    /// The encoder or a space failed.
    #[error(transparent)]
    Engine(#[from] uwe::Error),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// What to do next, where there is more to say than the message does.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Data { hint, .. } | Self::Run { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            Self::Engine(error) => error.hint(),
            _ => None,
        }
    }

    /// For `map_err`: an [`Error::Io`] of this action and file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Data`].
    pub fn data(
        source_name: impl std::fmt::Display,
        problem: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Data { source_name: source_name.to_string(), problem: problem.into(), hint: hint.into() }
    }
}
