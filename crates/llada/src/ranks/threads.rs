//! Ranks that are threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Collective, RankError};
use crate::Result;

/// A rank that is a thread. When it is dropped, others that wait for it learn that it is
/// [lost](RankError::Lost).
#[derive(Debug)]
pub struct Threads {
    rank: usize,
    meeting: Arc<Meeting>,
}

/// Where the ranks meet.
#[derive(Debug)]
struct Meeting {
    table: Mutex<Table>,
    changed: Condvar,
}

/// What they lay down, each in its place, and how many have come or left.
#[derive(Debug)]
struct Table {
    laid: Vec<Vec<u8>>,
    come: usize,
    reading: usize,
    is_lost: bool,
}

impl Threads {
    /// A world of so many ranks, in order, each to be moved to its thread.
    pub fn world(ranks: usize) -> Vec<Self> {
        let table = Table { laid: vec![Vec::new(); ranks], come: 0, reading: 0, is_lost: false };
        let meeting = Arc::new(Meeting { table: Mutex::new(table), changed: Condvar::new() });
        (0..ranks).map(|rank| Self { rank, meeting: meeting.clone() }).collect()
    }

    /// Lays down `own`, and has `read` read what all have laid down.
    fn meet(&self, own: &[u8], read: impl FnOnce(&[Vec<u8>])) -> Result<()> {
        let mut table = self.lock();
        let world = table.laid.len();
        // Those who still read what was there before go first.
        table = self.wait(table, |table| table.reading == 0)?;
        let place = &mut table.laid[self.rank];
        place.clear();
        place.extend_from_slice(own);
        table.come += 1;
        if table.come == world {
            (table.come, table.reading) = (0, world);
            self.meeting.changed.notify_all();
        } else {
            table = self.wait(table, |table| table.reading > 0)?;
        }
        read(&table.laid);
        table.reading -= 1;
        if table.reading == 0 {
            self.meeting.changed.notify_all();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.meeting.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &'a self,
        mut table: MutexGuard<'a, Table>,
        is_time: impl Fn(&Table) -> bool,
    ) -> Result<MutexGuard<'a, Table>> {
        while !is_time(&table) {
            if table.is_lost {
                return Err(RankError::Lost.into());
            }
            table = self.meeting.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(table)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.lock().is_lost = true;
        self.meeting.changed.notify_all();
    }
}

impl Collective for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.lock().laid.len()
    }

    fn exchange(
        &self,
        sent: &[u8],
        received: &mut [u8],
        sizes: (&[usize], &[usize]),
    ) -> Result<()> {
        // Where the part for a rank begins is known to its sender.
        let mut own = Vec::with_capacity(sent.len() + 8 * sizes.0.len());
        let mut start = 0;
        for size in sizes.0 {
            own.extend_from_slice(&(start as u64).to_ne_bytes());
            start += size;
        }
        let header = own.len();
        own.extend_from_slice(sent);
        self.meet(&own, |all| {
            let mut rest = received;
            for (from, &size) in all.iter().zip(sizes.1) {
                let mut start = [0; 8];
                start.copy_from_slice(&from[8 * self.rank..][..8]);
                let start = header + u64::from_ne_bytes(start) as usize;
                let (part, others) = rest.split_at_mut(size);
                part.copy_from_slice(&from[start..start + size]);
                rest = others;
            }
        })
    }

    fn gather(&self, own: &[u8], received: &mut [u8], sizes: &[usize]) -> Result<()> {
        self.meet(own, |all| {
            let mut rest = received;
            for (from, &size) in all.iter().zip(sizes) {
                let (part, others) = rest.split_at_mut(size);
                part.copy_from_slice(from);
                rest = others;
            }
        })
    }
}
