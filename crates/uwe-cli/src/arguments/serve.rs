//! Arguments of the service.

use super::ModelArguments;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  uwe serve
  uwe serve --space esco=esco.space --listen 127.0.0.1:9000
  uwe serve --config uwe.toml --keys keys.txt --listen 0.0.0.0:8080
  curl -H 'Content-Type: application/json' -d '{\"texts\": [\"pastry chef\"], \"space\": \"starter\"}' 127.0.0.1:8080/v1/rank

A flag counts before the environment, that before the configuration file, that before the default.")]
pub(crate) struct ServeArguments {
    /// Configuration file (TOML); docs/operations.md lists its fields
    #[arg(long, value_name = "FILE", env = "UWE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "UWE_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Folder for the spaces that are uploaded [default: uwe-data]
    #[arg(long, value_name = "DIR", env = "UWE_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// A space file to serve under a name; may be repeated
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) space: Vec<String>,
    /// File with keys, one a line, `read` behind those that may not change spaces; UWE_KEYS holds keys themselves
    #[arg(long, value_name = "FILE", env = "UWE_KEYS_FILE")]
    pub(crate) keys: Option<PathBuf>,
    /// Listen beyond this machine without keys
    #[arg(long)]
    pub(crate) allow_open: bool,
    /// Threads that take requests up; they share --threads
    #[arg(long, value_name = "N", env = "UWE_WORKERS")]
    pub(crate) workers: Option<usize>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "UWE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// Print the OpenAPI document and end
    #[arg(long)]
    pub(crate) openapi: bool,
    /// Print the configuration that these arguments give, and end
    #[arg(long, conflicts_with = "openapi")]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) model: ModelArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One object a line
    Json,
}
