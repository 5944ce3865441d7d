//! The flags that show a canvas while it is unmasked, or record its steps.

use std::path::PathBuf;

use clap::Args;

use super::place;

/// What is drawn, and what is recorded.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Draw the canvas on the terminal while it is unmasked
    #[arg(short, long, alias = "diffusion-visual")]
    pub watch: bool,
    /// Milliseconds between two steps that are drawn [default: 3 seconds for the whole]
    #[arg(
        long,
        value_name = "MS",
        requires = "watch",
        value_parser = super::delay(),
        hide_short_help = true
    )]
    pub delay: Option<u32>,
    /// Record every step in a file for `llada replay`
    #[arg(long, value_name = "FILE", value_parser = place("the answer is on stdout"))]
    pub trace: Option<PathBuf>,
}
