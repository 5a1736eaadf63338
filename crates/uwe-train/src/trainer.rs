//! A training: steps, validations and checkpoints in a folder of its own.
//!
//! ```text
//! RUN/run.json                what is trained on what; written first, compared on resumption
//! RUN/recipe.toml             the recipe, defaults included
//! RUN/log.jsonl               a line a step and a line a validation
//! RUN/checkpoint.safetensors  weights, moments and place, replaced whole
//! RUN/best/, RUN/last/        model folders for serving
//! ```
//!
//! A step depends on the recipe, the graph and the weights before it alone: a training that was killed goes on from its last
//! checkpoint and ends with the same bits.

use crate::checkpoint::{self, Kept, State};
use crate::error::{Error, Result};
use crate::learner::Learner;
use crate::machine::Machine;
use crate::objective::{GraphTask, Lesson};
use crate::optimizer::Optimizer;
use crate::parameters::{NumberType, Parameters};
use crate::recipe::Recipe;
use crate::sampler::{Drawn, Sampler};
use crate::validation::{Scored, Validation};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use uwe::{Compute, Encoder, EncoderOptions};
use uwe_graph::GraphFile;
use workbench::sources::esco::Version;
use workbench::write_whole;

/// What is trained, on what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Folder of the encoder to start from.
    pub model: PathBuf,
    /// Folder of the graph.
    pub graph: PathBuf,
    /// Folder with the raw files, for validation on ESCO's lists and the benchmark's validation sets; and the ESCO release.
    pub data: Option<(PathBuf, String)>,
    /// Whether a graph without a passed leak check is trained on all the same.
    pub unchecked: bool,
}

/// What identifies a training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    written_by: String,
    /// Revision of the sources that the program runs beside, where there is one.
    revision: Option<String>,
    inputs: Inputs,
    model_fingerprint: String,
    graph_fingerprint: String,
    /// The test sets that the graph was found free of.
    checked_against: BTreeMap<String, String>,
    validation_fingerprint: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    teacher_fingerprint: Option<String>,
    machine: String,
}

/// A step, as the log has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLog {
    /// Its number, from 0.
    pub step: u64,
    /// Weighted sum of the graphs' losses.
    pub loss: f64,
    /// Each graph's own loss.
    pub graphs: BTreeMap<String, f64>,
    /// Learning rate.
    pub learning_rate: f64,
    /// Length of the gradient before it was clipped.
    pub gradient_norm: f64,
    /// Different texts, and their tokens.
    pub texts: usize,
    /// Tokens of the texts.
    pub tokens: usize,
    /// Fingerprint of the batch.
    pub batch: String,
    /// Seconds.
    pub seconds: f64,
}

/// A validation, as the log has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationLog {
    /// Steps that were done before it.
    pub validated: u64,
    /// What it came to.
    #[serde(flatten)]
    pub scored: Scored,
    /// Seconds.
    pub seconds: f64,
}

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Event {
    /// A step.
    Step(StepLog),
    /// A validation.
    Validation(ValidationLog),
}

/// How a training ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Steps in all.
    pub steps: u64,
    /// Best validation mean, and after how many steps.
    pub best: Option<(f64, u64)>,
    /// Whether it ended early, since nothing got better.
    pub stopped_early: bool,
}

/// A training that is ready to run.
pub struct Training {
    folder: PathBuf,
    recipe: Recipe,
    inputs: Inputs,
    learner: Learner,
    /// Running mean of the weights; empty without.
    average: Vec<f32>,
    teacher: Option<Learner>,
    optimizer: Optimizer,
    sampler: Sampler,
    validation: Validation,
    state: State,
}

impl Training {
    /// Begins a training in a folder of its own.
    ///
    /// # Errors
    /// [`Error::Run`] when the folder holds a training already, or the graph has passed no leak check; whatever reading model,
    /// graph and data gives.
    pub fn begin(folder: &Path, recipe: Recipe, inputs: Inputs, machine: impl Into<Machine>) -> Result<Self> {
        let place = folder.join("run.json");
        if place.exists() {
            let problem = "holds a training already; `uwe train resume` goes on with it".into();
            return Err(Error::Run { path: folder.into(), problem });
        }
        let (training, manifest) = Self::open(folder, recipe, inputs, machine.into())?;
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let text = toml::to_string(&training.recipe)
            .map_err(|error| Error::Recipe { what: "recipe".into(), problem: error.to_string() })?;
        write_whole(&folder.join("recipe.toml"), text.as_bytes())?;
        let mut bytes = serde_json::to_vec_pretty(&manifest).map_err(|error| broken(&place, &error))?;
        bytes.push(b'\n');
        write_whole(&place, &bytes)?;
        Ok(training)
    }

    /// Goes on with a training from its last checkpoint.
    ///
    /// # Errors
    /// [`Error::Run`] when there is none in the folder, or model, graph or data have changed since it began.
    pub fn resume(folder: &Path, machine: impl Into<Machine>) -> Result<Self> {
        let place = folder.join("run.json");
        let bytes = std::fs::read(&place).map_err(Error::io("read", &place))?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| broken(&place, &error))?;
        let recipe = Recipe::read(&folder.join("recipe.toml"))?;
        let (mut training, now) = Self::open(folder, recipe, manifest.inputs.clone(), machine.into())?;
        for (what, then, now) in [
            ("model", &Some(manifest.model_fingerprint), &Some(now.model_fingerprint)),
            ("graph", &Some(manifest.graph_fingerprint), &Some(now.graph_fingerprint)),
            ("validation data", &Some(manifest.validation_fingerprint), &Some(now.validation_fingerprint)),
            ("teacher", &manifest.teacher_fingerprint, &now.teacher_fingerprint),
        ] {
            if then != now {
                let [then, now] = [then, now].map(|print| print.as_deref().unwrap_or("none"));
                let problem = format!("was trained with another {what} ({then}, now {now})");
                return Err(Error::Run { path: folder.into(), problem });
            }
        }
        let file = folder.join("checkpoint.safetensors");
        if file.exists() {
            let (parameters, optimizer) = (&mut training.learner.parameters, &mut training.optimizer);
            let (state, neighbours) = checkpoint::load(&file, parameters, optimizer, &mut training.average)?;
            training.state = state;
            training.sampler.bring(neighbours);
        }
        checkpoint::clear_partial(folder);
        training.cut_log()?;
        Ok(training)
    }

    fn open(folder: &Path, recipe: Recipe, inputs: Inputs, machine: Machine) -> Result<(Self, Manifest)> {
        let learner = Learner::open(&inputs.model, &recipe, recipe.scoring, machine.clone())?;
        let teacher = match &recipe.distillation {
            Some(options) => Some(Learner::open(&options.model, &recipe, options.scoring, machine)?),
            None => None,
        };
        let graph = GraphFile::read(&inputs.graph)?;
        if graph.manifest.checked_against.is_empty() && !inputs.unchecked {
            let problem = "has passed no leak check; run `uwe graph check` on it first".into();
            return Err(Error::Run { path: inputs.graph.clone(), problem });
        }
        let version = |release: &str| -> Result<Version> {
            let problem = || format!("`{release}` is no ESCO release; write it as 1.2.0");
            release.parse().map_err(|()| Error::Recipe { what: "esco".into(), problem: problem() })
        };
        let data = match &inputs.data {
            Some((data, release)) => Some((data.as_path(), version(release)?)),
            None => None,
        };
        let validation = Validation::new(&graph.edges, data, recipe.validation.queries, recipe.seed)?;
        let sampler = Sampler::new(&graph.edges, &recipe)?;
        let manifest = Manifest {
            written_by: format!("uwe-train {}", env!("CARGO_PKG_VERSION")),
            revision: revision(),
            inputs: inputs.clone(),
            model_fingerprint: learner.fingerprint(),
            graph_fingerprint: graph.manifest.fingerprint.clone(),
            checked_against: graph.manifest.checked_against,
            validation_fingerprint: validation.fingerprint(),
            teacher_fingerprint: teacher.as_ref().map(Learner::fingerprint),
            machine: format!(
                "{} {}, {} threads",
                std::env::consts::ARCH,
                std::env::consts::OS,
                learner.network.threads().count()
            ),
        };
        let optimizer = Optimizer::new(&recipe.optimizer, recipe.steps, &learner.parameters);
        let averages = recipe.optimizer.averaging > 0.0;
        let average = if averages { learner.parameters.values.clone() } else { Vec::new() };
        let folder = folder.to_path_buf();
        let state = State::default();
        let training =
            Self { folder, recipe, inputs, learner, average, teacher, optimizer, sampler, validation, state };
        Ok((training, manifest))
    }

    /// The recipe, defaults included.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Where the training stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The weights as they are now.
    pub fn parameters(&self) -> &Parameters {
        &self.learner.parameters
    }

    /// Trains to the end. `watch` is told of every step and validation and returns whether to go on.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when `watch` says so: a checkpoint holds all that is done. [`Error::NotFinite`] names the batch at
    /// fault; the last checkpoint is from before it.
    pub fn run(&mut self, watch: &mut dyn FnMut(&Event) -> bool) -> Result<Summary> {
        let mut stopped_early = false;
        if self.state.step == 0 && self.state.best.is_none() {
            let event = self.validate()?;
            self.note(&event)?;
            if !watch(&event) {
                return Err(Error::Interrupted);
            }
        }
        while self.state.step < self.recipe.steps && !stopped_early {
            self.look_for_neighbours()?;
            let event = Event::Step(self.step()?);
            self.note(&event)?;
            let mut go_on = watch(&event);
            let last = self.state.step == self.recipe.steps;
            if self.state.step.is_multiple_of(self.recipe.validation.every) || last {
                let event = self.validate()?;
                self.note(&event)?;
                go_on &= watch(&event);
                let patience = self.recipe.validation.patience;
                stopped_early = patience > 0 && self.state.since_best >= patience;
            }
            let due = self.state.step.is_multiple_of(self.recipe.validation.checkpoint_every);
            if due || last || !go_on || stopped_early {
                let file = self.folder.join("checkpoint.safetensors");
                let kept = Kept {
                    parameters: &self.learner.parameters,
                    optimizer: &self.optimizer,
                    average: &self.average,
                    neighbours: self.sampler.brought(),
                    state: &self.state,
                };
                kept.save(&file)?;
            }
            if !go_on {
                return Err(Error::Interrupted);
            }
        }
        self.export("last")?;
        Ok(Summary { steps: self.state.step, best: self.state.best, stopped_early })
    }

    fn step(&mut self) -> Result<StepLog> {
        let started = Instant::now();
        let number = self.state.step;
        let drawn = self.sampler.draw(number);
        let graphs = self.tasks(&drawn)?;
        let learner = &mut self.learner;
        let batch = learner.batch(drawn.texts.iter().map(String::as_str))?;
        let values = &learner.parameters.values;
        let step = learner.objective.step(&learner.network, values, &batch, &graphs)?;
        let norm = self.optimizer.norm(&step.gradient);
        for (what, value) in [("loss", step.loss), ("gradient", norm)] {
            if !value.is_finite() {
                let (batch, skills) = (drawn.fingerprint(), drawn.first_skills.join(", "));
                return Err(Error::NotFinite { step: number, what, batch, skills });
            }
        }
        let values = &mut learner.parameters.values;
        self.optimizer.apply(number, values, (&step.gradient, norm), learner.network.threads());
        // At first the mean forgets fast, so that it soon leaves the weights that the training began with.
        let decay =
            self.recipe.optimizer.averaging.min((1.0 + number as f64) / (10.0 + number as f64)) as f32;
        let pairs = self.average.iter_mut().zip(values);
        pairs.for_each(|(mean, value)| *mean += (1.0 - decay) * (*value - *mean));
        self.state.step += 1;
        let names = drawn.graphs.iter().map(|graph| graph.graph.clone());
        Ok(StepLog {
            step: number,
            loss: step.loss,
            graphs: names.zip(step.graphs).collect(),
            learning_rate: self.optimizer.learning_rate(number),
            gradient_norm: norm,
            texts: batch.texts(),
            tokens: batch.ids.len(),
            batch: drawn.fingerprint(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Lets the sampler know which skills are hard to tell apart, when it is time.
    fn look_for_neighbours(&mut self) -> Result<()> {
        let Some(options) = &self.recipe.negatives else { return Ok(()) };
        let again = options.refresh > 0 && self.state.step.is_multiple_of(options.refresh);
        if again || self.sampler.brought().is_empty() {
            let found = self.learner.neighbours(&self.sampler, options)?;
            self.sampler.bring(found);
        }
        Ok(())
    }

    fn tasks(&self, drawn: &Drawn) -> Result<Vec<GraphTask>> {
        let mut tasks: Vec<GraphTask> =
            drawn.graphs.iter().map(|graph| graph.task(&self.recipe.graphs[&graph.graph])).collect();
        tasks.iter_mut().for_each(|task| task.margin = self.recipe.margin);
        if let (Some(teacher), Some(options)) = (&self.teacher, &self.recipe.distillation) {
            let tables = teacher.tables(&drawn.texts, &tasks)?;
            for (task, tables) in tasks.iter_mut().zip(tables) {
                task.teacher = Some(Lesson { weight: options.weight, tables });
            }
        }
        Ok(tasks)
    }

    /// Measures the weights as the served encoder will be, and keeps them if they are the best so far.
    fn validate(&mut self) -> Result<Event> {
        let started = Instant::now();
        self.export("candidate")?;
        let candidate = self.folder.join("candidate");
        let options = EncoderOptions { max_tokens: self.recipe.max_tokens, ..EncoderOptions::default() };
        let encoder =
            Encoder::open(&candidate, options, Compute::new(self.learner.network.threads().count(), None)?)?;
        let scored = self.validation.measure(&encoder, self.recipe.scoring)?;
        if self.state.best.is_none_or(|(best, _)| scored.mean > best) {
            self.state.best = Some((scored.mean, self.state.step));
            self.state.since_best = 0;
            let best = self.folder.join("best");
            let _ = std::fs::remove_dir_all(&best);
            std::fs::rename(&candidate, &best).map_err(Error::io("rename a folder to", &best))?;
        } else {
            self.state.since_best += 1;
            let _ = std::fs::remove_dir_all(&candidate);
        }
        let seconds = started.elapsed().as_secs_f64();
        Ok(Event::Validation(ValidationLog { validated: self.state.step, scored, seconds }))
    }

    fn export(&self, name: &str) -> Result<()> {
        let folder = self.folder.join(name);
        // A running mean stands in for the weights that it is of.
        let mean = (!self.average.is_empty()).then(|| Parameters {
            values: self.average.clone(),
            places: self.learner.parameters.places.clone(),
        });
        let parameters = mean.as_ref().unwrap_or(&self.learner.parameters);
        let scoring = Some(&self.recipe.scoring);
        checkpoint::export(&self.inputs.model, parameters, NumberType::F32, scoring, &folder)
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log.jsonl")
    }

    fn note(&self, event: &Event) -> Result<()> {
        let path = self.log_file();
        let mut line = serde_json::to_vec(event).map_err(|error| broken(&path, &error))?;
        line.push(b'\n');
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| file.write_all(&line)).map_err(Error::io("write", &path))
    }

    /// Takes off the log what will be done again.
    fn cut_log(&self) -> Result<()> {
        let path = self.log_file();
        if !path.exists() {
            return Ok(());
        }
        let mut kept = Vec::new();
        for event in read_log(&path)? {
            let done = match &event {
                Event::Step(step) => step.step < self.state.step,
                Event::Validation(validation) => {
                    let begun = self.state.best.is_some();
                    begun && validation.validated <= self.state.step
                }
            };
            if done {
                kept.extend(serde_json::to_vec(&event).map_err(|error| broken(&path, &error))?);
                kept.push(b'\n');
            }
        }
        Ok(write_whole(&path, &kept)?)
    }
}

/// Reads a log; a last line that was cut off by a kill is left out.
///
/// # Errors
/// [`Error::Io`] when it cannot be read.
pub fn read_log(path: &Path) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn broken(path: &Path, error: &serde_json::Error) -> Error {
    Error::Run { path: path.into(), problem: format!("is damaged: {error}") }
}

/// The revision of the working folder's sources, where Git knows one.
fn revision() -> Option<String> {
    let output = std::process::Command::new("git").args(["rev-parse", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}

impl std::fmt::Debug for Training {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Training").field("folder", &self.folder).finish_non_exhaustive()
    }
}
