//! What the service is told: limits, folders, addresses. Flags, environment and file are brought together by the program; this is
//! the result, checked once.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The configuration of a service. Every field has a default, so that a file names only what it changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Address to listen on; anything but this machine's own needs keys, or `allow_open`.
    pub listen: SocketAddr,
    /// Folder with the service's space files.
    pub data: PathBuf,
    /// File with keys, one a line, `read` behind those that may not change spaces.
    pub keys: Option<PathBuf>,
    /// Listens beyond this machine without keys.
    pub allow_open: bool,
    /// Origins of web pages elsewhere that may ask; the service's own page always may.
    pub origins: Vec<String>,
    /// The limits.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            data: PathBuf::from("uwe-data"),
            keys: None,
            allow_open: false,
            origins: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// What a request, a connection and the queue may take. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open connections; the next one gets a 503 and is closed.
    pub connections: usize,
    /// Requests that are read or worked on at a time; the next one gets a 429 before its body is read.
    pub requests: usize,
    /// Texts that wait to be worked on; a request beyond gets a 429.
    pub queue_texts: usize,
    /// Longest wait in the queue, by the time that such work has taken so far. Who would wait for longer gets a 429, and the queue is
    /// overloaded: hardly more is let in than is worked on, until there are pauses.
    pub queue_ms: u64,
    /// Work of one batch, in tokens to encode; ranking counts as so many tokens as take the same time.
    pub batch_tokens: usize,
    /// Bytes of encoded queries that are kept.
    pub cache_bytes: usize,
    /// Bytes of a body, after decompression.
    pub body_bytes: usize,
    /// Bytes of a body that uploads targets.
    pub upload_bytes: usize,
    /// Texts of a request.
    pub texts: usize,
    /// Bytes of a text.
    pub text_bytes: usize,
    /// Hits of a text.
    pub hits: usize,
    /// Hits of a text with evidence.
    pub evidence_hits: usize,
    /// Spaces.
    pub spaces: usize,
    /// Time in which the headers of a request must have come.
    pub header_ms: u64,
    /// Time in which a body must have come.
    pub body_ms: u64,
    /// Time in which an upload must have come.
    pub upload_ms: u64,
    /// Time in which a client must take some of its answer.
    pub write_ms: u64,
    /// Time from the body's end to the answer.
    pub request_ms: u64,
    /// How long connections are still taken after the order to stop, so that who watches `/readyz` sees it.
    pub farewell_ms: u64,
    /// Time in which requests may end after that.
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 256,
            queue_texts: 1024,
            queue_ms: 250,
            batch_tokens: 128,
            cache_bytes: 64 << 20,
            body_bytes: 2 << 20,
            upload_bytes: 64 << 20,
            texts: 256,
            text_bytes: 32 << 10,
            hits: 1_000,
            evidence_hits: 100,
            spaces: 256,
            header_ms: 10_000,
            body_ms: 10_000,
            upload_ms: 120_000,
            write_ms: 30_000,
            request_ms: 30_000,
            farewell_ms: 200,
            drain_ms: 10_000,
        }
    }
}

impl Limits {
    pub(crate) fn duration(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }
}

/// What is wrong with a configuration, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ConfigError {
    /// The field, and what is wrong with it.
    pub problem: String,
    /// What to do.
    pub hint: String,
}

impl Config {
    /// Reads a file of the form that `Serialize` gives, as TOML.
    ///
    /// # Errors
    /// [`ConfigError`] names the line and the field.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError {
            problem: error.to_string().trim_end().to_string(),
            hint: "docs/operations.md lists every field with its default".into(),
        })
    }

    /// Checks what no type can: that limits leave room, and that nothing listens openly by accident.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn check(&self, keys: usize) -> Result<(), ConfigError> {
        let wrong = |problem: String, hint: &str| Err(ConfigError { problem, hint: hint.into() });
        if !self.listen.ip().is_loopback() && keys == 0 && !self.allow_open {
            return wrong(
                format!("{} can be reached from other machines, and there is no key", self.listen),
                "give keys (--keys FILE, or UWE_KEYS), listen on 127.0.0.1, or say --allow-open if that is meant",
            );
        }
        let limits = &self.limits;
        for (name, value) in [
            ("connections", limits.connections),
            ("requests", limits.requests),
            ("queue_texts", limits.queue_texts),
            ("batch_tokens", limits.batch_tokens),
            ("body_bytes", limits.body_bytes),
            ("upload_bytes", limits.upload_bytes),
            ("texts", limits.texts),
            ("text_bytes", limits.text_bytes),
            ("hits", limits.hits),
            ("spaces", limits.spaces),
        ] {
            if value == 0 {
                return wrong(format!("limits.{name} is 0"), "a limit of 0 lets nothing through");
            }
        }
        for (name, value) in [
            ("queue_ms", limits.queue_ms),
            ("header_ms", limits.header_ms),
            ("body_ms", limits.body_ms),
            ("upload_ms", limits.upload_ms),
            ("request_ms", limits.request_ms),
        ] {
            if value == 0 {
                return wrong(format!("limits.{name} is 0"), "a time of 0 lets nothing through");
            }
        }
        for origin in &self.origins {
            let sound = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !sound.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' '])) {
                return wrong(
                    format!("origins has `{origin}`, which is no origin"),
                    "write scheme and host, such as https://jobs.example.org",
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_what_it_changes() {
        let config = Config::parse("listen = \"127.0.0.1:9000\"\n[limits]\ntexts = 8\n").unwrap_or_default();
        assert_eq!((config.listen.port(), config.limits.texts, config.limits.hits), (9000, 8, 1000));
        let error = Config::parse("[limits]\ntext = 8\n").unwrap_err();
        assert!(
            error.problem.contains("line 2") && error.problem.contains("unknown field `text`"),
            "{error}"
        );
        let whole = toml::to_string(&Config::default()).unwrap_or_default();
        assert_eq!(Config::parse(&whole), Ok(Config::default()));
    }

    #[test]
    fn nothing_listens_openly_by_accident() {
        let open = Config { listen: ([0, 0, 0, 0], 8080).into(), ..Config::default() };
        assert!(open.check(0).unwrap_err().problem.contains("0.0.0.0:8080"));
        assert_eq!(open.check(1), Ok(()));
        assert_eq!(Config { allow_open: true, ..open }.check(0), Ok(()));
        assert_eq!(Config::default().check(0), Ok(()));
        let limits = Limits { texts: 0, ..Limits::default() };
        assert!(Config { limits, ..Config::default() }.check(0).is_err());
        for origin in ["*", "https://", "https://a/b", "ftp://a"] {
            let config = Config { origins: vec![origin.into()], ..Config::default() };
            assert!(config.check(0).is_err(), "{origin}");
        }
    }
}
