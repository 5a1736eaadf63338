//! Requests that wait for a worker.
//!
//! While the queue empties now and then, it is first come, first served. When it has not been empty for a while, waiting only makes
//! everybody late: then the newest request is served first and what has waited for longer than a batch takes is refused, so that
//! those who are answered are answered in time. (The idea of a queue that is controlled by its standing delay is CoDel's: Nichols and
//! Jacobson, "Controlling Queue Delay", 2012.)

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// In how many batches a queue must not have been empty to count as standing.
const STANDING_BATCHES: u32 = 10;

/// What a queue may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Texts that wait.
    pub(crate) texts: usize,
    /// Longest wait.
    pub(crate) longest: Duration,
    /// For how long it must not have been empty to count as standing.
    pub(crate) standing: Duration,
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
    bounds: Bounds,
    last_empty: Instant,
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
            bounds,
            last_empty: now,
            batch: Duration::from_millis(10),
            gone: 0,
        }
    }

    /// Puts an item at the end; gives it back when the queue is full.
    pub(crate) fn push(&mut self, item: T, now: Instant) -> Result<(), T> {
        if self.waiting.is_empty() {
            self.last_empty = now;
        }
        let texts = item.texts();
        // One request may always wait: a limit below its texts would refuse it for ever.
        if !self.waiting.is_empty() && self.texts + texts > self.bounds.texts {
            self.forget_the_gone();
            if !self.waiting.is_empty() && self.texts + texts > self.bounds.texts {
                return Err(item);
            }
        }
        self.texts += texts;
        self.waiting.push_back(Waiting { item, since: now });
        Ok(())
    }

    /// Items for one batch of at most `budget` tokens, at least one where any is left.
    pub(crate) fn take(&mut self, budget: usize, now: Instant) -> Taken<T> {
        self.forget_the_gone();
        let mut taken = Taken { batch: Vec::new(), late: Vec::new(), gone: std::mem::take(&mut self.gone) };
        let standing =
            now.duration_since(self.last_empty) > self.bounds.standing.max(self.batch * STANDING_BATCHES);
        let longest = if standing { (self.batch * 2).min(self.bounds.longest) } else { self.bounds.longest };
        let mut cost = 0;
        loop {
            let next = if standing { self.waiting.back() } else { self.waiting.front() };
            let Some(next) = next else { break };
            let fits = taken.batch.is_empty() || cost + next.item.cost() <= budget;
            let late = now.duration_since(next.since) > longest;
            if !fits && !late {
                break;
            }
            let next = if standing { self.waiting.pop_back() } else { self.waiting.pop_front() };
            let Some(next) = next else { break };
            self.texts -= next.item.texts();
            if late {
                taken.late.push(next.item);
            } else {
                cost += next.item.cost();
                taken.batch.push((next.item, now.duration_since(next.since)));
            }
        }
        // What is late now will not be earlier later.
        while let Some(oldest) = self.waiting.front()
            && now.duration_since(oldest.since) > longest
            && let Some(oldest) = self.waiting.pop_front()
        {
            self.texts -= oldest.item.texts();
            taken.late.push(oldest.item);
        }
        if self.waiting.is_empty() {
            self.last_empty = now;
        }
        taken
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

    fn bounds(texts: usize) -> Bounds {
        Bounds { texts, longest: ms(1000), standing: ms(100) }
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn short_queues_are_first_come_first_served() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(8), start);
        for name in 0..5 {
            assert!(queue.push(request(name), start).is_ok());
        }
        assert_eq!(names(&queue.take(25, start + ms(5))), (vec![0, 1], vec![], 0));
        assert_eq!(names(&queue.take(5, start + ms(10))), (vec![2], vec![], 0));
        assert_eq!(queue.texts(), 2);
        // Nothing is refused before the longest wait, and everything behind it.
        assert_eq!(names(&queue.take(100, start + ms(90))), (vec![3, 4], vec![], 0));
        assert!(queue.is_empty());
    }

    #[test]
    fn full_queues_refuse_and_forget_who_has_gone() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(2), start);
        assert!(queue.push(request(0), start).is_ok());
        assert!(queue.push(Request { name: 1, gone: true }, start).is_ok());
        assert!(queue.push(request(2), start).is_ok(), "the one that has gone makes room");
        assert_eq!(queue.push(request(3), start), Err(request(3)));
        assert_eq!(names(&queue.take(100, start)), (vec![0, 2], vec![], 1));
    }

    #[test]
    fn standing_queues_serve_the_newest_and_refuse_the_late() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(100), start);
        for name in 0..10 {
            assert!(queue.push(request(name), start + ms(20 * name as u64)).is_ok());
        }
        // Never empty for 180 ms; a batch takes 10 ms: what waited for over 20 ms is refused.
        let taken = queue.take(10, start + ms(180));
        assert_eq!(names(&taken), (vec![9], (0..8).collect::<Vec<_>>(), 0));
        assert_eq!(queue.texts(), 1);
        // Longer batches allow longer waits.
        queue.learn(ms(15));
        assert_eq!(names(&queue.take(10, start + ms(190))), (vec![8], vec![], 0));
        // Empty: the next ones are first come, first served again.
        for name in 10..12 {
            assert!(queue.push(request(name), start + ms(300)).is_ok());
        }
        assert_eq!(names(&queue.take(10, start + ms(310))), (vec![10], vec![], 0));
    }
}
