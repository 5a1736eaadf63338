//! The raw files that sets are made of: one module a kind of file.

pub mod annotations;
pub mod esco;
pub(crate) mod given;
pub(crate) mod pairs;
pub mod table;
pub mod vacancies;

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What a folder holds, by name.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(Error::io("read", folder))?;
    entries.sort();
    Ok(entries)
}
