//! O*NET: occupations with alternate titles, technology skills and task statements, tab-separated.

use super::own::{self, Labels};
use super::{Data, Draft};
use crate::edge::{Graph, Provenance};
use std::collections::BTreeMap;
use std::path::Path;
use workbench::{Error, Result};

/// An occupation with its own title first, then its alternate ones.
type Titles = BTreeMap<String, Vec<String>>;

fn rows<const N: usize>(path: &Path, wanted: [&str; N]) -> Result<Vec<[String; N]>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split('\t').collect();
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(wanted) {
        *place = header.iter().position(|column| column.trim_start_matches('\u{feff}') == name).ok_or_else(
            || {
                Error::data(
                    path.display(),
                    format!("has no column `{name}`; its columns are: {}", header.join(", ")),
                    "take O*NET's text files, tab-separated",
                )
            },
        )?;
    }
    let mut rows = Vec::new();
    for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != header.len() {
            return Err(Error::data(
                format!("{}, line {}", path.display(), index + 2),
                format!("has {} fields; the header has {}", fields.len(), header.len()),
                "take O*NET's text files as they are",
            ));
        }
        rows.push(places.map(|place| fields[place].trim().to_string()));
    }
    Ok(rows)
}

fn occupations(folder: &Path) -> Result<Titles> {
    let mut titles = Titles::new();
    for [code, title] in rows(&folder.join("Occupation Data.txt"), ["O*NET-SOC Code", "Title"])? {
        titles.entry(code).or_default().push(title);
    }
    for [code, title] in rows(&folder.join("Alternate Titles.txt"), ["O*NET-SOC Code", "Alternate Title"])? {
        if let Some(list) = titles.get_mut(&code) {
            list.push(without_short_form(&title).to_string());
        }
    }
    Ok(titles)
}

/// `Chief Executive Officer (CEO)` without what stands in brackets behind it.
fn without_short_form(title: &str) -> &str {
    match title.strip_suffix(')').and_then(|title| title.rsplit_once(" (")) {
        Some((before, _)) if !before.trim().is_empty() => before.trim(),
        _ => title,
    }
}

/// Other names of an occupation.
pub(super) fn titles(folder: &Path) -> Result<Vec<Draft>> {
    let mut edges = Vec::new();
    for (code, titles) in occupations(folder)? {
        let Some((own, others)) = titles.split_first() else { continue };
        edges.extend(others.iter().map(|title| Draft {
            graph: Graph::Alternative,
            skill: own.clone(),
            skill_id: format!("onet:{code}"),
            text: title.clone(),
            provenance: Provenance::Real,
            weight: 1.0,
        }));
    }
    Ok(edges)
}

/// Links each `(code, skill, skill id)` with at most `most` titles of its occupation.
fn link(folder: &Path, most: usize, skills: Vec<(String, String, String)>) -> Result<Vec<Draft>> {
    let titles = occupations(folder)?;
    let mut edges = Vec::new();
    for (code, skill, skill_id) in skills {
        for title in titles.get(&code).into_iter().flatten().take(most) {
            edges.push(Draft {
                graph: Graph::Job,
                skill: skill.clone(),
                skill_id: skill_id.clone(),
                text: title.clone(),
                provenance: Provenance::Real,
                weight: 1.0,
            });
        }
    }
    Ok(edges)
}

/// Technology that an occupation works with.
pub(super) fn technology(folder: &Path, most: usize) -> Result<Vec<Draft>> {
    let rows = rows(&folder.join("Technology Skills.txt"), ["O*NET-SOC Code", "Example"])?;
    let skills = rows.into_iter().map(|[code, example]| {
        let id = format!("onet:technology:{}", crate::fold(&example));
        (code, example, id)
    });
    link(folder, most, skills.collect())
}

/// What people of an occupation do.
pub(super) fn tasks(folder: &Path, most: usize) -> Result<Vec<Draft>> {
    let rows = rows(&folder.join("Task Statements.txt"), ["O*NET-SOC Code", "Task ID", "Task"])?;
    let skills = rows.into_iter().map(|[code, id, task]| (code, task, format!("onet:task:{id}")));
    link(folder, most, skills.collect())
}

/// Skills that a table with the columns `code` and `uri` links with occupations.
pub(super) fn skills(data: &Data<'_>, (folder, file): (&Path, &Path), most: usize) -> Result<Vec<Draft>> {
    let labels = Labels::read(data)?;
    let mut skills = Vec::new();
    for (index, [code, uri]) in own::read(file, ["code", "uri"])?.into_iter().enumerate() {
        let label = labels.of(&uri, (file, index))?.to_string();
        skills.push((code, label, uri));
    }
    let mut edges = link(folder, most, skills)?;
    edges.iter_mut().for_each(|edge| edge.provenance = Provenance::Tagged);
    Ok(edges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use workbench::sources::esco::{Releases, Version};

    #[test]
    fn titles_tasks_and_technology_are_linked_by_code() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1.2.0")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("Occupation Data.txt", "O*NET-SOC Code\tTitle\tDescription\n1\tBakers\tx\n");
        write(
            "Alternate Titles.txt",
            "O*NET-SOC Code\tAlternate Title\n1\tBread Maker (BM)\n1\tPie Maker\n9\tNobody\n",
        );
        write("Technology Skills.txt", "O*NET-SOC Code\tExample\n1\tMicrosoft Excel\n");
        write("Task Statements.txt", "O*NET-SOC Code\tTask ID\tTask\n1\t7\tBake bread.\n");
        let texts = |edges: Vec<Draft>| {
            edges.into_iter().map(|e| format!("{} - {}", e.skill, e.text)).collect::<Vec<_>>()
        };
        assert_eq!(texts(titles(folder.path()).unwrap()), ["Bakers - Bread Maker", "Bakers - Pie Maker"]);
        assert_eq!(
            texts(technology(folder.path(), 2).unwrap()),
            ["Microsoft Excel - Bakers", "Microsoft Excel - Bread Maker"]
        );
        assert_eq!(tasks(folder.path(), 1).unwrap()[0].skill_id, "onet:task:7");
        write("1.2.0/skills_en.csv", "conceptUri,preferredLabel,altLabels,description\ns:1,knead dough,,\n");
        write("1.2.0/occupations_en.csv", "conceptUri,preferredLabel,altLabels,description\n");
        write("links.csv", "code,uri\n1,s:1\n");
        let releases = Releases::discover(folder.path()).unwrap();
        let (root, esco) = (folder.path(), Version([1, 2, 0]));
        let data = Data { root, releases: &releases, esco, work: root };
        let linked = skills(&data, (root, &root.join("links.csv")), 2).unwrap();
        assert!(linked.iter().all(|edge| edge.provenance == Provenance::Tagged && edge.skill_id == "s:1"));
        assert_eq!(texts(linked), ["knead dough - Bakers", "knead dough - Bread Maker"]);
        write("Task Statements.txt", "O*NET-SOC Code\tTask ID\tTask\n1\t7\n");
        assert!(tasks(folder.path(), 1).unwrap_err().to_string().contains("line 2"));
    }
}
