//! Requests that wait for a worker, first come, first served.
//!
//! A queue that empties now and then only smooths what comes. One that has stood for a while makes everybody late and nobody faster: from
//! then on, until a worker finds nothing to do, a request is let in only while less than [`CROWD_BATCHES`] wait, so that who is let in is
//! answered in a few batches' time, and who is not is told at once, before any work. (That the standing delay, not the length, tells a bad
//! queue from a good one is CoDel's idea: Nichols and Jacobson, "Controlling Queue Delay", 2012.)

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In how many batches a queue must not have been empty to count as standing.
const STANDING_BATCHES: u32 = 10;

/// How many batches may wait while it stands: one more than one worker needs to be never without work.
const CROWD_BATCHES: usize = 2;

/// For how many batches something may have waited while it stands: what came before it stood is refused.
const LATE_BATCHES: u32 = 4;

/// What a queue may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Texts that wait.
    pub(crate) texts: usize,
    /// Longest wait.
    pub(crate) longest: Duration,
    /// For how long it must not have been empty to count as standing.
    pub(crate) standing: Duration,
    /// Work of a batch, in tokens.
    pub(crate) batch: usize,
    /// Who takes batches.
    pub(crate) workers: usize,
}

/// What waits.
pub(crate) trait Item {
    /// Texts of the request.
    fn texts(&self) -> usize;
    /// Work that it takes, in tokens.
    fn cost(&self) -> usize;
    /// Whether nobody waits for the answer any more.
    fn is_gone(&self) -> bool;
}

struct Waiting<T> {
    item: T,
    since: Instant,
}

/// A queue with a limit.
pub(crate) struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    texts: usize,
    /// Work that waits, in tokens.
    cost: usize,
    bounds: Bounds,
    last_empty: Instant,
    /// Whether it stands: since it has not been empty for long, until a worker finds nothing to do.
    standing: bool,
    /// A batch's time: what the longest ones take, forgotten slowly.
    batch: Duration,
    /// Forgotten since the last batch.
    gone: usize,
}

/// What a worker takes.
pub(crate) struct Taken<T> {
    /// To work on, with the time that each has waited.
    pub(crate) batch: Vec<(T, Duration)>,
    /// To refuse.
    pub(crate) late: Vec<T>,
    /// To forget: nobody waits for them.
    pub(crate) gone: usize,
}

impl<T: Item> Queue<T> {
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            waiting: VecDeque::new(),
            texts: 0,
            cost: 0,
            bounds,
            last_empty: now,
            standing: false,
            batch: Duration::from_millis(10),
            gone: 0,
        }
    }

    /// Whether the next request is refused: the queue stands, and enough waits to keep a worker busy.
    pub(crate) fn is_crowded(&mut self) -> bool {
        if self.holds_a_crowd() {
            self.forget_the_gone();
        }
        self.holds_a_crowd()
    }

    fn holds_a_crowd(&self) -> bool {
        self.standing && self.cost >= CROWD_BATCHES.max(self.bounds.workers + 1) * self.bounds.batch
    }

    /// Puts an item at the end; gives it back when the queue is full.
    pub(crate) fn push(&mut self, item: T, now: Instant) -> Result<(), T> {
        if self.waiting.is_empty() {
            self.last_empty = now;
        }
        let texts = item.texts();
        // One request may always wait: a limit below its texts would refuse it for ever.
        let full = |queue: &Self| {
            !queue.waiting.is_empty() && (queue.texts + texts > queue.bounds.texts || queue.holds_a_crowd())
        };
        if full(self) {
            self.forget_the_gone();
            if full(self) {
                return Err(item);
            }
        }
        self.texts += texts;
        self.cost += item.cost();
        self.waiting.push_back(Waiting { item, since: now });
        Ok(())
    }

    /// Items for one batch, at least one where any is left.
    pub(crate) fn take(&mut self, now: Instant) -> Taken<T> {
        self.forget_the_gone();
        let mut taken = Taken { batch: Vec::new(), late: Vec::new(), gone: std::mem::take(&mut self.gone) };
        self.standing |=
            now.duration_since(self.last_empty) > self.bounds.standing.max(self.batch * STANDING_BATCHES);
        let longest = match self.standing {
            true => (self.batch * LATE_BATCHES).min(self.bounds.longest),
            false => self.bounds.longest,
        };
        let mut cost = 0;
        while let Some(next) = self.waiting.front() {
            // To refuse helps those behind; what fits into this batch is simply done.
            let late = cost + self.cost > self.bounds.batch
                && self.waiting.len() > 1
                && now.duration_since(next.since) > longest;
            if !late && !taken.batch.is_empty() && cost + next.item.cost() > self.bounds.batch {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.texts -= next.item.texts();
            self.cost -= next.item.cost();
            if late {
                taken.late.push(next.item);
            } else {
                cost += next.item.cost();
                taken.batch.push((next.item, now.duration_since(next.since)));
            }
        }
        if self.waiting.is_empty() {
            self.last_empty = now;
        }
        taken
    }

    /// A worker finds nothing to do: the queue does not stand.
    pub(crate) fn idle(&mut self) {
        self.standing = false;
    }

    /// Learns how long a batch took.
    pub(crate) fn learn(&mut self, batch: Duration) {
        self.batch = batch.max((self.batch * 15 + batch) / 16);
    }

    /// Texts that wait.
    pub(crate) fn texts(&self) -> usize {
        self.texts
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn forget_the_gone(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !waiting.item.is_gone());
        self.texts = self.waiting.iter().map(|waiting| waiting.item.texts()).sum();
        self.cost = self.waiting.iter().map(|waiting| waiting.item.cost()).sum();
        self.gone += before - self.waiting.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Request {
        name: usize,
        gone: bool,
    }

    impl Item for Request {
        fn texts(&self) -> usize {
            1
        }
        fn cost(&self) -> usize {
            10
        }
        fn is_gone(&self) -> bool {
            self.gone
        }
    }

    fn request(name: usize) -> Request {
        Request { name, gone: false }
    }

    fn names(taken: &Taken<Request>) -> (Vec<usize>, Vec<usize>, usize) {
        let batch = taken.batch.iter().map(|(request, _)| request.name).collect();
        (batch, taken.late.iter().map(|request| request.name).collect(), taken.gone)
    }

    /// Batches of two requests.
    fn bounds(texts: usize) -> Bounds {
        Bounds { texts, longest: ms(1000), standing: ms(100), batch: 25, workers: 1 }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn it_is_first_come_first_served() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(8), start);
        for name in 0..5 {
            assert!(queue.push(request(name), start).is_ok());
        }
        assert_eq!(names(&queue.take(start + ms(5))), (vec![0, 1], vec![], 0));
        assert_eq!(names(&queue.take(start + ms(10))), (vec![2, 3], vec![], 0));
        assert_eq!(queue.texts(), 1);
        // Nothing is refused before the longest wait.
        assert_eq!(names(&queue.take(start + ms(90))), (vec![4], vec![], 0));
        assert!(queue.is_empty());
        assert!(queue.push(request(5), start + ms(200)).is_ok());
        assert_eq!(names(&queue.take(start + ms(1300))), (vec![5], vec![], 0), "nobody else waits");
        for name in 6..10 {
            assert!(queue.push(request(name), start + ms(1300 + 500 * (name as u64 / 8))).is_ok());
        }
        assert_eq!(names(&queue.take(start + ms(2500))), (vec![8, 9], vec![6, 7], 0));
    }

    #[test]
    fn full_queues_refuse_and_forget_who_has_gone() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(2), start);
        assert!(queue.push(request(0), start).is_ok());
        assert!(queue.push(Request { name: 1, gone: true }, start).is_ok());
        assert!(queue.push(request(2), start).is_ok(), "the one that has gone makes room");
        assert_eq!(queue.push(request(3), start), Err(request(3)));
        assert_eq!(names(&queue.take(start)), (vec![0, 2], vec![], 1));
    }

    #[test]
    fn standing_queues_let_in_only_who_is_answered_soon() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(100), start);
        for name in 0..10 {
            assert!(queue.push(request(name), start + ms(20 * name as u64)).is_ok());
        }
        assert!(!queue.is_crowded(), "it is not known yet whether this will pass");
        // Never empty for 180 ms; a batch takes 10 ms: what has waited for over 40 ms is refused.
        assert_eq!(names(&queue.take(start + ms(180))), (vec![7, 8], (0..7).collect::<Vec<_>>(), 0));
        // Two batches of 25 tokens may wait.
        for name in 10..14 {
            assert!(queue.push(request(name), start + ms(181)).is_ok());
        }
        assert!(queue.is_crowded());
        assert_eq!(queue.push(request(14), start + ms(181)), Err(request(14)));
        assert_eq!(names(&queue.take(start + ms(190))), (vec![9, 10], vec![], 0));
        assert!(queue.push(request(15), start + ms(191)).is_ok());
        // It stands until a worker finds nothing to do, even if a batch takes all that waits.
        while !queue.is_empty() {
            queue.take(start + ms(200));
        }
        for name in 20..25 {
            assert!(queue.push(request(name), start + ms(201)).is_ok());
        }
        assert!(queue.is_crowded());
        queue.idle();
        assert!(queue.push(request(25), start + ms(202)).is_ok());
        // Longer batches allow longer waits.
        queue.learn(ms(100));
        assert_eq!(names(&queue.take(start + ms(600))), (vec![20, 21], vec![], 0));
    }
}
