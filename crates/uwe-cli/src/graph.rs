//! `uwe graph`: training graphs, and the check that nothing of a test leaked into one.

use crate::arguments::{EnrichArguments, GraphArgument, GraphCommand, TagArguments};
use crate::output::printable;
use crate::setup::{note, watch_for_interrupt};
use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use uwe::{Ranker, Space};
use uwe_graph::{Endpoint, EnrichOptions, Enrichment, Graph, GraphFile, Recipe, RowColumns, TagOptions};

/// Most findings that are printed one by one.
const SHOWN: usize = 50;

/// Runs a subcommand.
pub(crate) fn graph(command: &GraphCommand) -> Result<()> {
    match command {
        GraphCommand::Build { recipe, data, output } => build(recipe, data, output),
        GraphCommand::Tag(arguments) => tag(arguments),
        GraphCommand::Enrich(arguments) => enrich(arguments),
        GraphCommand::Check { graph, against, json } => check(graph, against, *json),
        GraphCommand::Stats { graph, json } => stats(&GraphFile::read(graph)?, *json),
        GraphCommand::Sample { graph, count, source } => {
            sample(&GraphFile::read(graph)?, *count, source.as_deref())
        }
    }
}

fn build(recipe: &Path, data: &Path, output: &Path) -> Result<()> {
    let recipe = Recipe::read(recipe)?;
    let started = std::time::Instant::now();
    let graph = uwe_graph::build(&recipe, data, &mut |source| {
        note(&format!(
            "{}: {} edges read; left out {} as test texts, {} repeated, {} unusable",
            source.name, source.read, source.left_out_as_test, source.repeated, source.unusable
        ));
    })?;
    graph.write(output)?;
    note(&format!(
        "{}: {} edges, fingerprint {}, in {:.1} s; `uwe graph check` before training",
        output.display(),
        graph.edges.len(),
        graph.manifest.fingerprint,
        started.elapsed().as_secs_f64()
    ));
    stats(&graph, false)
}

fn tag(arguments: &TagArguments) -> Result<()> {
    let encoder = arguments.model.open()?;
    let space = Space::open(&arguments.space)?;
    let ranker = Ranker::new(&encoder, &space, arguments.scoring.resolve())?;
    let stop = watch_for_interrupt()?;
    let columns = RowColumns {
        title: arguments.title_column.clone(),
        description: arguments.description_column.clone(),
    };
    let options = TagOptions { threshold: arguments.threshold, top: arguments.top, shard: arguments.shard };
    let bar = ProgressBar::new_spinner()
        .with_style(ProgressStyle::with_template("{spinner} {human_pos} vacancies, {per_sec}, {elapsed}")?);
    let started = std::time::Instant::now();
    let tagged =
        uwe_graph::tag(&ranker, (&arguments.input, &columns), &options, &arguments.output, &mut |done| {
            bar.set_position(done.rows);
            !stop.load(Ordering::Relaxed)
        });
    bar.finish_and_clear();
    let tagged = match tagged {
        Err(uwe_graph::Error::Interrupted) => {
            bail!("interrupted; whole shards are kept in {}, run again to go on", arguments.output.display())
        }
        other => other?,
    };
    let (rows, seconds) = (tagged.rows - tagged.rows_before, started.elapsed().as_secs_f64());
    note(&format!(
        "{}: {} vacancies, {} of them now in {seconds:.1} s ({:.0} a second); {} title-skill and {} sentence-skill pairs",
        arguments.output.display(),
        tagged.rows,
        rows,
        rows as f64 / seconds,
        tagged.title_pairs,
        tagged.sentence_pairs
    ));
    Ok(())
}

fn enrich(arguments: &EnrichArguments) -> Result<()> {
    let graph = GraphFile::read(&arguments.graph)?;
    let options = EnrichOptions {
        graph: match arguments.kind {
            GraphArgument::Job => Graph::Job,
            GraphArgument::Sentence => Graph::Sentence,
            GraphArgument::Alternative => Graph::Alternative,
        },
        minimum: arguments.minimum,
        model: arguments.llm.clone(),
        texts: arguments.texts,
        skills: arguments.skills,
        requests: arguments.max_requests,
        tokens: arguments.max_tokens_spent,
        workers: arguments.workers,
        similarity: arguments.similarity,
        ..EnrichOptions::default()
    };
    let data = (arguments.data.as_path(), arguments.esco.as_str());
    let enrichment = Enrichment::new(&graph, data, &arguments.cache, options)?;
    let plan = enrichment.plan();
    note(&format!(
        "{} skills have fewer than {} texts; {} are asked about, {} answers are in the cache; about {} tokens in all",
        plan.thin, arguments.minimum, plan.asked, plan.cached, plan.tokens
    ));
    if arguments.dry_run {
        return Ok(());
    }
    let encoder = arguments.model.open()?;
    let endpoint = Endpoint {
        base_url: arguments.base_url.clone(),
        key_variable: arguments.key_variable.clone(),
        timeout_seconds: arguments.timeout,
        requests_a_minute: arguments.requests_a_minute,
        ..Endpoint::default()
    };
    let stop = watch_for_interrupt()?;
    let bar = ProgressBar::new(plan.asked as u64).with_style(
        ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} skills, {per_sec}, {eta} left")?
            .progress_chars("█▌ "),
    );
    let enriched = enrichment.run(&endpoint, &encoder, &|done| {
        bar.set_position(done as u64);
        !stop.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let (enriched, outcome) = match enriched {
        Err(uwe_graph::Error::Interrupted) => {
            bail!("interrupted; every answer is kept in {}, run again to go on", arguments.cache.display())
        }
        other => other?,
    };
    enriched.write(&arguments.output)?;
    writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&outcome)?)?;
    note(&format!(
        "{}: {} edges, {} of them new",
        arguments.output.display(),
        enriched.edges.len(),
        outcome.added
    ));
    Ok(())
}

fn stats(graph: &GraphFile, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&graph.manifest)?)?;
        return Ok(());
    }
    writeln!(
        out,
        "{:<20} {:<12} {:<6} {:<10} {:>8} {:>8} {:>8}",
        "source", "graph", "part", "provenance", "edges", "skills", "texts"
    )?;
    for count in &graph.manifest.counts {
        writeln!(
            out,
            "{:<20} {:<12} {:<6} {:<10} {:>8} {:>8} {:>8}",
            count.source,
            count.graph.to_string(),
            count.part.to_string(),
            count.provenance.to_string(),
            count.edges,
            count.skills,
            count.texts
        )?;
    }
    Ok(())
}

fn sample(graph: &GraphFile, count: usize, source: Option<&str>) -> Result<()> {
    let edges: Vec<_> =
        graph.edges.iter().filter(|edge| source.is_none_or(|source| edge.source == source)).collect();
    if edges.is_empty() {
        bail!("the graph has no edge of that source; `uwe graph stats` lists them");
    }
    let mut out = std::io::stdout().lock();
    // Evenly over the graph: the same ones each time.
    for place in 0..count.min(edges.len()) {
        let edge = edges[place * edges.len() / count.min(edges.len())];
        let (skill, text) = (printable(&edge.skill), printable(&edge.text));
        writeln!(out, "{}\t{}\t{}\t{skill}\t{text}", edge.source, edge.graph, edge.part)?;
    }
    Ok(())
}

fn check(folder: &Path, against: &Path, json: bool) -> Result<()> {
    let mut graph = GraphFile::read(folder)?;
    let check = uwe_graph::check(&graph.edges, against)?;
    if check.sets.is_empty() {
        bail!(
            "{} gives no test set to check against; `uwe bench list` says what is missing",
            against.display()
        );
    }
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&check)?)?;
    } else {
        for finding in check.findings.iter().take(SHOWN) {
            let edge = &graph.edges[finding.edge];
            writeln!(
                out,
                "edge {} ({}, {}): `{}` - `{}`: {} of {}: `{}`",
                finding.edge,
                edge.source,
                edge.graph,
                printable(&edge.skill),
                printable(&edge.text),
                finding.kind,
                finding.set,
                printable(&finding.query)
            )?;
        }
        if check.findings.len() > SHOWN {
            writeln!(out, "and {} more", check.findings.len() - SHOWN)?;
        }
    }
    // A graph that failed loses what an earlier check had noted.
    graph.manifest.checked_against = if check.passed() { check.sets.clone() } else { Default::default() };
    graph.manifest.not_checked_against = check.missing.clone();
    graph.write_manifest(folder)?;
    if !check.missing.is_empty() {
        note(&format!("not compared, since the data folder lacks them: {}", check.missing.join(", ")));
    }
    if !check.passed() {
        bail!("{} of {} edges leak", check.findings.len(), graph.edges.len());
    }
    note(&format!("{} edges compared with {} test sets: nothing leaks", graph.edges.len(), check.sets.len()));
    Ok(())
}
