//! Edges and the files that hold them.

use crate::enrich::EnrichmentNote;
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, Float32Array, StringArray};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use workbench::sources::vacancies::{batches, column, strings, wrong_type};
use workbench::{Error, Result, clear_partial, write_parquet, write_whole};

/// Which of the three graphs an edge belongs to. All share the skill side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Graph {
    /// Skill and job title.
    Job,
    /// Skill and sentence of a vacancy.
    Sentence,
    /// Skill (or occupation) and another name of it.
    Alternative,
}

/// How an edge came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// People wrote both texts and linked them.
    Real,
    /// People wrote both texts; a model linked them.
    Tagged,
    /// A model wrote a text.
    Synthetic,
}

/// What an edge may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Training.
    Train,
    /// Validation and nothing else.
    Val,
}

macro_rules! names {
    ($type:ty, $($variant:ident = $name:literal),*) => {
        impl $type {
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
            fn of(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(self.name())
            }
        }
    };
}
names!(Graph, Job = "job", Sentence = "sentence", Alternative = "alternative");
names!(Provenance, Real = "real", Tagged = "tagged", Synthetic = "synthetic");
names!(Part, Train = "train", Val = "val");

/// A link between a skill and another text.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// The graph.
    pub graph: Graph,
    /// Text of the skill.
    pub skill: String,
    /// Identifies the skill: an ESCO URI, or one with the source's own prefix.
    pub skill_id: String,
    /// The other text.
    pub text: String,
    /// Name of the source in the recipe.
    pub source: String,
    /// How much the edge counts; positive.
    pub weight: f32,
    /// How it came to be.
    pub provenance: Provenance,
    /// What it may be used for.
    pub part: Part,
}

/// Number of edges of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Name of the source.
    pub source: String,
    /// The graph.
    pub graph: Graph,
    /// The part.
    pub part: Part,
    /// How they came to be.
    pub provenance: Provenance,
    /// Edges.
    pub edges: usize,
    /// Different skills.
    pub skills: usize,
    /// Different other texts.
    pub texts: usize,
}

/// What a source is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceNote {
    /// Name in the recipe.
    pub name: String,
    /// Terms of use.
    pub licence: String,
    /// Edges that the source gave.
    pub read: usize,
    /// Left out since the leak check would find them.
    pub left_out_as_test: usize,
    /// Left out since the same edge came before.
    pub repeated: usize,
    /// Left out since a text is empty or too long, or repeats the skill.
    pub unusable: usize,
}

/// Version of the manifest's form.
pub(crate) const SCHEMA: u32 = 1;

/// What stands beside a graph file: where it came from and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this form.
    pub schema: u32,
    /// Name and version of the program.
    pub written_by: String,
    /// Name of the recipe.
    pub name: String,
    /// Seed of the hold-out.
    pub seed: u64,
    /// Share of the held-out texts.
    pub held_out: f64,
    /// Identifies the edges, order included.
    pub fingerprint: String,
    /// The sources in the recipe's order.
    pub sources: Vec<SourceNote>,
    /// Edges by source, graph, part and provenance.
    pub counts: Vec<Count>,
    /// Fingerprints of the test sets that the graph was checked against and found free of; empty before a check, and
    /// no training without one.
    pub checked_against: BTreeMap<String, String>,
    /// Test sets that the check could not have.
    pub not_checked_against: Vec<String>,
    /// What a language model has added, enrichment by enrichment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enriched: Vec<EnrichmentNote>,
}

/// A graph with its manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphFile {
    /// The edges.
    pub edges: Vec<Edge>,
    /// What stands beside them.
    pub manifest: Manifest,
}

/// Name of the manifest in a graph's folder.
const MANIFEST: &str = "graph.json";

impl GraphFile {
    /// Identifies edges, order included.
    pub(crate) fn fingerprint(edges: &[Edge]) -> String {
        let mut hasher = blake3::Hasher::new();
        for edge in edges {
            for text in [&edge.skill, &edge.skill_id, &edge.text, &edge.source] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
            for name in [edge.graph.name(), edge.provenance.name(), edge.part.name()] {
                hasher.update(name.as_bytes());
            }
            hasher.update(&edge.weight.to_le_bytes());
        }
        hasher.finalize().to_hex()[..32].to_string()
    }

    /// Brings the manifest up to changed edges: counts and fingerprint; an earlier check no longer holds.
    pub fn seal(&mut self) {
        self.manifest.fingerprint = Self::fingerprint(&self.edges);
        self.manifest.counts = counts(&self.edges);
        self.manifest.checked_against.clear();
    }

    /// Writes edges and manifest into a folder; the manifest comes last.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        // What an earlier run was writing when it was killed.
        clear_partial(folder);
        let text = |value: fn(&Edge) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(self.edges.iter().map(value)))
        };
        let weights: Vec<f32> = self.edges.iter().map(|edge| edge.weight).collect();
        let columns: Vec<(String, ArrayRef)> = vec![
            ("graph".into(), text(|edge| edge.graph.name())),
            ("skill".into(), text(|edge| &edge.skill)),
            ("skill_id".into(), text(|edge| &edge.skill_id)),
            ("text".into(), text(|edge| &edge.text)),
            ("source".into(), text(|edge| &edge.source)),
            ("weight".into(), Arc::new(Float32Array::from(weights))),
            ("provenance".into(), text(|edge| edge.provenance.name())),
            ("part".into(), text(|edge| edge.part.name())),
        ];
        // The file is named by its content: until the new manifest stands, the old one leads to the old edges.
        write_parquet(&folder.join(self.edge_file()), columns)?;
        self.write_manifest(folder)?;
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("edges-") && name.ends_with(".parquet") && name != self.edge_file() {
                // An old file that cannot be removed does no harm.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn edge_file(&self) -> String {
        format!("edges-{}.parquet", self.manifest.fingerprint)
    }

    /// Writes the manifest alone.
    ///
    /// # Errors
    /// [`Error::Io`] when the folder cannot be written.
    pub fn write_manifest(&self, folder: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(&self.manifest)
            .map_err(|error| Error::data(folder.display(), error.to_string(), ""))?;
        bytes.push(b'\n');
        write_whole(&folder.join(MANIFEST), &bytes)
    }

    /// Reads a graph and compares its edges with the manifest's fingerprint.
    ///
    /// # Errors
    /// [`Error::Data`] for a damaged or changed file, [`Error::Io`] when it cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
            Error::data(
                path.display(),
                format!("is no manifest of a graph: {error}"),
                "build the graph again",
            )
        })?;
        if manifest.schema != SCHEMA {
            let problem = format!("has form {}; this program knows form {SCHEMA}", manifest.schema);
            return Err(Error::data(path.display(), problem, "build the graph again"));
        }
        let mut graph = Self { edges: Vec::new(), manifest };
        let path = folder.join(graph.edge_file());
        let edges = &mut graph.edges;
        for batch in batches(&path)? {
            let batch = batch?;
            let names = ["graph", "skill", "skill_id", "text", "source", "provenance", "part"];
            let mut texts = Vec::with_capacity(names.len());
            for name in names {
                let values: Vec<String> =
                    strings(&path, &batch, name)?.into_iter().map(Option::unwrap_or_default).collect();
                texts.push(values.into_iter());
            }
            let weights = column(&path, &batch, "weight")?;
            let weights = weights
                .as_primitive_opt::<Float32Type>()
                .ok_or_else(|| wrong_type(&path, "weight", "32-bit float"))?;
            for weight in weights.values() {
                let mut next =
                    || texts.iter_mut().map(|values| values.next().unwrap_or_default()).collect::<Vec<_>>();
                let row: [String; 7] = next().try_into().unwrap_or_default();
                let [graph, skill, skill_id, text, source, provenance, part] = row;
                let kinds = (Graph::of(&graph), Provenance::of(&provenance), Part::of(&part));
                let (Some(graph), Some(provenance), Some(part)) = kinds else {
                    let problem = format!("has an edge of kind `{graph}`, `{provenance}`, `{part}`");
                    return Err(Error::data(path.display(), problem, "build the graph again"));
                };
                let weight = *weight;
                edges.push(Edge { graph, skill, skill_id, text, source, weight, provenance, part });
            }
        }
        let found = Self::fingerprint(&graph.edges);
        if found != graph.manifest.fingerprint {
            return Err(Error::data(
                path.display(),
                format!(
                    "has other edges than its manifest says ({found}, not {})",
                    graph.manifest.fingerprint
                ),
                "build the graph again",
            ));
        }
        Ok(graph)
    }
}

/// Counts by source, graph, part and provenance, in that order.
pub(crate) fn counts(edges: &[Edge]) -> Vec<Count> {
    type Texts<'a> = (usize, std::collections::HashSet<&'a str>, std::collections::HashSet<&'a str>);
    let mut groups: BTreeMap<(&str, Graph, Part, Provenance), Texts<'_>> = BTreeMap::new();
    for edge in edges {
        let group = groups.entry((&edge.source, edge.graph, edge.part, edge.provenance)).or_default();
        group.0 += 1;
        group.1.insert(&edge.skill_id);
        group.2.insert(&edge.text);
    }
    groups
        .into_iter()
        .map(|((source, graph, part, provenance), (edges, skills, texts))| Count {
            source: source.to_string(),
            graph,
            part,
            provenance,
            edges,
            skills: skills.len(),
            texts: texts.len(),
        })
        .collect()
}
