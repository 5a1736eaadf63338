//! Sources whose skills are ESCO's.

use super::{Data, Draft, own, sentences as cut};
use crate::edge::{Graph, Provenance};
use std::collections::HashMap;
use std::path::Path;
use workbench::sources::esco::{self, Concept, Table};
use workbench::sources::{annotations, table, vacancies as tagged};
use workbench::{Error, Result};

/// Skills of the recipe's release, in file order.
fn skills(data: &Data<'_>) -> Result<Vec<Concept>> {
    data.releases.concepts(data.esco, Table::Skills, "en")
}

/// URI by label, blanks at its ends aside; the first skill of a label counts.
fn uris(skills: &[Concept]) -> HashMap<&str, &str> {
    skills.iter().rev().map(|skill| (skill.label.trim(), &skill.uri[..])).collect()
}

/// The benchmark's validation part of the alternative labels; the other part is the test of skill normalisation.
pub(super) fn alternatives(data: &Data<'_>) -> Result<Vec<Draft>> {
    let skills = skills(data)?;
    let mut edges = Vec::new();
    for alternative in esco::alternatives(&skills).into_iter().filter(|alternative| alternative.is_first) {
        edges.extend(alternative.concepts.iter().map(|index| Draft {
            graph: Graph::Alternative,
            skill: skills[*index].label.trim().into(),
            skill_id: skills[*index].uri.clone(),
            text: alternative.label.into(),
            provenance: Provenance::Real,
            weight: 1.0,
        }));
    }
    Ok(edges)
}

/// Other names of occupations.
pub(super) fn occupations(data: &Data<'_>) -> Result<Vec<Draft>> {
    let occupations = data.releases.concepts(data.esco, Table::Occupations, "en")?;
    let edges = occupations.iter().flat_map(|occupation| {
        let label = occupation.label.trim();
        let others = occupation.alternatives.lines().map(str::trim);
        others.filter(move |other| !other.is_empty() && *other != label).map(move |other| Draft {
            graph: Graph::Alternative,
            skill: label.into(),
            skill_id: occupation.uri.clone(),
            text: other.into(),
            provenance: Provenance::Real,
            weight: 1.0,
        })
    });
    Ok(edges.collect())
}

/// Each sentence of a skill's description.
pub(super) fn descriptions(data: &Data<'_>) -> Result<Vec<Draft>> {
    let mut edges = Vec::new();
    for skill in skills(data)? {
        for sentence in cut(&skill.description, 4) {
            edges.push(Draft {
                graph: Graph::Sentence,
                skill: skill.label.trim().into(),
                skill_id: skill.uri.clone(),
                text: sentence.into(),
                provenance: Provenance::Real,
                weight: 1.0,
            });
        }
    }
    Ok(edges)
}

/// Each sentence of an occupation's description, or of those that a file has for it, with other names of the occupation: at most `most`.
///
/// Descriptions begin with the occupation's own name (`Bakers make bread.`), by which the sentence alone would be found:
/// words of the label and the `s` behind them are cut off the beginning.
pub(super) fn occupation_descriptions(
    data: &Data<'_>,
    file: Option<&str>,
    most: usize,
) -> Result<Vec<Draft>> {
    let mut written: HashMap<String, Vec<String>> = HashMap::new();
    if let Some(file) = file {
        for [uri, text] in own::read(&data.root.join(file), ["uri", "text"])? {
            written.entry(uri).or_default().push(text);
        }
    }
    let provenance = if file.is_some() { Provenance::Synthetic } else { Provenance::Real };
    let mut edges = Vec::new();
    for occupation in data.releases.concepts(data.esco, Table::Occupations, "en")? {
        let sentences = match file {
            Some(_) => written.remove(&occupation.uri).unwrap_or_default(),
            None => cut(&occupation.description, 4).into_iter().map(String::from).collect(),
        };
        for (index, sentence) in sentences.iter().enumerate() {
            let task = without_subject(sentence, occupation.label.trim());
            let others = occupation.alternatives.lines().map(str::trim).filter(|other| !other.is_empty());
            edges.extend(others.take(most).map(|title| Draft {
                graph: Graph::Job,
                skill: task.into(),
                skill_id: format!("{}#{}{index}", occupation.uri, file.map_or("", |_| "written-")),
                text: title.into(),
                provenance,
                weight: 1.0,
            }));
        }
    }
    Ok(edges)
}

/// A sentence behind the words at its beginning that are an occupation's name, in the singular or the plural.
fn without_subject<'a>(sentence: &'a str, label: &str) -> &'a str {
    let stem = |word: &str| {
        let word = word.to_lowercase();
        word.trim_end_matches(|c: char| !c.is_alphanumeric()).trim_end_matches(['s', 'e']).to_string()
    };
    let name: Vec<String> = label.split_whitespace().map(stem).collect();
    let mut rest = sentence;
    while let Some((word, behind)) = rest.split_once(' ') {
        if !name.contains(&stem(word)) {
            break;
        }
        rest = behind.trim_start();
    }
    // Nothing but the name: the sentence stays.
    if rest.split_whitespace().count() < 3 { sentence } else { rest }
}

/// Titles of vacancies with the skills that a tagger found: (least probability, least share, most skills).
pub(super) fn vacancies(data: &Data<'_>, path: &Path, limits: (f64, f64, usize)) -> Result<Vec<Draft>> {
    let (probability, share, most) = limits;
    let skills = skills(data)?;
    let uris = uris(&skills);
    let mut edges = Vec::new();
    let mut vacancies = Vec::new();
    for file in super::parquet_files(path)? {
        vacancies.extend(tagged::read(&file)?);
    }
    for vacancy in vacancies {
        let count = vacancy.skills.len();
        if vacancy.probabilities.len() != count || vacancy.shares.len() != count {
            return Err(Error::data(
                path.display(),
                format!("`{}` has {count} skills without as many probabilities and shares", vacancy.title),
                "the columns skill_prob_avg and skill_occurrence_pct go with skill_name",
            ));
        }
        let mut tags: Vec<(usize, f64)> = vacancy
            .probabilities
            .iter()
            .copied()
            .enumerate()
            .filter(|(index, value)| *value >= probability && vacancy.shares[*index] >= share)
            .collect();
        tags.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for (index, value) in tags.into_iter().take(most) {
            let skill = vacancy.skills[index].trim();
            let Some(uri) = uris.get(skill) else { continue };
            edges.push(Draft {
                graph: Graph::Job,
                skill: skill.into(),
                skill_id: (*uri).into(),
                text: vacancy.title.clone(),
                provenance: Provenance::Tagged,
                weight: value as f32,
            });
        }
    }
    Ok(edges)
}

/// Sentences that a model wrote for lists of skills.
pub(super) fn sentences(data: &Data<'_>, files: &[String]) -> Result<Vec<Draft>> {
    let skills = skills(data)?;
    let uris = uris(&skills);
    let mut edges = Vec::new();
    for file in files {
        for (sentence, labels) in annotations::row_a_sentence(&data.root.join(file))? {
            let sentence = sentence.trim().trim_matches('"').trim();
            for label in labels {
                let Some(uri) = uris.get(label.trim()) else { continue };
                edges.push(Draft {
                    graph: Graph::Sentence,
                    skill: label.trim().into(),
                    skill_id: (*uri).into(),
                    text: sentence.into(),
                    provenance: Provenance::Synthetic,
                    weight: 1.0,
                });
            }
        }
    }
    Ok(edges)
}

/// Titles of vacancies as other names of their occupations.
pub(super) fn occupation_titles(data: &Data<'_>, file: &str, release: &str) -> Result<Vec<Draft>> {
    let version = release.parse().map_err(|()| {
        Error::data("recipe", format!("`{release}` is no ESCO release"), "write it as 1.0.3")
    })?;
    let occupations = data.releases.concepts(version, Table::Occupations, "en")?;
    let labels: HashMap<&str, &str> =
        occupations.iter().map(|occupation| (&occupation.uri[..], occupation.label.trim())).collect();
    let rows = table::file_columns(&data.root.join(file), ["vacancyTitle", "conceptUri"])?;
    let edges = rows.into_iter().filter_map(|[title, uri]| {
        Some(Draft {
            graph: Graph::Alternative,
            skill: (*labels.get(&uri[..])?).into(),
            skill_id: uri,
            text: title,
            provenance: Provenance::Real,
            weight: 1.0,
        })
    });
    Ok(edges.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use workbench::sources::esco::{Releases, Version};

    #[test]
    fn tasks_come_from_descriptions_or_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("1.2.0");
        std::fs::create_dir(&release).unwrap();
        let rows = "conceptUri,preferredLabel,altLabels,description\no:1,baker,\"dough maker\nbread hand\",Bakers make bread at night.\n";
        std::fs::write(release.join("occupations_en.csv"), rows).unwrap();
        std::fs::write(folder.path().join("duties.csv"), "uri,text\no:1,Knead dough\no:1,Run the oven\n")
            .unwrap();
        let releases = Releases::discover(folder.path()).unwrap();
        let esco = Version([1, 2, 0]);
        let data = Data { root: folder.path(), releases: &releases, esco, work: folder.path() };
        let tasks = |file, most| {
            let edges = occupation_descriptions(&data, file, most).unwrap();
            edges.into_iter().map(|edge| (edge.skill, edge.text, edge.provenance)).collect::<Vec<_>>()
        };
        let edge = |task: &str, title: &str, provenance| (task.to_string(), title.to_string(), provenance);
        assert_eq!(tasks(None, 1), [edge("make bread at night.", "dough maker", Provenance::Real)]);
        assert_eq!(
            tasks(Some("duties.csv"), 2),
            [
                ("Knead dough", "dough maker"),
                ("Knead dough", "bread hand"),
                ("Run the oven", "dough maker"),
                ("Run the oven", "bread hand")
            ]
            .map(|(task, title)| edge(task, title, Provenance::Synthetic))
        );
    }

    #[test]
    fn the_name_of_an_occupation_is_cut_off_its_description() {
        for (sentence, label, rest) in [
            ("Bakers make a wide range of breads.", "baker", "make a wide range of breads."),
            (
                "Tobacco specialised sellers sell tobacco products.",
                "tobacco specialised seller",
                "sell tobacco products.",
            ),
            ("They sand wood and tune it.", "piano maker", "They sand wood and tune it."),
            ("Piano makers tune.", "piano maker", "Piano makers tune."),
        ] {
            assert_eq!(without_subject(sentence, label), rest);
        }
    }
}
