//! Tables with named columns, as CSV.

use crate::error::{Error, Result};
use std::io::Read;
use std::path::Path;

/// Rows of the wanted columns, in their order; `name` stands in errors.
///
/// # Errors
/// [`Error::Data`] names the missing column with those that are there, or the line that is no CSV.
pub fn columns<const N: usize>(reader: impl Read, name: &str, wanted: [&str; N]) -> Result<Vec<[String; N]>> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(reader);
    let broken = |error: csv::Error| {
        let place =
            error.position().map_or_else(String::new, |position| format!(", line {}", position.line()));
        Error::data(
            format!("{name}{place}"),
            format!("is no sound CSV: {error}"),
            "the file must be UTF-8 CSV with a header line",
        )
    };
    let header: Vec<String> = reader
        .headers()
        .map_err(broken)?
        .iter()
        .map(|column| column.trim_start_matches('\u{feff}').to_string())
        .collect();
    let wanted_names = wanted;
    let mut places = [0; N];
    for (place, wanted) in places.iter_mut().zip(wanted) {
        *place = header.iter().position(|column| column == wanted).ok_or_else(|| {
            Error::data(
                name,
                format!("has no column `{wanted}`; its columns are: {}", header.join(", ")),
                format!("the columns {} are needed", wanted_names.join(", ")),
            )
        })?;
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        rows.push(places.map(|place| record[place].to_string()));
    }
    Ok(rows)
}

/// [`columns`] of a file.
///
/// # Errors
/// [`Error::Data`] names the missing column with those that are there, and [`Error::Io`] when the file cannot be read; or the line that is no CSV.
pub fn file_columns<const N: usize>(path: &Path, wanted: [&str; N]) -> Result<Vec<[String; N]>> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    columns(file, &path.display().to_string(), wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_columns_come_in_the_wanted_order() {
        let rows = columns(&b"\xef\xbb\xbfa,b,c\n1,\"2\n2\",3\n"[..], "x.csv", ["c", "b"]).unwrap();
        assert_eq!(rows, [["3", "2\n2"]]);
    }

    #[test]
    fn a_missing_column_is_named_with_those_that_are_there() {
        let error = columns(&b"a,b\n1,2\n"[..], "x.csv", ["label"]).unwrap_err();
        assert_eq!(error.to_string(), "x.csv: has no column `label`; its columns are: a, b");
        let error = columns(&b"a,b\n1\n"[..], "x.csv", ["a"]).unwrap_err();
        assert!(error.to_string().starts_with("x.csv, line 2:"), "{error}");
    }
}
