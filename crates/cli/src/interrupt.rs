//! Ctrl-C: finish what was begun, save, and leave with 130.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::{keys, shipped, term::Term, view::canvas::SHOW_CURSOR};

/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// Who is told of Ctrl-C; without anyone it ends the program.
static LISTENER: Mutex<Option<Listener>> = Mutex::new(None);
/// Files that go where Ctrl-C ends the program.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Set by the first Ctrl-C (or SIGTERM); the second one ends the program at once.
#[derive(Debug, Clone)]
pub struct Flag(Arc<AtomicBool>);

#[derive(Clone)]
struct Listener {
    flag: Flag,
    term: Term,
    message: Option<&'static str>,
}

/// A file that goes with the program, also where Ctrl-C ends it.
pub fn temporary(prefix: &str, suffix: &str) -> Result<NamedTempFile> {
    handle()?;
    // Whoever ends the program waits until the file is known.
    let mut known = lock(&TEMPORARY);
    let file = tempfile::Builder::new().prefix(prefix).suffix(suffix).tempfile()?;
    known.push(file.path().to_owned());
    Ok(file)
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Handles Ctrl-C from now on.
fn handle() -> Result<()> {
    static IS_HANDLED: Mutex<bool> = Mutex::new(false);
    let mut is_handled = lock(&IS_HANDLED);
    if !*is_handled {
        ctrlc::set_handler(pressed).context("cannot listen for Ctrl-C")?;
        *is_handled = true;
    }
    Ok(())
}

fn pressed() {
    let listener = lock(&LISTENER).clone();
    let Some(Listener { flag, term, message }) = listener else { end() };
    if flag.0.swap(true, Ordering::SeqCst) {
        keys::restore();
        if term.interactive {
            term.draw(SHOW_CURSOR);
        }
        end();
    }
    if let Some(message) = message {
        term.note(message);
    }
}

fn end() -> ! {
    shipped::remove_temporary();
    for path in lock(&TEMPORARY).drain(..) {
        let _ = fs::remove_file(path);
    }
    std::process::exit(INTERRUPTED);
}

impl Flag {
    /// Listens from now on, and says `message` at the first Ctrl-C. There is none while a canvas is
    /// drawn, whose lines it would displace.
    pub fn listen(term: &Term, message: Option<&'static str>) -> Result<Self> {
        let flag = Self(Arc::new(AtomicBool::new(false)));
        *lock(&LISTENER) = Some(Listener { flag: flag.clone(), term: *term, message });
        handle()?;
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
