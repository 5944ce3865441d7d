//! How far a task is: a bar on a terminal, a line every so often elsewhere.

use std::time::{Duration, Instant};

use llada::eval::{Observer, Record};

use super::store::Store;
use crate::{
    interrupt::Flag,
    term::Term,
    view::{
        progress::{Bar, steps_bar},
        units,
    },
};

/// Time between two lines where there is no bar.
const BETWEEN_LINES: Duration = Duration::from_secs(15);

/// Records the rows of a task, and tells how many are done.
pub struct Progress<'a> {
    task: &'a str,
    rows: usize,
    done: usize,
    /// Rows of this run: the others took no time.
    fresh: usize,
    begun: Instant,
    told: Instant,
    bar: Bar,
    store: Option<Store>,
    stop: &'a Flag,
    term: &'a Term,
}

impl<'a> Progress<'a> {
    /// Nothing is done yet of `rows`.
    pub fn new(
        task: &'a str,
        rows: usize,
        store: Option<Store>,
        stop: &'a Flag,
        term: &'a Term,
    ) -> Self {
        let bar = steps_bar(term, rows as u64);
        let now = Instant::now();
        Self { task, rows, done: 0, fresh: 0, begun: now, told: now, bar, store, stop, term }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self) -> String {
        let per_row = self.begun.elapsed().as_secs_f64() / self.fresh.max(1) as f64;
        let left = match self.fresh {
            0 => f64::NAN,
            _ => per_row * self.rows.saturating_sub(self.done) as f64,
        };
        format!("{} per row · eta {}", units::duration(per_row), units::duration(left))
    }
}

impl Observer for Progress<'_> {
    fn record(&mut self, record: &Record, reused: bool) -> llada::Result<()> {
        self.done += 1;
        if !reused {
            self.fresh += 1;
            if let Some(store) = &mut self.store {
                store.add(record)?;
            }
        }
        self.bar.set_position(self.done as u64);
        self.bar.set_message(format!("{} · {}", self.task, self.line()));
        if self.bar.is_hidden() && self.told.elapsed() >= BETWEEN_LINES {
            self.told = Instant::now();
            let (task, done, rows) = (self.task, self.done, self.rows);
            self.term.note(&format!("{task}: {done}/{rows} rows · {}", self.line()));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.stop.is_set()
    }
}
