//! From raw files to edges: one function a kind of source.

mod esco;
mod onet;
mod own;
mod spans;
mod starter;

use crate::edge::{Graph, Provenance};
use crate::recipe::{Source, SourceKind};
use std::path::{Path, PathBuf};
use workbench::Result;
use workbench::sources::esco::{Releases, Version};
use workbench::sources::sorted_entries;

/// An edge as a source gives it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draft {
    pub(crate) graph: Graph,
    pub(crate) skill: String,
    pub(crate) skill_id: String,
    pub(crate) text: String,
    pub(crate) provenance: Provenance,
    /// Multiplies the source's weight.
    pub(crate) weight: f32,
}

/// Where the builders read.
pub(crate) struct Data<'a> {
    pub(crate) root: &'a Path,
    pub(crate) releases: &'a Releases,
    /// The release of skills that are named by label.
    pub(crate) esco: Version,
    /// Folder of what earlier steps have left.
    pub(crate) work: &'a Path,
}

/// Edges of a source, in the order of its files.
pub(crate) fn read(source: &Source, data: &Data<'_>) -> Result<Vec<Draft>> {
    let kind = &source.kind;
    match kind {
        SourceKind::EscoAlternatives => esco::alternatives(data),
        SourceKind::EscoOccupations => esco::occupations(data),
        SourceKind::EscoDescriptions => esco::descriptions(data),
        SourceKind::EscoOccupationDescriptions { file, most_titles } => {
            esco::occupation_descriptions(data, file.as_deref(), *most_titles)
        }
        SourceKind::Vacancies { file, probability, share, most_skills } => {
            esco::vacancies(data, &data.root.join(file), (*probability, *share, *most_skills))
        }
        SourceKind::RawVacancies { share, most_skills, .. } => {
            let tags = crate::tag::folder(data.work, &source.name);
            let mut edges = esco::vacancies(data, &tags.join("vacancies"), (0.0, *share, *most_skills))?;
            edges.extend(own::edges(
                data,
                &tags,
                &SourceKind::Table {
                    file: "sentences".into(),
                    graph: Graph::Sentence,
                    skill: Some("skill".into()),
                    text: "text".into(),
                    skill_id: Some("skill_id".into()),
                    provenance: Provenance::Tagged,
                },
            )?);
            Ok(edges)
        }
        SourceKind::Sentences { files } => esco::sentences(data, files),
        SourceKind::OccupationTitles { file, release } => esco::occupation_titles(data, file, release),
        SourceKind::OnetTitles { folder } => onet::titles(&data.root.join(folder)),
        SourceKind::OnetTechnology { folder, most_titles } => {
            onet::technology(&data.root.join(folder), *most_titles)
        }
        SourceKind::OnetTasks { folder, most_titles } => onet::tasks(&data.root.join(folder), *most_titles),
        SourceKind::OnetSkills { folder, file, most_titles } => {
            onet::skills(data, (&data.root.join(folder), &data.root.join(file)), *most_titles)
        }
        SourceKind::Spans { file, labels } => {
            spans::edges(data, &data.root.join(file), &data.root.join(labels))
        }
        SourceKind::Starter { folder } => starter::edges(&data.root.join(folder)),
        SourceKind::Table { .. } => own::edges(data, data.root, kind),
    }
}

/// A Parquet file, or all those of a folder by name.
pub(crate) fn parquet_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = sorted_entries(path)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    Ok(files)
}

/// Sentences of a text: parts that end with `.`, `!`, `?` or a line break, of at least `least` words.
pub(crate) fn sentences(text: &str, least: usize) -> Vec<&str> {
    let mut sentences = Vec::new();
    for line in text.lines() {
        let mut start = 0;
        let ends = line.match_indices(['.', '!', '?']).map(|(place, _)| place + 1);
        for end in ends.chain([line.len()]) {
            // `e.g. this` and `3.5` go on.
            let next = line[end..].chars().find(|c| !c.is_whitespace());
            let parted =
                line[end..].starts_with(char::is_whitespace) && !next.is_some_and(char::is_lowercase);
            if end == line.len() || parted {
                let sentence = line[start..end].trim();
                if sentence.split_whitespace().count() >= least {
                    sentences.push(sentence);
                }
                start = end;
            }
        }
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn texts_are_cut_into_sentences() {
        assert_eq!(
            sentences("Bake bread, e.g. rye. Keep 3.5 kg ready! Short one.\nThe next line here", 3),
            ["Bake bread, e.g. rye.", "Keep 3.5 kg ready!", "The next line here"]
        );
        assert_eq!(sentences("", 1), Vec::<&str>::new());
    }
}
