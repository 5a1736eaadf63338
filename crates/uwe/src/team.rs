//! Several threads on one product: what makes a single text fast.
//!
//! A text of a few tokens is some twenty products of a hundred microseconds each. To wake a thread for every one
//! of them would take as long as the products do. A [`Team`] therefore lasts as long as one text is encoded: its
//! helpers look for the next part by themselves, without sleeping. The caller waits for nobody who has not begun: with
//! the helpers busy elsewhere it does all parts itself.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// The caller's side of a team: alone, or with helpers that [`Compute`](crate::Compute) has called.
///
/// While a team stands, its owner must not wait for the pool that the helpers are of.
#[derive(Debug, Default)]
pub(crate) struct Team {
    board: Option<Arc<Board>>,
    helpers: usize,
}

impl Team {
    /// A team whose helpers call [`Board::help`] on the returned board.
    pub(crate) fn with_helpers(helpers: usize) -> (Self, Arc<Board>) {
        let board = Arc::new(Board::default());
        (Self { board: Some(Arc::clone(&board)), helpers }, board)
    }

    /// The caller and its helpers.
    pub(crate) fn members(&self) -> usize {
        1 + self.helpers
    }

    /// Does `work(part)` for every part below `parts`, each once, on whichever thread comes first; returns when all
    /// are done.
    pub(crate) fn split(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        match &self.board {
            // One work at a time: within a part, or from another thread, the caller does all of it.
            Some(board) if parts > 1 && !board.busy.swap(true, Ordering::Acquire) => {
                let _free = Free(board);
                board.split(parts, work);
            }
            _ => (0..parts).for_each(work),
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        if let Some(board) = &self.board {
            board.closed.store(true, Ordering::Release);
        }
    }
}

/// Says that the next work may come, however this one ends.
struct Free<'a>(&'a Board);

impl Drop for Free<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// What many threads look at, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Parts of the work of the moment, and who has taken which.
#[derive(Default)]
pub(crate) struct Board {
    /// Number of the work (32 bits), its parts (16), the next part that nobody has taken (16): one number, so that a part
    /// can only be taken of the work that it belongs to.
    state: Apart<AtomicU64>,
    /// The work. Written while no part is taken and none can be; read by who has taken one.
    work: UnsafeCell<Option<*const (dyn Fn(usize) + Sync)>>,
    /// Parts of the work that are done.
    done: Apart<AtomicUsize>,
    /// There is a work.
    busy: AtomicBool,
    /// A helper's part has panicked.
    failed: AtomicBool,
    /// The team is no more.
    closed: AtomicBool,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Board").field("state", &self.state).finish_non_exhaustive()
    }
}

// SAFETY: `work` is the only field that is not `Sync`. `split` writes it when every part of the work before is done, which it
// has seen with `Acquire`, and before it publishes the next state with `Release`; `take` hands it out to who
// has taken a part with `Acquire`, and that part is not done until its holder says so with `Release`.
unsafe impl Sync for Board {}
// SAFETY: the pointer within is to something `Sync`.
unsafe impl Send for Board {}

/// Counts a part as done however it ends.
struct Part<'a> {
    board: &'a Board,
    finished: bool,
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.board.failed.store(true, Ordering::Relaxed);
        }
        self.board.done.0.fetch_add(1, Ordering::Release);
    }
}

/// Waits, on leaving, until no other thread holds the work, also when the caller's own part panics.
struct Everybody<'a> {
    board: &'a Board,
    parts: usize,
}

impl Drop for Everybody<'_> {
    fn drop(&mut self) {
        // What nobody has taken, nobody may take any more; without a panic that is nothing.
        let untaken = loop {
            let state = self.board.state.0.load(Ordering::Relaxed);
            let (parts, next) = counts(state);
            if next >= parts {
                break 0;
            }
            let full = (state & !0xffff) | parts as u64;
            let swap = self.board.state.0.compare_exchange(state, full, Ordering::Acquire, Ordering::Relaxed);
            if swap.is_ok() {
                break parts - next;
            }
        };
        let mut patience = Patience::default();
        while self.board.done.0.load(Ordering::Acquire) < self.parts - untaken {
            patience.wait();
        }
    }
}

fn counts(state: u64) -> (usize, usize) {
    ((state >> 16 & 0xffff) as usize, (state & 0xffff) as usize)
}

impl Board {
    fn split(&self, parts: usize, work: &(dyn Fn(usize) + Sync)) {
        assert!(parts <= usize::from(u16::MAX), "work in {parts} parts");
        // SAFETY: this only hides how long the work lives: the pointer is followed by who has taken a part of this work alone, and
        // this function does not end, nor unwind, before all of these are done (`Everybody`).
        let work = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(work)
        };
        // SAFETY: no part is taken, and none can be: see `Sync` above; `busy` keeps a second work out.
        unsafe { *self.work.get() = Some(work) };
        self.done.0.store(0, Ordering::Relaxed);
        let number = (self.state.0.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        let everybody = Everybody { board: self, parts };
        self.state.0.store(number << 32 | (parts as u64) << 16, Ordering::Release);
        while self.work_one() {}
        drop(everybody);
        assert!(!self.failed.load(Ordering::Relaxed), "a helper's part panicked");
    }

    /// Takes a part and does it; false when none is left.
    fn work_one(&self) -> bool {
        let mut state = self.state.0.load(Ordering::Relaxed);
        let part = loop {
            let (parts, next) = counts(state);
            if next >= parts {
                return false;
            }
            match self.state.0.compare_exchange_weak(state, state + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break next,
                Err(now) => state = now,
            }
        };
        let mut held = Part { board: self, finished: false };
        // SAFETY: a part of this work is taken and not done: the work is not replaced meanwhile, and still there.
        if let Some(work) = unsafe { (*self.work.get()).map(|work| &*work) } {
            work(part);
        }
        held.finished = true;
        true
    }

    /// Does parts until the team is no more, or `wanted` says that somebody waits for this thread.
    pub(crate) fn help(&self, wanted: &AtomicUsize) {
        let mut patience = Patience::default();
        while !self.closed.load(Ordering::Acquire) && wanted.load(Ordering::Relaxed) == 0 {
            if self.work_one() {
                patience = Patience::default();
            } else {
                patience.wait();
            }
        }
    }
}

/// Looks again at once for some ten microseconds; after that it lets other threads go first.
#[derive(Default)]
struct Patience {
    turns: u32,
}

impl Patience {
    fn wait(&mut self) {
        self.turns = self.turns.saturating_add(1);
        if self.turns < 300 && !cfg!(miri) {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_helpers<T>(helpers: usize, work: impl FnOnce(Team) -> T) -> T {
        let (team, board) = Team::with_helpers(helpers);
        let nobody = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..helpers {
                let (board, nobody) = (Arc::clone(&board), &nobody);
                scope.spawn(move || {
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| board.help(nobody)));
                });
            }
            work(team)
        })
    }

    #[test]
    fn every_part_is_done_once_and_before_the_call_returns() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        for helpers in 0..4 {
            with_helpers(helpers, |team| {
                for round in 0..rounds {
                    let parts = round % 7;
                    let seen: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                    team.split(parts, &|part| {
                        seen[part].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{round}");
                }
            });
        }
    }

    #[test]
    fn work_within_work_is_done_by_whoever_is_there() {
        with_helpers(2, |team| {
            let count = AtomicUsize::new(0);
            team.split(5, &|_| {
                team.split(3, &|_| {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            });
            assert_eq!(count.load(Ordering::Relaxed), 15);
        });
    }

    #[test]
    fn a_helper_goes_when_it_is_wanted_elsewhere() {
        let (team, board) = Team::with_helpers(1);
        board.help(&AtomicUsize::new(1));
        team.split(3, &|_| {});
    }

    #[test]
    fn a_panic_in_a_part_reaches_the_caller_when_nobody_works_any_more() {
        for helpers in 0..3 {
            for broken in 0..6 {
                let working = AtomicUsize::new(0);
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    with_helpers(helpers, |team| {
                        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                            team.split(6, &|part| {
                                working.fetch_add(1, Ordering::SeqCst);
                                let result = std::panic::catch_unwind(|| assert_ne!(part, broken));
                                working.fetch_sub(1, Ordering::SeqCst);
                                if let Err(panic) = result {
                                    std::panic::resume_unwind(panic);
                                }
                            });
                        }));
                        assert_eq!(working.load(Ordering::SeqCst), 0);
                        drop(team);
                        ended
                    })
                }));
                assert!(ended.unwrap().is_err(), "{helpers} helpers, part {broken}");
            }
        }
    }
}
