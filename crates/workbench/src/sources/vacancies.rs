//! Vacancy titles with their skills, as Parquet.

use crate::error::{Error, Result};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::path::Path;

/// A vacancy title, or several of the same title merged, with the skills it asks for.
pub(crate) struct Vacancy {
    pub(crate) title: String,
    pub(crate) skills: Vec<String>,
}

/// Rows of a Parquet file with the columns `title` (text) and `skill_name` (list of texts).
pub(crate) fn read(path: &Path) -> Result<Vec<Vacancy>> {
    let mut vacancies = Vec::new();
    for batch in batches(path)? {
        let batch = batch?;
        let title = strings(path, &batch, "title")?;
        let skills = column(path, &batch, "skill_name")?;
        let Some(skills) = skills.as_list_opt::<i32>() else {
            return Err(wrong_type(path, "skill_name", "a list of texts"));
        };
        for (row, title) in title.into_iter().enumerate() {
            let Some(title) = title else { continue };
            let list = skills.value(row);
            let Some(list) = list.as_string_opt::<i32>() else {
                return Err(wrong_type(path, "skill_name", "a list of texts"));
            };
            let skills = list.iter().flatten().map(str::to_string).collect();
            vacancies.push(Vacancy { title, skills });
        }
    }
    Ok(vacancies)
}

/// Record batches of a Parquet file.
pub(crate) fn batches(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let broken = |error: &dyn std::fmt::Display| {
        Error::data(
            path.display(),
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
pub(crate) fn strings(path: &Path, batch: &RecordBatch, name: &str) -> Result<Vec<Option<String>>> {
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
pub(crate) fn column<'a>(path: &Path, batch: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
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

pub(crate) fn wrong_type(path: &Path, name: &str, wanted: &str) -> Error {
    Error::data(
        path.display(),
        format!("column `{name}` is not {wanted}"),
        "take the file as it was published",
    )
}
