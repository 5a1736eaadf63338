//! `uwe train`: from an encoder and a graph to a model that serves; and `uwe model export`.

use crate::arguments::{
    ExportArguments, NumberTypeArgument, TrainArguments, TrainCommand, TrainMachine, TrainStart,
};
use crate::setup::{default_model, note, watch_for_interrupt};
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use uwe::ModelFolder;
use uwe_train::{Event, Inputs, Machine, Network, NumberType, Parameters, Recipe, Threads, Training};

/// Runs a subcommand, or begins a training.
pub(crate) fn train(arguments: &TrainArguments) -> Result<()> {
    match &arguments.command {
        Some(TrainCommand::Resume { run, machine: place }) => {
            let training = Training::resume(run, machine(place)?)?;
            note(&format!("going on at step {} of {}", training.state().step, training.recipe().steps));
            finish(run, training)
        }
        Some(TrainCommand::Report { run, output }) => {
            let page = uwe_train::report(run)?;
            let output = output.clone().unwrap_or_else(|| run.join("report.html"));
            std::fs::write(&output, page).with_context(|| format!("cannot write {}", output.display()))?;
            note(&format!("wrote {}", output.display()));
            Ok(())
        }
        None => begin(&arguments.start),
    }
}

fn begin(start: &TrainStart) -> Result<()> {
    let (Some(recipe), Some(graph), Some(output)) = (&start.recipe, &start.graph, &start.output) else {
        bail!("a training needs a recipe, --graph and --output");
    };
    let recipe = Recipe::read(recipe)?;
    let inputs = Inputs {
        model: match &start.model {
            Some(model) => model.clone(),
            None => default_model()?,
        },
        graph: graph.clone(),
        data: start.data.clone().map(|data| (data, start.esco.clone())),
        unchecked: start.allow_unchecked,
    };
    let training = Training::begin(output, recipe, inputs, machine(&start.machine)?)?;
    finish(output, training)
}

/// Where a training runs.
fn machine(arguments: &TrainMachine) -> Result<Machine> {
    let threads = Threads::new(arguments.threads)?;
    Ok(match &arguments.device {
        Some(device) => Machine::with_device(threads, device, arguments.mixed_precision)?,
        None => threads.into(),
    })
}

fn finish(run: &Path, mut training: Training) -> Result<()> {
    let stop = watch_for_interrupt()?;
    let bar = ProgressBar::new(training.recipe().steps).with_position(training.state().step).with_style(
        ProgressStyle::with_template("{bar:20} {pos}/{len} steps, {eta} left  {msg}")?.progress_chars("█▌ "),
    );
    let summary = training.run(&mut |event| {
        match event {
            Event::Step(step) => {
                let graphs: Vec<String> =
                    step.graphs.iter().map(|(graph, loss)| format!("{graph} {loss:.3}")).collect();
                bar.set_message(format!(
                    "loss {:.3} ({})  rate {:.1e}  gradient {:.2}  {:.0} texts/s",
                    step.loss,
                    graphs.join(", "),
                    step.learning_rate,
                    step.gradient_norm,
                    step.texts as f64 / step.seconds
                ));
                bar.set_position(step.step + 1);
            }
            Event::Validation(validation) => {
                let sets: Vec<String> = validation
                    .scored
                    .sets
                    .iter()
                    .map(|(set, map)| format!("{set} {:.2}", map * 100.0))
                    .collect();
                bar.suspend(|| {
                    note(&format!(
                        "after step {}: MAP {:.2} ({})",
                        validation.validated,
                        validation.scored.mean * 100.0,
                        sets.join(", ")
                    ));
                });
            }
        }
        !stop.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let summary = match summary {
        Err(uwe_train::Error::Interrupted) => {
            bail!(
                "interrupted; `uwe train resume {}` goes on at step {}",
                run.display(),
                training.state().step
            )
        }
        other => other?,
    };
    if summary.stopped_early {
        note("stopped early: validation got no better");
    }
    let mut out = std::io::stdout().lock();
    match summary.best {
        Some((mean, step)) => {
            writeln!(
                out,
                "best\t{}\tafter step {step}, validation MAP {:.2}",
                run.join("best").display(),
                mean * 100.0
            )?;
        }
        None => writeln!(out, "last\t{}", run.join("last").display())?,
    }
    Ok(())
}

/// Writes a model folder in another number type, as the mean of several, or with another scorer as its own.
pub(crate) fn export(arguments: &ExportArguments) -> Result<()> {
    let Some((model, others)) = arguments.models.split_first() else { bail!("name a model folder") };
    let folder = ModelFolder::open(model)?;
    let mut parameters = Parameters::read(&folder.weights, &Network::order(&folder.config))?;
    let number_type = match arguments.numbers {
        NumberTypeArgument::F32 => NumberType::F32,
        NumberTypeArgument::F16 => NumberType::F16,
    };
    if arguments.models.iter().any(|model| same(model, &arguments.output)) {
        bail!("--output is the model itself; name another folder");
    }
    let own = folder.scoring.unwrap_or_default();
    let scoring = arguments.scoring.is_given().then(|| arguments.scoring.resolve(own)).transpose()?;
    let mut weights = Vec::with_capacity(others.len());
    for other in others {
        let other_folder = ModelFolder::open(other)?;
        let tokens = |folder: &ModelFolder| std::fs::read(&folder.tokenizer);
        if other_folder.pooling != folder.pooling || tokens(&other_folder)? != tokens(&folder)? {
            bail!(
                "{} has another pooling or tokenizer than {}\nhint: only models that differ in their training alone have a mean",
                other.display(),
                model.display()
            );
        }
        if scoring.is_none() && other_folder.scoring != folder.scoring {
            bail!(
                "{} has another scorer than {}\nhint: name the mean's own, for example --scorer soft --axis both --temperature 8",
                other.display(),
                model.display()
            );
        }
        weights.push(other_folder.weights);
    }
    if !weights.is_empty() {
        parameters.average_with(&weights)?;
    }
    uwe_train::export(model, &parameters, number_type, scoring.as_ref(), &arguments.output)?;
    note(&format!("wrote {}", arguments.output.display()));
    Ok(())
}

fn same(a: &Path, b: &Path) -> bool {
    let whole = |path: &Path| -> Option<PathBuf> { path.canonicalize().ok() };
    whole(a).is_some() && whole(a) == whole(b)
}
