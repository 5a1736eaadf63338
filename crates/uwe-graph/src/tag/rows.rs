//! Vacancies row by row, out of CSV, JSON lines or Parquet.

use crate::lines::objects;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use workbench::sources::vacancies::{batches, strings};
use workbench::{Error, Result};

/// Which columns hold what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowColumns {
    /// Column of the title.
    pub title: String,
    /// Column of the description; `None`: titles alone.
    pub description: Option<String>,
}

/// Titles and descriptions, one row at a time.
pub struct Rows {
    rows: Box<dyn Iterator<Item = Result<(String, String)>>>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rows").finish_non_exhaustive()
    }
}

impl Rows {
    /// Opens a file: Parquet or JSON lines by its ending, else CSV.
    ///
    /// # Errors
    /// [`Error::Data`] for a missing column, [`Error::Io`] when it cannot be read.
    pub fn open(path: &Path, columns: &RowColumns) -> Result<Self> {
        let rows = match path.extension().and_then(|extension| extension.to_str()) {
            Some("parquet") => parquet(path, columns)?,
            Some("jsonl" | "ndjson") => json_lines(path, columns)?,
            _ => csv_rows(path, columns)?,
        };
        Ok(Self { rows })
    }
}

impl Iterator for Rows {
    type Item = Result<(String, String)>;
    fn next(&mut self) -> Option<Self::Item> {
        self.rows.next()
    }
}

type Boxed = Box<dyn Iterator<Item = Result<(String, String)>>>;

fn parquet(path: &Path, columns: &RowColumns) -> Result<Boxed> {
    let (path, columns) = (path.to_path_buf(), columns.clone());
    let batches = batches(&path)?;
    Ok(Box::new(batches.flat_map(move |batch| {
        let rows = batch.and_then(|batch| {
            let titles = strings(&path, &batch, &columns.title)?;
            let descriptions = match &columns.description {
                Some(name) => strings(&path, &batch, name)?,
                None => vec![None; titles.len()],
            };
            Ok(titles
                .into_iter()
                .zip(descriptions)
                .map(|(title, text)| (title.unwrap_or_default(), text.unwrap_or_default()))
                .collect::<Vec<_>>())
        });
        match rows {
            Ok(rows) => rows.into_iter().map(Ok).collect::<Vec<_>>(),
            Err(error) => vec![Err(error)],
        }
    })))
}

fn json_lines(path: &Path, columns: &RowColumns) -> Result<Boxed> {
    let columns = columns.clone();
    Ok(Box::new(objects(path)?.map(move |object| {
        let object = object?;
        let description = columns.description.as_ref().and_then(|name| object.optional(name));
        Ok((object.text(&columns.title)?.to_string(), description.unwrap_or_default().to_string()))
    })))
}

fn csv_rows(path: &Path, columns: &RowColumns) -> Result<Boxed> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let mut reader = csv::ReaderBuilder::new().from_reader(BufReader::with_capacity(1 << 16, file));
    let path = path.to_path_buf();
    let broken = move |error: csv::Error| {
        let line = error.position().map_or(0, csv::Position::line);
        let hint = "the file must be UTF-8 CSV with a header line";
        Error::data(format!("{}, line {line}", path.display()), format!("is no sound CSV: {error}"), hint)
    };
    let header: Vec<String> = reader
        .headers()
        .map_err(&broken)?
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}').to_string())
        .collect();
    let place = |wanted: &str| {
        header.iter().position(|name| name == wanted).ok_or_else(|| {
            let problem = format!("there is no column `{wanted}`; the columns are: {}", header.join(", "));
            Error::Argument { name: "column", problem }
        })
    };
    let title = place(&columns.title)?;
    let description = columns.description.as_deref().map(place).transpose()?;
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record.map_err(&broken)?;
        let text = description.map_or("", |place| &record[place]);
        Ok((record[title].to_string(), text.to_string()))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_csv_and_json_lines() {
        let folder = tempfile::tempdir().unwrap();
        let columns = RowColumns { title: "job".into(), description: Some("text".into()) };
        let rows = |path: &Path| Rows::open(path, &columns).and_then(Iterator::collect::<Result<Vec<_>>>);
        let (table, lines) = (folder.path().join("a.csv"), folder.path().join("a.jsonl"));
        std::fs::write(&table, "text,job\n\"Bake.\nSell.\",baker\n,welder\n").unwrap();
        std::fs::write(&lines, "{\"job\":\"baker\",\"text\":\"Bake.\\nSell.\"}\n\n{\"job\":\"welder\"}\n")
            .unwrap();
        let expected = [("baker".to_string(), "Bake.\nSell.".to_string()), ("welder".into(), String::new())];
        assert_eq!(rows(&table).unwrap(), expected);
        assert_eq!(rows(&lines).unwrap(), expected);
        std::fs::write(&lines, "{\"job\":\"baker\"}\n{\"job\":7}\n").unwrap();
        assert!(rows(&lines).unwrap_err().to_string().contains("line 2: has no text in `job`"));
        std::fs::write(&table, "title\nx\n").unwrap();
        assert!(rows(&table).unwrap_err().to_string().contains("there is no column `job`"));
    }
}
