//! Threads and instruction set, chosen once by the caller and passed along.

use crate::error::{Error, Result};
use crate::kernel::InstructionSet;
use crate::team::Team;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the work runs on. Cheap to clone; clones share the threads.
#[derive(Clone, Debug)]
pub struct Compute {
    set: InstructionSet,
    /// The threads beside the caller's own; `None` for a single thread.
    pool: Option<Arc<rayon::ThreadPool>>,
    /// How many calls wait for the pool: helpers of a team go then.
    waiting: Arc<AtomicUsize>,
}

/// Helpers of a team: the narrowest product of a small encoder has eight panels.
const MOST_HELPERS: usize = 7;

impl Compute {
    /// `threads` threads (0: one for each core) on `set` (`None`: the fastest of this processor).
    ///
    /// # Errors
    /// [`Error::Argument`] when the processor lacks the instruction set or threads cannot be started.
    pub fn new(threads: usize, set: Option<InstructionSet>) -> Result<Self> {
        let set = set.unwrap_or_else(InstructionSet::detect);
        if !set.is_available() {
            return Err(Error::Argument {
                name: "kernels",
                problem: format!(
                    "this processor has no {set}; its fastest set is {}",
                    InstructionSet::detect()
                ),
            });
        }
        let threads =
            if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
        let pool = if threads == 1 {
            None
        } else {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|index| format!("uwe-{index}"))
                .build()
                .map_err(|error| Error::Argument { name: "threads", problem: error.to_string() })?;
            Some(Arc::new(pool))
        };
        Ok(Self { set, pool, waiting: Arc::default() })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, |pool| pool.current_num_threads() + 1)
    }

    /// All threads as a team for work that is one job.
    pub(crate) fn team(&self) -> Team {
        let Some(pool) = &self.pool else { return Team::default() };
        let helpers = (self.threads() - 1).min(MOST_HELPERS);
        let (team, board) = Team::with_helpers(helpers);
        for _ in 0..helpers {
            let (board, waiting) = (Arc::clone(&board), Arc::clone(&self.waiting));
            // Not in a scope: who is busy elsewhere is not waited for. A panic is reported by the team.
            pool.spawn(move || drop(catch_unwind(AssertUnwindSafe(|| board.help(&waiting)))));
        }
        team
    }

    /// Maps `jobs` to results in their order, one job a thread at a time, each thread with a workspace of
    /// its own. The first error in job order is returned.
    pub(crate) fn map<J, W, R>(
        &self,
        jobs: Vec<J>,
        job: impl Fn(&mut W, J) -> Result<R> + Sync,
    ) -> Result<Vec<R>>
    where
        J: Send,
        W: Default + Send,
        R: Send,
    {
        let Some(pool) = self.pool.as_ref().filter(|_| jobs.len() > 1) else {
            let mut workspace = W::default();
            return jobs.into_iter().map(|item| job(&mut workspace, item)).collect();
        };
        let count = jobs.len();
        let waiting = Mutex::new(jobs.into_iter().enumerate());
        let done = Mutex::new(Vec::with_capacity(count));
        let work = || {
            let mut workspace = W::default();
            loop {
                // The lock is held for taking a job only.
                let next = lock(&waiting).next();
                let Some((index, item)) = next else { break };
                let result = job(&mut workspace, item);
                lock(&done).push((index, result));
            }
        };
        // The calling thread works too: it has begun before another thread could wake up, which takes longer
        // than a query against a small space.
        let _waiting = Waiting::new(&self.waiting);
        pool.in_place_scope(|scope| {
            for _ in 1..self.threads().min(count) {
                scope.spawn(|_| work());
            }
            work();
        });
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_unstable_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

/// Counts a call that waits for the pool, for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
