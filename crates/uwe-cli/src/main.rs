//! The `uwe` command: arguments become a configuration, and that one call into the library.

mod arguments;
#[cfg(feature = "train")]
mod bench;
mod evidence;
#[cfg(feature = "train")]
mod graph;
mod input;
mod model;
mod output;
mod rank;
#[cfg(feature = "serve")]
mod serve;
mod setup;
mod space;
#[cfg(feature = "serve")]
mod traces;
#[cfg(feature = "train")]
mod train;
mod vectors;

use arguments::{Arguments, Command, ModelCommand, SpaceCommand};
use clap::{CommandFactory, Parser};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(if error.chain().any(is_about_arguments) { 2 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Rank(arguments) => rank::rank(arguments),
        Command::Embed(arguments) => vectors::embed(arguments),
        Command::Score(arguments) => rank::score(arguments),
        Command::Space { command: SpaceCommand::Build(arguments) } => space::build(arguments),
        Command::Space { command: SpaceCommand::Info { file, json } } => space::info(file, *json),
        Command::Space { command: SpaceCommand::Verify { file } } => space::verify(file),
        Command::Model { command: ModelCommand::Info { json, model } } => model::info(model, *json),
        Command::Model { command: ModelCommand::Verify { reference, model } } => {
            model::verify(model, reference.as_deref())
        }
        #[cfg(feature = "serve")]
        Command::Serve(arguments) => serve::serve(arguments),
        #[cfg(feature = "train")]
        Command::Bench { command } => bench::bench(command),
        #[cfg(feature = "train")]
        Command::Model { command: ModelCommand::Export(arguments) } => train::export(arguments),
        #[cfg(feature = "train")]
        Command::Train(arguments) => train::train(arguments),
        #[cfg(feature = "train")]
        Command::Graph { command } => graph::graph(command),
        Command::Completions { shell } => {
            // Made in memory first: the generator itself would panic on a broken pipe.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "uwe", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
        Command::Manual => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            Ok(std::io::stdout().write_all(&page)?)
        }
    }
}

type Cause = dyn std::error::Error + 'static;

/// Whether what is wrong is the command line, or a file that is one.
fn is_about_arguments(cause: &Cause) -> bool {
    #[cfg(feature = "train")]
    if matches!(cause.downcast_ref(), Some(workbench::Error::Argument { .. }))
        || matches!(cause.downcast_ref(), Some(uwe_train::Error::Recipe { .. }))
    {
        return true;
    }
    #[cfg(feature = "serve")]
    if matches!(cause.downcast_ref(), Some(uwe_serve::StartError::Config(_))) {
        return true;
    }
    matches!(cause.downcast_ref(), Some(uwe::Error::Argument { .. }))
}

/// What an error says to do next.
fn hint(cause: &Cause) -> Option<String> {
    #[cfg(feature = "train")]
    {
        let bench = cause.downcast_ref::<workbench::Error>().and_then(workbench::Error::hint);
        let train = || cause.downcast_ref::<uwe_train::Error>().and_then(uwe_train::Error::hint);
        if let Some(hint) = bench.or_else(train) {
            return Some(hint);
        }
    }
    #[cfg(feature = "serve")]
    if let Some(uwe_serve::StartError::Config(error)) = cause.downcast_ref() {
        return Some(error.hint.clone());
    }
    cause.downcast_ref::<uwe::Error>().and_then(uwe::Error::hint)
}

/// A reader that has had enough, such as `head`, is no failure.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let csv = cause.downcast_ref::<csv::Error>().and_then(|error| match error.kind() {
            csv::ErrorKind::Io(error) => Some(error.kind()),
            _ => None,
        });
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        [io, csv, json].contains(&Some(std::io::ErrorKind::BrokenPipe))
    })
}

fn report(error: &anyhow::Error) {
    let mut message = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Errors of the library already say what lies below them.
        if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    let hint = error.chain().find_map(hint);
    let mut stderr = anstream::stderr().lock();
    let red = anstyle::AnsiColor::Red.on_default().bold();
    let cyan = anstyle::AnsiColor::Cyan.on_default().bold();
    // Nothing is left to do when standard error is closed.
    let _ = writeln!(stderr, "{red}error:{red:#} {message}");
    if let Some(hint) = hint {
        let _ = writeln!(stderr, "{cyan}hint:{cyan:#} {hint}");
    }
}
