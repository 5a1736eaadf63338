//! Which sets a data folder can give, and how each is made from its raw files.
//!
//! | task | queries -> targets | files below the data folder |
//! |---|---|---|
//! | Job2Skill, Skill2Job, test | occupations, skills | an ESCO release with skills, occupations and relations, anywhere |
//! | Job2Skill, Skill2Job, validation | vacancy titles, skills | `vacancies/job_skill_val.parquet`, the newest ESCO skills |
//! | Job normalisation | vacancy titles -> occupations | `jobbert/titles.csv`, `jobbert/titles.test.csv`, ESCO 1.0.5 or 1.0.3 occupations |
//! | Skill normalisation | alternative labels -> skills | an ESCO release with skills |
//! | Skill extraction | sentences -> skills | `skill-extraction/NAME_{test,validation}_annotations.csv`, `skillskape/*.csv`, ESCO 1.1.0 skills |
//! | Skill similarity | skill -> skill | `skillmatch/*.csv` or `*.parquet` |
//! | its stand-in | skill -> skill | ESCO 1.1.1 with its skill-skill relations |
//! | any other | | `sets/*.json`, or BEIR folders in `sets/` |
//!
//! Labels are carried between releases and languages by URI. A release without occupation-skill relations takes
//! those of the newest release that has them; such a set's name ends in `p`, for projected.

use crate::error::{Error, Result};
use crate::set::{Identity, RankingSet, RawSet, Split, Task};
use crate::sources::annotations::{self, Sentences};
use crate::sources::esco::{self, Concept, Releases, Table, Version, Vocabulary};
use crate::sources::vacancies::Vacancy;
use crate::sources::{given, pairs, sorted_entries, table, vacancies};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What to look for.
#[derive(Clone, Debug)]
pub struct CatalogueOptions {
    /// ISO 639-1 code of ESCO's language.
    pub language: String,
    /// ESCO release of Job2Skill, Skill2Job and skill normalisation, as `1.2.0`. `None`: the newest with what a
    /// task needs.
    pub esco: Option<String>,
}

impl Default for CatalogueOptions {
    fn default() -> Self {
        Self { language: "en".into(), esco: None }
    }
}

/// A set that could be, with what it needs.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name and place.
    pub identity: Identity,
    /// What is missing and where to put it; empty when the set can be made.
    pub missing: Vec<String>,
    recipe: Recipe,
}

impl Entry {
    /// Whether everything is there.
    pub fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    JobToSkill,
    SkillToJob,
}

impl Direction {
    const BOTH: [(Self, &'static str, Task); 2] = [
        (Self::JobToSkill, "job2skill", Task::JobToSkill),
        (Self::SkillToJob, "skill2job", Task::SkillToJob),
    ];
}

#[derive(Clone, Debug)]
enum Recipe {
    Relations { direction: Direction, relations: Version, vocabulary: Version },
    Vacancies { direction: Direction, file: PathBuf, vocabulary: Version },
    JobTitles { file: PathBuf, occupations: Version },
    Alternatives { release: Version },
    RowALabel { file: PathBuf },
    RowASentence { file: PathBuf },
    SkillMatch { file: PathBuf },
    Proxy,
    Given { path: PathBuf },
    Absent,
}

/// Releases whose occupation labels are those of job normalisation's targets.
const JOB_NORMALIZATION_RELEASES: [Version; 2] = [Version([1, 0, 5]), Version([1, 0, 3])];
/// The release that sentences were annotated with.
const ANNOTATION_RELEASE: Version = Version([1, 1, 0]);
const VACANCIES: &str = "vacancies/job_skill_val.parquet";

/// The sets of a data folder.
#[derive(Debug)]
pub struct Catalogue {
    releases: Releases,
    options: CatalogueOptions,
    entries: Vec<Entry>,
}

impl Catalogue {
    /// Looks through a data folder.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be read, [`Error::Data`] for a damaged ESCO archive,
    /// [`Error::Argument`] for an ESCO release that is not there.
    pub fn open(root: &Path, options: CatalogueOptions) -> Result<Self> {
        let releases = Releases::discover(root)?;
        let mut catalogue = Self { releases, options, entries: Vec::new() };
        let chosen = catalogue.chosen_release()?;
        catalogue.list_relations(chosen);
        catalogue.list_vacancies(root);
        catalogue.list_job_titles(root);
        catalogue.list_alternatives(chosen);
        catalogue.list_sentences(root)?;
        catalogue.list_similarity(root)?;
        catalogue.list_given(&root.join("sets"))?;
        catalogue.entries.sort_by(|a, b| {
            let order = |entry: &Entry| {
                let Identity { task, name, split, .. } = &entry.identity;
                (task.clone(), !entry.identity.in_average, name.clone(), *split)
            };
            order(a).cmp(&order(b))
        });
        Ok(catalogue)
    }

    /// All sets, those that cannot be made included.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Adds a set that a user brought: a JSON file or a BEIR folder.
    ///
    /// # Errors
    /// [`Error::Data`] and [`Error::Io`] when it cannot be read.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let identity = given::read(path)?.identity;
        if self.entries.iter().any(|entry| entry.identity.key() == identity.key()) {
            return Err(Error::data(
                path.display(),
                format!("is a second set of the name {}", identity.key()),
                "give it another `task`, split or language, or the file another name",
            ));
        }
        let recipe = Recipe::Given { path: path.to_path_buf() };
        self.entries.push(Entry { identity, missing: Vec::new(), recipe });
        Ok(())
    }

    fn chosen_release(&self) -> Result<Option<Version>> {
        let Some(text) = &self.options.esco else { return Ok(None) };
        let known = self.releases.versions(Table::Skills, &self.options.language);
        let version = text.parse().ok().filter(|version| known.contains(version));
        version.map(Some).ok_or_else(|| Error::Argument {
            name: "esco",
            problem: format!(
                "there is no release {text} with skills in `{}`; there are: {}",
                self.options.language,
                known.iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
            ),
        })
    }

    fn push(&mut self, place: (Task, String, Split), in_average: bool, recipe: Recipe) {
        self.push_if(place, in_average, Ok(recipe));
    }

    /// Adds an entry; an `Err` says what is missing.
    fn push_if(
        &mut self,
        (task, name, split): (Task, String, Split),
        in_average: bool,
        recipe: std::result::Result<Recipe, Vec<String>>,
    ) {
        let language = self.options.language.clone();
        let identity = Identity { name, task, split, language, in_average };
        let (recipe, missing) = match recipe {
            Ok(recipe) => (recipe, Vec::new()),
            Err(missing) => (Recipe::Absent, missing),
        };
        self.entries.push(Entry { identity, missing, recipe });
    }

    fn skills_wanted(&self, version: &str) -> String {
        format!(
            "the ESCO {version} archive with skills and occupations in `{}` (CSV), anywhere below the folder",
            self.options.language
        )
    }

    fn list_relations(&mut self, chosen: Option<Version>) {
        let language = self.options.language.clone();
        let with_relations = self.releases.versions(Table::OccupationSkillRelations, "");
        let complete: Vec<Version> = self
            .releases
            .versions(Table::Skills, &language)
            .into_iter()
            .filter(|version| self.releases.has(*version, Table::Occupations, &language))
            .collect();
        let newest_own = complete.iter().rev().find(|version| with_relations.contains(version)).copied();
        let reported = chosen.or(newest_own).or(complete.last().copied());
        for (direction, stem, task) in Direction::BOTH {
            let mut listed = false;
            for vocabulary in complete.iter().copied() {
                let own = with_relations.contains(&vocabulary);
                let Some(relations) = (if own { Some(vocabulary) } else { with_relations.last().copied() })
                else {
                    continue;
                };
                let name = format!("{stem}-esco{vocabulary}{}", if own { "" } else { "p" });
                let in_average = reported == Some(vocabulary);
                let recipe = Recipe::Relations { direction, relations, vocabulary };
                self.push((task.clone(), name, Split::Test), in_average, recipe);
                listed = true;
            }
            if !listed {
                let mut missing = Vec::new();
                if complete.is_empty() {
                    missing.push(self.skills_wanted("(any version)"));
                }
                if with_relations.is_empty() {
                    missing.push(
                        "the ESCO archive without a language in its name, which holds the relations".into(),
                    );
                }
                self.push_if((task, format!("{stem}-esco"), Split::Test), true, Err(missing));
            }
        }
    }

    fn list_vacancies(&mut self, root: &Path) {
        let newest = self.releases.versions(Table::Skills, &self.options.language).last().copied();
        for (direction, stem, task) in Direction::BOTH {
            let mut missing = Vec::new();
            if !root.join(VACANCIES).is_file() {
                missing.push(format!("{VACANCIES}: vacancy titles with tagged skills"));
            }
            match newest {
                None => missing.push(self.skills_wanted("1.2.0")),
                Some(version) if !self.releases.has(version, Table::Skills, "en") => {
                    missing.push(format!(
                        "the ESCO {version} archive with skills in `en`, in which vacancies are tagged"
                    ));
                }
                Some(_) => {}
            }
            let version = newest.map_or_else(String::new, |version| version.to_string());
            let recipe = match newest {
                Some(vocabulary) if missing.is_empty() => {
                    Ok(Recipe::Vacancies { direction, file: root.join(VACANCIES), vocabulary })
                }
                _ => Err(missing),
            };
            self.push_if((task, format!("{stem}-esco{version}"), Split::Validation), true, recipe);
        }
    }

    fn list_job_titles(&mut self, root: &Path) {
        let language = self.options.language.clone();
        let occupations = JOB_NORMALIZATION_RELEASES
            .into_iter()
            .find(|version| self.releases.has(*version, Table::Occupations, &language));
        for (file, split) in
            [("jobbert/titles.test.csv", Split::Test), ("jobbert/titles.csv", Split::Validation)]
        {
            let path = root.join(file);
            let mut missing = Vec::new();
            if !path.is_file() {
                missing.push(format!("{file}: vacancy titles with occupations (vacancyTitle, conceptUri)"));
            }
            let recipe = match occupations {
                Some(occupations) if missing.is_empty() => Ok(Recipe::JobTitles { file: path, occupations }),
                Some(_) => Err(missing),
                None => {
                    missing.push(self.skills_wanted("1.0.5 (or 1.0.3)"));
                    Err(missing)
                }
            };
            self.push_if((Task::JobNormalization, "jobnorm".into(), split), true, recipe);
        }
    }

    fn list_alternatives(&mut self, chosen: Option<Version>) {
        let versions = self.releases.versions(Table::Skills, &self.options.language);
        let reported = chosen.or(versions.last().copied());
        for split in [Split::Test, Split::Validation] {
            for release in versions.iter().copied() {
                let place = (Task::SkillNormalization, format!("skillnorm-esco{release}"), split);
                self.push(place, reported == Some(release), Recipe::Alternatives { release });
            }
            if versions.is_empty() {
                let missing = vec![self.skills_wanted("1.2.0")];
                let place = (Task::SkillNormalization, "skillnorm-esco".into(), split);
                self.push_if(place, true, Err(missing));
            }
        }
    }

    fn list_sentences(&mut self, root: &Path) -> Result<()> {
        let has_skills = [&self.options.language[..], "en"]
            .iter()
            .all(|language| self.releases.has(ANNOTATION_RELEASE, Table::Skills, language));
        let skills = (!has_skills).then(|| self.skills_wanted(&ANNOTATION_RELEASE.to_string()));
        let mut files: Vec<(String, Split, PathBuf)> = Vec::new();
        let folder = root.join("skill-extraction");
        if folder.is_dir() {
            for path in sorted_entries(&folder)? {
                let name =
                    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                for (ending, split) in [
                    ("_test_annotations.csv", Split::Test),
                    ("_validation_annotations.csv", Split::Validation),
                ] {
                    if let Some(stem) = name.strip_suffix(ending) {
                        files.push((stem.to_string(), split, path.clone()));
                    }
                }
            }
        }
        for stem in ["house", "tech"] {
            for (split, word) in [(Split::Test, "test"), (Split::Validation, "validation")] {
                if !files.iter().any(|file| file.0 == stem && file.1 == split) {
                    let mut missing =
                        vec![format!("skill-extraction/{stem}_{word}_annotations.csv (sentence, label)")];
                    missing.extend(skills.clone());
                    let place = (Task::SkillExtraction, format!("skillextract-{stem}"), split);
                    self.push_if(place, true, Err(missing));
                }
            }
        }
        for (stem, split, file) in files {
            // WorkBench's task is House and Tech; further files are extensions.
            let in_average = ["house", "tech"].contains(&&stem[..]);
            let recipe = match &skills {
                None => Ok(Recipe::RowALabel { file }),
                Some(skills) => Err(vec![skills.clone()]),
            };
            let place = (Task::SkillExtraction, format!("skillextract-{stem}"), split);
            self.push_if(place, in_average, recipe);
        }
        for (file, split) in
            [("test.csv", Split::Test), ("dev.csv", Split::Validation), ("train.csv", Split::Train)]
        {
            let path = root.join("skillskape").join(file);
            let mut missing: Vec<String> = skills.iter().cloned().collect();
            if !path.is_file() {
                missing.insert(0, format!("skillskape/{file} (sentence, skills)"));
            }
            let recipe =
                if missing.is_empty() { Ok(Recipe::RowASentence { file: path }) } else { Err(missing) };
            let place = (Task::SkillExtraction, "skillextract-skillskape".into(), split);
            self.push_if(place, false, recipe);
        }
        Ok(())
    }

    fn list_similarity(&mut self, root: &Path) -> Result<()> {
        let folder = root.join("skillmatch");
        let entries = if folder.is_dir() { sorted_entries(&folder)? } else { Vec::new() };
        let file = entries.into_iter().find(|path| {
            path.extension().is_some_and(|extension| extension == "csv" || extension == "parquet")
        });
        let release = pairs::PROXY_RELEASE;
        let mut missing = Vec::new();
        if !self.releases.has(release, Table::Skills, &self.options.language) {
            missing.push(self.skills_wanted(&release.to_string()));
        }
        if !self.releases.has(release, Table::SkillSkillRelations, "") {
            missing.push(format!("the ESCO {release} archive without a language in its name"));
        }
        for split in [Split::Test, Split::Validation] {
            let recipe = file
                .clone()
                .map(|file| Recipe::SkillMatch { file })
                .ok_or_else(|| vec!["skillmatch/*.csv or *.parquet: SkillMatch-1K".to_string()]);
            self.push_if((Task::SkillSimilarity, "skillsim-skillmatch".into(), split), true, recipe);
            let recipe = if missing.is_empty() { Ok(Recipe::Proxy) } else { Err(missing.clone()) };
            let place = (Task::SkillSimilarityProxy, format!("skillsim-proxy-esco{release}"), split);
            self.push_if(place, false, recipe);
        }
        Ok(())
    }

    fn list_given(&mut self, folder: &Path) -> Result<()> {
        if !folder.is_dir() {
            return Ok(());
        }
        for path in sorted_entries(folder)? {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            if hidden || !(path.is_dir() || path.extension().is_some_and(|extension| extension == "json")) {
                continue;
            }
            // A file that is no sound set is listed with the reason, and stops no other.
            if let Err(error) = self.add(&path) {
                let name =
                    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                self.push_if((Task::Other, name, Split::Test), false, Err(vec![error.to_string()]));
            }
        }
        Ok(())
    }

    /// Makes a set from its raw files.
    ///
    /// # Errors
    /// [`Error::Set`] for a set whose files are missing, and whatever reading them gives.
    pub fn load(&self, entry: &Entry) -> Result<RankingSet> {
        let (identity, language) = (entry.identity.clone(), &self.options.language[..]);
        let split = identity.split;
        let raw = match &entry.recipe {
            Recipe::Absent => {
                return Err(Error::Set {
                    set: identity.key(),
                    problem: format!("needs {}", entry.missing.join("; ")),
                });
            }
            Recipe::Given { path } => return given::read(path),
            Recipe::Relations { direction, relations, vocabulary } => {
                let skills = self.concepts(*vocabulary, Table::Skills)?;
                let jobs = self.concepts(*vocabulary, Table::Occupations)?;
                relation_set(&self.releases.occupation_skills(*relations)?, *direction, &jobs, &skills)
            }
            Recipe::Vacancies { direction, file, vocabulary } => {
                let skills = self.concepts(*vocabulary, Table::Skills)?;
                let english = self.releases.concepts(*vocabulary, Table::Skills, "en")?;
                vacancy_set(vacancies::read(file)?, *direction, &Carried::new(&english, &skills))
            }
            Recipe::JobTitles { file, occupations } => {
                let jobs = Vocabulary::of(&self.concepts(*occupations, Table::Occupations)?);
                let rows = table::file_columns(file, ["vacancyTitle", "conceptUri"])?;
                let queries = rows
                    .into_iter()
                    .map(|[title, uri]| {
                        (title, jobs.uri(&uri).map(|place| (place, 1.0)).into_iter().collect())
                    })
                    .collect();
                RawSet { targets: jobs.labels, queries }
            }
            Recipe::Alternatives { release } => {
                alternative_set(&self.concepts(*release, Table::Skills)?, split)
            }
            Recipe::RowALabel { file } => self.sentence_set(annotations::row_a_label(file)?)?,
            Recipe::RowASentence { file } => self.sentence_set(annotations::row_a_sentence(file)?)?,
            Recipe::SkillMatch { file } => pairs::skillmatch(file, split)?,
            Recipe::Proxy => pairs::proxy(&self.releases, split, language)?,
        };
        RankingSet::prepare(identity, raw)
    }

    fn concepts(&self, version: Version, table: Table) -> Result<Vec<Concept>> {
        self.releases.concepts(version, table, &self.options.language)
    }

    /// Annotations hold English labels; their URIs lead to those of the chosen language.
    fn sentence_set(&self, sentences: Sentences) -> Result<RawSet> {
        let english = self.releases.concepts(ANNOTATION_RELEASE, Table::Skills, "en")?;
        let skills = Carried::new(&english, &self.concepts(ANNOTATION_RELEASE, Table::Skills)?);
        let queries = sentences
            .into_iter()
            .map(|(sentence, labels)| {
                (sentence, labels.iter().filter_map(|label| skills.place(label)).map(|p| (p, 1.0)).collect())
            })
            .collect();
        Ok(RawSet { targets: skills.vocabulary.labels, queries })
    }
}

/// Queries in the order of their first relation, targets sorted.
fn relation_set(
    relations: &[[String; 2]],
    direction: Direction,
    jobs: &[Concept],
    skills: &[Concept],
) -> RawSet {
    let (jobs, skills) = (Vocabulary::of(jobs), Vocabulary::of(skills));
    let pairs = relations.iter().filter_map(|[job, skill]| Some((jobs.uri(job)?, skills.uri(skill)?)));
    let mut grouped = Grouped::default();
    match direction {
        Direction::JobToSkill => {
            pairs.for_each(|(job, skill)| grouped.add(&jobs.labels[job], skill));
            RawSet { targets: skills.labels, queries: grouped.queries }
        }
        Direction::SkillToJob => {
            pairs.for_each(|(job, skill)| grouped.add(&skills.labels[skill], job));
            RawSet { targets: jobs.labels, queries: grouped.queries }
        }
    }
}

/// English labels, as annotations and taggers use them, in the vocabulary of another language.
struct Carried {
    vocabulary: Vocabulary,
    places: HashMap<String, usize>,
}

impl Carried {
    fn new(english: &[Concept], concepts: &[Concept]) -> Self {
        let vocabulary = Vocabulary::of(concepts);
        // The first label of a text counts, as in a vocabulary.
        let mut places = HashMap::new();
        let mut order: Vec<&Concept> = english.iter().collect();
        order.sort_by(|a, b| a.label.cmp(&b.label));
        for concept in order {
            if let Some(place) = vocabulary.uri(&concept.uri) {
                places.entry(concept.label.trim().to_string()).or_insert(place);
            }
        }
        Self { vocabulary, places }
    }

    fn place(&self, label: &str) -> Option<usize> {
        self.places.get(label.trim()).copied()
    }
}

/// Titles as they come against all skills, or skills in the order of their first vacancy against sorted titles.
fn vacancy_set(vacancies: Vec<Vacancy>, direction: Direction, skills: &Carried) -> RawSet {
    if direction == Direction::JobToSkill {
        let queries = vacancies
            .into_iter()
            .map(|vacancy| {
                let places = vacancy.skills.iter().filter_map(|skill| skills.place(skill));
                (vacancy.title, places.map(|place| (place, 1.0)).collect())
            })
            .collect();
        return RawSet { targets: skills.vocabulary.labels.clone(), queries };
    }
    let mut titles: Vec<String> = vacancies.iter().map(|vacancy| vacancy.title.trim().to_string()).collect();
    titles.sort_unstable();
    titles.dedup();
    let mut grouped = Grouped::default();
    for vacancy in &vacancies {
        let Ok(title) = titles.binary_search_by(|title| title[..].cmp(vacancy.title.trim())) else {
            continue;
        };
        for place in vacancy.skills.iter().filter_map(|skill| skills.place(skill)) {
            grouped.add(&skills.vocabulary.labels[place], title);
        }
    }
    RawSet { targets: titles, queries: grouped.queries }
}

/// Queries in the order of their first label.
#[derive(Default)]
struct Grouped {
    queries: Vec<(String, Vec<(usize, f32)>)>,
    places: HashMap<String, usize>,
}

impl Grouped {
    fn add(&mut self, query: &str, target: usize) {
        let place = match self.places.get(query) {
            Some(place) => *place,
            None => {
                self.queries.push((query.to_string(), Vec::new()));
                self.places.insert(query.to_string(), self.queries.len() - 1);
                self.queries.len() - 1
            }
        };
        self.queries[place].1.push((target, 1.0));
    }
}

/// Alternative labels as queries; the first one of each skill is for validation.
fn alternative_set(skills: &[Concept], split: Split) -> RawSet {
    let vocabulary = Vocabulary::of(skills);
    let mut queries = Vec::new();
    for alternative in esco::alternatives(skills) {
        if alternative.is_first == (split == Split::Validation) {
            let places = alternative.concepts.iter().filter_map(|index| vocabulary.uri(&skills[*index].uri));
            queries.push((alternative.label.to_string(), places.map(|place| (place, 1.0)).collect()));
        }
    }
    RawSet { targets: vocabulary.labels, queries }
}
