//! *What is forwarded*: whole sequences, or only the part around the open block while the keys and
//! values of the rest are cached.
//!
//! In a bidirectional model every commit changes the keys and values of all positions, so that what
//! is cached grows stale: an approximation, for diffusion models, whose error a refresh bounds.

use std::{fmt, ops::Range, str::FromStr};

use llada_kernels::attention::Storage;
use serde::{Deserialize, Serialize};

use super::SamplerError;
use crate::model::Reuse;

/// What a pass feeds to the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// The whole sequence, as the reference does.
    #[default]
    None,
    /// Prefix cache of Fast-dLLM (arXiv 2505.22618): a block's first pass is over the whole sequence,
    /// and commits as any other; those after it feed the sequence from the block on.
    Prefix(Refresh),
    /// Dual cache of Fast-dLLM: those after it feed the block alone.
    Dual(Refresh),
}

/// When cached keys and values are computed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refresh {
    /// Passes over the whole sequence at the beginning of a block; at least 1.
    pub warm_up: usize,
    /// Within a block, every so many passes one is over the whole sequence; 0 is never.
    pub every: usize,
    /// Positions before the block that each pass feeds along with it (the vicinity of dInfer,
    /// arXiv 2510.08666).
    pub before: usize,
    /// Positions after it; a prefix cache feeds all of them in any case.
    pub after: usize,
    /// Whether the first pass, and all after it, leave out a beginning that an earlier sequence had. Those
    /// keys and values are of other tokens behind it, and are never computed anew.
    pub reuse: bool,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { warm_up: 1, every: 0, before: 0, after: 0, reuse: false }
    }
}

impl Cache {
    /// The names on the command line.
    pub const NAMES: [&'static str; 3] = ["none", "prefix", "dual"];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Prefix(_) => "prefix",
            Self::Dual(_) => "dual",
        }
    }

    /// When it is refreshed; `None` if nothing is cached.
    pub fn refresh_mut(&mut self) -> Option<&mut Refresh> {
        match self {
            Self::None => None,
            Self::Prefix(refresh) | Self::Dual(refresh) => Some(refresh),
        }
    }

    /// What a sequence takes over from those before it.
    pub fn reuse(self) -> Reuse {
        match self {
            Self::Prefix(refresh) | Self::Dual(refresh) if refresh.reuse => Reuse::Approximate,
            _ => Reuse::Exact,
        }
    }

    /// The positions that pass number `pass` of the block `block`, counted from 0, feeds of a sequence
    /// of `len` tokens.
    pub fn fresh(self, pass: usize, block: Range<usize>, len: usize) -> Range<usize> {
        let (refresh, end) = match self {
            Self::None => return 0..len,
            Self::Prefix(refresh) => (refresh, len),
            Self::Dual(refresh) => (refresh, block.end.saturating_add(refresh.after).min(len)),
        };
        let is_due = refresh.every > 0 && pass.is_multiple_of(refresh.every);
        if pass < refresh.warm_up.max(1) || is_due {
            return 0..len;
        }
        block.start.saturating_sub(refresh.before)..end
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Cache {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        match s.to_ascii_lowercase().as_str() {
            "none" => Ok(Self::None),
            "prefix" => Ok(Self::Prefix(Refresh::default())),
            "dual" => Ok(Self::Dual(Refresh::default())),
            _ => Err(SamplerError::Unknown {
                what: "cache",
                found: s.to_owned(),
                known: Self::NAMES.join(", "),
            }),
        }
    }
}

/// The type of cached keys and values. Where there is a cache, a pass sees its own tokens' too as
/// they are stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheType {
    /// As they were computed.
    #[default]
    F32,
    /// In half the memory, each off by 2⁻⁹ of itself at most.
    Bf16,
}

impl CacheType {
    /// The names on the command line.
    pub const NAMES: [&'static str; 2] = ["f32", "bf16"];

    /// How the kernels store it.
    pub fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::F32,
            Self::Bf16 => Storage::Bf16,
        }
    }
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::NAMES[*self as usize])
    }
}

impl FromStr for CacheType {
    type Err = SamplerError;

    fn from_str(s: &str) -> Result<Self, SamplerError> {
        match s.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(SamplerError::Unknown {
                what: "cache type",
                found: s.to_owned(),
                known: Self::NAMES.join(", "),
            }),
        }
    }
}

/// Of the masks after the block, only the nearest take part in any pass (DPad, arXiv 2508.14148);
/// text after the block always does. Positions stay what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuffixWindow {
    /// How many masks the window reaches over.
    pub masks: usize,
    /// Whether they thin out with their distance, as a Gaussian whose 3σ is the end of the window.
    #[serde(default)]
    pub decay: bool,
}

impl SuffixWindow {
    /// The positions of `tokens` that take part while a block is open that ends at `end`.
    pub fn present(self, tokens: &[u32], mask: u32, end: usize) -> impl Iterator<Item = u32> {
        let (mut distance, mut sum) = (0usize, 0.0f64);
        let takes_part = move |&i: &usize| {
            if i < end || tokens[i] != mask {
                return true;
            }
            let before = sum.floor();
            sum += self.density(distance);
            distance += 1;
            sum.floor() > before
        };
        (0..tokens.len()).filter(takes_part).map(|i| i as u32)
    }

    /// The share of the masks at this distance that takes part.
    fn density(self, distance: usize) -> f64 {
        match (distance < self.masks, self.decay) {
            (false, _) => 0.0,
            (true, false) => 1.0,
            (true, true) => (-0.5 * (3.0 * distance as f64 / self.masks as f64).powi(2)).exp(),
        }
    }
}

/// Keys and values that are to be cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRequest {
    /// Tokens of the sequence when it is as long as it may be.
    pub capacity: usize,
    /// How they are stored.
    pub cache_type: CacheType,
    /// What it takes over from earlier sequences, and leaves to later ones.
    pub reuse: Reuse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_json_round_trip() {
        for name in Cache::NAMES {
            let cache: Cache = name.parse().unwrap();
            assert_eq!(cache.to_string(), name);
            let json = serde_json::to_string(&cache).unwrap();
            assert_eq!(serde_json::from_str::<Cache>(&json).unwrap(), cache);
        }
        let short: Cache = serde_json::from_str(r#"{"dual": {"every": 4}}"#).unwrap();
        assert_eq!(short, Cache::Dual(Refresh { every: 4, ..Refresh::default() }));
        for name in CacheType::NAMES {
            let cache_type: CacheType = name.parse().unwrap();
            assert_eq!(cache_type.to_string(), name);
            assert_eq!(serde_json::to_value(cache_type).unwrap(), name);
        }
        assert!("f16".parse::<CacheType>().unwrap_err().hint().unwrap().contains("bf16"));
        assert!("triple".parse::<Cache>().unwrap_err().hint().unwrap().contains("dual"));
    }

    #[test]
    fn passes_feed_what_each_cache_says() {
        let fed =
            |cache: Cache| (0..5).map(|pass| cache.fresh(pass, 8..12, 20)).collect::<Vec<_>>();
        assert_eq!(fed(Cache::None), [0..20, 0..20, 0..20, 0..20, 0..20]);
        let plain = Refresh::default();
        assert_eq!(fed(Cache::Prefix(plain)), [0..20, 8..20, 8..20, 8..20, 8..20]);
        assert_eq!(fed(Cache::Dual(plain)), [0..20, 8..12, 8..12, 8..12, 8..12]);
        let refresh = Refresh { warm_up: 2, every: 3, before: 5, after: 99, reuse: false };
        assert_eq!(fed(Cache::Dual(refresh)), [0..20, 0..20, 3..20, 0..20, 3..20]);
        let near = Refresh { warm_up: 0, before: 9, after: 1, every: 0, reuse: false };
        assert_eq!(fed(Cache::Dual(near))[..2], [0..20, 0..13]);
        assert_eq!(fed(Cache::Prefix(near))[1], 0..20);
    }

    #[test]
    fn only_the_nearest_masks_take_part_and_all_text() {
        // 9 is the mask; the block ends at 3.
        let tokens = [1, 9, 9, 9, 9, 5, 9, 9, 9];
        let present = |masks, decay| -> Vec<u32> {
            SuffixWindow { masks, decay }.present(&tokens, 9, 3).collect()
        };
        assert_eq!(present(0, false), [0, 1, 2, 5]);
        assert_eq!(present(3, false), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(present(99, false), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(present(4, true), [0, 1, 2, 3, 5, 6]);
        let long = vec![9; 400];
        let window = SuffixWindow { masks: 300, decay: true };
        let thinned: Vec<u32> = window.present(&long, 9, 0).collect();
        // A Gaussian of σ = 100 has half its mass, 125, above 0.
        assert!(thinned.len().abs_diff(125) < 3, "{}", thinned.len());
        assert!(thinned[..10].windows(2).all(|w| w[1] - w[0] <= 2));
        assert!(*thinned.last().unwrap() < 300);
    }
}
