//! JSON lines: one object a line, with texts in named fields.

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use workbench::{Error, Result};

/// One object of a file, and where it stands.
pub(crate) struct Object {
    path: PathBuf,
    line: usize,
    value: Value,
}

impl Object {
    /// The text of a field.
    ///
    /// # Errors
    /// [`Error::Data`] names the line when there is none.
    pub(crate) fn text(&self, field: &str) -> Result<&str> {
        self.optional(field).ok_or_else(|| wrong(&self.path, self.line, &format!("has no text in `{field}`")))
    }

    /// The texts of a field that is a list.
    ///
    /// # Errors
    /// [`Error::Data`] names the line when it is none.
    pub(crate) fn texts(&self, field: &str) -> Result<Vec<&str>> {
        let list = self.value[field].as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        list.ok_or_else(|| wrong(&self.path, self.line, &format!("has no list of texts in `{field}`")))
    }

    /// Where it stands, from 1.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The text of a field, if there is one.
    pub(crate) fn optional(&self, field: &str) -> Option<&str> {
        self.value[field].as_str()
    }
}

fn wrong(path: &Path, line: usize, problem: &str) -> Error {
    let place = format!("{}, line {line}", path.display());
    Error::data(place, problem, "each line is an object with the named fields as texts")
}

/// The objects of a file, blank lines left out.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened; each item names its line.
pub(crate) fn objects(path: &Path) -> Result<impl Iterator<Item = Result<Object>> + use<>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let path = path.to_path_buf();
    let lines = BufReader::with_capacity(1 << 16, file).lines().enumerate();
    Ok(lines.filter(|(_, line)| !line.as_ref().is_ok_and(|line| line.trim().is_empty())).map(
        move |(index, line)| {
            let line = line.map_err(Error::io("read", &path))?;
            let value = serde_json::from_str(&line)
                .map_err(|error| wrong(&path, index + 1, &format!("is no JSON: {error}")))?;
            Ok(Object { path: path.clone(), line: index + 1, value })
        },
    ))
}
