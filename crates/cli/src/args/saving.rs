//! The flags that save forward passes, or parts of them.

use clap::Args;
use llada::diffusion::{Cache, Keep, cache::SuffixWindow};

use super::run::parse;
use crate::error::Failure;

/// How many tokens a pass keeps, and how many it is fed.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Fewer and smaller passes")]
pub struct SavingArgs {
    /// How many are kept in each step: schedule, threshold=0.9, factor=1, entropy=0.1, klass, leap,
    /// credit; all but the first keep more where the model is sure
    #[arg(long, value_name = "RULE", value_parser = parse::<Keep>)]
    pub keep: Option<Keep>,
    /// What is kept of the row between passes: none, prefix, dual
    #[arg(long, value_name = "CACHE", value_parser = parse::<Cache>)]
    pub cache: Option<Cache>,
    /// With a cache: passes of a block after which one is over the whole row; 0 is never
    #[arg(long, value_name = "N")]
    pub cache_refresh: Option<usize>,
    /// With a cache: positions around the block that every pass feeds along with it
    #[arg(long, value_name = "TOKENS")]
    pub cache_window: Option<usize>,
    /// Leave out the masks that are further behind the block; alone, it asks for
    /// semi-autoregressive blocks
    #[arg(long, value_name = "TOKENS")]
    pub suffix_window: Option<usize>,
    /// Mask a token of the block again once the model gives another one at least this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub revise: Option<f64>,
}

impl SavingArgs {
    /// The cache with its refresh.
    ///
    /// # Errors
    /// If there is a refresh and nothing to be refreshed.
    pub fn cache(&self) -> Result<Option<Cache>, Failure> {
        let mut cache = self.cache.unwrap_or_default();
        let flags =
            [("--cache-refresh", self.cache_refresh), ("--cache-window", self.cache_window)];
        match cache.refresh_mut() {
            Some(refresh) => {
                refresh.every = self.cache_refresh.unwrap_or(refresh.every);
                refresh.before = self.cache_window.unwrap_or(refresh.before);
                refresh.after = self.cache_window.unwrap_or(refresh.after);
            }
            None => {
                if let Some((flag, _)) = flags.iter().find(|(_, n)| n.is_some_and(|n| n > 0)) {
                    let message = format!("`{flag}` has no meaning without a cache");
                    return Err(Failure::usage(message, "add `--cache dual` or `--cache prefix`"));
                }
            }
        }
        Ok(self.cache.map(|_| cache))
    }

    /// Whether any was given.
    pub fn saves(&self) -> bool {
        self.keep.is_some()
            || self.cache.is_some()
            || self.suffix_window.is_some()
            || self.revise.is_some()
    }

    /// The window over the masks after the block.
    pub fn suffix(&self) -> Option<SuffixWindow> {
        self.suffix_window.map(|masks| SuffixWindow { masks, decay: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llada::diffusion::cache::Refresh;

    #[test]
    fn a_refresh_belongs_to_a_cache() {
        let args = SavingArgs {
            cache: Some("dual".parse().unwrap()),
            cache_refresh: Some(4),
            cache_window: Some(2),
            ..SavingArgs::default()
        };
        let refresh = Refresh { every: 4, before: 2, after: 2, ..Refresh::default() };
        assert_eq!(args.cache().unwrap(), Some(Cache::Dual(refresh)));
        assert_eq!(SavingArgs::default().cache().unwrap(), None);
        let idle = SavingArgs { cache_refresh: Some(4), ..SavingArgs::default() };
        assert!(idle.cache().unwrap_err().to_string().contains("--cache-refresh"));
    }
}
