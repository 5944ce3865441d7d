//! The flags that save forward passes, or parts of them.

use clap::Args;
use llada::diffusion::{
    Cache, Keep,
    cache::{CacheType, SuffixWindow},
};

use super::run::parse;
use crate::error::Failure;

/// How many tokens a pass keeps, and how many it is fed.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "Fewer and smaller passes")]
pub struct SavingArgs {
    /// How many are kept in each step: schedule, threshold=0.9, factor=1, entropy=0.1,
    /// klass=0.9,divergence=0.01,steps=2, leap=0.9,neighbour=0.75,reach=4 or
    /// credit=0.9,weight=0.7,decay=0.8,exponent=0.2; all but the first keep more where the model is sure
    #[arg(long, value_name = "RULE", value_parser = parse::<Keep>)]
    pub keep: Option<Keep>,
    /// What is kept of the row between passes: none, prefix, dual
    #[arg(long, value_name = "CACHE", value_parser = parse::<Cache>)]
    pub cache: Option<Cache>,
    /// With a cache: passes of a block after which one is over the whole row; 0 is never
    #[arg(long, value_name = "N")]
    pub cache_refresh: Option<usize>,
    /// With a cache: passes at the beginning of a block that are over the whole row [default: 1]
    #[arg(long, value_name = "N")]
    pub cache_warm_up: Option<usize>,
    /// With a cache: positions around the block that every pass feeds along with it
    #[arg(long, value_name = "TOKENS")]
    pub cache_window: Option<usize>,
    /// With a cache: the type of the keys and values that are kept: f32, or bf16 in half the memory
    #[arg(long, value_name = "TYPE", value_parser = parse::<CacheType>)]
    pub cache_type: Option<CacheType>,
    /// Leave out the masks that are further behind the block; alone, it asks for
    /// semi-autoregressive blocks
    #[arg(long, value_name = "TOKENS")]
    pub suffix_window: Option<usize>,
    /// Let the masks of that window thin out with their distance
    #[arg(long, requires = "suffix_window")]
    pub suffix_decay: bool,
    /// Mask a token of the block again once the model gives another one at least this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub revise: Option<f64>,
}

impl SavingArgs {
    /// The cache with its refresh; the `usual` one where none was asked for.
    ///
    /// # Errors
    /// If there is a refresh and nothing to be refreshed.
    pub fn cache(&self, usual: Cache) -> Result<Cache, Failure> {
        let mut cache = self.cache.unwrap_or(usual);
        let flags = [
            ("--cache-refresh", self.cache_refresh),
            ("--cache-warm-up", self.cache_warm_up),
            ("--cache-window", self.cache_window),
        ];
        match cache.refresh_mut() {
            Some(refresh) => {
                refresh.every = self.cache_refresh.unwrap_or(refresh.every);
                refresh.warm_up = self.cache_warm_up.unwrap_or(refresh.warm_up);
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
        Ok(cache)
    }

    /// Whether any was given.
    pub fn saves(&self) -> bool {
        self.keep.is_some()
            || self.cache.is_some()
            || [self.cache_refresh, self.cache_warm_up, self.cache_window]
                .iter()
                .any(Option::is_some)
            || self.suffix_window.is_some()
            || self.revise.is_some()
    }

    /// The window over the masks after the block.
    pub fn suffix(&self) -> Option<SuffixWindow> {
        self.suffix_window.map(|masks| SuffixWindow { masks, decay: self.suffix_decay })
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
        assert_eq!(args.cache(Cache::None).unwrap(), Cache::Dual(refresh));
        let usual = Cache::Prefix(Refresh::default());
        assert_eq!(SavingArgs::default().cache(usual).unwrap(), usual);
        let idle = SavingArgs { cache_refresh: Some(4), ..SavingArgs::default() };
        let every = Refresh { every: 4, ..Refresh::default() };
        assert_eq!(idle.cache(usual).unwrap(), Cache::Prefix(every));
        assert!(idle.cache(Cache::None).unwrap_err().to_string().contains("--cache-refresh"));
    }
}
