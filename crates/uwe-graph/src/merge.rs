//! Several graphs as one.

use crate::edge::{Edge, Graph, GraphFile, Part};
use crate::fold::fold;
use std::collections::HashSet;
use workbench::{Error, Result};

/// Puts graphs together, in their order. Of equal edges (same graph, skill identifier and folded text) the first stays; a
/// text that one graph holds out is held out in all. The result has to pass the leak check again.
///
/// # Errors
/// [`Error::Argument`] when two graphs have different sources of one name, so that counts by source would lie.
pub fn merge(name: &str, graphs: Vec<GraphFile>) -> Result<GraphFile> {
    let mut graphs = graphs.into_iter();
    let none = || Error::Argument { name: "graphs", problem: "there is no graph to merge".into() };
    let mut merged = graphs.next().ok_or_else(none)?;
    for graph in graphs {
        for source in graph.manifest.sources {
            match merged.manifest.sources.iter().find(|known| known.name == source.name) {
                None => merged.manifest.sources.push(source),
                Some(known) if *known == source => {}
                Some(_) => {
                    let problem =
                        format!("two graphs have different sources with the name `{}`", source.name);
                    return Err(Error::Argument { name: "graphs", problem });
                }
            }
        }
        merged.manifest.enriched.extend(graph.manifest.enriched);
        merged.edges.extend(graph.edges);
    }
    let folded: Vec<String> = merged.edges.iter().map(|edge| fold(&edge.text)).collect();
    let held: HashSet<(Graph, &str)> = (merged.edges.iter().zip(&folded))
        .filter(|(edge, _)| edge.part == Part::Val)
        .map(|(edge, folded)| (edge.graph, &folded[..]))
        .collect();
    let mut seen: HashSet<(Graph, String, &str)> = HashSet::new();
    let mut edges: Vec<Edge> = Vec::with_capacity(merged.edges.len());
    for (mut edge, folded) in merged.edges.into_iter().zip(&folded) {
        if seen.insert((edge.graph, edge.skill_id.clone(), folded)) {
            edge.part = if held.contains(&(edge.graph, &folded[..])) { Part::Val } else { Part::Train };
            edges.push(edge);
        }
    }
    merged.manifest.name = name.to_string();
    merged.edges = edges;
    merged.seal();
    Ok(merged)
}
