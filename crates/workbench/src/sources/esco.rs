//! ESCO releases: official archives, their unpacked folders, any version and language.

use super::{sorted_entries, table};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// A version such as 1.1.0, ordered by its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// The first `major.minor.patch` in a text.
    fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.')
            .find_map(|part| part.trim_matches('.').parse().ok())
    }
}

impl std::str::FromStr for Version {
    type Err = ();
    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let numbers: Vec<u32> =
            text.split('.').map(str::parse).collect::<std::result::Result<_, _>>().map_err(|_| ())?;
        numbers.try_into().map(Self).map_err(|_| ())
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}.{}", self.0[0], self.0[1], self.0[2])
    }
}

/// Most bytes of a table in an archive: twenty times what ESCO's largest has.
const LARGEST_TABLE: u64 = 500_000_000;

/// Which table of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `skills_LANGUAGE.csv`
    Skills,
    /// `occupations_LANGUAGE.csv`
    Occupations,
    /// `occupationSkillRelations.csv`
    OccupationSkillRelations,
    /// `skillSkillRelations.csv`
    SkillSkillRelations,
    /// `skillGroups_LANGUAGE.csv`
    SkillGroups,
    /// `broaderRelationsSkillPillar.csv`
    SkillHierarchy,
}

impl Table {
    const ALL: [Self; 6] = [
        Self::Skills,
        Self::Occupations,
        Self::OccupationSkillRelations,
        Self::SkillSkillRelations,
        Self::SkillGroups,
        Self::SkillHierarchy,
    ];

    fn stem(self) -> &'static str {
        match self {
            Self::Skills => "skills",
            Self::Occupations => "occupations",
            Self::OccupationSkillRelations => "occupationSkillRelations",
            Self::SkillSkillRelations => "skillSkillRelations",
            Self::SkillGroups => "skillGroups",
            Self::SkillHierarchy => "broaderRelationsSkillPillar",
        }
    }

    /// Relations are the same in every language.
    fn has_language(self) -> bool {
        matches!(self, Self::Skills | Self::Occupations | Self::SkillGroups)
    }

    /// The table and language of a file name such as `skills_en.csv`.
    fn of(name: &str) -> Option<(Self, String)> {
        let stem = name.strip_suffix(".csv")?;
        let (stem, language) = stem.split_once('_').unwrap_or((stem, ""));
        let table = Self::ALL.into_iter().find(|table| table.stem() == stem)?;
        // Some releases name a language where a table holds none.
        let language = if table.has_language() { language } else { "" };
        (table.has_language() != language.is_empty()).then(|| (table, language.to_string()))
    }
}

/// Where a table lies: a file, or an entry of an archive.
#[derive(Clone, Debug)]
struct Place {
    file: PathBuf,
    entry: Option<String>,
}

/// A concept of ESCO.
#[derive(Clone, Debug)]
pub struct Concept {
    /// Identifies the concept in every release and language.
    pub uri: String,
    /// Preferred label, as it stands in the file.
    pub label: String,
    /// Alternative labels, one a line.
    pub alternatives: String,
    /// What the concept is.
    pub description: String,
}

/// All releases found below a folder.
#[derive(Clone, Debug, Default)]
pub struct Releases {
    tables: BTreeMap<(Version, Table, String), Place>,
}

impl Releases {
    /// Looks for archives whose name holds `ESCO` and a version, and for folders with such CSV files whose
    /// name holds a version.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged archive, [`Error::Io`] when it cannot be read.
    pub fn discover(root: &Path) -> Result<Self> {
        let mut found = Self::default();
        found.visit(root, 0)?;
        Ok(found)
    }

    fn visit(&mut self, folder: &Path, depth: usize) -> Result<()> {
        const DEEPEST: usize = 4;
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        let own_version = name(folder).as_deref().and_then(Version::find);
        for path in sorted_entries(folder)? {
            let Some(base) = name(&path) else { continue };
            if path.is_dir() {
                if depth < DEEPEST {
                    self.visit(&path, depth + 1)?;
                }
            } else if base.to_ascii_lowercase().ends_with(".zip") && base.contains("ESCO") {
                if let Some(version) = Version::find(&base) {
                    for entry in archive(&path)?.file_names() {
                        let entry = entry.map_err(|error| unsound(&path, &error))?.into_owned();
                        let base = entry.rsplit('/').next().unwrap_or_default();
                        if let Some((table, language)) = Table::of(base) {
                            let place = Place { file: path.clone(), entry: Some(entry) };
                            self.tables.entry((version, table, language)).or_insert(place);
                        }
                    }
                }
            } else if let (Some(version), Some((table, language))) = (own_version, Table::of(&base)) {
                self.tables
                    .entry((version, table, language))
                    .or_insert(Place { file: path.clone(), entry: None });
            }
        }
        Ok(())
    }

    /// Whether a release has a table; relations belong to every language.
    pub fn has(&self, version: Version, table: Table, language: &str) -> bool {
        self.tables.contains_key(&self.key(version, table, language))
    }

    /// Versions that have a table, ascending.
    pub fn versions(&self, table: Table, language: &str) -> Vec<Version> {
        let language = if table.has_language() { language } else { "" };
        self.tables
            .keys()
            .filter(|(_, found, tongue)| *found == table && tongue == language)
            .map(|(version, _, _)| *version)
            .collect()
    }

    /// Languages of any release's skills or occupations.
    pub fn languages(&self) -> Vec<String> {
        let mut languages: Vec<String> =
            self.tables.keys().map(|(_, _, language)| language.clone()).filter(|l| !l.is_empty()).collect();
        languages.sort();
        languages.dedup();
        languages
    }

    fn key(&self, version: Version, table: Table, language: &str) -> (Version, Table, String) {
        (version, table, if table.has_language() { language.to_string() } else { String::new() })
    }

    fn read<const N: usize>(
        &self,
        version: Version,
        (table, language): (Table, &str),
        columns: [&str; N],
    ) -> Result<Vec<[String; N]>> {
        let Some(place) = self.tables.get(&self.key(version, table, language)) else {
            return Err(Error::data(
                format!("ESCO {version}"),
                format!("has no {} in language `{language}` here", table.stem()),
                "put the release's archive, as CSV, into the data folder",
            ));
        };
        match &place.entry {
            None => table::file_columns(&place.file, columns),
            Some(entry) => {
                let mut archive = archive(&place.file)?;
                let reader = archive.by_name(entry).map_err(|error| unsound(&place.file, &error))?;
                if reader.size() > LARGEST_TABLE {
                    return Err(unsound(&place.file, &format!("{entry} would have {} bytes", reader.size())));
                }
                let reader = reader.take(LARGEST_TABLE);
                table::columns(reader, &format!("{}:{entry}", place.file.display()), columns)
            }
        }
    }

    /// Concepts in file order.
    ///
    /// # Errors
    /// [`Error::Data`] when the release or a column is missing, [`Error::Io`] when it cannot be read.
    pub fn concepts(&self, version: Version, table: Table, language: &str) -> Result<Vec<Concept>> {
        let columns = ["conceptUri", "preferredLabel", "altLabels", "description"];
        let rows = self.read(version, (table, language), columns)?;
        Ok(rows
            .into_iter()
            .map(|[uri, label, alternatives, description]| Concept { uri, label, alternatives, description })
            .collect())
    }

    /// Pairs of (occupation, skill) by URI, in file order, essential and optional ones.
    ///
    /// # Errors
    /// [`Error::Data`] when the release or a column is missing, [`Error::Io`] when it cannot be read.
    pub fn occupation_skills(&self, version: Version) -> Result<Vec<[String; 2]>> {
        self.read(version, (Table::OccupationSkillRelations, ""), ["occupationUri", "skillUri"])
    }

    /// Pairs of (skill, related skill) by URI, in file order.
    ///
    /// # Errors
    /// [`Error::Data`] when the release or a column is missing, [`Error::Io`] when it cannot be read.
    pub fn skill_skills(&self, version: Version) -> Result<Vec<[String; 2]>> {
        self.read(version, (Table::SkillSkillRelations, ""), ["originalSkillUri", "relatedSkillUri"])
    }

    /// Labels of the groups just below the roots of the skill pillar (such as `handling and moving` or `arts and
    /// humanities`) that each skill belongs to, by the skill's URI, sorted.
    ///
    /// # Errors
    /// [`Error::Data`] when the release or a column is missing, [`Error::Io`] when it cannot be read.
    pub fn skill_groups(&self, version: Version, language: &str) -> Result<HashMap<String, Vec<String>>> {
        let links = self.read(version, (Table::SkillHierarchy, ""), ["conceptUri", "broaderUri"])?;
        let names = self.read(version, (Table::SkillGroups, language), ["conceptUri", "preferredLabel"])?;
        let mut broader: HashMap<&str, Vec<&str>> = HashMap::new();
        for [concept, parent] in &links {
            broader.entry(concept).or_default().push(parent);
        }
        let is_root = |uri: &str| !broader.contains_key(uri);
        let names: HashMap<&str, &str> = names.iter().map(|[uri, label]| (&uri[..], label.trim())).collect();
        let mut groups = HashMap::new();
        for start in broader.keys().filter(|uri| !names.contains_key(*uri)) {
            let (mut open, mut seen, mut found) = (vec![*start], HashSet::new(), Vec::new());
            while let Some(uri) = open.pop() {
                let parents = broader.get(uri).map_or(&[][..], Vec::as_slice);
                if parents.iter().any(|parent| is_root(parent)) {
                    found.extend(names.get(uri).map(|label| (*label).to_string()));
                }
                open.extend(parents.iter().filter(|parent| seen.insert(**parent)));
            }
            found.sort();
            found.dedup();
            groups.insert((*start).to_string(), found);
        }
        Ok(groups)
    }
}

fn archive(path: &Path) -> Result<zip::ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    zip::ZipArchive::new(BufReader::new(file)).map_err(|error| unsound(path, &error))
}

fn unsound(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::data(path.display(), format!("is no sound zip archive: {error}"), "get the archive again")
}

/// An alternative label with the concepts that have it.
#[derive(Clone, Debug)]
pub struct Alternative<'a> {
    /// The label.
    pub label: &'a str,
    /// Places of the concepts in their list.
    pub concepts: Vec<usize>,
    /// Whether it belongs to the validation part: one of its concepts' labels has had no alternative before.
    pub is_first: bool,
}

/// All alternative labels in file order, split by WorkBench's rule: entries of one character, repeats and the preferred
/// label itself (as it stands in the file) are left out.
pub fn alternatives(concepts: &[Concept]) -> Vec<Alternative<'_>> {
    let mut found: Vec<Alternative<'_>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (index, concept) in concepts.iter().enumerate() {
        let mut own: Vec<&str> = Vec::new();
        for label in concept.alternatives.split('\n').map(str::trim) {
            let short = label.chars().nth(1).is_none();
            if short || label == concept.label || own.contains(&label) {
                continue;
            }
            own.push(label);
            let place = *places.entry(label).or_insert_with(|| {
                found.push(Alternative { label, concepts: Vec::new(), is_first: false });
                found.len() - 1
            });
            found[place].concepts.push(index);
        }
    }
    // Labels, not concepts, are the targets: two concepts of one label count together.
    let mut had: HashSet<&str> = HashSet::new();
    for alternative in &mut found {
        for index in &alternative.concepts {
            // Every label is counted, also behind one that decides.
            alternative.is_first |= had.insert(&concepts[*index].label);
        }
    }
    found
}

/// The target space that a release's concepts make: sorted unique labels, as they stand in the file.
pub struct Vocabulary {
    /// Labels by code point.
    pub labels: Vec<String>,
    place_of_label: HashMap<String, usize>,
    place_of_uri: HashMap<String, usize>,
}

impl Vocabulary {
    /// The vocabulary of some concepts.
    pub fn of(concepts: &[Concept]) -> Self {
        let mut labels: Vec<String> = concepts.iter().map(|concept| concept.label.clone()).collect();
        labels.sort_unstable();
        labels.dedup();
        let places: HashMap<&str, usize> =
            labels.iter().enumerate().map(|(place, label)| (&label[..], place)).collect();
        let place_of_uri =
            concepts.iter().map(|concept| (concept.uri.clone(), places[&concept.label[..]])).collect();
        // Annotations hold labels trimmed; some labels of ESCO carry a blank at an end. The first one wins.
        let mut place_of_label = HashMap::new();
        for (place, label) in labels.iter().enumerate() {
            place_of_label.entry(label.trim().to_string()).or_insert(place);
        }
        Self { labels, place_of_label, place_of_uri }
    }

    /// Place of a label, blanks at its ends aside.
    pub fn label(&self, label: &str) -> Option<usize> {
        self.place_of_label.get(label.trim()).copied()
    }

    /// Place of a concept's label.
    pub fn uri(&self, uri: &str) -> Option<usize> {
        self.place_of_uri.get(uri).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_names_and_ordered_by_number() {
        let version = |text| Version::find(text).map(|version| version.to_string());
        assert_eq!(
            version("ESCO dataset - v1.1.1 - classification - en - csv.zip").as_deref(),
            Some("1.1.1")
        );
        assert_eq!(version("1.2.0-reconstructed-en").as_deref(), Some("1.2.0"));
        assert_eq!(version("esco").as_deref(), None);
        assert!(Version([1, 10, 0]) > Version([1, 9, 3]));
    }

    #[test]
    fn file_names_tell_table_and_language() {
        assert_eq!(Table::of("skills_de.csv"), Some((Table::Skills, "de".into())));
        assert_eq!(
            Table::of("occupationSkillRelations.csv"),
            Some((Table::OccupationSkillRelations, String::new()))
        );
        assert_eq!(
            Table::of("occupationSkillRelations_en.csv"),
            Some((Table::OccupationSkillRelations, String::new()))
        );
        assert_eq!(Table::of("skillsHierarchy_en.csv"), None);
        assert_eq!(Table::of("skills.csv"), None);
    }

    #[test]
    fn folders_of_any_version_and_language_are_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("esco/v1.2.0");
        std::fs::create_dir_all(&folder).unwrap();
        let header = "conceptUri,preferredLabel,altLabels,description\n";
        std::fs::write(
            folder.join("skills_de.csv"),
            format!("{header}u:1,\"backen \",\"a\nb\",\nu:2,abc,,\n"),
        )
        .unwrap();
        let releases = Releases::discover(root.path()).unwrap();
        assert_eq!(releases.versions(Table::Skills, "de"), [Version([1, 2, 0])]);
        assert!(!releases.has(Version([1, 2, 0]), Table::Skills, "en"));
        let concepts = releases.concepts(Version([1, 2, 0]), Table::Skills, "de").unwrap();
        let vocabulary = Vocabulary::of(&concepts);
        assert_eq!(vocabulary.labels, ["abc", "backen "]);
        assert_eq!(vocabulary.uri("u:1"), Some(1));
        assert_eq!(vocabulary.label("backen"), Some(1));
        let error = releases.concepts(Version([1, 2, 0]), Table::Occupations, "de").unwrap_err();
        assert!(error.hint().is_some());
    }
}
