//! Recipes: one TOML file stands for a whole data set.

use crate::EnrichOptions;
use serde::{Deserialize, Serialize};
use std::path::Path;
use workbench::sources::esco::Version;
use workbench::{Error, Result};

/// What a graph is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the data set.
    pub name: String,
    /// Seed of the hold-out.
    pub seed: u64,
    /// Share of the texts of sources with `hold_out` that are kept for validation.
    pub held_out: f64,
    /// ESCO release of skills that are named by label.
    pub esco: String,
    /// The sources; where two give the same edge, the first one counts.
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    /// Enrichments by a language model, in this order.
    #[serde(rename = "enrich", default, skip_serializing_if = "Vec::is_empty")]
    pub enrichments: Vec<EnrichOptions>,
}

/// One source of edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Name in the graph; unique in the recipe.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: SourceKind,
    /// Terms of use, for the manifest.
    pub licence: String,
    /// Weight of its edges.
    #[serde(default = "one")]
    pub weight: f32,
    /// Whether a share of its texts is held out.
    #[serde(default)]
    pub hold_out: bool,
}

fn one() -> f32 {
    1.0
}

/// The kinds of sources. Files are relative to the data folder; a table that begins with `./` or `../`, to the recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SourceKind {
    /// Alternative labels of ESCO skills: those of the benchmark's validation part.
    EscoAlternatives,
    /// Alternative labels of ESCO occupations.
    EscoOccupations,
    /// Sentences of ESCO skills' descriptions.
    EscoDescriptions,
    /// Sentences of ESCO occupations' descriptions with alternative labels of the occupation; a sentence stands on the skill side.
    EscoOccupationDescriptions {
        /// A table with the columns `uri` and `text`: sentences in the place of ESCO's own.
        file: Option<String>,
        /// Most alternative labels of an occupation, in the order of the file.
        most_titles: usize,
    },
    /// Vacancy titles with tagged skills, as Parquet; what `uwe graph tag` writes, too.
    Vacancies {
        /// The file, or a folder of such files.
        file: String,
        /// Least mean probability of a tag.
        probability: f64,
        /// Least share of the merged vacancies in which a skill was tagged.
        share: f64,
        /// Most skills of a title, the most probable first.
        most_skills: usize,
    },
    /// Raw vacancies, which the tagger makes edges of: titles and sentences with the ESCO skills that an encoder finds.
    RawVacancies {
        /// CSV, JSON lines or Parquet, by its ending.
        file: String,
        /// Column of the title.
        title: String,
        /// Column of the description; without it, titles alone.
        description: Option<String>,
        /// Least score of a skill.
        threshold: f32,
        /// Most skills of a text.
        top: usize,
        /// Least share of the vacancies of a title in which a skill was found.
        share: f64,
        /// Most skills of a title, those of the highest score first.
        most_skills: usize,
    },
    /// Sentences with lists of ESCO skills, as CSV.
    Sentences {
        /// The files.
        files: Vec<String>,
    },
    /// Vacancy titles with the URI of their occupation, as CSV: other names of an occupation.
    OccupationTitles {
        /// The file.
        file: String,
        /// ESCO release of the occupations.
        release: String,
    },
    /// O*NET's alternate titles: other names of an occupation.
    OnetTitles {
        /// Folder with `Occupation Data.txt` and `Alternate Titles.txt`.
        folder: String,
    },
    /// O*NET's technology skills with the titles of their occupations.
    OnetTechnology {
        /// Folder with `Technology Skills.txt` too.
        folder: String,
        /// Most titles of an occupation, its own one first.
        most_titles: usize,
    },
    /// O*NET's task statements with the titles of their occupations.
    OnetTasks {
        /// Folder with `Task Statements.txt` too.
        folder: String,
        /// Most titles of an occupation, its own one first.
        most_titles: usize,
    },
    /// ESCO skills with the titles of O*NET's occupations, linked by a table.
    OnetSkills {
        /// Folder with `Occupation Data.txt` and `Alternate Titles.txt`.
        folder: String,
        /// A table with the columns `code` (of the occupation) and `uri` (of the skill).
        file: String,
        /// Most titles of an occupation, its own one first.
        most_titles: usize,
    },
    /// Sentences with spans that ask for ESCO skills: the sentence and each span, with the skill.
    Spans {
        /// JSON lines whose objects have a list of words, `tokens`, as SkillSpan has them.
        file: String,
        /// A table with the columns `line` (from 1), `words` (`3-5`: from the fourth to the fifth word) and `uri`.
        labels: String,
    },
    /// The project's starter taxonomy.
    Starter {
        /// Folder with its CSV files.
        folder: String,
    },
    /// A table of edges of your own: CSV, or JSON lines where the name ends in `.jsonl`, or Parquet.
    Table {
        /// The file, or a folder of Parquet files.
        file: String,
        /// The graph.
        graph: crate::Graph,
        /// Column of the skill's text; without it, the label of the ESCO skill or occupation that `skill_id` names.
        skill: Option<String>,
        /// Column of the other text.
        text: String,
        /// Column of the skill's identifier; without it, the skill's text.
        skill_id: Option<String>,
        /// How the edges came to be.
        provenance: crate::Provenance,
    },
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// [`Error::Data`] names the line at fault; [`Error::Io`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let mut recipe = Self::parse(&text, &path.display().to_string())?;
        let home = std::path::absolute(path).map_err(Error::io("find", path))?;
        for source in &mut recipe.sources {
            if let SourceKind::Table { file, .. }
            | SourceKind::OnetSkills { file, .. }
            | SourceKind::Spans { labels: file, .. }
            | SourceKind::EscoOccupationDescriptions { file: Some(file), .. } = &mut source.kind
                && (file.starts_with("./") || file.starts_with("../"))
            {
                *file = home.parent().unwrap_or(&home).join(&*file).display().to_string();
            }
        }
        Ok(recipe)
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        let wrong = |problem: String| {
            Error::data(name, problem, "recipes/ in the project has one that works, with comments")
        };
        let recipe: Self = toml::from_str(text).map_err(|error| wrong(format!("is no recipe: {error}")))?;
        // A flattened kind lets unknown fields pass: what does not come back was not understood.
        let table: toml::Table =
            toml::from_str(text).map_err(|error| wrong(format!("is no recipe: {error}")))?;
        let given = table.get("source").and_then(toml::Value::as_array).into_iter().flatten();
        for (given, source) in given.zip(&recipe.sources) {
            let known = toml::Table::try_from(source).map_err(|error| wrong(error.to_string()))?;
            let unknown =
                given.as_table().and_then(|given| given.keys().find(|key| !known.contains_key(*key)));
            if let Some(key) = unknown {
                return Err(wrong(format!("source `{}` has the unknown field `{key}`", source.name)));
            }
        }
        if !(0.0..1.0).contains(&recipe.held_out) {
            return Err(wrong(format!("held_out is {}; it is a share from 0 to below 1", recipe.held_out)));
        }
        for (index, source) in recipe.sources.iter().enumerate() {
            if recipe.sources[..index].iter().any(|other| other.name == source.name) {
                return Err(wrong(format!("has two sources with the name `{}`", source.name)));
            }
            if !(source.weight.is_finite() && source.weight > 0.0) {
                return Err(wrong(format!("source `{}` has the weight {}", source.name, source.weight)));
            }
        }
        Ok(recipe)
    }

    /// The ESCO release of skills that are named by label.
    ///
    /// # Errors
    /// [`Error::Data`] for what is no release.
    pub fn release(&self) -> Result<Version> {
        let problem = || format!("`{}` is no ESCO release", self.esco);
        self.esco.parse().map_err(|()| Error::data("recipe", problem(), "write it as 1.2.0"))
    }

    /// Whether a step needs an encoder: tagging, and merging what a language model writes.
    pub fn needs_encoder(&self) -> bool {
        let raw = |source: &Source| matches!(source.kind, SourceKind::RawVacancies { .. });
        self.sources.iter().any(raw) || !self.enrichments.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "name = \"x\"\nseed = 1\nheld_out = 0.1\nesco = \"1.2.0\"\n";

    #[test]
    fn recipes_are_read() {
        let text = format!(
            "{HEAD}[[source]]\nname = \"a\"\nkind = \"vacancies\"\nfile = \"v.parquet\"\nprobability = 0.48\nshare = 0.5\nmost_skills = 200\nlicence = \"Apache-2.0\"\nhold_out = true\n"
        );
        let recipe = Recipe::parse(&text, "r.toml").unwrap();
        assert_eq!(recipe.sources[0].weight, 1.0);
        assert!(matches!(recipe.sources[0].kind, SourceKind::Vacancies { most_skills: 200, .. }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let source = "[[source]]\nname = \"a\"\nkind = \"esco-alternatives\"\nlicence = \"x\"\n";
        for (text, problem) in [
            (format!("{HEAD}{source}{source}"), "two sources"),
            (format!("{HEAD}{}", source.replace("esco-alternatives", "nothing")), "unknown variant"),
            (format!("{HEAD}{source}weight = -1.0\n"), "weight -1"),
            (format!("{HEAD}{source}holdout = true\n"), "unknown field `holdout`"),
            (HEAD.replace("0.1", "1.5") + source, "held_out is 1.5"),
            (source.to_string(), "missing field `name`"),
        ] {
            let error = Recipe::parse(&text, "r.toml").unwrap_err().to_string();
            assert!(error.starts_with("r.toml: ") && error.contains(problem), "{error}");
        }
    }
}
