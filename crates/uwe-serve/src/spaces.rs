//! The target spaces of the service: a folder of space files, each with a name.
//!
//! An upload is written to the folder before it is acknowledged and becomes a space in the background. So a service that was killed
//! has, when it comes back, every space whole or the upload that it is made from, and goes on with that.

use crate::config::Limits;
use crate::engine::Engine;
use crate::error::{ApiError, Code};
use crate::metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use utoipa::ToSchema;
use uwe::{BuildOptions, Columns, Error, Format, Progress, Space, Targets};

/// Longest name of a space.
const LONGEST_NAME: usize = 64;

/// Tells another service that the folder is in use.
const LOCK: &str = ".lock";

/// How files begin and go on that are not in their place yet.
const UPLOADING: &str = ".upload-";
const NEXT: &str = ".next";

/// Whether a file was on its way to its place when a service was killed.
fn is_left_over(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(UPLOADING) || (name.starts_with('.') && name.contains(NEXT))
}

/// How long a build lets requests go first, between two of its chunks.
const COURTESY: Duration = Duration::from_secs(1);

/// The form of an upload and the columns to take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct UploadForm {
    pub(crate) format: UploadFormat,
    pub(crate) text_column: Option<String>,
    pub(crate) id_column: Option<String>,
}

/// What an upload's body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UploadFormat {
    /// Comma-separated, with a header line.
    #[default]
    Csv,
    /// Tab-separated, with a header line.
    Tsv,
    /// One object a line.
    JsonLines,
}

impl UploadForm {
    /// The targets of a body; none has more than `longest` bytes.
    pub(crate) fn targets(&self, body: &[u8], name: &str, longest: usize) -> Result<Targets, Error> {
        let columns = Columns { text: self.text_column.clone(), id: self.id_column.clone() };
        let format = match self.format {
            UploadFormat::Csv => Format::Csv,
            UploadFormat::Tsv => Format::Tsv,
            UploadFormat::JsonLines => Format::JsonLines,
        };
        let targets = Targets::from_reader(body, name, format, &columns)?;
        match (0..targets.len()).find(|index| targets.text(*index).len() > longest) {
            None => Ok(targets),
            Some(index) => Err(Error::Argument {
                name: "targets",
                problem: format!(
                    "target {index} (from 0) has {} bytes, more than {longest}; send its sentences as targets of their own",
                    targets.text(index).len()
                ),
            }),
        }
    }
}

/// What a space is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpaceState {
    /// It can be ranked against.
    Ready,
    /// Its first version is being built.
    Building,
    /// It can be ranked against, and a newer version is being built.
    Replacing,
    /// It cannot be used; `error` says why.
    Failed,
}

/// A space, for people and programs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct SpaceInfo {
    /// Its name.
    pub(crate) name: String,
    /// What it is at the moment.
    pub(crate) state: SpaceState,
    /// Number of targets; null while none is known.
    pub(crate) targets: Option<usize>,
    /// Bytes of its file.
    pub(crate) bytes: Option<usize>,
    /// Where its targets came from.
    pub(crate) source: Option<String>,
    /// Columns that are kept of each target.
    pub(crate) columns: Option<Vec<String>>,
    /// Fingerprint of model, tokenizer, options and texts.
    pub(crate) fingerprint: Option<String>,
    /// Targets of the version that is being built, and how many are encoded.
    pub(crate) progress: Option<ProgressInfo>,
    /// Why it cannot be used, or why its last build failed.
    pub(crate) error: Option<String>,
}

/// How far a build is.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ProgressInfo {
    /// Targets that are encoded.
    pub(crate) done: usize,
    /// All targets.
    pub(crate) total: usize,
}

/// A build that waits or runs.
struct Build {
    done: AtomicUsize,
    total: usize,
    cancelled: AtomicBool,
}

#[derive(Default)]
struct Entry {
    space: Option<Arc<Space>>,
    build: Option<Arc<Build>>,
    error: Option<String>,
}

struct Job {
    name: String,
    targets: Targets,
    build: Arc<Build>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<String, Entry>,
    jobs: VecDeque<Job>,
    stop: bool,
}

struct Shared {
    folder: PathBuf,
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    /// Most spaces.
    most: usize,
    /// Most bytes of a target.
    longest: usize,
    inner: Mutex<Inner>,
    wake: Condvar,
}

/// All spaces by name.
pub(crate) struct Spaces {
    shared: Arc<Shared>,
    builder: Option<JoinHandle<()>>,
    /// Held while the folder is in use.
    _lock: std::fs::File,
}

/// What a space may be called, in words.
pub const SPACE_NAMES: &str =
    "the name of a space is lower-case letters, digits, - and _, at most 64, a letter or digit first";

/// Whether a space may be called `name`: it becomes a part of paths, and a file's name.
pub fn is_space_name(name: &str) -> bool {
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    name.len() <= LONGEST_NAME
        && name.chars().all(rest)
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

/// `name`, when a space may be called so.
pub(crate) fn check_name(name: &str) -> Result<&str, ApiError> {
    if is_space_name(name) { Ok(name) } else { Err(ApiError::value(SPACE_NAMES, "choose another name")) }
}

impl Spaces {
    /// Opens the spaces of a folder and goes on with uploads that were interrupted.
    ///
    /// # Errors
    /// When the folder cannot be made or read. A file that is no sound space for this model is listed with its error.
    pub(crate) fn open(
        folder: &Path,
        limits: &Limits,
        (engine, metrics): (Arc<Engine>, Arc<Metrics>),
    ) -> Result<Self, Error> {
        let io = |action| {
            let path = folder.to_path_buf();
            move |source| Error::Io { action, path, source }
        };
        std::fs::create_dir_all(folder).map_err(io("create"))?;
        let lock = std::fs::File::create(folder.join(LOCK)).map_err(io("write to"))?;
        if lock.try_lock().is_err() {
            return Err(Error::Argument {
                name: "data",
                problem: format!("another service is using {}; give each its own folder", folder.display()),
            });
        }
        let mut inner = Inner::default();
        let mut files = std::fs::read_dir(folder)
            .and_then(|entries| {
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()
            })
            .map_err(io("read"))?;
        files.sort();
        for file in &files {
            if is_left_over(file) {
                std::fs::remove_file(file).map_err(io("remove what is left over in"))?;
                continue;
            }
            let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) else { continue };
            if check_name(name).is_err() {
                continue;
            }
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("space") => {
                    let entry = inner.entries.entry(name.to_string()).or_default();
                    match Space::open(file).and_then(|space| space.fits(engine.encoder()).map(|()| space)) {
                        Ok(space) => entry.space = Some(Arc::new(space)),
                        Err(error) => {
                            tracing::warn!(space = name, %error, "a space cannot be used");
                            entry.error = Some(describe(&error));
                        }
                    }
                }
                Some("upload") => {
                    let entry = inner.entries.entry(name.to_string()).or_default();
                    match read_upload(file, limits.text_bytes) {
                        Ok(targets) => {
                            let build = Arc::new(Build::new(targets.len()));
                            entry.build = Some(Arc::clone(&build));
                            inner.jobs.push_back(Job { name: name.to_string(), targets, build });
                        }
                        Err(error) => entry.error = Some(error),
                    }
                }
                _ => {}
            }
        }
        let shared = Arc::new(Shared {
            folder: folder.to_path_buf(),
            engine,
            metrics,
            most: limits.spaces,
            longest: limits.text_bytes,
            inner: Mutex::new(inner),
            wake: Condvar::new(),
        });
        shared.count();
        let for_builder = Arc::clone(&shared);
        let builder =
            std::thread::Builder::new().name("space-builder".into()).spawn(move || for_builder.build());
        Ok(Self { shared, builder: Some(builder.map_err(io("start a thread for"))?), _lock: lock })
    }

    /// A space to rank against.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Space>, ApiError> {
        let inner = self.shared.lock();
        let Some(entry) = inner.entries.get(name) else { return Err(unknown(name, &inner)) };
        match (&entry.space, &entry.error) {
            (Some(space), _) => Ok(Arc::clone(space)),
            (None, Some(error)) => Err(ApiError::new(
                Code::NotReady,
                format!("the space `{name}` cannot be used: {error}"),
                "upload it again",
            )),
            (None, None) => Err(ApiError::new(
                Code::NotReady,
                format!("the space `{name}` is being built"),
                "ask /v1/spaces for its progress",
            )),
        }
    }

    /// Adds a space that is open already, such as the built-in one, unless there is one of that name; whether it did.
    pub(crate) fn add(&self, name: &str, space: Space) -> bool {
        let mut inner = self.shared.lock();
        let entry = inner.entries.entry(name.to_string()).or_default();
        let free = entry.space.is_none() && entry.build.is_none();
        if free {
            *entry = Entry { space: Some(Arc::new(space)), ..Entry::default() };
        }
        drop(inner);
        self.shared.count();
        free
    }

    /// All spaces, by name.
    pub(crate) fn list(&self) -> Vec<SpaceInfo> {
        self.shared.lock().entries.iter().map(|(name, entry)| entry.info(name)).collect()
    }

    /// One space.
    pub(crate) fn info(&self, name: &str) -> Result<SpaceInfo, ApiError> {
        let inner = self.shared.lock();
        inner.entries.get(name).map(|entry| entry.info(name)).ok_or_else(|| unknown(name, &inner))
    }

    /// Keeps an upload and builds its space in the background. Ranking goes on against the older version until then. To be called for one
    /// upload at a time.
    pub(crate) fn create(&self, name: &str, form: &UploadForm, body: &[u8]) -> Result<SpaceInfo, ApiError> {
        check_name(name)?;
        let targets = form.targets(body, name, self.shared.longest)?;
        if targets.is_empty() {
            return Err(ApiError::value("there is no target in the upload", "send at least one text"));
        }
        {
            let inner = self.shared.lock();
            if inner.entries.get(name).is_some_and(|entry| entry.build.is_some()) {
                return Err(ApiError::new(
                    Code::Conflict,
                    format!("the space `{name}` is being built already"),
                    "wait until it is ready, or delete it",
                ));
            }
            if !inner.entries.contains_key(name) && inner.entries.len() >= self.shared.most {
                return Err(ApiError::new(
                    Code::TooLarge,
                    format!("there are {} spaces, the most that this service keeps", self.shared.most),
                    "delete one that is not needed any more",
                ));
            }
        }
        write_upload(&self.shared.upload(name), form, body).map_err(|error| ApiError::internal(&error))?;
        let build = Arc::new(Build::new(targets.len()));
        let mut inner = self.shared.lock();
        let entry = inner.entries.entry(name.to_string()).or_default();
        entry.build = Some(Arc::clone(&build));
        entry.error = None;
        let info = entry.info(name);
        inner.jobs.push_back(Job { name: name.to_string(), targets, build });
        drop(inner);
        self.shared.wake.notify_one();
        Ok(info)
    }

    /// Deletes a space, and its build. Rankings that have begun end as they would have.
    pub(crate) fn delete(&self, name: &str) -> Result<(), ApiError> {
        let mut inner = self.shared.lock();
        let Some(entry) = inner.entries.remove(name) else { return Err(unknown(name, &inner)) };
        if let Some(build) = &entry.build {
            build.cancelled.store(true, Ordering::Release);
            inner.jobs.retain(|job| !Arc::ptr_eq(&job.build, build));
        }
        // Under the lock: a build that ends now must not put the file back.
        for file in [self.shared.upload(name), self.shared.file(name)] {
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ApiError::internal(&error));
                }
                _ => {}
            }
        }
        drop(inner);
        self.shared.count();
        Ok(())
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(builder) = self.builder.take() {
            let _ = builder.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.space"))
    }

    fn upload(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.upload"))
    }

    fn count(&self) {
        let ready = self.lock().entries.values().filter(|entry| entry.space.is_some()).count();
        self.metrics.spaces.set(ready as i64);
    }

    /// Builds one upload after the other, until the service stops.
    fn build(&self) {
        loop {
            let mut inner = self.lock();
            let job = loop {
                if inner.stop {
                    return;
                }
                match inner.jobs.pop_front() {
                    Some(job) => break job,
                    None => inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(inner);
            self.build_one(&job);
        }
    }

    fn build_one(&self, job: &Job) {
        // Built under a name of its own: until it is in its place, it can be dropped without a trace.
        let beside = self.folder.join(format!(".{}{NEXT}", job.name));
        let mut progress = |progress: Progress| {
            job.build.done.store(progress.done, Ordering::Relaxed);
            self.engine.yield_to_requests(COURTESY);
            !job.build.cancelled.load(Ordering::Acquire) && !self.lock().stop
        };
        // A fault in one build must not take the builder with it.
        let build = AssertUnwindSafe(|| {
            Space::build(self.engine.encoder(), &job.targets, BuildOptions::default(), &beside, &mut progress)
        });
        let built = std::panic::catch_unwind(build).unwrap_or_else(|_| {
            Err(Error::Argument { name: "targets", problem: "the builder panicked on them".into() })
        });
        let mut inner = self.lock();
        let current = inner
            .entries
            .get_mut(&job.name)
            .filter(|entry| entry.build.as_ref().is_some_and(|build| Arc::ptr_eq(build, &job.build)));
        let Some(entry) = current else {
            // Deleted or replaced meanwhile.
            let _ = std::fs::remove_file(&beside);
            return;
        };
        let placed = built.and_then(|_| {
            let place = self.file(&job.name);
            std::fs::rename(&beside, &place).map_err(|source| Error::Io {
                action: "rename a file to",
                path: place.clone(),
                source,
            })?;
            Space::open(&place)
        });
        match placed {
            Ok(space) => {
                let _ = std::fs::remove_file(self.upload(&job.name));
                *entry = Entry { space: Some(Arc::new(space)), ..Entry::default() };
                self.metrics.builds.inc();
                tracing::info!(space = job.name, targets = job.targets.len(), "a space is ready");
            }
            // The service stops: the upload stays, and the next start goes on.
            Err(Error::Interrupted) => {}
            Err(error) => {
                tracing::warn!(space = job.name, %error, "a space could not be built");
                let _ = std::fs::remove_file(self.upload(&job.name));
                entry.build = None;
                entry.error = Some(describe(&error));
            }
        }
        drop(inner);
        self.count();
    }
}

impl Build {
    fn new(total: usize) -> Self {
        Self { done: AtomicUsize::new(0), total, cancelled: AtomicBool::new(false) }
    }
}

impl Entry {
    fn info(&self, name: &str) -> SpaceInfo {
        let state = match (&self.space, &self.build) {
            (Some(_), None) => SpaceState::Ready,
            (Some(_), Some(_)) => SpaceState::Replacing,
            (None, Some(_)) => SpaceState::Building,
            (None, None) => SpaceState::Failed,
        };
        let meta = self.space.as_ref().map(|space| space.meta());
        SpaceInfo {
            name: name.to_string(),
            state,
            targets: meta.map(|meta| meta.targets),
            bytes: self.space.as_ref().map(|space| space.bytes()),
            source: meta.map(|meta| meta.source.clone()),
            columns: meta.map(|meta| meta.columns.clone()),
            fingerprint: meta.map(|meta| meta.fingerprint.clone()),
            progress: self
                .build
                .as_ref()
                .map(|build| ProgressInfo { done: build.done.load(Ordering::Relaxed), total: build.total }),
            error: self.error.clone(),
        }
    }
}

fn unknown(name: &str, inner: &Inner) -> ApiError {
    let known: Vec<&str> = inner.entries.keys().map(String::as_str).take(20).collect();
    let hint = match known.is_empty() {
        true => "there is none yet; make one with PUT /v1/spaces/NAME".to_string(),
        false => format!("there are: {}", known.join(", ")),
    };
    // What a request sends is not repeated at any length.
    let name: String = name.chars().take(LONGEST_NAME).collect();
    ApiError::new(Code::NotFound, format!("there is no space `{name}`"), hint)
}

/// An error without the folders of this machine.
fn describe(error: &Error) -> String {
    match error {
        Error::Space { problem, .. } => format!("the file {problem}"),
        Error::Mismatch { part, .. } => format!("it was built with another model (its {part} differs)"),
        Error::Io { action, source, .. } => format!("cannot {action} its file: {source}"),
        other => other.to_string(),
    }
}

/// Writes an upload whole or not at all: a line that says what it is, then the body.
fn write_upload(path: &Path, form: &UploadForm, body: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UPLOADING).tempfile_in(folder)?;
    serde_json::to_writer(&mut file, form)?;
    file.write_all(b"\n")?;
    file.write_all(body)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(folder)?.sync_all()
}

fn read_upload(path: &Path, longest: usize) -> Result<Targets, String> {
    let read = || -> std::io::Result<(UploadForm, Vec<u8>)> {
        let mut reader = BufReader::new(std::fs::File::open(path)?);
        let (mut line, mut body) = (String::new(), Vec::new());
        reader.read_line(&mut line)?;
        reader.read_to_end(&mut body)?;
        Ok((serde_json::from_str(&line)?, body))
    };
    let (form, body) = read().map_err(|error| format!("its upload cannot be read: {error}"))?;
    form.targets(&body, "upload", longest).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sound_file_names() {
        for name in ["a", "esco-1_2", "0", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(65);
        for name in ["", "-a", "_a", "A", "a.b", "..", "a/b", "a\\b", "a\0", "ä", "a b", &long] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn uploads_come_back_as_they_were() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.upload");
        let form = UploadForm { format: UploadFormat::Tsv, text_column: Some("t".into()), id_column: None };
        write_upload(&path, &form, b"n\tt\n1\tbake bread\n").unwrap();
        let targets = read_upload(&path, 100).unwrap();
        assert_eq!((targets.len(), targets.text(0)), (1, "bake bread"));
        assert!(read_upload(&path, 9).unwrap_err().contains("10 bytes, more than 9"));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(read_upload(&path, 100).is_err());
    }
}
