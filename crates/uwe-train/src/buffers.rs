//! Memory that steps use again: giving gigabytes back to the system and asking for them anew, page by page, takes as long as
//! the arithmetic.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buffers that wait for their next use, by capacity.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    waiting: Mutex<BTreeMap<usize, Vec<Vec<f32>>>>,
}

impl Buffers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<Vec<f32>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many numbers of any value, in room for at least `room`.
    pub(crate) fn take(&self, count: usize, room: usize) -> Vec<f32> {
        let room = room.max(count).max(1);
        let found = self.lock().get_mut(&room).and_then(Vec::pop);
        let mut buffer = found.unwrap_or_else(|| crate::matrix::zeros(room));
        buffer.resize(count, 0.0);
        buffer
    }

    /// So many zeros.
    pub(crate) fn zeros(&self, count: usize) -> Vec<f32> {
        let mut buffer = self.take(count, count);
        buffer.fill(0.0);
        buffer
    }

    /// Keeps a buffer for later.
    pub(crate) fn give(&self, buffer: Vec<f32>) {
        self.lock().entry(buffer.capacity()).or_default().push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        let buffers = Buffers::default();
        let mut first = buffers.take(10, 64);
        assert_eq!((first.len(), first.capacity()), (10, 64));
        first.fill(7.0);
        let place = first.as_ptr();
        buffers.give(first);
        let again = buffers.take(64, 64);
        assert!(again.as_ptr() == place && again.len() == 64);
        buffers.give(again);
        assert_eq!(buffers.zeros(64), vec![0.0; 64]);
    }
}
