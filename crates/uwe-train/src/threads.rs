//! The threads of a step.

use crate::buffers::Buffers;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::sync::Arc;

/// A fixed number of threads. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Threads {
    pool: Arc<rayon::ThreadPool>,
    buffers: Arc<Buffers>,
}

impl Threads {
    /// So many threads; 0 is one for each core.
    ///
    /// # Errors
    /// [`Error::Recipe`] when they cannot be started.
    pub fn new(count: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("uwe-train-{index}"))
            .build()
            .map_err(|error| Error::Recipe { what: "threads".into(), problem: error.to_string() })?;
        Ok(Self { pool: Arc::new(pool), buffers: Arc::default() })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Memory that steps use again.
    pub(crate) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Maps jobs to results in their order, each job on one thread.
    pub(crate) fn map<J: Send, R: Send>(&self, jobs: Vec<J>, work: impl Fn(J) -> R + Sync + Send) -> Vec<R> {
        self.pool.install(|| jobs.into_par_iter().with_max_len(1).map(work).collect())
    }
}
