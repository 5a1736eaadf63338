//! From texts to states to answers: tokenise, wait, encode together, work, answer.
//!
//! A request is tokenised by whoever brings it and then waits in the [`Queue`]. A worker takes as many as its budget allows,
//! encodes what no request has asked for before in one call, and does each request's own work on the states. What a request's client
//! does not wait for any more is not done.

use crate::config::Limits;
use crate::error::{ApiError, Code};
use crate::metrics::Metrics;
use crate::queue::{Bounds, Item, Queue, Taken};
use lru::LruCache;
use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, oneshot};
use uwe::{Encoded, Encoder, TokenStates, Tokens};

/// A text with its states.
#[derive(Debug)]
pub(crate) struct Encoding {
    pub(crate) tokens: Tokens,
    /// `tokens x dimension`
    pub(crate) states: Vec<f32>,
}

impl Encoding {
    fn bytes(&self) -> usize {
        self.states.len() * size_of::<f32>() + self.tokens.ids.len() * 24 + 256
    }
}

/// What a request asks to be encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) texts: &'a [String],
    /// Tokens that take as long as the work on the texts' states.
    pub(crate) further: usize,
    /// Whether a text that the model would cut is refused: some clients want to be told.
    pub(crate) whole: bool,
}

impl<'a> Asked<'a> {
    /// Texts that may be cut, with work on them that takes no time.
    pub(crate) fn of(texts: &'a [String]) -> Self {
        Self { texts, further: 0, whole: false }
    }
}

/// How long the parts of a request took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timing {
    pub(crate) tokenise: Duration,
    pub(crate) queue: Duration,
    pub(crate) encode: Duration,
    pub(crate) work: Duration,
    /// Tokens of the request's texts.
    pub(crate) tokens: usize,
}

impl Timing {
    /// The parts by name, in milliseconds.
    pub(crate) fn parts(&self) -> [(&'static str, f64); 4] {
        let ms = |part: Duration| part.as_secs_f64() * 1e3;
        [
            ("tokenise", ms(self.tokenise)),
            ("queue", ms(self.queue)),
            ("encode", ms(self.encode)),
            ("work", ms(self.work)),
        ]
    }
}

/// An answer with the time that it took.
pub(crate) type Timed<T> = (T, Timing);

/// A text of a request: its states when they are known, else its tokens.
struct Query {
    text: Arc<str>,
    tokens: Tokens,
    known: Option<Arc<Encoding>>,
}

/// A request in the queue.
trait Task: Send {
    fn queries(&self) -> &[Query];
    fn cost(&self) -> usize;
    fn is_gone(&self) -> bool;
    fn run(self: Box<Self>, encoder: &Encoder, encodings: Vec<Arc<Encoding>>, timing: Timing);
    fn refuse(self: Box<Self>, error: ApiError);
}

impl Item for Box<dyn Task> {
    fn texts(&self) -> usize {
        self.queries().len().max(1)
    }
    fn cost(&self) -> usize {
        (**self).cost()
    }
    fn is_gone(&self) -> bool {
        (**self).is_gone()
    }
}

struct Request<T, F> {
    queries: Vec<Query>,
    cost: usize,
    timing: Timing,
    work: F,
    answer: oneshot::Sender<Result<Timed<T>, ApiError>>,
}

impl<T, F> Task for Request<T, F>
where
    T: Send,
    F: FnOnce(&Encoder, &[Arc<Encoding>]) -> Result<T, ApiError> + Send,
{
    fn queries(&self) -> &[Query] {
        &self.queries
    }
    fn cost(&self) -> usize {
        self.cost
    }
    fn is_gone(&self) -> bool {
        self.answer.is_closed()
    }
    fn run(self: Box<Self>, encoder: &Encoder, encodings: Vec<Arc<Encoding>>, timing: Timing) {
        let (start, work) = (Instant::now(), self.work);
        // A fault in one request's work must not take the worker with it.
        let done = std::panic::catch_unwind(AssertUnwindSafe(|| work(encoder, &encodings)))
            .unwrap_or_else(|_| Err(ApiError::internal(&"a worker panicked")));
        let timing =
            Timing { work: start.elapsed(), queue: timing.queue, encode: timing.encode, ..self.timing };
        // Who has gone meanwhile does not miss it.
        let _ = self.answer.send(done.map(|value| (value, timing)));
    }
    fn refuse(self: Box<Self>, error: ApiError) {
        let _ = self.answer.send(Err(error));
    }
}

struct Shared {
    encoder: Arc<Encoder>,
    queue: Mutex<Queue<Box<dyn Task>>>,
    wake: Condvar,
    cache: Mutex<Cache>,
    metrics: Arc<Metrics>,
    stop: AtomicBool,
}

/// Encoder, queue and workers.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// One for each core: long texts are tokenised beside the runtime, and no more of them than cores can do.
    tokenisers: Arc<Semaphore>,
}

impl Engine {
    /// Starts `workers` threads, which share the encoder's.
    pub(crate) fn start(
        encoder: Arc<Encoder>,
        (limits, workers): (&Limits, usize),
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let bounds = Bounds {
            texts: limits.queue_texts,
            longest: Limits::duration(limits.queue_ms),
            batch: limits.batch_tokens,
            workers: workers.max(1),
        };
        let shared = Arc::new(Shared {
            encoder,
            queue: Mutex::new(Queue::new(bounds, Instant::now())),
            wake: Condvar::new(),
            cache: Mutex::new(Cache::new(limits.cache_bytes)),
            metrics,
            stop: AtomicBool::new(false),
        });
        let workers = (0..workers.max(1)).map(|index| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || shared.serve())
        });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let tokenisers = Arc::new(Semaphore::new(cores));
        Ok(Self { workers: workers.collect::<std::io::Result<_>>()?, shared, tokenisers })
    }

    /// The encoder.
    pub(crate) fn encoder(&self) -> &Arc<Encoder> {
        &self.shared.encoder
    }

    /// Refuses while too much waits: who is going to be refused should cost nothing before.
    ///
    /// # Errors
    /// [`Code::Overloaded`].
    pub(crate) fn let_in(&self) -> Result<(), ApiError> {
        match lock(&self.shared.queue).is_crowded(Instant::now()) {
            true => Err(overloaded("too much waits already")),
            false => Ok(()),
        }
    }

    /// Encodes the texts, then does `work` on their states.
    ///
    /// When the returned future is dropped before a worker takes the request up, nothing of it is done.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when it cannot wait, or has waited too long; [`Code::TextTooLong`]; those of `work`.
    pub(crate) async fn run<T, F>(&self, asked: Asked<'_>, work: F) -> Result<Timed<T>, ApiError>
    where
        T: Send + 'static,
        F: FnOnce(&Encoder, &[Arc<Encoding>]) -> Result<T, ApiError> + Send + 'static,
    {
        let start = Instant::now();
        let queries = self.queries(asked.texts).await?;
        if let Some(long) = queries.iter().find(|query| asked.whole && query.tokens.truncated) {
            return Err(ApiError::new(
                Code::TextTooLong,
                format!(
                    "the text that begins with `{}` has more than {} tokens",
                    long.text.chars().take(40).collect::<String>(),
                    self.encoder().tokenizer().max_tokens()
                ),
                "shorten it, or allow cutting with `truncate`",
            ));
        }
        let tokens = queries.iter().map(|query| query.tokens.ids.len()).sum();
        let unknown: usize =
            queries.iter().filter(|query| query.known.is_none()).map(|query| query.tokens.ids.len()).sum();
        let timing = Timing { tokenise: start.elapsed(), tokens, ..Timing::default() };
        let (answer, answered) = oneshot::channel();
        self.shared.metrics.texts.inc_by(asked.texts.len() as u64);
        self.shared.push(Box::new(Request {
            queries,
            cost: unknown + asked.further,
            timing,
            work,
            answer,
        }))?;
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(ApiError::internal(&"a worker dropped a request")),
        }
    }

    /// Tokens of the texts, and the states of those that were asked for before.
    async fn queries(&self, texts: &[String]) -> Result<Vec<Query>, ApiError> {
        // Short texts take microseconds, less than to wake another thread.
        if texts.iter().map(String::len).sum::<usize>() <= 4096 {
            return self.shared.tokenise(texts);
        }
        let permit = Arc::clone(&self.tokenisers).acquire_owned().await;
        let permit = permit.map_err(|error| ApiError::internal(&error))?;
        self.let_in()?;
        let (shared, texts) = (Arc::clone(&self.shared), texts.to_vec());
        let tokenise = move || {
            let _permit = permit;
            shared.tokenise(&texts)
        };
        tokio::task::spawn_blocking(tokenise).await.unwrap_or_else(|error| Err(ApiError::internal(&error)))
    }

    /// Waits until nothing waits: what can wait lets requests go first. At most `longest`.
    pub(crate) fn yield_to_requests(&self, longest: Duration) {
        let start = Instant::now();
        while !lock(&self.shared.queue).is_empty() && start.elapsed() < longest {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        // Behind the lock: a worker that has just seen no stop is waiting by now, and is woken.
        drop(lock(&self.shared.queue));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn tokenise(&self, texts: &[String]) -> Result<Vec<Query>, ApiError> {
        let mut queries = Vec::with_capacity(texts.len());
        for text in texts {
            let known = lock(&self.cache).get(text);
            let tokens = match &known {
                Some(encoding) => encoding.tokens.clone(),
                None => self.encoder.tokenizer().tokenize(text)?,
            };
            self.metrics.cached.inc_by(u64::from(known.is_some()));
            queries.push(Query { text: text.as_str().into(), tokens, known });
        }
        Ok(queries)
    }

    fn push(&self, task: Box<dyn Task>) -> Result<(), ApiError> {
        if self.stop.load(Ordering::Acquire) {
            return Err(ApiError::new(Code::Stopping, "the service is stopping", "try again elsewhere"));
        }
        let mut queue = lock(&self.queue);
        let pushed = queue.push(task, Instant::now());
        self.metrics.waiting.set(queue.texts() as i64);
        drop(queue);
        match pushed {
            Ok(()) => {
                self.wake.notify_one();
                Ok(())
            }
            Err(_) => Err(overloaded("the queue is full")),
        }
    }

    fn serve(&self) {
        while let Some(Taken { batch, late, gone, cost }) = self.next_batch() {
            self.metrics.gone.inc_by(gone as u64);
            for task in late {
                task.refuse(overloaded("the request has waited for too long"));
            }
            if batch.is_empty() {
                continue;
            }
            let start = Instant::now();
            // A fault ends this batch alone: who waits for its answers is told by their end.
            if std::panic::catch_unwind(AssertUnwindSafe(|| self.work(batch))).is_err() {
                tracing::error!("a worker panicked over a batch");
            }
            lock(&self.queue).learn(cost, start.elapsed());
        }
    }

    /// Waits for work; `None` when the service stops and nothing is left.
    fn next_batch(&self) -> Option<Taken<Box<dyn Task>>> {
        let mut queue = lock(&self.queue);
        while queue.is_empty() {
            queue.idle();
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let taken = queue.take(Instant::now());
        self.metrics.waiting.set(queue.texts() as i64);
        Some(taken)
    }

    fn work(&self, batch: Vec<(Box<dyn Task>, Duration)>) {
        let start = Instant::now();
        let tasks = batch.iter().map(|(task, _)| task.queries()).collect::<Vec<_>>();
        let encoded = self.encode(&tasks);
        let encode = start.elapsed();
        for ((task, queue), encodings) in batch.into_iter().zip(encoded) {
            self.metrics.queue_seconds.observe(queue.as_secs_f64());
            match encodings {
                _ if task.is_gone() => {
                    self.metrics.gone.inc();
                }
                Ok(encodings) => {
                    task.run(&self.encoder, encodings, Timing { queue, encode, ..Timing::default() });
                }
                Err(error) => task.refuse(error),
            }
        }
    }

    /// States of each task's texts; each text is encoded once, however often it stands in the batch.
    fn encode(&self, tasks: &[&[Query]]) -> Vec<Result<Vec<Arc<Encoding>>, ApiError>> {
        let mut made: HashMap<&str, Arc<Encoding>> = HashMap::new();
        let mut new: Vec<&Query> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        for query in tasks.iter().copied().flatten() {
            if query.known.is_none() && seen.insert(&query.text) {
                new.push(query);
            }
        }
        if !new.is_empty() {
            let tokens: Vec<Tokens> = new.iter().map(|query| query.tokens.clone()).collect();
            self.metrics.batch_tokens.observe(tokens.iter().map(|text| text.ids.len()).sum::<usize>() as f64);
            // Should the batch fail for one text, the others are encoded by themselves below.
            if let Ok(states) = self.encoder.encode_tokens(&tokens) {
                for (index, (query, tokens)) in new.iter().zip(tokens).enumerate() {
                    let encoding = Arc::new(Encoding { tokens, states: states.text(index).to_vec() });
                    lock(&self.cache).put(&query.text, &encoding);
                    made.insert(&query.text, encoding);
                }
            }
        }
        let mut one = |query: &Query| -> Result<Arc<Encoding>, ApiError> {
            if let Some(encoding) = query.known.as_ref().or_else(|| made.get(&*query.text)) {
                return Ok(Arc::clone(encoding));
            }
            let states = self.encoder.encode_tokens(std::slice::from_ref(&query.tokens))?;
            Ok(Arc::new(Encoding { tokens: query.tokens.clone(), states: states.text(0).to_vec() }))
        };
        tasks.iter().map(|queries| queries.iter().map(&mut one).collect()).collect()
    }
}

/// The texts of a request as the library takes them.
pub(crate) fn gather(encodings: &[Arc<Encoding>], dimension: usize) -> Result<Encoded, ApiError> {
    let mut values = Vec::with_capacity(encodings.iter().map(|encoding| encoding.states.len()).sum());
    let mut offsets = vec![0];
    for encoding in encodings {
        values.extend_from_slice(&encoding.states);
        offsets.push(values.len() / dimension);
    }
    let tokens = encodings.iter().map(|encoding| encoding.tokens.clone()).collect();
    Ok(Encoded { tokens, states: TokenStates::new(values, offsets, dimension)? })
}

fn overloaded(problem: &str) -> ApiError {
    ApiError::new(Code::Overloaded, problem, "wait as long as Retry-After says, then send it again")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// States of texts that were asked for, the longest unused ones forgotten first.
struct Cache {
    encodings: LruCache<Arc<str>, Arc<Encoding>>,
    bytes: usize,
    most: usize,
}

impl Cache {
    fn new(most: usize) -> Self {
        Self { encodings: LruCache::unbounded(), bytes: 0, most }
    }

    fn get(&mut self, text: &str) -> Option<Arc<Encoding>> {
        self.encodings.get(text).map(Arc::clone)
    }

    fn put(&mut self, text: &Arc<str>, encoding: &Arc<Encoding>) {
        let size = |text: &str, encoding: &Encoding| text.len() + encoding.bytes();
        self.bytes += size(text, encoding);
        if let Some((text, old)) = self.encodings.push(Arc::clone(text), Arc::clone(encoding)) {
            self.bytes -= size(&text, &old);
        }
        while self.bytes > self.most
            && let Some((text, old)) = self.encodings.pop_lru()
        {
            self.bytes -= size(&text, &old);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoding(length: usize) -> Arc<Encoding> {
        let tokens = Tokens { ids: vec![0; length], ranges: vec![0..0; length], truncated: false };
        Arc::new(Encoding { tokens, states: vec![0.0; length * 4] })
    }

    #[test]
    fn the_cache_forgets_the_longest_unused() {
        let size = encoding(10).bytes() + 1;
        let mut cache = Cache::new(2 * size);
        for name in ["a", "b"] {
            cache.put(&name.into(), &encoding(10));
        }
        assert!(cache.get("a").is_some());
        cache.put(&"c".into(), &encoding(10));
        assert!(cache.get("b").is_none() && cache.get("a").is_some() && cache.get("c").is_some());
        // The same text again takes no more room.
        cache.put(&"c".into(), &encoding(10));
        assert_eq!(cache.bytes, 2 * size);
        // What is larger than all of it is not kept.
        cache.put(&"d".into(), &encoding(1000));
        assert_eq!((cache.bytes, cache.encodings.len()), (0, 0));
    }
}
