//! From a recipe to a graph.

use crate::builders::{self, Data, Draft};
use crate::check::Tests;
use crate::edge::{Edge, Graph, GraphFile, Manifest, Part, SCHEMA, SourceNote, counts};
use crate::fold::{fold, lot, one_line};
use crate::recipe::{Recipe, Source};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use workbench::Result;
use workbench::sources::esco::Releases;

/// Longest text in characters; what is longer would be cut by the encoder anyway.
const LONGEST: usize = 1000;

/// Makes the graph of a recipe's sources out of a data folder. `work` is the folder in which [`crate::tag_sources`] has left the
/// tags of raw vacancies; `note` is told of each source when it is read. Enrichments come after this.
///
/// The rules, in this order: unusable edges go (an empty or overlong text, or one that repeats its skill); edges that the
/// leak check would find go; of equal edges (same graph, skill and text, folded) the first
/// stays. A text is held out when its lot, a hash of seed and folded text, falls below the share; then it is held out in
/// every source of its graph. The order is that of the recipe and of the files.
///
/// # Errors
/// [`workbench::Error::Data`] and [`workbench::Error::Io`] name the file and what is wrong with it.
pub fn build(
    recipe: &Recipe,
    (data, work): (&Path, &Path),
    note: &mut dyn FnMut(&SourceNote),
) -> Result<GraphFile> {
    let releases = Releases::discover(data)?;
    let esco = recipe.release()?;
    let tests = Tests::read(data)?;
    let place = Data { root: data, releases: &releases, esco, work };
    let mut kept: Vec<(Edge, String, bool)> = Vec::new();
    let mut seen: HashMap<(Graph, String, String), usize> = HashMap::new();
    let mut sources = Vec::with_capacity(recipe.sources.len());
    for source in &recipe.sources {
        let drafts = builders::read(source, &place)?;
        let mut entry = SourceNote {
            name: source.name.clone(),
            licence: source.licence.clone(),
            read: drafts.len(),
            left_out_as_test: 0,
            repeated: 0,
            unusable: 0,
        };
        for draft in drafts {
            let (skill, folded) = (fold(&draft.skill), fold(&draft.text));
            let key = (draft.graph, draft.skill_id.clone(), folded.clone());
            if !is_usable(&draft, &skill, &folded) {
                entry.unusable += 1;
            } else if tests.leak(draft.graph, &skill, &folded).is_some() {
                entry.left_out_as_test += 1;
            } else if let Some(place) = seen.get(&key) {
                entry.repeated += 1;
                // A text that one source holds out is held out in all.
                kept[*place].2 |= source.hold_out;
            } else {
                seen.insert(key, kept.len());
                kept.push((edge(draft, source), folded, source.hold_out));
            }
        }
        note(&entry);
        sources.push(entry);
    }
    hold_out(recipe, &mut kept);
    let edges: Vec<Edge> = kept.into_iter().map(|(edge, _, _)| edge).collect();
    let manifest = Manifest {
        schema: SCHEMA,
        written_by: format!("uwe-graph {}", env!("CARGO_PKG_VERSION")),
        name: recipe.name.clone(),
        seed: recipe.seed,
        held_out: recipe.held_out,
        fingerprint: GraphFile::fingerprint(&edges),
        sources,
        counts: counts(&edges),
        checked_against: BTreeMap::new(),
        not_checked_against: Vec::new(),
        enriched: Vec::new(),
    };
    Ok(GraphFile { edges, manifest })
}

fn is_usable(draft: &Draft, skill: &str, folded: &str) -> bool {
    !folded.is_empty() && !skill.is_empty() && draft.text.chars().count() <= LONGEST && skill != folded
}

fn edge(draft: Draft, source: &Source) -> Edge {
    Edge {
        graph: draft.graph,
        skill: one_line(&draft.skill),
        skill_id: draft.skill_id,
        text: one_line(&draft.text),
        source: source.name.clone(),
        weight: draft.weight * source.weight,
        provenance: draft.provenance,
        part: Part::Train,
    }
}

/// Moves the held-out texts' edges to validation, in every source of their graph.
fn hold_out(recipe: &Recipe, kept: &mut [(Edge, String, bool)]) {
    let held: HashSet<(Graph, String)> = kept
        .iter()
        .filter(|(_, folded, hold_out)| *hold_out && lot(recipe.seed, folded) < recipe.held_out)
        .map(|(edge, folded, _)| (edge.graph, folded.clone()))
        .collect();
    for (edge, folded, _) in kept {
        if held.contains(&(edge.graph, std::mem::take(folded))) {
            edge.part = Part::Val;
        }
    }
}
