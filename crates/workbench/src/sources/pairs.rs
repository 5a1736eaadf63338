//! Pairs of related skills: SkillMatch-1K where a user has it, and its stand-in out of ESCO.

use super::esco::{Releases, Table, Version, Vocabulary};
use super::{table, vacancies};
use crate::error::{Error, Result};
use crate::set::{RawSet, Split};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use std::path::Path;

/// Which of the 1,000 related pairs belong to which split: scikit-learn's split by a permutation of NumPy's
/// generator, published as indices.
const SKILLMATCH_SPLIT: &str = include_str!("skillmatch-split.txt");
/// Which relations and skills make the stand-in.
const PROXY: &str = include_str!("skill-similarity-proxy.txt");
/// The release that the stand-in's indices belong to.
pub(crate) const PROXY_RELEASE: Version = Version([1, 1, 1]);

/// Numbers of a `[section]` in a file of indices.
fn section(text: &str, name: &str) -> Vec<usize> {
    let mut inside = false;
    let mut numbers = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            inside = section == name;
        } else if inside {
            numbers.extend(line.split(' ').filter_map(|number| number.parse::<usize>().ok()));
        }
    }
    numbers
}

/// SkillMatch-1K: the targets are all its skills, the queries the first skills of its related pairs.
pub(crate) fn skillmatch(path: &Path, split: Split) -> Result<RawSet> {
    let rows = read_skillmatch(path)?;
    let mut targets: Vec<String> = rows.iter().flat_map(|row| [row.0.clone(), row.1.clone()]).collect();
    targets.sort_unstable();
    targets.dedup();
    let related: Vec<_> = rows.into_iter().filter(|row| row.2).collect();
    let wanted = section(SKILLMATCH_SPLIT, &split.to_string());
    if related.len() != 1000 {
        return Err(Error::data(
            path.display(),
            format!(
                "has {} related pairs; SkillMatch-1K has 1,000, and its split is defined on those",
                related.len()
            ),
            "take the file as it was published, with the columns skill_a, skill_b and related",
        ));
    }
    let queries = wanted
        .into_iter()
        .map(|index| {
            let (query, target, _) = &related[index];
            let place = targets.binary_search(target).unwrap_or_default();
            (query.clone(), vec![(place, 1.0)])
        })
        .collect();
    Ok(RawSet { targets, queries })
}

fn read_skillmatch(path: &Path) -> Result<Vec<(String, String, bool)>> {
    if path.extension().is_some_and(|extension| extension == "csv") {
        let rows = table::file_columns(path, ["skill_a", "skill_b", "related"])?;
        return Ok(rows.into_iter().map(|[a, b, related]| (a, b, related.trim() == "1")).collect());
    }
    let mut rows = Vec::new();
    for batch in vacancies::batches(path)? {
        let batch = batch?;
        let (first, second) =
            (vacancies::strings(path, &batch, "skill_a")?, vacancies::strings(path, &batch, "skill_b")?);
        let related = vacancies::column(path, &batch, "related")?;
        let Some(related) = related.as_primitive_opt::<Int64Type>() else {
            return Err(vacancies::wrong_type(path, "related", "a 64-bit integer"));
        };
        for ((first, second), related) in first.into_iter().zip(second).zip(related) {
            rows.push((first.unwrap_or_default(), second.unwrap_or_default(), related == Some(1)));
        }
    }
    Ok(rows)
}

/// The stand-in for skill similarity out of ESCO's skill-skill relations.
pub(crate) fn proxy(releases: &Releases, split: Split, language: &str) -> Result<RawSet> {
    let concepts = releases.concepts(PROXY_RELEASE, Table::Skills, language)?;
    let vocabulary = Vocabulary::of(&concepts);
    let relations = releases.skill_skills(PROXY_RELEASE)?;
    let wrong = |what: &str| {
        Error::data(
            format!("ESCO {PROXY_RELEASE}"),
            format!("{what}; the stand-in's indices belong to the official files"),
            "take the official archives of this release",
        )
    };
    let places = section(PROXY, "targets");
    let mut targets = Vec::with_capacity(places.len());
    for place in &places {
        targets.push(vocabulary.labels.get(*place).ok_or_else(|| wrong("has too few skills"))?.clone());
    }
    let mut queries = Vec::new();
    for row in section(PROXY, &split.to_string()) {
        let [first, second] = relations.get(row).ok_or_else(|| wrong("has too few skill-skill relations"))?;
        let query = vocabulary.uri(first).ok_or_else(|| wrong("lacks a skill of a relation"))?;
        let target = vocabulary
            .uri(second)
            .and_then(|place| places.binary_search(&place).ok())
            .ok_or_else(|| wrong("has other relations"))?;
        queries.push((vocabulary.labels[query].clone(), vec![(target, 1.0)]));
    }
    Ok(RawSet { targets, queries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_indices_are_whole() {
        let (test, val) = (section(SKILLMATCH_SPLIT, "test"), section(SKILLMATCH_SPLIT, "val"));
        assert_eq!((test.len(), val.len()), (900, 100));
        let mut all: Vec<usize> = test.into_iter().chain(val).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..1000));
        assert_eq!(section(PROXY, "test").len(), 900);
        assert_eq!(section(PROXY, "val").len(), 100);
        assert_eq!(section(PROXY, "targets").len(), 2648);
    }

    #[test]
    fn skillmatch_as_csv() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skillmatch.csv");
        let mut text = "skill_a,skill_b,related\n".to_string();
        for i in 0..1200 {
            text += &format!("a{i},b{},{}\n", i % 7, u8::from(i >= 200));
        }
        std::fs::write(&path, &text).unwrap();
        let set = skillmatch(&path, Split::Validation).unwrap();
        assert_eq!((set.queries.len(), set.targets.len()), (100, 1207));
        let first = section(SKILLMATCH_SPLIT, "val")[0] + 200;
        assert_eq!(set.queries[0].0, format!("a{first}"));
        assert_eq!(set.targets[set.queries[0].1[0].0], format!("b{}", first % 7));
        std::fs::write(&path, text.lines().take(500).collect::<Vec<_>>().join("\n")).unwrap();
        assert!(skillmatch(&path, Split::Test).unwrap_err().to_string().contains("299 related pairs"));
    }
}
