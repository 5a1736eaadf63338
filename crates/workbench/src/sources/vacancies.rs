//! Vacancy titles with their skills, as Parquet.

use crate::error::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{Array, ListArray, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::path::Path;

/// A vacancy title, or several of the same title merged, with the skills it asks for.
pub struct Vacancy {
    /// The title.
    pub title: String,
    /// Labels of its skills.
    pub skills: Vec<String>,
    /// For each skill, the tagger's mean probability, where the file has it.
    pub probabilities: Vec<f64>,
    /// For each skill, the share of the merged vacancies that have it, where the file has it.
    pub shares: Vec<f64>,
}

/// Rows of a Parquet file with the columns `title` (text) and `skill_name` (list of texts).
///
/// # Errors
/// [`Error::Data`] for what is no sound Parquet or lacks a column, [`Error::Io`] when it cannot be read.
pub fn read(path: &Path) -> Result<Vec<Vacancy>> {
    let mut vacancies = Vec::new();
    for batch in batches(path)? {
        let batch = batch?;
        let title = strings(path, &batch, "title")?;
        let skills = column(path, &batch, "skill_name")?;
        let Some(skills) = skills.as_list_opt::<i32>() else {
            return Err(wrong_type(path, "skill_name", "a list of texts"));
        };
        let (probabilities, shares) =
            (floats(&batch, "skill_prob_avg"), floats(&batch, "skill_occurrence_pct"));
        for (row, title) in title.into_iter().enumerate() {
            let Some(title) = title else { continue };
            let list = skills.value(row);
            let Some(list) = list.as_string_opt::<i32>() else {
                return Err(wrong_type(path, "skill_name", "a list of texts"));
            };
            let skills: Vec<String> = list.iter().flatten().map(str::to_string).collect();
            let (probabilities, shares) = (row_of(&probabilities, row), row_of(&shares, row));
            vacancies.push(Vacancy { title, skills, probabilities, shares });
        }
    }
    Ok(vacancies)
}

/// A column of lists of 64-bit floats, if there is one.
fn floats<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a ListArray> {
    batch.column_by_name(name)?.as_list_opt::<i32>()
}

fn row_of(lists: &Option<&ListArray>, row: usize) -> Vec<f64> {
    let list = lists.map(|lists| lists.value(row));
    let numbers = list.as_ref().and_then(|list| list.as_primitive_opt::<Float64Type>());
    numbers.map(|numbers| numbers.values().to_vec()).unwrap_or_default()
}

/// Record batches of a Parquet file.
///
/// # Errors
/// [`Error::Data`] for what is no sound Parquet or lacks a column, [`Error::Io`] when it cannot be read.
pub fn batches(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let name = path.display().to_string();
    let broken = move |error: &dyn std::fmt::Display| {
        Error::data(
            &name,
            format!("is no sound Parquet: {error}"),
            "get the file again, or write it with snappy or zstd compression",
        )
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(|error| broken(&error))?;
    Ok(reader.map(move |batch| batch.map_err(|error| broken(&error))))
}

/// A column of texts.
///
/// # Errors
/// [`Error::Data`] for what is no sound Parquet or lacks a column, [`Error::Io`] when it cannot be read.
pub fn strings(path: &Path, batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
    let column = column(path, batch, name)?;
    if let Some(texts) = column.as_string_opt::<i32>() {
        return Ok(texts.iter().map(|text| text.map(str::to_string)).collect());
    }
    if let Some(texts) = column.as_string_opt::<i64>() {
        return Ok(texts.iter().map(|text| text.map(str::to_string)).collect());
    }
    Err(wrong_type(path, name, "text"))
}

/// A column by name.
///
/// # Errors
/// [`Error::Data`] for what is no sound Parquet or lacks a column, [`Error::Io`] when it cannot be read.
pub fn column<'a>(path: &Path, batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
    batch.column_by_name(name).map(|column| &**column).ok_or_else(|| {
        let schema = batch.schema();
        let names: Vec<&str> = schema.fields().iter().map(|field| &field.name()[..]).collect();
        Error::data(
            path.display(),
            format!("has no column `{name}`; its columns are: {}", names.join(", ")),
            "take the file as it was published",
        )
    })
}

/// The error of a column of another type.
pub fn wrong_type(path: &Path, name: &str, wanted: &str) -> Error {
    Error::data(
        path.display(),
        format!("column `{name}` is not {wanted}"),
        "take the file as it was published",
    )
}
