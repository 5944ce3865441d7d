//! Viewers of one canvas: in the terminal while it is unmasked, and exported from a trace.

pub mod canvas;
pub mod export;
pub mod layout;
pub mod palette;
pub mod progress;
pub mod scene;
pub mod units;
