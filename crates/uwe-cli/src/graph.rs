//! `uwe graph`: training graphs, and the check that nothing of a test leaked into one.

use crate::arguments::{
    EndpointArguments, EnrichArguments, FormArgument, GraphArgument, GraphBuildArguments, GraphCommand,
    TagArguments,
};
use crate::output::printable;
use crate::setup::{note, watch_for_interrupt};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use uwe::{Encoder, Ranker, Space};
use uwe_graph::{
    AnswerForm, Endpoint, EnrichOptions, Enriched, Enrichment, Graph, GraphFile, Recipe, RowColumns,
    TagOptions,
};

/// Most findings that are printed one by one.
const SHOWN: usize = 50;

/// Runs a subcommand.
pub(crate) fn graph(command: &GraphCommand) -> Result<()> {
    match command {
        GraphCommand::Build(arguments) => build(arguments),
        GraphCommand::Tag(arguments) => tag(arguments),
        GraphCommand::Enrich(arguments) => enrich(arguments),
        GraphCommand::Merge { graphs, output, name } => merge(graphs, output, name),
        GraphCommand::Report { graph, before, data, esco, output } => {
            report(graph, before.as_deref(), data.as_deref().map(|data| (data, &esco[..])), output)
        }
        GraphCommand::Check { graph, against, json } => check(graph, against, *json),
        GraphCommand::Stats { graph, json } => stats(&GraphFile::read(graph)?, *json),
        GraphCommand::Sample { graph, count, source } => {
            sample(&GraphFile::read(graph)?, *count, source.as_deref())
        }
    }
}

fn build(arguments: &GraphBuildArguments) -> Result<()> {
    let recipe = Recipe::read(&arguments.recipe)?;
    let (data, output) = (arguments.data.as_path(), arguments.output.as_path());
    let work = arguments.work.clone().unwrap_or_else(|| {
        let mut name = output.as_os_str().to_owned();
        name.push(".work");
        name.into()
    });
    let started = std::time::Instant::now();
    let encoder = if recipe.needs_encoder() { Some(arguments.model.open()?) } else { None };
    let stop = watch_for_interrupt()?;
    if let Some(encoder) = &encoder {
        let bar = tag_bar()?;
        let tagged = uwe_graph::tag_sources(&recipe, (data, &work), encoder, &mut |source, done| {
            bar.set_message(source.to_string());
            bar.set_position(done.rows);
            !stop.load(Ordering::Relaxed)
        });
        bar.finish_and_clear();
        resumable(tagged, &work)?;
    }
    let mut graph = uwe_graph::build(&recipe, (data, &work), &mut |source| {
        note(&format!(
            "{}: {} edges read; left out {} as test texts, {} repeated, {} unusable",
            source.name, source.read, source.left_out_as_test, source.repeated, source.unusable
        ));
    })?;
    for options in &recipe.enrichments {
        let Some(encoder) = &encoder else { continue };
        let cache = work.join("answers");
        let enrichment = Enrichment::new(&graph, (data, &recipe.esco), &cache, options.clone())?;
        let enriched = run_enrichment(&enrichment, &arguments.endpoint.resolve(), encoder, &|| {
            stop.load(Ordering::Relaxed)
        })?;
        graph = resumable(enriched, &work)?.graph;
    }
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

/// What an interrupted step has left is kept.
fn resumable<T>(result: uwe_graph::Result<T>, place: &Path) -> Result<T> {
    match result {
        Err(uwe_graph::Error::Interrupted) => {
            bail!("interrupted; what is done is kept in {}, run again to go on", place.display())
        }
        other => Ok(other?),
    }
}

fn tag_bar() -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{spinner} {msg} {human_pos} vacancies, {per_sec}, {elapsed}")?;
    Ok(ProgressBar::new_spinner().with_style(style))
}

impl EndpointArguments {
    fn resolve(&self) -> Endpoint {
        Endpoint {
            base_url: self.base_url.clone(),
            key_variable: self.key_variable.clone(),
            timeout_seconds: self.timeout,
            requests_a_minute: self.requests_a_minute,
            ..Endpoint::default()
        }
    }
}

/// Runs an enrichment with a progress bar. The outer error is the bar's.
fn run_enrichment(
    enrichment: &Enrichment<'_>,
    endpoint: &Endpoint,
    encoder: &Encoder,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<uwe_graph::Result<Enriched>> {
    let bar = ProgressBar::new(enrichment.plan().asked as u64).with_style(
        ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} skills, {per_sec}, {eta} left")?
            .progress_chars("█▌ "),
    );
    let enriched = enrichment.run(endpoint, encoder, &|done| {
        bar.set_position(done as u64);
        !stop()
    });
    bar.finish_and_clear();
    if let Some(note_of) = enriched.as_ref().ok().and_then(Enriched::note) {
        let outcome = &note_of.outcome;
        note(&format!(
            "{} skills: {} answers valid at first, {} after retries, {} lost, {} not reached; {} texts, {} unusable, {} merged, {} edges added",
            outcome.skills,
            outcome.valid_at_first,
            outcome.valid_after_retries,
            outcome.lost,
            outcome.not_reached,
            outcome.texts,
            outcome.unusable,
            outcome.merged,
            outcome.added
        ));
    }
    Ok(enriched)
}

fn merge(folders: &[PathBuf], output: &Path, name: &str) -> Result<()> {
    let graphs =
        folders.iter().map(|folder| GraphFile::read(folder)).collect::<uwe_graph::Result<Vec<_>>>()?;
    let merged = uwe_graph::merge(name, graphs)?;
    merged.write(output)?;
    note(&format!("{}: {} edges; `uwe graph check` before training", output.display(), merged.edges.len()));
    stats(&merged, false)
}

fn report(folder: &Path, before: Option<&Path>, esco: Option<(&Path, &str)>, output: &Path) -> Result<()> {
    let graph = GraphFile::read(folder)?;
    let before = before.map(GraphFile::read).transpose()?;
    let esco = match esco {
        None => None,
        Some((data, release)) => match release.parse() {
            Ok(version) => Some((data, version)),
            Err(()) => bail!("--esco: `{release}` is no ESCO release; write it as 1.2.0"),
        },
    };
    let page = uwe_graph::report(&graph, before.as_ref(), esco)?;
    std::fs::write(output, page).with_context(|| format!("cannot write {}", output.display()))?;
    note(&format!("wrote {}", output.display()));
    Ok(())
}

fn tag(arguments: &TagArguments) -> Result<()> {
    let encoder = arguments.model.open()?;
    let space = Space::open(&arguments.space)?;
    let ranker = Ranker::new(&encoder, &space, arguments.scoring.resolve(encoder.scoring())?)?;
    let stop = watch_for_interrupt()?;
    let columns = RowColumns {
        title: arguments.title_column.clone(),
        description: arguments.description_column.clone(),
    };
    let options = TagOptions { threshold: arguments.threshold, top: arguments.top, shard: arguments.shard };
    let bar = tag_bar()?;
    let started = std::time::Instant::now();
    let tagged =
        uwe_graph::tag(&ranker, (&arguments.input, &columns), &options, &arguments.output, &mut |done| {
            bar.set_position(done.rows);
            !stop.load(Ordering::Relaxed)
        });
    bar.finish_and_clear();
    let tagged = resumable(tagged, &arguments.output)?;
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
        answer_tokens: arguments.answer_tokens,
        form: match arguments.form {
            FormArgument::Schema => AnswerForm::Schema,
            FormArgument::Object => AnswerForm::Object,
            FormArgument::Prompt => AnswerForm::Prompt,
        },
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
    let stop = watch_for_interrupt()?;
    let enriched = run_enrichment(&enrichment, &arguments.endpoint.resolve(), &encoder, &|| {
        stop.load(Ordering::Relaxed)
    })?;
    let enriched = resumable(enriched, &arguments.cache)?;
    enriched.graph.write(&arguments.output)?;
    if let Some(made) = enriched.note() {
        writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(&made.outcome)?)?;
    }
    note(&format!(
        "{}: {} edges; {} requests were sent now",
        arguments.output.display(),
        enriched.graph.edges.len(),
        enriched.requests
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
