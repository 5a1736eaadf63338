//! `uwe bench`: the benchmark, from raw files to reports.

use crate::arguments::{
    BenchCommand, BenchCompareArguments, BenchData, BenchExportArguments, BenchExportFormat,
    BenchReportArguments, BenchRunArguments, BenchSystem, SplitArgument,
};
use crate::setup::{cache_folder, note, watch_for_interrupt};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use uwe::{Encoder, Scoring};
use workbench::{
    Catalogue, CatalogueOptions, Direction, EncoderSystem, Entry, ExportFormat, GivenScores, Lexical,
    LexicalSystem, Results, Run, RunOptions, Split, System,
};

/// Runs a subcommand.
pub(crate) fn bench(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::List { data, json } => list(data, *json),
        BenchCommand::Verify { data, against } => verify(data, against),
        BenchCommand::Run(arguments) => run(arguments),
        BenchCommand::Report(arguments) => report(arguments),
        BenchCommand::Compare(arguments) => compare(arguments),
        BenchCommand::Export(arguments) => export(arguments),
    }
}

fn open(data: &BenchData) -> Result<Catalogue> {
    let options = CatalogueOptions { language: data.language.clone(), esco: data.esco.clone() };
    let mut catalogue = Catalogue::open(&data.data, options)?;
    for path in &data.set {
        catalogue.add(path)?;
    }
    Ok(catalogue)
}

fn list(data: &BenchData, json: bool) -> Result<()> {
    let catalogue = open(data)?;
    let mut out = std::io::stdout().lock();
    for entry in catalogue.entries() {
        let identity = &entry.identity;
        if json {
            let mut line = serde_json::to_value(identity)?;
            line["missing"] = entry.missing.clone().into();
            writeln!(out, "{line}")?;
            continue;
        }
        let counts = if identity.in_average { "counts" } else { "" };
        let state = if entry.is_ready() { "ready" } else { "missing" };
        writeln!(out, "{:<8} {:<7} {:<24} {}", state, counts, identity.task.title(), identity.key())?;
        for missing in &entry.missing {
            writeln!(out, "         needs {missing}")?;
        }
    }
    Ok(())
}

fn verify(data: &BenchData, against: &Path) -> Result<()> {
    let catalogue = open(data)?;
    let verdicts = workbench::verify(&catalogue, against)?;
    let mut out = std::io::stdout().lock();
    for verdict in &verdicts {
        let (queries, targets) = verdict.size;
        let outcome = verdict.problem.as_deref().unwrap_or("equal");
        writeln!(out, "{:<40} {queries:>6} x {targets:<6} {outcome}", verdict.key)?;
    }
    let wrong = verdicts.iter().filter(|verdict| verdict.problem.is_some()).count();
    if wrong > 0 || verdicts.is_empty() {
        bail!("{wrong} of {} sets differ", verdicts.len());
    }
    Ok(())
}

/// Whether a key such as `jobnorm.test.en` fits a pattern in which `*` stands for anything.
fn fits(pattern: &str, key: &str) -> bool {
    match pattern.split_once('*') {
        None => key == pattern || key.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.')),
        Some((start, rest)) => key.strip_prefix(start).is_some_and(|key| {
            rest.is_empty() || (0..=key.len()).any(|at| key.is_char_boundary(at) && fits(rest, &key[at..]))
        }),
    }
}

/// The sets to measure, and those that would belong to them but are missing.
fn choose<'a>(
    catalogue: &'a Catalogue,
    arguments: &BenchRunArguments,
) -> Result<(Vec<&'a Entry>, Vec<&'a Entry>)> {
    let wanted = |entry: &&Entry| {
        let identity = &entry.identity;
        let split = match arguments.split {
            // Patterns name sets of any split, unless one is asked for.
            None if !arguments.only.is_empty() => true,
            None | Some(SplitArgument::Test) => identity.split == Split::Test,
            Some(SplitArgument::Val) => identity.split == Split::Validation,
            Some(SplitArgument::Both) => identity.split != Split::Train,
        };
        if !arguments.only.is_empty() {
            return split && arguments.only.iter().any(|pattern| fits(pattern, &identity.key()));
        }
        let extra =
            ["skillextract-skillskape", "skillsim-proxy"].iter().any(|name| identity.name.starts_with(name));
        let given = identity.task == workbench::Task::Other;
        split && (identity.in_average || extra || given || arguments.all)
    };
    let (ready, missing): (Vec<&Entry>, Vec<&Entry>) =
        catalogue.entries().iter().filter(wanted).partition(|entry| entry.is_ready());
    if ready.is_empty() {
        bail!("no set to measure: `uwe bench list` says which there are, and what the others need");
    }
    Ok((ready, missing))
}

fn run(arguments: &BenchRunArguments) -> Result<()> {
    let catalogue = open(&arguments.data)?;
    let (ready, missing) = choose(&catalogue, arguments)?;
    for entry in missing {
        note(&format!("{} is not measured: it needs {}", entry.identity.key(), entry.missing.join("; ")));
    }
    let options = RunOptions {
        depth: arguments.depth,
        seed: arguments.seed,
        language: arguments.data.language.clone(),
        esco: arguments.data.esco.clone(),
        sample: arguments.sample,
        ..RunOptions::default()
    };
    arguments.scoring.resolve(Scoring::default())?;
    if arguments.scores.is_some() && !matches!(arguments.system, BenchSystem::Given) {
        bail!("--scores goes with --system given alone");
    }
    let encoder: Option<Encoder> = match arguments.system {
        BenchSystem::Encoder => Some(arguments.model.open()?),
        _ => None,
    };
    let lexical = |lexical| LexicalSystem { lexical, seed: arguments.seed };
    let system: Box<dyn System + '_> = match (arguments.system, &encoder) {
        (BenchSystem::Encoder, Some(encoder)) => Box::new(EncoderSystem {
            encoder,
            scoring: arguments.scoring.resolve(encoder.scoring())?,
            queries: arguments.keep_queries.clone(),
            direction: if arguments.reverse { Direction::Reverse } else { Direction::Forward },
            spaces: arguments
                .spaces
                .clone()
                .or_else(|| cache_folder().map(|folder| folder.join("bench")))
                .context("no folder for target spaces: name one with --spaces")?,
        }),
        (BenchSystem::Given, _) => Box::new(GivenScores::open(
            arguments.scores.as_deref().context("--system given needs --scores DIR")?,
        )?),
        (BenchSystem::Bm25, _) => Box::new(lexical(Lexical::Bm25)),
        (BenchSystem::TfidfWords, _) => Box::new(lexical(Lexical::TfIdfWords)),
        (BenchSystem::TfidfCharacters, _) => Box::new(lexical(Lexical::TfIdfCharacters)),
        (BenchSystem::EditDistance, _) => Box::new(lexical(Lexical::EditDistance)),
        _ => Box::new(lexical(Lexical::Random)),
    };
    let run = Run::begin(&arguments.output, system.description(), options)?;
    let stop = watch_for_interrupt()?;
    let count = ready.len();
    for (index, entry) in ready.into_iter().enumerate() {
        let mut set = match catalogue.load(entry) {
            // One set that is empty stops no other.
            Err(error @ workbench::Error::Set { .. }) => {
                note(&format!("{error}; it is not measured"));
                continue;
            }
            other => other?,
        };
        if let Some(queries) = arguments.sample {
            set = set.sample(queries, arguments.seed);
        }
        let known = run.done(&set)?.is_some();
        let bar = ProgressBar::new(0).with_style(
            ProgressStyle::with_template(
                "{prefix} {bar:24} {human_pos}/{human_len} {msg}, {per_sec}, {eta} left",
            )?
            .progress_chars("█▌ "),
        );
        bar.set_prefix(format!("{}/{count} {}", index + 1, set.identity.key()));
        let mut stage = None;
        let result = run.measure(&*system, &set, &mut |progress| {
            if stage != Some(progress.targets) {
                stage = Some(progress.targets);
                bar.reset();
                bar.set_message(if progress.targets { "targets" } else { "queries" });
            }
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            !stop.load(Ordering::Relaxed)
        });
        bar.finish_and_clear();
        let result = match result {
            Err(workbench::Error::Interrupted | workbench::Error::Engine(uwe::Error::Interrupted)) => {
                run.finish()?;
                bail!(
                    "interrupted; what was measured is kept in {}, run again to go on",
                    arguments.output.display()
                );
            }
            other => other?,
        };
        let value = |metric: &str| result.metric(metric).map_or(0.0, |interval| interval.mean * 100.0);
        note(&format!(
            "{:<36} MAP {:6.2}  RP@10 {:6.2}  MRR {:6.2}{}",
            set.identity.key(),
            value("map"),
            value("rp@10"),
            value("mrr"),
            if known { "  (measured before)" } else { "" }
        ));
        if result.truncated_queries + result.truncated_targets > 0 {
            note(&format!(
                "{} queries and {} targets were cut at the token limit; --max-tokens sets it",
                result.truncated_queries, result.truncated_targets
            ));
        }
    }
    let results = run.finish()?;
    print_table(&results)
}

/// The table of a run on standard output.
fn print_table(results: &Results) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let names = ["map", "rp@10", "mrr"];
    writeln!(out, "{:<38} {:>20} {:>8} {:>8}", results.system.name, "MAP (95 %)", "RP@10", "MRR")?;
    for set in &results.sets {
        let [map, rp, mrr] = names.map(|name| set.metric(name));
        let line = format!("{:<38}", set.identity.key());
        write_row(&mut out, &line, [map, rp, mrr])?;
    }
    for average in &results.averages {
        let line = format!("macro average, {}, {} tasks of 6", average.split, average.tasks.len());
        write_row(&mut out, &format!("{line:<38}"), names.map(|name| average.metric(name)))?;
        if !average.not_measured.is_empty() {
            let missing: Vec<&str> = average.not_measured.iter().map(|task| task.title()).collect();
            writeln!(out, "  not measured: {}", missing.join(", "))?;
        }
    }
    Ok(())
}

fn write_row(out: &mut impl Write, name: &str, values: [Option<workbench::Interval>; 3]) -> Result<()> {
    let [map, rp, mrr] =
        values.map(|value| value.unwrap_or(workbench::Interval { mean: 0.0, low: 0.0, high: 0.0 }));
    let spread = format!("{:.2} ({:.1}-{:.1})", map.mean * 100.0, map.low * 100.0, map.high * 100.0);
    Ok(writeln!(out, "{name} {spread:>20} {:>8.2} {:>8.2}", rp.mean * 100.0, mrr.mean * 100.0)?)
}

fn open_runs(folders: &[std::path::PathBuf]) -> Result<Vec<Run>> {
    Ok(folders.iter().map(|folder| Run::open(folder)).collect::<workbench::Result<_>>()?)
}

fn report(arguments: &BenchReportArguments) -> Result<()> {
    let runs = open_runs(&arguments.runs)?;
    let report = workbench::report(&runs)?;
    std::fs::create_dir_all(&arguments.output)
        .with_context(|| format!("cannot create {}", arguments.output.display()))?;
    for (name, content) in [("report.html", report.html), ("report.md", report.markdown)] {
        let path = arguments.output.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        note(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn compare(arguments: &BenchCompareArguments) -> Result<()> {
    let (first, second) = (Run::open(&arguments.first)?, Run::open(&arguments.second)?);
    let comparison = first.compare(&second, &arguments.metric)?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&comparison)?)?;
        return Ok(());
    }
    writeln!(out, "{} of {} -> {}", comparison.metric, comparison.first.name, comparison.second.name)?;
    writeln!(
        out,
        "{:<38} {:>7} {:>7} {:>24} {:>8} {:>20}",
        "set", "first", "second", "difference (95 %)", "p", "better/equal/worse"
    )?;
    for set in &comparison.sets {
        let interval = set.difference.interval;
        let spread = format!(
            "{:+.2} ({:+.2} {:+.2})",
            interval.mean * 100.0,
            interval.low * 100.0,
            interval.high * 100.0
        );
        let [better, equal, worse] = set.difference.better_equal_worse;
        writeln!(
            out,
            "{:<38} {:>7.2} {:>7.2} {spread:>24} {:>8.4} {:>20}",
            set.identity.key(),
            set.first * 100.0,
            set.second * 100.0,
            set.difference.p_value,
            format!("{better}/{equal}/{worse}")
        )?;
    }
    Ok(())
}

fn export(arguments: &BenchExportArguments) -> Result<()> {
    let run = Run::open(&arguments.run)?;
    let format = match arguments.format {
        BenchExportFormat::Trec => ExportFormat::Trec,
        BenchExportFormat::Mteb => ExportFormat::Mteb,
        BenchExportFormat::Csv => ExportFormat::Csv,
    };
    for path in workbench::export(&run, format, &arguments.output)? {
        note(&format!("wrote {}", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns_name_sets() {
        for (pattern, fitting) in [
            ("jobnorm", true),
            ("jobnorm.test", true),
            ("jobnorm.test.en", true),
            ("jobnorm.val", false),
            ("job", false),
            ("job*", true),
            ("*.test.*", true),
            ("*", true),
            ("*.val.*", false),
        ] {
            assert_eq!(fits(pattern, "jobnorm.test.en"), fitting, "{pattern}");
        }
    }
}
