//! Enrichment through grounding: a language model writes texts for the skills that have few.
//!
//! For every skill below a minimum of texts in a graph, a prompt tells what is known of it, and the answers become
//! synthetic edges after cleaning and merging. Answers are kept by the content of their request, so a run that was killed
//! goes on without asking twice, and anyone with the cache repeats it without a network.

mod cache;
mod client;
mod prompt;

use crate::check::Tests;
use crate::edge::{Edge, Graph, GraphFile, Part, Provenance};
use crate::fold::{fold, one_line, words};
use cache::Cache;
use client::Client;
pub use client::Endpoint;
use prompt::Grounding;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use uwe::Encoder;
use workbench::sources::esco::{Releases, Table};
use workbench::{Error, Result};

/// What is asked for, and how much of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnrichOptions {
    /// The graph whose thin skills get texts.
    pub graph: Graph,
    /// Fewest texts that a skill should have.
    pub minimum: usize,
    /// Name of the model, as the server knows it.
    pub model: String,
    /// Texts asked for at once.
    pub texts: usize,
    /// Sampling temperature.
    pub temperature: f32,
    /// Most tokens of an answer.
    pub answer_tokens: u32,
    /// How the shape of an answer is asked for.
    pub form: AnswerForm,
    /// Times that an invalid answer is asked for again, with the reason.
    pub retries: u32,
    /// Most skills, the thinnest first. `None`: all.
    pub skills: Option<usize>,
    /// Most requests of this run. `None`: as many as it takes.
    pub requests: Option<usize>,
    /// Most tokens of this run, as the server counts them. `None`: as many as it takes.
    pub tokens: Option<u64>,
    /// Requests under way at once.
    pub workers: usize,
    /// Texts of one skill that are at least so similar (cosine) become one.
    pub similarity: f32,
}

impl Default for EnrichOptions {
    fn default() -> Self {
        Self {
            graph: Graph::Job,
            minimum: 20,
            model: String::new(),
            texts: 10,
            temperature: 0.8,
            answer_tokens: 512,
            form: AnswerForm::Schema,
            retries: 2,
            skills: None,
            requests: None,
            tokens: None,
            workers: 4,
            similarity: 0.7,
        }
    }
}

/// How the shape of an answer is asked for: servers differ in what they know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerForm {
    /// `response_format` with the type `json_schema`, as OpenAI and most servers have it.
    Schema,
    /// `response_format` with the type `json_object` and a schema in it, as llama.cpp's Python server has it.
    Object,
    /// In the prompt alone.
    Prompt,
}

/// What would be asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Skills below the minimum.
    pub thin: usize,
    /// Of these, skills that this run asks about.
    pub asked: usize,
    /// First requests that the cache answers already.
    pub cached: usize,
    /// Tokens of all first requests and their answers, estimated from the length of the texts.
    pub tokens: u64,
}

/// What came of an enrichment. Depends on the answers alone, not on how many runs it took to have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Skills asked about.
    pub skills: usize,
    /// Skills whose first answer was valid.
    pub valid_at_first: usize,
    /// Skills with a valid answer only after one was sent back with the reason.
    pub valid_after_retries: usize,
    /// Skills without a valid answer.
    pub lost: usize,
    /// Skills that the budget did not reach.
    pub not_reached: usize,
    /// Answers, invalid ones included: what was paid for.
    pub answers: usize,
    /// Tokens of prompts and answers, as the server counts them.
    pub tokens: u64,
    /// Texts in valid answers.
    pub texts: usize,
    /// Texts left out: too short or long, in another script, the bare label, or a test text.
    pub unusable: usize,
    /// Texts merged with another one of the skill.
    pub merged: usize,
    /// Edges added.
    pub added: usize,
    /// Why skills were lost, with how many for each reason.
    pub reasons: BTreeMap<String, usize>,
}

/// A skill's last answer, as it is, and what was kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The skill.
    pub skill: String,
    /// The answer.
    pub answer: String,
    /// Texts that became edges.
    pub kept: Vec<String>,
}

/// Answers that are kept to be read.
const SAMPLES: usize = 30;

/// An enrichment, as a graph's manifest tells of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EnrichmentNote {
    /// What was asked for.
    pub options: EnrichOptions,
    /// What came of it.
    pub outcome: Outcome,
    /// Answers to read, evenly over the skills.
    pub samples: Vec<Sample>,
}

/// An enriched graph, with how many requests this run has sent; the other answers were there.
#[derive(Clone, Debug, PartialEq)]
pub struct Enriched {
    /// The graph. The last note of its manifest is this enrichment's.
    pub graph: GraphFile,
    /// Requests sent now.
    pub requests: usize,
}

impl Enriched {
    /// What came of this enrichment.
    pub fn note(&self) -> Option<&EnrichmentNote> {
        self.graph.manifest.enriched.last()
    }
}

/// Skills that have few texts, the thinnest first, with what is known of them.
fn thin_skills(
    graph: &GraphFile,
    data: &Path,
    release: &str,
    options: &EnrichOptions,
) -> Result<Vec<Grounding>> {
    let version = release.parse().map_err(|()| Error::Argument {
        name: "esco",
        problem: format!("`{release}` is no ESCO release; write it as 1.2.0"),
    })?;
    let skills = Releases::discover(data)?.concepts(version, Table::Skills, "en")?;
    let mut known: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut others: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    let mut by_text: HashMap<&str, Vec<&str>> = HashMap::new();
    // What is held out must not find its way into a prompt either.
    for edge in graph.edges.iter().filter(|edge| edge.part == Part::Train) {
        if edge.graph == options.graph {
            known.entry(&edge.skill_id).or_default().insert(&edge.text);
            by_text.entry(&edge.text).or_default().push(&edge.skill);
        }
        if edge.graph == Graph::Alternative {
            others.entry(&edge.skill_id).or_default().insert(&edge.text);
        }
    }
    let list = |texts: Option<&BTreeSet<&str>>| -> Vec<String> {
        texts.into_iter().flatten().map(|text| (*text).to_string()).collect()
    };
    let mut thin: Vec<(usize, usize, Grounding)> = Vec::new();
    for (place, skill) in skills.iter().enumerate() {
        let texts = known.get(&skill.uri[..]);
        let count = texts.map_or(0, BTreeSet::len);
        if count >= options.minimum {
            continue;
        }
        let mut shared: BTreeMap<&str, usize> = BTreeMap::new();
        for neighbour in texts.into_iter().flatten().filter_map(|text| by_text.get(text)).flatten() {
            *shared.entry(neighbour).or_default() += 1;
        }
        shared.remove(skill.label.trim());
        let mut neighbours: Vec<(&str, usize)> = shared.into_iter().collect();
        neighbours.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let grounding = Grounding {
            skill: skill.label.trim().to_string(),
            skill_id: skill.uri.clone(),
            description: one_line(&skill.description),
            alternatives: list(others.get(&skill.uri[..])),
            known: list(texts),
            neighbours: neighbours.into_iter().take(8).map(|(skill, _)| skill.to_string()).collect(),
        };
        thin.push((count, place, grounding));
    }
    thin.sort_by_key(|(count, place, _)| (*count, *place));
    Ok(thin.into_iter().map(|(_, _, grounding)| grounding).collect())
}

/// A request as it is sent and as it names its answer in the cache.
fn request(options: &EnrichOptions, messages: &[Value]) -> Value {
    let mut request = json!({
        "model": options.model,
        "messages": messages,
        "temperature": options.temperature,
        "max_tokens": options.answer_tokens,
    });
    if let Some(format) = prompt::format(options.form, options.texts) {
        request["response_format"] = format;
    }
    request
}

/// An enrichment that is ready to run.
pub struct Enrichment<'a> {
    graph: &'a GraphFile,
    options: EnrichOptions,
    cache: Cache,
    thin: Vec<Grounding>,
    all_thin: usize,
    tests: Tests,
}

impl<'a> Enrichment<'a> {
    /// Finds the thin skills of a graph; `data` is the folder with the raw files, `cache` that of the answers.
    ///
    /// # Errors
    /// [`Error::Argument`] for options that make no sense; whatever reading the data gives.
    pub fn new(
        graph: &'a GraphFile,
        (data, release): (&Path, &str),
        cache: &Path,
        options: EnrichOptions,
    ) -> Result<Self> {
        if options.texts == 0 || options.workers == 0 || options.model.is_empty() {
            return Err(Error::Argument {
                name: "options",
                problem: "a model's name, and at least one text and one worker are needed".into(),
            });
        }
        let mut thin = thin_skills(graph, data, release, &options)?;
        let all_thin = thin.len();
        thin.truncate(options.skills.unwrap_or(usize::MAX));
        let (cache, tests) = (Cache::open(cache)?, Tests::read(data)?);
        Ok(Self { graph, options, cache, thin, all_thin, tests })
    }

    fn first_messages(&self, grounding: &Grounding) -> Vec<Value> {
        prompt::messages(self.options.graph, grounding, self.options.texts)
    }

    /// What a run would ask, without asking.
    pub fn plan(&self) -> Plan {
        let mut plan = Plan { thin: self.all_thin, asked: self.thin.len(), cached: 0, tokens: 0 };
        for grounding in &self.thin {
            let request = request(&self.options, &self.first_messages(grounding));
            plan.cached += usize::from(self.cache.get(&request).is_some());
            // English has about four characters a token; an answer is asked for by the dozen of tokens a text.
            let prompt = request["messages"].to_string().len() as u64 / 4;
            plan.tokens +=
                prompt + (self.options.texts as u64 * 12).min(u64::from(self.options.answer_tokens));
        }
        plan
    }

    /// Asks about all thin skills and adds what comes of it to the graph. `watch` is told the number of skills that are done
    /// and returns whether to go on.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `watch` says so: every answer so far is in the cache. [`Error::Data`] when the server
    /// cannot be reached or refuses.
    pub fn run(
        &self,
        endpoint: &Endpoint,
        encoder: &Encoder,
        watch: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Enriched> {
        self.run_with(&Client::new(endpoint)?, encoder, watch)
    }

    fn run_with(
        &self,
        client: &Client,
        encoder: &Encoder,
        watch: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Enriched> {
        let budget = Budget { requests: AtomicUsize::new(0), tokens: Mutex::new(0) };
        let stop = AtomicBool::new(false);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let answers: Mutex<BTreeMap<usize, Result<Answer>>> = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..self.options.workers {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        let Some(grounding) = self.thin.get(place) else { break };
                        let answer = self.ask(client, grounding, &budget);
                        if answer.is_err() {
                            stop.store(true, Ordering::Relaxed);
                        }
                        answers
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .insert(place, answer);
                        if !watch(done.fetch_add(1, Ordering::Relaxed) + 1) {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let answers = answers.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut ordered = Vec::with_capacity(answers.len());
        for (_, answer) in answers {
            ordered.push(answer?);
        }
        if ordered.len() < self.thin.len() {
            return Err(Error::Interrupted);
        }
        let requests = budget.requests.into_inner();
        self.finish(ordered, requests, encoder)
    }

    /// Asks about one skill, until the answer is valid or the retries are used up.
    fn ask(&self, client: &Client, grounding: &Grounding, budget: &Budget) -> Result<Answer> {
        let mut messages = self.first_messages(grounding);
        let mut answer = Answer::default();
        for attempt in 0..=self.options.retries {
            let request = request(&self.options, &messages);
            let reply = match self.cache.get(&request) {
                Some(reply) => reply,
                None => {
                    if !budget.allows(&self.options) {
                        answer.state = State::NotReached;
                        return Ok(answer);
                    }
                    let key = Cache::key(&request);
                    let reply = client.send(&request.to_string(), &key).map_err(|problem| {
                        Error::data(
                            "language model",
                            problem,
                            "start the server or name it with --base-url; if it knows no JSON schemas, try --form object or --form prompt; what was answered is kept, run again to go on",
                        )
                    })?;
                    self.cache.put(&request, &reply)?;
                    budget.note(&reply);
                    reply
                }
            };
            answer.tokens += tokens(&reply);
            answer.count += 1;
            let content = reply["choices"][0]["message"]["content"].as_str().unwrap_or_default();
            answer.content = content.to_string();
            match prompt::texts(content) {
                Ok(texts) => {
                    answer.texts = texts;
                    answer.state = if attempt == 0 { State::AtFirst } else { State::AfterRetries };
                    return Ok(answer);
                }
                Err(reason) => {
                    messages.push(json!({"role": "assistant", "content": content}));
                    let again = format!("{reason}. Answer again, with JSON alone.");
                    messages.push(json!({"role": "user", "content": again}));
                    // Where in the text JSON breaks differs each time.
                    answer.reason = reason.split(" at line").next().unwrap_or_default().to_string();
                }
            }
        }
        answer.state = State::Lost;
        Ok(answer)
    }

    /// Cleans and merges the answers of each skill, and adds them as edges.
    fn finish(&self, answers: Vec<Answer>, requests: usize, encoder: &Encoder) -> Result<Enriched> {
        let mut outcome = Outcome { skills: answers.len(), ..Outcome::default() };
        let sampled: BTreeSet<usize> =
            (0..SAMPLES.min(answers.len())).map(|i| i * answers.len() / SAMPLES.min(answers.len())).collect();
        let mut samples = Vec::with_capacity(sampled.len());
        let mut graph = self.graph.clone();
        let held: HashSet<String> = graph
            .edges
            .iter()
            .filter(|edge| edge.part == Part::Val && edge.graph == self.options.graph)
            .map(|edge| fold(&edge.text))
            .collect();
        let source = format!("synthetic-{}", self.options.graph);
        for (place, (grounding, answer)) in self.thin.iter().zip(answers).enumerate() {
            outcome.tokens += answer.tokens;
            outcome.answers += answer.count;
            match answer.state {
                State::AtFirst => outcome.valid_at_first += 1,
                State::AfterRetries => outcome.valid_after_retries += 1,
                State::NotReached => outcome.not_reached += 1,
                State::Lost => {
                    outcome.lost += 1;
                    *outcome.reasons.entry(answer.reason).or_default() += 1;
                }
            }
            outcome.texts += answer.texts.len();
            let usable: BTreeSet<String> = answer
                .texts
                .iter()
                .map(|text| one_line(text))
                .filter(|text| self.is_usable(grounding, text, &held))
                .collect();
            let kept = merge(encoder, &grounding.known, &usable, self.options.similarity)?;
            outcome.merged += usable.len() - kept.len();
            outcome.unusable += answer.texts.len() - usable.len();
            outcome.added += kept.len();
            if sampled.contains(&place) {
                let skill = grounding.skill.clone();
                samples.push(Sample { skill, answer: answer.content, kept: kept.clone() });
            }
            graph.edges.extend(kept.into_iter().map(|text| Edge {
                graph: self.options.graph,
                skill: grounding.skill.clone(),
                skill_id: grounding.skill_id.clone(),
                text,
                source: source.clone(),
                weight: 1.0,
                provenance: Provenance::Synthetic,
                part: Part::Train,
            }));
        }
        graph.seal();
        graph.manifest.enriched.push(EnrichmentNote { options: self.options.clone(), outcome, samples });
        Ok(Enriched { graph, requests })
    }

    /// Whether a text is of the right length and script, says more than the label, and is no test.
    fn is_usable(&self, grounding: &Grounding, text: &str, held: &HashSet<String>) -> bool {
        let (least, most) = match self.options.graph {
            Graph::Job | Graph::Alternative => (1, 12),
            Graph::Sentence => (5, 60),
        };
        let (folded, skill) = (fold(text), fold(&grounding.skill));
        let count = folded.split(' ').filter(|word| !word.is_empty()).count();
        let letters = text.chars().filter(|c| c.is_alphabetic()).count();
        let latin = text.chars().filter(char::is_ascii_alphabetic).count();
        (least..=most).contains(&count)
            && latin * 10 >= letters * 9
            && letters > 1
            && folded != skill
            && !held.contains(&folded)
            && self.tests.leak(self.options.graph, &skill, &folded).is_none()
    }
}

impl std::fmt::Debug for Enrichment<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Enrichment").field("options", &self.options).finish_non_exhaustive()
    }
}

#[derive(Default)]
enum State {
    AtFirst,
    AfterRetries,
    NotReached,
    #[default]
    Lost,
}

/// What came of one skill.
#[derive(Default)]
struct Answer {
    texts: Vec<String>,
    state: State,
    reason: String,
    tokens: u64,
    count: usize,
    /// The last answer, as it is.
    content: String,
}

/// What a run has spent.
struct Budget {
    requests: AtomicUsize,
    tokens: Mutex<u64>,
}

impl Budget {
    /// Takes one request, if there is one left.
    fn allows(&self, options: &EnrichOptions) -> bool {
        let spent = *self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if options.tokens.is_some_and(|most| spent >= most) {
            return false;
        }
        let most = options.requests.unwrap_or(usize::MAX);
        let take = |sent: usize| (sent < most).then_some(sent + 1);
        self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn note(&self, reply: &Value) {
        *self.tokens.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += tokens(reply);
    }
}

/// Tokens of prompt and answer, as the server counts them.
fn tokens(reply: &Value) -> u64 {
    reply["usage"]["total_tokens"].as_u64().unwrap_or(0)
}

/// The texts that stay: in an order that depends on nothing but the texts (fewest words first, then by letter), each
/// stays that is less similar than the limit to all known texts and to all that stayed before it.
fn merge(encoder: &Encoder, known: &[String], texts: &BTreeSet<String>, limit: f32) -> Result<Vec<String>> {
    let mut order: Vec<&String> = texts.iter().collect();
    order.sort_by_key(|text| (words(&fold(text)).len(), (*text).clone()));
    let all: Vec<&str> =
        known.iter().map(String::as_str).chain(order.iter().map(|text| text.as_str())).collect();
    if order.is_empty() {
        return Ok(Vec::new());
    }
    let encoded = encoder.encode(&all)?;
    let vectors: Vec<Vec<f32>> =
        (0..all.len()).map(|i| encoder.pool_to_unit(encoded.states.text(i))).collect();
    let similar =
        |a: usize, b: usize| vectors[a].iter().zip(&vectors[b]).map(|(x, y)| x * y).sum::<f32>() >= limit;
    let mut kept: Vec<usize> = (0..known.len()).collect();
    let mut stayed = Vec::new();
    for (offset, text) in order.into_iter().enumerate() {
        let place = known.len() + offset;
        if !kept.iter().any(|other| similar(*other, place)) {
            kept.push(place);
            stayed.push(text.clone());
        }
    }
    Ok(stayed)
}

#[cfg(test)]
mod tests;
