//! Sets that a user brings: `{queries, targets, relevance}` as JSON, and BEIR folders.

use crate::error::{Error, Result};
use crate::set::{Identity, RankingSet, RawSet, Split, Task};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// Relevant targets of a query: plain indices, or pairs of index and grade.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Index(usize),
    Graded(usize, f32),
}

#[derive(Deserialize)]
struct Json {
    task: Option<String>,
    split: Option<Split>,
    language: Option<String>,
    queries: Vec<String>,
    targets: Vec<String>,
    relevance: Vec<Vec<Label>>,
}

/// Reads a JSON file or a BEIR folder.
///
/// JSON: `{"task"?, "split"?, "language"?, "queries": [text], "targets": [text], "relevance": [[index] or
/// [[index, grade]]]}`. BEIR: `queries.jsonl`, `corpus.jsonl` (its `title`, or `text` where that is empty) and
/// `qrels.tsv` or `qrels/test.tsv`.
pub(crate) fn read(path: &Path) -> Result<RankingSet> {
    let (identity, raw) = if path.is_dir() { beir(path)? } else { json(path)? };
    // The key becomes part of file names.
    for (what, name) in [("name", &identity.name), ("language", &identity.language)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Error::data(
                path.display(),
                format!("has the {what} `{name}`"),
                "names are up to 100 letters, digits, dots, dashes and underscores, and begin with no dot",
            ));
        }
    }
    let odd = |grade: f32| !(0.0..=GREATEST_GRADE).contains(&grade);
    for (query, (text, labels)) in raw.queries.iter().enumerate() {
        if let Some((index, grade)) = labels.iter().find(|label| odd(label.1)) {
            return Err(Error::data(
                path.display(),
                format!("query {query} (`{text}`) gives target {index} the grade {grade}"),
                format!("grades are numbers from 0 to {GREATEST_GRADE}"),
            ));
        }
    }
    RankingSet::prepare(identity, raw)
}

/// A gain of `2^grade - 1` stays exact up to here.
const GREATEST_GRADE: f32 = 50.0;

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(|| "given".into(), |stem| stem.to_string_lossy().into_owned())
}

fn json(path: &Path) -> Result<(Identity, RawSet)> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let json: Json = serde_json::from_str(&text).map_err(|error| {
        Error::data(
            path.display(),
            format!("is no ranking set: {error}"),
            "a set is {\"queries\": [...], \"targets\": [...], \"relevance\": [[index, ...], ...]}",
        )
    })?;
    if json.relevance.len() != json.queries.len() {
        return Err(Error::data(
            path.display(),
            format!("has {} queries and {} lists of relevance", json.queries.len(), json.relevance.len()),
            "every query needs a list of relevant targets, which may be empty",
        ));
    }
    let identity = Identity {
        name: json.task.unwrap_or_else(|| stem(path)),
        task: Task::Other,
        split: json.split.unwrap_or(Split::Test),
        language: json.language.unwrap_or_else(|| "en".into()),
        in_average: false,
    };
    let labels = |labels: Vec<Label>| {
        labels
            .into_iter()
            .map(|label| match label {
                Label::Index(index) => (index, 1.0),
                Label::Graded(index, grade) => (index, grade),
            })
            .collect::<Vec<(usize, f32)>>()
    };
    let queries: Vec<_> = json.queries.into_iter().zip(json.relevance.into_iter().map(labels)).collect();
    Ok((identity, RawSet { targets: json.targets, queries }))
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: String,
    #[serde(default)]
    text: String,
}

fn documents(path: &Path) -> Result<Vec<Document>> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut documents = Vec::new();
    for (index, line) in
        uwe::Lines::new(std::io::BufReader::new(file), path.display().to_string()).enumerate()
    {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        documents.push(serde_json::from_str(&line).map_err(|error| {
            Error::data(
                format!("{}, line {}", path.display(), index + 1),
                format!("is no BEIR entry: {error}"),
                "each line is {\"_id\", \"text\", \"title\"?}",
            )
        })?);
    }
    Ok(documents)
}

fn beir(folder: &Path) -> Result<(Identity, RawSet)> {
    let corpus = documents(&folder.join("corpus.jsonl"))?;
    let asked = documents(&folder.join("queries.jsonl"))?;
    let qrels = [folder.join("qrels.tsv"), folder.join("qrels/test.tsv")]
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Error::data(
                folder.display(),
                "has neither qrels.tsv nor qrels/test.tsv",
                "a BEIR folder has one of them",
            )
        })?;
    let text = std::fs::read_to_string(&qrels).map_err(Error::io("read", &qrels))?;
    let place = |documents: &[Document]| -> HashMap<String, usize> {
        documents.iter().enumerate().map(|(index, document)| (document.id.clone(), index)).collect()
    };
    let (places, queries) = (place(&corpus), place(&asked));
    let mut labels: Vec<Vec<(usize, f32)>> = vec![Vec::new(); asked.len()];
    for (index, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let wrong = |problem: String| {
            Error::data(
                format!("{}, line {}", qrels.display(), index + 1),
                problem,
                "each line is query-id, corpus-id and score, separated by tabs",
            )
        };
        let [query, target, score] = fields[..] else {
            if line.trim().is_empty() {
                continue;
            }
            return Err(wrong(format!("has {} fields", fields.len())));
        };
        if index == 0 && score.parse::<f32>().is_err() {
            continue;
        }
        let query = *queries.get(query).ok_or_else(|| wrong(format!("names an unknown query `{query}`")))?;
        let target =
            *places.get(target).ok_or_else(|| wrong(format!("names an unknown target `{target}`")))?;
        let grade: f32 = score.parse().map_err(|_| wrong(format!("has the score `{score}`")))?;
        if grade > 0.0 {
            labels[query].push((target, grade));
        }
    }
    let identity = Identity {
        name: stem(folder),
        task: Task::Other,
        split: Split::Test,
        language: "en".into(),
        in_average: false,
    };
    let targets = corpus
        .into_iter()
        .map(|document| if document.title.is_empty() { document.text } else { document.title })
        .collect();
    let queries = asked.into_iter().map(|query| query.text).zip(labels).collect();
    Ok((identity, RawSet { targets, queries }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_with_and_without_grades() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.json");
        std::fs::write(
            &path,
            r#"{"queries":["a","b"],"targets":["x","y"],"relevance":[[1],[[0,2.5],[1,1]]]}"#,
        )
        .unwrap();
        let set = read(&path).unwrap();
        assert_eq!(set.identity.key(), "mine.test.en");
        assert_eq!(set.relevance[1][0].grade, 2.5);
        for (text, problem) in [
            (r#"{"queries":["a"],"targets":["x"],"relevance":[]}"#, "1 queries and 0 lists"),
            (r#"{"queries":["a"],"targets":["x"],"relevance":[[3]]}"#, "names target 3"),
            (r#"{"queries":["a"],"targets":["x"],"relevance":[[[0,-1]]]}"#, "the grade -1"),
            (r#"{"queries":["a"]"#, "is no ranking set"),
            (r#"{"task":"../x","queries":["a"],"targets":["x"],"relevance":[[0]]}"#, "has the name `../x`"),
            (r#"{"queries":["a"],"targets":["x"],"relevance":[[[0,1024]]]}"#, "the grade 1024"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).unwrap_err().to_string().contains(problem), "{text}");
        }
    }

    #[test]
    fn beir_folders() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("mine");
        std::fs::create_dir(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("corpus.jsonl", "{\"_id\":\"t1\",\"title\":\"x\"}\n{\"_id\":\"t2\",\"text\":\"y\"}\n");
        write("queries.jsonl", "{\"_id\":\"q1\",\"text\":\"a\"}\n{\"_id\":\"q2\",\"text\":\"b\"}\n");
        write("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\tt2\t3\nq1\tt1\t0\n");
        let set = read(&folder).unwrap();
        assert_eq!(set.targets, ["x", "y"]);
        assert_eq!((set.queries.len(), set.unjudged), (1, 1));
        assert_eq!(set.relevance[0], [crate::set::Judgement { target: 1, grade: 3.0 }]);
        write("qrels.tsv", "q1\tnope\t3\n");
        assert!(read(&folder).unwrap_err().to_string().contains("unknown target `nope`"));
    }
}
