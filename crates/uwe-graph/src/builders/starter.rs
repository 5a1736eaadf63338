//! The project's starter taxonomy.

use super::Draft;
use crate::edge::{Graph, Provenance};
use std::collections::HashMap;
use std::path::Path;
use workbench::sources::table::file_columns;
use workbench::{Error, Result};

/// Job titles and their other names, sentences, and other names of skills.
pub(super) fn edges(folder: &Path) -> Result<Vec<Draft>> {
    let file = |name: &str| folder.join(name);
    let skills = file_columns(&file("skills.csv"), ["id", "label", "alternative_labels"])?;
    let jobs = file_columns(&file("job_titles.csv"), ["id", "label", "alternative_labels"])?;
    let labels: HashMap<&str, &str> = skills.iter().map(|[id, label, _]| (&id[..], &label[..])).collect();
    let names: HashMap<&str, Vec<&str>> = jobs
        .iter()
        .map(|[id, label, others]| (&id[..], std::iter::once(&label[..]).chain(parts(others)).collect()))
        .collect();
    let mut edges = Vec::new();
    let mut push = |graph, skill_id: &str, text: &str| -> Result<()> {
        let skill = labels.get(skill_id).ok_or_else(|| {
            Error::data(
                folder.display(),
                format!("names an unknown skill `{skill_id}`"),
                "restore the folder",
            )
        })?;
        edges.push(Draft {
            graph,
            skill: (*skill).into(),
            skill_id: format!("starter:{skill_id}"),
            text: text.into(),
            provenance: Provenance::Real,
            weight: 1.0,
        });
        Ok(())
    };
    for [job, skill] in file_columns(&file("job_skills.csv"), ["job_id", "skill_id"])? {
        for name in names.get(&job[..]).into_iter().flatten() {
            push(Graph::Job, &skill, name)?;
        }
    }
    for [sentence, skills] in file_columns(&file("sentences.csv"), ["sentence", "skills"])? {
        for skill in parts(&skills) {
            push(Graph::Sentence, skill, &sentence)?;
        }
    }
    for [id, _, others] in &skills {
        for name in parts(others) {
            push(Graph::Alternative, id, name)?;
        }
    }
    Ok(edges)
}

fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split('|').map(str::trim).filter(|part| !part.is_empty())
}
