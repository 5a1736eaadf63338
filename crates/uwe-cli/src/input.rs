//! Texts from the command line, a file or standard input, in small groups as they come.

use crate::arguments::TextArguments;
use anyhow::Result;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use uwe::{Error, Lines};

/// Most texts that are worked on together.
const GROUP: usize = 256;

/// Texts in groups.
pub(crate) enum Texts {
    /// From the command line.
    Given(std::vec::IntoIter<String>),
    /// Line by line.
    Read(Lines<BufReader<Box<dyn Read>>>),
}

impl Texts {
    /// The given texts, or the lines of `input`, or those of standard input.
    pub(crate) fn open(arguments: &TextArguments) -> Result<Self> {
        if !arguments.texts.is_empty() {
            return Ok(Self::Given(arguments.texts.clone().into_iter()));
        }
        let (reader, name): (Box<dyn Read>, String) = match arguments.input.as_deref() {
            Some(path) if path != Path::new("-") => {
                let file = std::fs::File::open(path).map_err(|source| Error::Io {
                    action: "open",
                    path: PathBuf::from(path),
                    source,
                })?;
                (Box::new(file), path.display().to_string())
            }
            _ => (Box::new(std::io::stdin()), "standard input".to_string()),
        };
        Ok(Self::Read(Lines::new(BufReader::with_capacity(1 << 16, reader), name)))
    }

    /// The next texts: waits for one, and takes along what has come already. Empty at the end.
    ///
    /// An error is returned after the texts before it.
    pub(crate) fn next_group(&mut self) -> (Vec<String>, Result<()>) {
        match self {
            Self::Given(texts) => (texts.by_ref().take(GROUP).collect(), Ok(())),
            Self::Read(lines) => {
                let mut group = Vec::new();
                while group.len() < GROUP && (group.is_empty() || lines.is_ready()) {
                    match lines.next() {
                        None => break,
                        Some(Ok(line)) => group.push(line),
                        Some(Err(error)) => return (group, Err(error.into())),
                    }
                }
                (group, Ok(()))
            }
        }
    }
}
