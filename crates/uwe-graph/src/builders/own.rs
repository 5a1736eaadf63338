//! Tables of edges that a user brings.

use super::{Data, Draft};
use crate::edge::{Graph, Provenance};
use crate::lines::{Object, objects};
use crate::recipe::SourceKind;
use std::collections::HashMap;
use std::path::Path;
use workbench::sources::esco::{Table, Version};
use workbench::sources::{table, vacancies};
use workbench::{Error, Result};

/// Edges of a table with named columns, below `root`.
pub(super) fn edges(data: &Data<'_>, root: &Path, kind: &SourceKind) -> Result<Vec<Draft>> {
    let SourceKind::Table { file, graph, skill, text, skill_id, provenance } = kind else {
        return Ok(Vec::new());
    };
    let path = root.join(file);
    let (skill_column, id_column) = match (skill.as_deref(), skill_id.as_deref()) {
        (Some(skill), id) => (skill, id.unwrap_or(skill)),
        (None, Some(id)) => (id, id),
        (None, None) => {
            return Err(Error::data(
                path.display(),
                "is a table of a recipe that names neither `skill` nor `skill_id`",
                "give the column of the skill's text, or that of its ESCO URI as `skill_id`",
            ));
        }
    };
    let columns = [skill_column, &text[..], id_column];
    let mut rows = read(&path, columns)?;
    if skill.is_none() {
        name_by_uri(data, &path, &mut rows)?;
    }
    Ok(rows.into_iter().map(|row| draft(row, *graph, *provenance)).collect())
}

/// Puts the labels of ESCO's skills and occupations in the place of their URIs.
fn name_by_uri(data: &Data<'_>, path: &Path, rows: &mut [[String; 3]]) -> Result<()> {
    let labels = Labels::read(data)?;
    for (index, [skill, _, uri]) in rows.iter_mut().enumerate() {
        labels.of(uri, (path, index))?.clone_into(skill);
    }
    Ok(())
}

/// The labels of ESCO's skills and occupations by their URIs.
pub(super) struct Labels {
    by_uri: HashMap<String, String>,
    esco: Version,
}

impl Labels {
    pub(super) fn read(data: &Data<'_>) -> Result<Self> {
        let mut by_uri = HashMap::new();
        for table in [Table::Occupations, Table::Skills] {
            let concepts = data.releases.concepts(data.esco, table, "en")?;
            by_uri
                .extend(concepts.into_iter().map(|concept| (concept.uri, concept.label.trim().to_string())));
        }
        Ok(Self { by_uri, esco: data.esco })
    }

    /// The label of what a row (from 0) of a file names.
    pub(super) fn of(&self, uri: &str, (path, row): (&Path, usize)) -> Result<&str> {
        self.by_uri.get(uri).map(String::as_str).ok_or_else(|| {
            Error::data(
                format!("{}, row {}", path.display(), row + 1),
                format!("`{uri}` is no skill or occupation of ESCO {}", self.esco),
                "take the URIs of the recipe's release; a table of edges can name a column with the skill's text as `skill` instead",
            )
        })
    }
}

/// Columns of a table: JSON lines or Parquet by its ending, Parquet in a folder, else CSV.
pub(super) fn read<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<[String; N]>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "ndjson") => json_lines(path, columns),
        _ if path.is_dir() => parquet(path, columns),
        Some("parquet") => parquet(path, columns),
        _ => table::file_columns(path, columns),
    }
}

fn draft([skill, text, skill_id]: [String; 3], graph: Graph, provenance: Provenance) -> Draft {
    Draft { graph, skill, skill_id, text, provenance, weight: 1.0 }
}

fn json_lines<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<[String; N]>> {
    let row = |object: Object| {
        let mut row = [const { String::new() }; N];
        for (value, column) in row.iter_mut().zip(columns) {
            *value = object.text(column)?.to_string();
        }
        Ok(row)
    };
    objects(path)?.map(|object| object.and_then(row)).collect()
}

fn parquet<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<[String; N]>> {
    let mut rows = Vec::new();
    for file in super::parquet_files(path)? {
        rows.extend(parquet_file(&file, columns)?);
    }
    Ok(rows)
}

fn parquet_file<const N: usize>(path: &Path, columns: [&str; N]) -> Result<Vec<[String; N]>> {
    let mut rows = Vec::new();
    for batch in vacancies::batches(path)? {
        let batch = batch?;
        let mut values = Vec::new();
        for column in columns {
            values.push(vacancies::strings(path, &batch, column)?.into_iter().map(Option::unwrap_or_default));
        }
        for _ in 0..batch.num_rows() {
            let mut row = [const { String::new() }; N];
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
    use workbench::sources::esco::Releases;

    #[test]
    fn tables_as_csv_and_json_lines() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |file: &str, skill_id: Option<&str>| SourceKind::Table {
            file: file.into(),
            graph: Graph::Job,
            skill: Some("competence".into()),
            text: "title".into(),
            skill_id: skill_id.map(String::from),
            provenance: Provenance::Real,
        };
        std::fs::write(folder.path().join("a.csv"), "title,competence,key\nbaker,bake bread,k1\n").unwrap();
        let releases = Releases::default();
        let esco = Version([1, 2, 0]);
        let data = Data { root: folder.path(), releases: &releases, esco, work: folder.path() };
        let edges_of = |kind| edges(&data, folder.path(), &kind);
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

    #[test]
    fn skills_can_be_named_by_uri() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("1.2.0");
        std::fs::create_dir(&release).unwrap();
        let header = "conceptUri,preferredLabel,altLabels,description\n";
        std::fs::write(release.join("skills_en.csv"), format!("{header}s:1,bake bread,,\n")).unwrap();
        std::fs::write(release.join("occupations_en.csv"), format!("{header}o:1,baker,,\n")).unwrap();
        let releases = Releases::discover(folder.path()).unwrap();
        let esco = Version([1, 2, 0]);
        let data = Data { root: folder.path(), releases: &releases, esco, work: folder.path() };
        let kind = SourceKind::Table {
            file: "a.csv".into(),
            graph: Graph::Sentence,
            skill: None,
            text: "text".into(),
            skill_id: Some("uri".into()),
            provenance: Provenance::Synthetic,
        };
        let table = folder.path().join("a.csv");
        std::fs::write(&table, "uri,text\ns:1,You make sourdough\no:1,dough maker\n").unwrap();
        let found = edges(&data, folder.path(), &kind).unwrap();
        let skills: Vec<&str> = found.iter().map(|edge| &edge.skill[..]).collect();
        assert_eq!(skills, ["bake bread", "baker"]);
        std::fs::write(&table, "uri,text\ns:1,x\ns:9,y\n").unwrap();
        let error = edges(&data, folder.path(), &kind).unwrap_err().to_string();
        assert!(error.contains("a.csv, row 2: `s:9` is no skill or occupation of ESCO 1.2.0"), "{error}");
    }
}
