//! Ctrl-C: finish what was begun, save, and leave with 130.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{keys, shipped, term::Term, view::canvas::SHOW_CURSOR};

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Set by the first Ctrl-C (or SIGTERM); the second one ends the program at once.
#[derive(Debug, Clone)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Listens from now on, and says `message` at the first Ctrl-C. There is none while a canvas is
    /// drawn, whose lines it would displace.
    pub fn listen(term: &Term, message: Option<&'static str>) -> Result<Self> {
        let flag = Self(Arc::new(AtomicBool::new(false)));
        let (seen, term) = (flag.clone(), *term);
        ctrlc::set_handler(move || {
            if seen.0.swap(true, Ordering::SeqCst) {
                keys::restore();
                if term.interactive {
                    term.draw(SHOW_CURSOR);
                }
                shipped::remove_temporary();
                std::process::exit(INTERRUPTED);
            }
            if let Some(message) = message {
                term.note(message);
            }
        })
        .context("cannot listen for Ctrl-C")?;
        Ok(flag)
    }

    /// Whether Ctrl-C was pressed.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Sleeps; `true` as soon as Ctrl-C was pressed.
    pub fn wait(&self, time: Duration) -> bool {
        let begun = Instant::now();
        while !self.is_set() {
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            thread::sleep(left.min(Duration::from_millis(20)));
        }
        true
    }

    /// Makes the next Ctrl-C the first one (`false`), or one that ends the program (`true`).
    pub fn set(&self, pressed: bool) {
        self.0.store(pressed, Ordering::SeqCst);
    }

    /// The flag itself, for the library's loops.
    pub fn get(&self) -> &AtomicBool {
        &self.0
    }
}
