//! Requests that wait for a worker, first come, first served.
//!
//! What waits is measured in time: by its work, and by how long a worker has taken for so much. Who would wait for too long is refused
//! before any work, and from then on the queue is overloaded, until for as long no more are refused than let in: each request is worked on
//! alone, and one for each worker may wait, once three quarters of what is worked on are done. A queue that stood at its limit would make
//! everybody late and serve nobody the faster; so, who is let in is answered in little more than the time that it takes alone, and who is
//! not is refused at once. A crowd of clients that each wait for their answers before they ask again never gets there, as long as its turn
//! takes less than the limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a queue may hold, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Texts that wait.
    pub(crate) texts: usize,
    /// Longest wait.
    pub(crate) longest: Duration,
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

/// What has been seen of an overload lately. That workers find nothing to do for a moment is no end of it: where clients and service share
/// processors, the clients' own pauses look like that.
#[derive(Clone, Copy)]
struct Overload {
    since: Instant,
    let_in: usize,
    refused: usize,
}

impl Overload {
    fn new(now: Instant) -> Self {
        Self { since: now, let_in: 0, refused: 0 }
    }
}

/// A queue with a limit.
pub(crate) struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    texts: usize,
    /// Work that waits, in tokens.
    cost: usize,
    bounds: Bounds,
    /// Since somebody would have waited for too long.
    overload: Option<Overload>,
    /// Whether a worker finds nothing to do.
    idle: bool,
    /// When three quarters of what is worked on are done, as far as can be told.
    nearly_done: Instant,
    /// Seconds that a token of work takes, in the mean.
    token: f64,
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
    /// Work of the batch, in tokens.
    pub(crate) cost: usize,
}

impl<T: Item> Queue<T> {
    pub(crate) fn new(bounds: Bounds, now: Instant) -> Self {
        let batch = Duration::from_millis(10);
        Self {
            waiting: VecDeque::new(),
            texts: 0,
            cost: 0,
            bounds,
            overload: None,
            idle: false,
            nearly_done: now,
            token: batch.as_secs_f64() / bounds.batch as f64,
            batch,
            gone: 0,
        }
    }

    /// Whether the next request is refused, whatever it is.
    pub(crate) fn is_crowded(&mut self, now: Instant) -> bool {
        if self.holds_a_crowd(now) {
            self.forget_the_gone();
        }
        let crowded = self.holds_a_crowd(now);
        if crowded {
            self.overload.get_or_insert(Overload::new(now)).refused += 1;
        }
        crowded
    }

    fn holds_a_crowd(&self, now: Instant) -> bool {
        let wait = self.cost as f64 * self.token / self.bounds.workers as f64;
        match self.overload {
            Some(_) => self.waiting.len() >= self.bounds.workers || (!self.idle && now < self.nearly_done),
            // One request may always wait, however long the one before it takes.
            None => !self.waiting.is_empty() && wait > self.bounds.longest.as_secs_f64(),
        }
    }

    /// Puts an item at the end; gives it back when the queue is full.
    pub(crate) fn push(&mut self, item: T, now: Instant) -> Result<(), T> {
        let texts = item.texts();
        // One request may always wait: a limit below its texts would refuse it for ever.
        let full = |queue: &Self| !queue.waiting.is_empty() && queue.texts + texts > queue.bounds.texts;
        if full(self) {
            self.forget_the_gone();
        }
        if full(self) || self.is_crowded(now) {
            return Err(item);
        }
        if let Some(overload) = &mut self.overload {
            overload.let_in += 1;
        }
        self.texts += texts;
        self.cost += item.cost();
        self.waiting.push_back(Waiting { item, since: now });
        Ok(())
    }

    /// Items for one batch, at least one where any is left.
    pub(crate) fn take(&mut self, now: Instant) -> Taken<T> {
        self.forget_the_gone();
        self.idle = false;
        if let Some(overload) = self.overload
            && now.duration_since(overload.since) >= self.bounds.longest
        {
            self.overload = (overload.refused > overload.let_in).then(|| Overload::new(now));
        }
        let mut taken =
            Taken { batch: Vec::new(), late: Vec::new(), gone: std::mem::take(&mut self.gone), cost: 0 };
        let alone = self.overload.is_some();
        let longest = match alone {
            // What came before it was overloaded is refused as well, but for what would have begun by now.
            true => self.batch,
            // Who was let in has been promised an answer; only a guess that was far too low is no promise.
            false => self.bounds.longest * 2,
        };
        while let Some(next) = self.waiting.front() {
            // To refuse helps those behind; what fits into this batch is simply done. In an overload none waits for another's work.
            let late = (alone || taken.cost + self.cost > self.bounds.batch)
                && self.waiting.len() > 1
                && now.duration_since(next.since) > longest;
            let full = alone || taken.cost + next.item.cost() > self.bounds.batch;
            if !late && full && !taken.batch.is_empty() {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.texts -= next.item.texts();
            self.cost -= next.item.cost();
            if late {
                taken.late.push(next.item);
            } else {
                taken.cost += next.item.cost();
                taken.batch.push((next.item, now.duration_since(next.since)));
            }
        }
        self.nearly_done = now + Duration::from_secs_f64(taken.cost as f64 * self.token * 0.75);
        taken
    }

    /// A worker finds nothing to do.
    pub(crate) fn idle(&mut self) {
        self.idle = true;
    }

    /// Learns how long a batch of so much work took.
    pub(crate) fn learn(&mut self, cost: usize, took: Duration) {
        self.batch = took.max((self.batch * 15 + took) / 16);
        // Sums go by time: what much work takes counts more than what little does.
        let share = (cost as f64 / self.bounds.batch as f64).min(1.0) / 16.0;
        self.token += share * (took.as_secs_f64() / cost.max(1) as f64 - self.token);
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

    /// Batches of two requests, which take 10 ms: 0.4 ms a token.
    fn bounds(texts: usize) -> Bounds {
        Bounds { texts, longest: ms(41), batch: 25, workers: 1 }
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
        assert_eq!(names(&queue.take(start + ms(70))), (vec![4], vec![], 0));
        assert!(queue.is_empty());
        assert!(queue.push(request(5), start + ms(200)).is_ok());
        assert_eq!(names(&queue.take(start + ms(1300))), (vec![5], vec![], 0), "nobody else waits");
        // A wait that was guessed far too low ends, for those behind.
        for (name, at) in [(6, 1300), (7, 1300), (8, 1390), (9, 1390)] {
            assert!(queue.push(request(name), start + ms(at)).is_ok());
        }
        assert_eq!(names(&queue.take(start + ms(1400))), (vec![8, 9], vec![6, 7], 0));
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
    fn overloaded_queues_let_in_only_who_is_answered_soon() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(100), start);
        // Ten requests take 40 ms, and the eleventh is let in; the next one would wait for more than 41.
        for name in 0..11 {
            assert!(!queue.is_crowded(start));
            assert!(queue.push(request(name), start).is_ok());
        }
        assert_eq!(queue.push(request(11), start), Err(request(11)));
        // From here on it is overloaded: each is worked on alone, and those that have waited for longer than a batch takes are refused.
        assert_eq!(names(&queue.take(start + ms(9))), (vec![0], vec![], 0));
        assert_eq!(names(&queue.take(start + ms(25))), (vec![10], (1..10).collect::<Vec<_>>(), 0));
        // A request takes 4 ms; in the last quarter one may wait.
        assert_eq!(queue.push(request(12), start + ms(26)), Err(request(12)));
        assert!(queue.push(request(12), start + ms(29)).is_ok());
        assert_eq!(queue.push(request(13), start + ms(29)), Err(request(13)));
        assert_eq!(names(&queue.take(start + ms(33))), (vec![12], vec![], 0));
        // A moment without work is no end of it: more were refused than let in.
        queue.idle();
        assert!(queue.push(request(14), start + ms(38)).is_ok());
        assert_eq!(queue.push(request(15), start + ms(38)), Err(request(15)));
        assert_eq!(names(&queue.take(start + ms(45))), (vec![14], vec![], 0));
        assert!(queue.push(request(15), start + ms(50)).is_ok() && queue.is_crowded(start + ms(50)));
        assert_eq!(names(&queue.take(start + ms(51))), (vec![15], vec![], 0));
        // Two are let in and one is refused: that is.
        queue.idle();
        assert!(queue.push(request(16), start + ms(90)).is_ok());
        assert_eq!(names(&queue.take(start + ms(90))), (vec![16], vec![], 0));
        assert!(queue.push(request(17), start + ms(90)).is_ok() && !queue.is_crowded(start + ms(90)));
    }

    #[test]
    fn how_long_work_takes_is_learnt() {
        let start = Instant::now();
        let mut queue = Queue::new(bounds(100), start);
        // Four times as long as was guessed.
        (0..100).for_each(|_| queue.learn(25, ms(40)));
        for name in 0..3 {
            assert!(queue.push(request(name), start).is_ok(), "{name}");
        }
        assert!(queue.is_crowded(start));
        // What has gone makes room.
        let mut queue = Queue::new(bounds(100), start);
        for name in 0..11 {
            assert!(queue.push(Request { name, gone: name > 3 }, start).is_ok());
        }
        assert!(!queue.is_crowded(start) && queue.push(request(11), start).is_ok());
    }
}
