//! Tables of edges that a user brings.

use super::Draft;
use crate::edge::{Graph, Provenance};
use crate::lines::{Object, objects};
use crate::recipe::SourceKind;
use std::path::Path;
use workbench::Result;
use workbench::sources::{table, vacancies};

/// Edges of a table with named columns.
pub(super) fn edges(root: &Path, kind: &SourceKind) -> Result<Vec<Draft>> {
    let SourceKind::Table { file, graph, skill, text, skill_id, provenance } = kind else {
        return Ok(Vec::new());
    };
    let path = root.join(file);
    let columns = [&skill[..], &text[..], skill_id.as_deref().unwrap_or(skill)];
    let rows = match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "ndjson") => json_lines(&path, columns)?,
        _ if path.is_dir() => parquet(&path, columns)?,
        Some("parquet") => parquet(&path, columns)?,
        _ => table::file_columns(&path, columns)?,
    };
    Ok(rows.into_iter().map(|row| draft(row, *graph, *provenance)).collect())
}

fn draft([skill, text, skill_id]: [String; 3], graph: Graph, provenance: Provenance) -> Draft {
    Draft { graph, skill, skill_id, text, provenance, weight: 1.0 }
}

fn json_lines(path: &Path, columns: [&str; 3]) -> Result<Vec<[String; 3]>> {
    let row = |object: Object| {
        let [skill, text, id] = columns.map(|column| object.text(column).map(String::from));
        Ok([skill?, text?, id?])
    };
    objects(path)?.map(|object| object.and_then(row)).collect()
}

fn parquet(path: &Path, columns: [&str; 3]) -> Result<Vec<[String; 3]>> {
    let mut rows = Vec::new();
    for file in super::parquet_files(path)? {
        rows.extend(parquet_file(&file, columns)?);
    }
    Ok(rows)
}

fn parquet_file(path: &Path, columns: [&str; 3]) -> Result<Vec<[String; 3]>> {
    let mut rows = Vec::new();
    for batch in vacancies::batches(path)? {
        let batch = batch?;
        let mut values = Vec::new();
        for column in columns {
            values.push(vacancies::strings(path, &batch, column)?.into_iter().map(Option::unwrap_or_default));
        }
        for _ in 0..batch.num_rows() {
            let mut row = [String::new(), String::new(), String::new()];
            row.iter_mut()
                .zip(&mut values)
                .for_each(|(value, values)| *value = values.next().unwrap_or_default());
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_as_csv_and_json_lines() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |file: &str, skill_id: Option<&str>| SourceKind::Table {
            file: file.into(),
            graph: Graph::Job,
            skill: "competence".into(),
            text: "title".into(),
            skill_id: skill_id.map(String::from),
            provenance: Provenance::Real,
        };
        std::fs::write(folder.path().join("a.csv"), "title,competence,key\nbaker,bake bread,k1\n").unwrap();
        let edges_of = |kind| edges(folder.path(), &kind);
        assert_eq!(edges_of(kind("a.csv", Some("key"))).unwrap()[0].skill_id, "k1");
        std::fs::write(
            folder.path().join("a.jsonl"),
            "{\"title\":\"baker\",\"competence\":\"bake bread\"}\n",
        )
        .unwrap();
        let found = edges_of(kind("a.jsonl", None)).unwrap();
        assert_eq!((&found[0].text[..], &found[0].skill_id[..]), ("baker", "bake bread"));
        std::fs::write(folder.path().join("a.jsonl"), "{\"title\":1,\"competence\":\"x\"}\n").unwrap();
        assert!(
            edges_of(kind("a.jsonl", None))
                .unwrap_err()
                .to_string()
                .contains("line 1: has no text in `title`")
        );
        assert!(edges_of(kind("a.csv", Some("nope"))).unwrap_err().to_string().contains("no column `nope`"));
    }
}
