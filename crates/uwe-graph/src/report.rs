//! A graph as one web page that needs nothing else: what is in it, how it is spread, and edges to read.

use crate::edge::{Edge, Graph, GraphFile, Part, Provenance};
use crate::enrich::{EnrichmentNote, Sample};
use maud::{Markup, html};
use plotters::prelude::*;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use workbench::Result;
use workbench::page::{colour, document, draw, figure, mesh, swatch};
use workbench::sources::esco::{Releases, Version};

/// Edges of each source that are shown.
const SHOWN: usize = 8;
/// Texts that a skill should have, as enrichment asks for by default.
const ENOUGH: usize = 20;
const GRAPHS: [(Graph, &str, &str); 3] = [
    (Graph::Job, "job titles", "job title"),
    (Graph::Sentence, "sentences", "sentence"),
    (Graph::Alternative, "other names", "other name"),
];

/// Describes a graph, beside what it was `before` an enrichment where that is given. With a data folder and an ESCO release
/// the page says how far each group of skills is covered.
///
/// # Errors
/// Whatever reading the release gives.
pub fn report(
    graph: &GraphFile,
    before: Option<&GraphFile>,
    esco: Option<(&Path, Version)>,
) -> Result<String> {
    let groups = match esco {
        Some((data, version)) => Some(Groups::read(data, version)?),
        None => None,
    };
    let states: Vec<&GraphFile> = before.into_iter().chain([graph]).collect();
    let content = html! {
        p.note {
            (graph.edges.len()) " edges, fingerprint " code { (graph.manifest.fingerprint) } "; "
            @if graph.manifest.checked_against.is_empty() { b { "not checked for test texts" } }
            @else { "found free of " (graph.manifest.checked_against.len()) " test sets" }
            ". " (format!("{:.0} %", graph.manifest.held_out * 100.0)) " of the texts of sources with hold-out are for validation (seed " (graph.manifest.seed) ")."
        }
        (counts(graph))
        (sources(graph))
        (degrees(&states))
        @if let Some(groups) = &groups { (groups.coverage(&states)) }
        @for note in &graph.manifest.enriched { (enrichment(note)) }
        (samples(graph))
    };
    Ok(document(&format!("Graph {}", graph.manifest.name), &content))
}

fn counts(graph: &GraphFile) -> Markup {
    html! {
        h2 { "Edges by source" }
        div.wide { table {
            thead { tr {
                th scope="col" { "source" } th.run scope="col" { "graph" } th.run scope="col" { "part" }
                th.run scope="col" { "provenance" } th scope="col" { "edges" } th scope="col" { "skills" } th scope="col" { "texts" }
            } }
            tbody { @for count in &graph.manifest.counts { tr {
                th scope="row" { (count.source) } td.run { (count.graph) } td.run { (count.part) } td.run { (count.provenance) }
                td { (count.edges) } td { (count.skills) } td { (count.texts) }
            } } }
        } }
    }
}

fn sources(graph: &GraphFile) -> Markup {
    html! {
        h2 { "What was read and left out" }
        div.wide { table {
            thead { tr {
                th scope="col" { "source" } th scope="col" { "read" } th scope="col" { "test texts" }
                th scope="col" { "repeated" } th scope="col" { "unusable" } th.run scope="col" { "licence" }
            } }
            tbody { @for source in &graph.manifest.sources { tr {
                th scope="row" { (source.name) } td { (source.read) } td { (source.left_out_as_test) }
                td { (source.repeated) } td { (source.unusable) } td.run { (source.licence) }
            } } }
        } }
    }
}

/// How many keys have how many partners.
type Spread = BTreeMap<usize, usize>;

/// Number of different `to` texts of each `from`, for training edges of a graph.
fn spread<'a>(graph: &'a GraphFile, kind: Graph, ends: fn(&'a Edge) -> (&'a str, &'a str)) -> Spread {
    let mut partners: HashMap<&str, HashSet<&str>> = HashMap::new();
    for edge in graph.edges.iter().filter(|edge| edge.graph == kind && edge.part == Part::Train) {
        let (from, to) = ends(edge);
        partners.entry(from).or_default().insert(to);
    }
    let mut spread = Spread::new();
    for texts in partners.values() {
        *spread.entry(texts.len()).or_default() += 1;
    }
    spread
}

fn degrees(states: &[&GraphFile]) -> Markup {
    html! {
        h2 { "Degrees" }
        p.note {
            "How many skills have at least so many texts, and how many texts at least so many skills; both axes are logarithmic. Training edges alone."
            @if states.len() > 1 { " " (swatch(0)) "before, " (swatch(1)) "after." }
        }
        div.charts {
            @for (kind, texts, text) in GRAPHS {
                @let of_skills: Vec<_> = states.iter().map(|graph| spread(graph, kind, |edge| (&edge.skill_id, &edge.text))).collect();
                @let of_texts: Vec<_> = states.iter().map(|graph| spread(graph, kind, |edge| (&edge.text, &edge.skill_id))).collect();
                @if of_skills.iter().any(|spread| !spread.is_empty()) {
                    (figure(&format!("Skills by number of {texts}"), "", at_least(&of_skills)))
                    (figure(&format!("{}s by number of skills", capital(text)), "", at_least(&of_texts)))
                }
            }
        }
    }
}

fn capital(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

/// A line a state: number of keys with at least so many partners, on two logarithmic axes.
fn at_least(spreads: &[Spread]) -> String {
    let lines: Vec<Vec<(f64, f64)>> = spreads
        .iter()
        .map(|spread| {
            let mut above = 0;
            let mut line: Vec<(f64, f64)> = Vec::with_capacity(spread.len());
            for (degree, count) in spread.iter().rev() {
                above += count;
                line.push((*degree as f64, f64::from(above as u32)));
            }
            line
        })
        .collect();
    let most = lines.iter().flatten().map(|point| point.0).fold(2.0, f64::max);
    let highest = lines.iter().flatten().map(|point| point.1).fold(2.0, f64::max);
    draw(210, "how many have at least so many, a line for each state", |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(44)
            .build_cartesian_2d((0.9..most * 1.2).log_scale(), (0.9..highest * 1.3).log_scale())?;
        mesh(&mut chart)
            .x_labels(6)
            .x_label_formatter(&|value| format!("{value:.0}"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .draw()?;
        for (state, line) in lines.iter().enumerate() {
            chart.draw_series(LineSeries::new(line.iter().copied(), colour(state).stroke_width(2)))?;
            // A line of one point is nothing to be seen.
            chart.draw_series(
                line.iter().take(1).map(|point| Circle::new(*point, 3, colour(state).filled())),
            )?;
        }
        Ok(())
    })
}

/// The groups of ESCO's skills.
struct Groups {
    /// Skills of each group, by URI.
    skills: BTreeMap<String, Vec<String>>,
}

impl Groups {
    fn read(data: &Path, version: Version) -> Result<Self> {
        let mut skills: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (skill, groups) in Releases::discover(data)?.skill_groups(version, "en")? {
            for group in groups {
                skills.entry(group).or_default().push(skill.clone());
            }
        }
        Ok(Self { skills })
    }

    fn coverage(&self, states: &[&GraphFile]) -> Markup {
        let counts: Vec<Vec<HashMap<&str, usize>>> = states
            .iter()
            .map(|graph| GRAPHS.iter().map(|(kind, ..)| per_skill(graph, *kind)).collect())
            .collect();
        let share = |skills: &[String], counts: &HashMap<&str, usize>, least: usize| {
            let reached =
                skills.iter().filter(|skill| counts.get(&skill[..]).is_some_and(|count| *count >= least));
            reached.count() as f64 / skills.len().max(1) as f64
        };
        let columns = [(0, 1), (0, ENOUGH), (1, 1), (1, ENOUGH), (2, 1)];
        html! {
            h2 { "Groups of ESCO's skills" }
            p.note {
                "Share of the skills of each group that have at least one, or at least " (ENOUGH) ", training texts."
                @if states.len() > 1 { " Small: before." }
            }
            div.wide { table.heat {
                thead { tr {
                    th scope="col" { "group" } th scope="col" { "skills" }
                    @for (kind, least) in columns {
                        th scope="col" {
                            @if least == 1 { "a " (GRAPHS[kind].2) } @else { (least) " " (GRAPHS[kind].1) }
                        }
                    }
                } }
                tbody { @for (group, skills) in &self.skills { tr {
                    th scope="row" { (group) } td { (skills.len()) }
                    @for (kind, least) in columns {
                        @let shares: Vec<f64> = counts.iter().map(|state| share(skills, &state[kind], least)).collect();
                        @let last = shares.last().copied().unwrap_or(0.0);
                        td style=(format!("background:color-mix(in srgb, var(--more) {:.0}%, transparent)", last * 70.0)) {
                            (format!("{:.0} %", last * 100.0))
                            @if shares.len() > 1 { span.interval { (format!("{:.0} %", shares[0] * 100.0)) } }
                        }
                    }
                } } }
            } }
        }
    }
}

/// Number of training texts of each skill.
fn per_skill(graph: &GraphFile, kind: Graph) -> HashMap<&str, usize> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for edge in graph.edges.iter().filter(|edge| edge.graph == kind && edge.part == Part::Train) {
        *counts.entry(&edge.skill_id).or_default() += 1;
    }
    counts
}

fn enrichment(note: &EnrichmentNote) -> Markup {
    let (options, outcome) = (&note.options, &note.outcome);
    let share = |count: usize| format!("{:.1} %", 100.0 * count as f64 / outcome.skills.max(1) as f64);
    html! {
        h2 { "Enrichment of the " (options.graph) " graph by " (options.model) }
        p.note { "Skills with fewer than " (options.minimum) " texts; " (options.texts) " asked for at once; texts that are similar from " (options.similarity) " on become one." }
        div.wide { table { tbody {
            @for (name, count) in [
                ("skills asked about", outcome.skills),
                ("valid at first", outcome.valid_at_first),
                ("valid after retries", outcome.valid_after_retries),
                ("lost", outcome.lost),
                ("not reached by the budget", outcome.not_reached),
            ] {
                tr { th scope="row" { (name) } td { (count) } td { (share(count)) } }
            }
            @for (name, count) in [
                ("texts in valid answers", outcome.texts),
                ("unusable", outcome.unusable),
                ("merged", outcome.merged),
                ("edges added", outcome.added),
            ] {
                tr { th scope="row" { (name) } td { (count) } td {} }
            }
            tr { th scope="row" { "cost: answers" } td { (outcome.answers) } td {} }
            tr { th scope="row" { "cost: tokens" } td { (outcome.tokens) } td {} }
            @for (reason, count) in &outcome.reasons {
                tr { th scope="row" { "lost: " (reason) } td { (count) } td {} }
            }
        } } }
        h3 { "Answers as they are" }
        div.examples { @for sample in &note.samples { (answer(sample)) } }
    }
}

fn answer(sample: &Sample) -> Markup {
    html! {
        div.example {
            p.query { (sample.skill) }
            pre { (sample.answer) }
            p { @if sample.kept.is_empty() { span.absent { "nothing kept" } } @else { "kept: " (sample.kept.join("; ")) } }
        }
    }
}

fn samples(graph: &GraphFile) -> Markup {
    let mut by_source: BTreeMap<(&str, Graph), Vec<&Edge>> = BTreeMap::new();
    for edge in &graph.edges {
        by_source.entry((&edge.source, edge.graph)).or_default().push(edge);
    }
    html! {
        h2 { "Edges to read" }
        @for ((source, kind), edges) in &by_source {
            details {
                summary { (source) ", " (kind) " " span.interval { (edges.len()) } }
                table { tbody { @for edge in evenly(edges, SHOWN) {
                    tr {
                        th scope="row" { (edge.skill) }
                        td.run.text { (edge.text) @if edge.part == Part::Val { " " span.absent { "(held out)" } } @if edge.provenance == Provenance::Synthetic { " " span.absent { "(synthetic)" } } }
                    }
                } } }
            }
        }
    }
}

/// Some items, evenly over all of them: the same ones each time.
pub(crate) fn evenly<T: Copy>(items: &[T], count: usize) -> Vec<T> {
    let count = count.min(items.len());
    (0..count).map(|place| items[place * items.len() / count]).collect()
}
