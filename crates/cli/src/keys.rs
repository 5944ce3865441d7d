//! Keys that are pressed while something is drawn: kept for later, not written over the drawing.

/// Keeps the terminal from showing typed keys until it is dropped.
#[derive(Debug)]
pub struct Silence(());

impl Silence {
    /// From now on; of no effect where stdin is no terminal.
    pub fn new() -> Self {
        imp::silence();
        Self(())
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        restore();
    }
}

/// Remembers how the terminal is set, for [`restore`].
pub fn remember() {
    imp::remember();
}

/// Sets the terminal as it was when the program began: also what an interrupted program has to do.
pub fn restore() {
    imp::restore();
}

#[cfg(unix)]
mod imp {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

    static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

    pub(super) fn remember() {
        let mut before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_none() {
            *before = tcgetattr(io::stdin()).ok();
        }
    }

    pub(super) fn silence() {
        remember();
        if let Ok(mut modes) = tcgetattr(io::stdin()) {
            modes.local_modes.remove(LocalModes::ECHO);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &modes);
        }
    }

    pub(super) fn restore() {
        let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = before.as_ref() {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(not(unix))]
mod imp {
    pub(super) fn remember() {}
    pub(super) fn silence() {}
    pub(super) fn restore() {}
}
