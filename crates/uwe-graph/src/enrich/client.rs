//! The chat endpoint: any server that speaks OpenAI's protocol.

use crate::fold::lot;
use serde_json::Value;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use workbench::{Error, Result};

/// Largest answer in bytes: a language model's few lines are a thousandth of it.
const LARGEST_ANSWER: u64 = 1 << 20;
/// Longest pause before a request is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How a server is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Base address, for example `http://127.0.0.1:8000/v1`.
    pub base_url: String,
    /// Name of the environment variable that holds the key. The key itself is never written anywhere.
    pub key_variable: String,
    /// Seconds until a request is given up.
    pub timeout_seconds: u64,
    /// Times that a request is sent when the server or the way to it fails.
    pub attempts: u32,
    /// Most requests a minute, of all workers together.
    pub requests_a_minute: Option<u32>,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            base_url: "http://127.0.0.1:8000/v1".into(),
            key_variable: "OPENAI_API_KEY".into(),
            timeout_seconds: 120,
            attempts: 6,
            requests_a_minute: None,
        }
    }
}

/// Sends requests, each until it is answered or given up.
pub(super) struct Client {
    agent: ureq::Agent,
    url: String,
    key: Option<String>,
    attempts: u32,
    /// When the next request may leave, and the least time between two.
    next: Mutex<Instant>,
    between: Duration,
    /// First pause after a failure; doubles each time.
    pause: Duration,
}

/// What became of one sending.
enum Sent {
    Answer(Value),
    /// Worth another try, after so long if the server said so.
    Again(String, Option<Duration>),
    /// Another try would end the same way.
    Refused(String),
}

impl Client {
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self> {
        if !(endpoint.base_url.starts_with("http://") || endpoint.base_url.starts_with("https://")) {
            return Err(Error::Argument {
                name: "base-url",
                problem: format!("`{}` does not begin with http:// or https://", endpoint.base_url),
            });
        }
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(endpoint.timeout_seconds)))
            .http_status_as_error(false)
            .build();
        let key = std::env::var(&endpoint.key_variable).ok().filter(|key| !key.is_empty());
        let between = endpoint
            .requests_a_minute
            .map_or(Duration::ZERO, |many| Duration::from_secs_f64(60.0 / f64::from(many.max(1))));
        Ok(Self {
            agent: config.into(),
            url: format!("{}/chat/completions", endpoint.base_url.trim_end_matches('/')),
            key,
            attempts: endpoint.attempts.max(1),
            next: Mutex::new(Instant::now()),
            between,
            pause: Duration::from_millis(500),
        })
    }

    /// For tests: failures are tried again at once.
    #[cfg(test)]
    pub(super) fn without_pauses(mut self) -> Self {
        self.pause = Duration::from_millis(1);
        self
    }

    /// Sends a request until it is answered. `key` names it: a server that heeds the header `Idempotency-Key` counts it once,
    /// however often it is sent, also by a run that was killed before the answer came.
    ///
    /// # Errors
    /// What the last attempt ended with, or why the server refused.
    pub(super) fn send(&self, body: &str, key: &str) -> std::result::Result<Value, String> {
        let mut pause = self.pause;
        let mut attempt = 1;
        loop {
            self.wait_for_turn();
            match self.send_once(body, key) {
                Sent::Answer(answer) => return Ok(answer),
                Sent::Refused(problem) => return Err(problem),
                Sent::Again(problem, _) if attempt >= self.attempts => {
                    return Err(format!("{problem}, {attempt} times"));
                }
                Sent::Again(_, asked) => {
                    // Between half and the whole of it, so that workers do not come back together.
                    let own = pause.mul_f64(0.5 + lot(u64::from(attempt), key) / 2.0);
                    std::thread::sleep(asked.unwrap_or(own).min(LONGEST_PAUSE));
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    attempt += 1;
                }
            }
        }
    }

    fn wait_for_turn(&self) {
        if self.between.is_zero() {
            return;
        }
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let turn = (*next).max(Instant::now());
            *next = turn + self.between;
            turn
        };
        std::thread::sleep(turn.saturating_duration_since(Instant::now()));
    }

    fn send_once(&self, body: &str, key: &str) -> Sent {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        request = request.header("Idempotency-Key", key);
        if let Some(key) = &self.key {
            request = request.header("Authorization", &format!("Bearer {key}"));
        }
        let mut response = match request.send(body) {
            Ok(response) => response,
            Err(error) => return Sent::Again(format!("{}: {error}", self.url), None),
        };
        let status = response.status().as_u16();
        let asked = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok())
            .filter(|seconds| seconds.is_finite() && *seconds >= 0.0)
            .map(|seconds| Duration::from_secs_f64(seconds.min(LONGEST_PAUSE.as_secs_f64())));
        let text = match response.body_mut().with_config().limit(LARGEST_ANSWER).read_to_string() {
            Ok(text) => text,
            Err(error) => return Sent::Again(format!("answer of {}: {error}", self.url), None),
        };
        match status {
            200 => match serde_json::from_str(&text) {
                Ok(answer) => Sent::Answer(answer),
                Err(error) => Sent::Again(format!("answer of {} is no JSON: {error}", self.url), None),
            },
            408 | 409 | 425 | 429 | 500..=599 => Sent::Again(format!("{} says {status}", self.url), asked),
            _ => {
                let start: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
                Sent::Refused(format!("{} says {status}: {start}", self.url))
            }
        }
    }
}
