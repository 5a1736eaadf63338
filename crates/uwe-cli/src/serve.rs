//! `uwe serve`: from flags, environment and file to a service that runs until it is told to stop.

use crate::arguments::{LogFormat, ServeArguments};
use crate::setup::{note, starter_space};
use crate::traces;
use anyhow::{Context, Result, bail};
use std::io::Write;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use uwe::Space;
use uwe_serve::{Config, Keys, Service, StartError};

/// Name of the built-in space.
const STARTER: &str = "starter";

/// Serves, or prints what would be served.
pub(crate) fn serve(arguments: &ServeArguments) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if arguments.openapi {
        return Ok(writeln!(out, "{}", uwe_serve::document())?);
    }
    let config = configuration(arguments)?;
    if arguments.print_config {
        return Ok(write!(out, "{}", toml::to_string(&config)?)?);
    }
    drop(out);
    let keys = keys(&config)?;
    // Before a model is loaded.
    config.check(keys.len()).map_err(StartError::Config)?;
    let traces = log(arguments.log_format)?;
    let spaces = arguments.space.iter().map(|space| open(space)).collect::<Result<Vec<_>>>()?;
    let encoder = arguments.model.open()?;
    for (_, space) in &spaces {
        space.fits(&encoder)?;
    }
    let starter = starter_space(&encoder)?;
    let workers = arguments.workers.unwrap_or(1);
    let listen = config.listen;
    let service = Service::start(encoder, (config, keys), workers)?;
    for (name, space) in spaces {
        if !service.add_space(&name, space) {
            note(&format!(
                "the data folder has a space `{name}`, which is served instead of that of --space"
            ));
        }
    }
    service.add_space(STARTER, starter);
    // Connections need little: one thread more would take turns with the workers on their cores.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(cores.div_ceil(2)).enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(async {
        let listener =
            TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
        note(&format!("serving on http://{}; Ctrl-C ends it", listener.local_addr()?));
        service
            .run(listener, async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            })
            .await;
        Ok::<(), anyhow::Error>(())
    })?;
    // The last requests' spans are still on their way.
    traces.end();
    Ok(())
}

/// Flags before the environment, that before the file, that before the defaults.
fn configuration(arguments: &ServeArguments) -> Result<Config> {
    let mut config = match &arguments.config {
        None => Config::default(),
        Some(file) => {
            let text =
                std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            Config::parse(&text).map_err(|mut error| {
                error.problem = format!("{}: {}", file.display(), error.problem);
                StartError::Config(error)
            })?
        }
    };
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.allow_open |= arguments.allow_open;
    if let Some(data) = &arguments.data {
        config.data.clone_from(data);
    }
    if arguments.keys.is_some() {
        config.keys.clone_from(&arguments.keys);
    }
    Ok(config)
}

/// Keys of the file and of the environment.
fn keys(config: &Config) -> Result<Keys> {
    let mut lines = String::new();
    if let Some(file) = &config.keys {
        lines = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        if let Err(problem) = Keys::parse(&lines) {
            bail!(
                "{}, {problem}\nhint: a line is a key, and `read` behind it where it may not change spaces",
                file.display()
            );
        }
        lines.push('\n');
    }
    if let Ok(given) = std::env::var("UWE_KEYS") {
        lines += &given.replace(',', "\n");
    }
    Keys::parse(&lines).map_err(|problem| anyhow::anyhow!("UWE_KEYS, {problem}"))
}

/// `NAME=FILE`, opened.
fn open(space: &str) -> Result<(String, Space)> {
    let Some((name, file)) = space.split_once('=') else {
        bail!("--space {space} is no NAME=FILE\nhint: write --space esco=esco.space");
    };
    if !uwe_serve::is_space_name(name) {
        bail!("--space {space}: {}\nhint: write --space esco={file}", uwe_serve::SPACE_NAMES);
    }
    Ok((name.to_string(), Space::open(file.as_ref())?))
}

/// The log goes to standard error; UWE_LOG says what of it (`info`, `uwe_serve=debug`, ...). What is returned is to be ended last.
fn log(format: LogFormat) -> Result<traces::Traces> {
    let filter = EnvFilter::try_from_env("UWE_LOG").unwrap_or_else(|_| EnvFilter::new("warn,uwe_serve=info"));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = match format {
        LogFormat::Text => log.boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let (exporter, traces) = traces::exporter()?;
    let begun = tracing_subscriber::registry().with(filter).with(log).with(exporter).try_init();
    begun.map_err(|error| anyhow::anyhow!("cannot begin the log: {error}"))?;
    Ok(traces)
}
