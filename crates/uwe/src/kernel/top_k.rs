//! The best `k` of many scores, by the one order that the whole project uses.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// The order of hits: score descending, then target index ascending.
pub(crate) fn descending(a: (f32, usize), b: (f32, usize)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Keeps the best `k` of what is offered, in any order of offering.
#[derive(Debug)]
pub(crate) struct TopK {
    capacity: usize,
    heap: BinaryHeap<Entry>,
}

/// An entry is greater when it comes later in the order, so that the heap's top is the worst one kept.
#[derive(Debug, Clone, Copy)]
struct Entry(f32, usize);

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        descending((self.0, self.1), (other.0, other.1))
    }
}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Entry {}

impl TopK {
    /// Room for `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, heap: BinaryHeap::new() }
    }

    /// Offers one entry.
    #[inline]
    pub(crate) fn offer(&mut self, score: f32, index: usize) {
        if self.heap.len() < self.capacity {
            self.heap.push(Entry(score, index));
        } else if let Some(worst) = self.heap.peek()
            && score >= worst.0
            && Entry(score, index) < *worst
        {
            self.heap.pop();
            self.heap.push(Entry(score, index));
        }
    }

    /// Takes over what `other` kept.
    pub(crate) fn merge(&mut self, other: Self) {
        for Entry(score, index) in other.heap {
            self.offer(score, index);
        }
    }

    /// What was kept, best first.
    pub(crate) fn into_sorted(self) -> Vec<(f32, usize)> {
        self.heap.into_sorted_vec().into_iter().map(|Entry(score, index)| (score, index)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_sorting_everything(scores in prop::collection::vec(-3i8..3, 0..80), k in 0usize..90, cut in 0usize..80) {
            let all: Vec<(f32, usize)> = scores.iter().enumerate().map(|(i, s)| (f32::from(*s), i)).collect();
            let mut expected = all.clone();
            expected.sort_by(|a, b| descending(*a, *b));
            expected.truncate(k);
            let cut = cut.min(all.len());
            let (mut left, mut right) = (TopK::new(k), TopK::new(k));
            all[..cut].iter().rev().for_each(|(s, i)| left.offer(*s, *i));
            all[cut..].iter().for_each(|(s, i)| right.offer(*s, *i));
            left.merge(right);
            prop_assert_eq!(left.into_sorted(), expected);
        }
    }
}
