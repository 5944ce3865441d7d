//! The flags that save forward passes, or parts of them.

use clap::Args;
use llada::diffusion::{Cache, Keep, Settings, cache::CacheType};

use super::run::{number, parse};

/// How many tokens a pass keeps, and how many it is fed.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Fewer and smaller passes")]
pub struct SavingArgs {
    /// How many are kept in each step: schedule, threshold=0.9, factor=1, entropy=0.1,
    /// klass=0.9,divergence=0.01,steps=2, leap=0.9,neighbour=0.75,reach=4 or
    /// credit=0.9,weight=0.7,decay=0.8,exponent=0.2; all but the first keep more where the model is sure
    #[arg(long, value_name = "RULE", value_parser = parse::<Keep>, hide_short_help = true)]
    pub keep: Option<Keep>,
    /// What is kept of the row between passes: none, prefix, dual
    #[arg(long, value_name = "CACHE", value_parser = parse::<Cache>, hide_short_help = true)]
    pub cache: Option<Cache>,
    /// With a cache: passes of a block after which one is over the whole row; 0 is never
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>("cache_refresh"),
        hide_short_help = true
    )]
    pub cache_refresh: Option<usize>,
    /// With a cache: passes at the beginning of a block that are over the whole row [default: 1]
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>("cache_warm_up"),
        hide_short_help = true
    )]
    pub cache_warm_up: Option<usize>,
    /// With a cache: positions around the block that every pass feeds along with it
    #[arg(
        long,
        value_name = "TOKENS",
        value_parser = number::<usize>("cache_window"),
        hide_short_help = true
    )]
    pub cache_window: Option<usize>,
    /// With a cache: the type of the keys and values that are kept: f32, or bf16 in half the memory
    #[arg(long, value_name = "TYPE", value_parser = parse::<CacheType>, hide_short_help = true)]
    pub cache_type: Option<CacheType>,
    /// Leave out the masks that are further behind the block; alone, it asks for
    /// semi-autoregressive blocks
    #[arg(
        long,
        value_name = "TOKENS",
        value_parser = number::<usize>("suffix_window"),
        hide_short_help = true
    )]
    pub suffix_window: Option<usize>,
    /// Let the masks of that window thin out with their distance
    #[arg(long, requires = "suffix_window", hide_short_help = true)]
    pub suffix_decay: bool,
    /// Mask a token of the block again once the model gives another one at least this probability
    #[arg(
        long,
        value_name = "P",
        value_parser = number::<f64>("revise"),
        hide_short_help = true
    )]
    pub revise: Option<f64>,
    /// Let a token of the block give way to another that has more than this probability
    #[arg(
        long,
        value_name = "P",
        value_parser = number::<f64>("edit"),
        hide_short_help = true
    )]
    pub edit: Option<f64>,
    /// With --edit: passes over a block that is full already, at most [default: 16]
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>("edit_rounds"),
        hide_short_help = true
    )]
    pub edit_rounds: Option<usize>,
}

impl SavingArgs {
    /// What they say.
    pub fn settings(&self) -> Settings {
        Settings {
            keep: self.keep,
            cache: self.cache,
            cache_refresh: self.cache_refresh,
            cache_warm_up: self.cache_warm_up,
            cache_window: self.cache_window,
            cache_type: self.cache_type,
            suffix_window: self.suffix_window,
            suffix_decay: self.suffix_decay.then_some(true),
            revise: self.revise,
            edit: self.edit,
            edit_rounds: self.edit_rounds,
            ..Settings::default()
        }
    }
}
