//! Reports on one or several runs: one self-contained web page, and Markdown.

mod charts;
mod page;
mod study;
mod text;

use crate::error::Result;
use crate::run::Run;

/// A report in both forms.
#[derive(Clone, Debug)]
pub struct Report {
    /// One web page that needs nothing else.
    pub html: String,
    /// Tables.
    pub markdown: String,
}

/// A report on one or several runs. The first is what the others are compared with; the queries shown are the last
/// one's.
///
/// # Errors
/// Those of reading the runs; there must be one.
pub fn report(runs: &[Run]) -> Result<Report> {
    let study = study::Study::read(runs)?;
    Ok(Report { html: page::html(&study), markdown: text::markdown(&study) })
}
