//! Sentences in which spans are annotated with skills.

use super::own::{self, Labels};
use super::{Data, Draft};
use crate::edge::{Graph, Provenance};
use crate::lines::objects;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use workbench::{Error, Result};

/// A span of words with the label and the URI of its skill.
struct Span {
    words: Range<usize>,
    label: String,
    uri: String,
}

/// Each annotated span, and each sentence once for each of its skills.
pub(super) fn edges(data: &Data<'_>, file: &Path, labels: &Path) -> Result<Vec<Draft>> {
    let mut spans = annotations(data, labels)?;
    let mut edges = Vec::new();
    for object in objects(file)? {
        let object = object?;
        let Some(spans) = spans.remove(&object.line()) else { continue };
        let words = object.texts("tokens")?;
        let mut skills: Vec<&str> = Vec::new();
        for span in &spans {
            let Some(part) = words.get(span.words.clone()) else {
                return Err(beyond(file, object.line(), words.len()));
            };
            if !skills.contains(&&span.uri[..]) {
                skills.push(&span.uri);
                edges.push(draft(span, &words));
            }
            if part.len() < words.len() {
                edges.push(draft(span, part));
            }
        }
    }
    match spans.first_key_value() {
        Some((line, _)) => Err(beyond(file, *line, 0)),
        None => Ok(edges),
    }
}

fn draft(span: &Span, words: &[&str]) -> Draft {
    Draft {
        graph: Graph::Sentence,
        skill: span.label.clone(),
        skill_id: span.uri.clone(),
        text: words.join(" "),
        provenance: Provenance::Tagged,
        weight: 1.0,
    }
}

fn beyond(file: &Path, line: usize, words: usize) -> Error {
    Error::data(
        format!("{}, line {line}", file.display()),
        format!("has {words} words, fewer than the annotations name"),
        "take the file that was annotated",
    )
}

/// The spans of each line.
fn annotations(data: &Data<'_>, path: &Path) -> Result<BTreeMap<usize, Vec<Span>>> {
    let labels = Labels::read(data)?;
    let mut spans: BTreeMap<usize, Vec<Span>> = BTreeMap::new();
    for (index, [line, words, uri]) in own::read(path, ["line", "words", "uri"])?.into_iter().enumerate() {
        let wrong = || {
            Error::data(
                format!("{}, row {}", path.display(), index + 1),
                format!("`{line}` and `{words}` are no line and words"),
                "write both as whole numbers, the words as 3-5: after the third, up to and with the fifth",
            )
        };
        let (start, end) = words.split_once('-').ok_or_else(wrong)?;
        let range = start.parse().map_err(|_| wrong())?..end.parse().map_err(|_| wrong())?;
        if range.is_empty() {
            return Err(wrong());
        }
        let label = labels.of(&uri, (path, index))?.to_string();
        let line = line.parse().map_err(|_| wrong())?;
        spans.entry(line).or_default().push(Span { words: range, label, uri });
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use workbench::sources::esco::{Releases, Version};

    #[test]
    fn sentences_and_spans_are_linked_with_skills() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("1.2.0");
        std::fs::create_dir(&release).unwrap();
        let header = "conceptUri,preferredLabel,altLabels,description\n";
        std::fs::write(
            release.join("skills_en.csv"),
            format!("{header}s:1,bake bread,,\ns:2,clean ovens,,\n"),
        )
        .unwrap();
        std::fs::write(release.join("occupations_en.csv"), header).unwrap();
        let releases = Releases::discover(folder.path()).unwrap();
        let esco = Version([1, 2, 0]);
        let data = Data { root: folder.path(), releases: &releases, esco, work: folder.path() };
        let file = folder.path().join("sentences.json");
        let labels = folder.path().join("labels.csv");
        let line = |words: &[&str]| format!("{}\n", serde_json::json!({ "tokens": words }));
        let text = line(&["Hello"]) + &line(&["You", "make", "loaves", "and", "scrub"]);
        std::fs::write(&file, text).unwrap();
        std::fs::write(&labels, "line,words,uri\n2,1-3,s:1\n2,4-5,s:2\n2,0-5,s:1\n").unwrap();
        let found = edges(&data, &file, &labels).unwrap();
        let pairs: Vec<_> = found.iter().map(|edge| (&edge.skill[..], &edge.text[..])).collect();
        assert_eq!(
            pairs,
            [
                ("bake bread", "You make loaves and scrub"),
                ("bake bread", "make loaves"),
                ("clean ovens", "You make loaves and scrub"),
                ("clean ovens", "scrub"),
            ]
        );
        for (rows, problem) in [
            ("2,1-9,s:1", "line 2: has 5 words"),
            ("7,0-1,s:1", "line 7: has 0 words"),
            ("2,x,s:1", "row 1: `2` and `x` are no line and words"),
            ("2,3-3,s:1", "row 1"),
            ("2,1-3,s:9", "row 1: `s:9` is no skill or occupation"),
        ] {
            std::fs::write(&labels, format!("line,words,uri\n{rows}\n")).unwrap();
            let error = edges(&data, &file, &labels).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }
}
