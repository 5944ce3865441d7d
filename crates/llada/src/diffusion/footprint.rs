//! How much memory a generation takes, known before it runs.

use llada_kernels::DType;

use super::Sampler;
use crate::{
    Result,
    config::{ModelConfig, QkNorm},
    model::{FFN_CHUNK, Formats, KvCache, Layout, Model, ModelError, TensorSpec, tile_rows},
};

/// Memory of a thread that packs and multiplies, in bytes.
const PER_THREAD: usize = 1 << 20;

/// How the weights of a model are stored, which it need not be yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Their bytes.
    pub bytes: usize,
    /// Whether any are in blocks of few bits.
    pub is_quantised: bool,
}

impl Weights {
    /// Those of a model.
    pub fn of(model: &Model) -> Self {
        let bytes = model.tensors.iter().map(|weights| weights.bytes()).sum();
        let is_quantised = model.tensors.iter().any(|weights| is_quantised(weights.dtype()));
        Self { bytes, is_quantised }
    }

    /// Those of a model of that configuration in a file with such formats.
    pub fn stored(config: &ModelConfig, formats: &Formats) -> Self {
        let layout = Layout::new(config);
        let dtypes = formats.of_each(&layout);
        let one = |(spec, dtype): (&TensorSpec, &DType)| dtype.bytes(spec.len()).unwrap_or(0);
        let bytes = layout.specs().iter().zip(&dtypes).map(one).fold(0, usize::saturating_add);
        Self { bytes, is_quantised: dtypes.into_iter().any(is_quantised) }
    }
}

fn is_quantised(dtype: DType) -> bool {
    matches!(dtype, DType::Blocks(_))
}

/// Bytes of memory of a generation, besides the program and its tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footprint {
    /// The weights, mapped from their file, of which loading checks every number.
    pub weights: usize,
    /// Cached keys and values.
    pub cache: usize,
    /// What the passes work with: the buffers that all blocks share, and a tile of logits.
    pub scratch: usize,
}

impl Footprint {
    /// Of one sequence, a prompt of `prompt` tokens with a response as `sampler` says, on so many
    /// `threads`.
    ///
    /// # Errors
    /// If the model is not made for sequences that long.
    pub fn of(model: &Model, sampler: &Sampler, prompt: usize, threads: usize) -> Result<Self> {
        Self::planned(&model.config, Weights::of(model), sampler, prompt, threads)
    }

    /// The same of a model that is not there, by its configuration and how it would be stored.
    ///
    /// # Errors
    /// If the model is not made for sequences that long.
    pub fn planned(
        config: &ModelConfig,
        weights: Weights,
        sampler: &Sampler,
        prompt: usize,
        threads: usize,
    ) -> Result<Self> {
        let length = prompt.saturating_add(sampler.gen_length);
        let limit = config.max_sequence_length;
        if length > limit {
            return Err(ModelError::TooLong { found: length, limit }.into());
        }
        let sequences = if sampler.cfg_scale > 0.0 { 2 } else { 1 };
        let has_cache = sampler.wants_caches(config.attention);
        let storage = sampler.cache_type.storage();
        let cache = if has_cache { KvCache::needed(config, length, storage)? } else { 0 };
        let wanted = sequences * sampler.block();
        Ok(Self {
            weights: weights.bytes,
            cache: sequences * cache,
            scratch: scratch(config, weights.is_quantised, sequences * length, wanted, has_cache)
                + threads * (PER_THREAD + noise(config, sampler)),
        })
    }

    /// All of it.
    pub fn total(&self) -> usize {
        self.weights + self.cache + self.scratch
    }
}

/// What a pass over `tokens` tokens works with, of which it reads the logits of `wanted`. Without a cache
/// attention packs keys and values for itself.
fn scratch(
    c: &ModelConfig,
    is_quantised: bool,
    tokens: usize,
    wanted: usize,
    has_cache: bool,
) -> usize {
    let (d, q, kv, v) = (c.d_model, c.q_dim(), c.kv_dim(), c.embedding_size);
    let raw = if c.qk_norm == QkNorm::None { 0 } else { q + kv };
    let packed = if has_cache { 0 } else { 2 * kv };
    let token = 2 * d + 2 * q + 2 * kv + raw + packed + c.n_heads;
    // Of each token in the feed-forward half: three times its width, and with experts their inputs
    // and outputs.
    let (f, routed) = match &c.experts {
        Some(e) => (e.active_width().max(c.mlp_hidden_size), 2 * e.per_token * d + 2 * e.count),
        None => (c.mlp_hidden_size, 0),
    };
    let together = tokens.min(FFN_CHUNK);
    // Bytes and their scales, of the input that layers share and of the widest other one.
    let quantised = match is_quantised {
        true => (tokens * d + (tokens * d).max(together * f)) * 11 / 8,
        false => 0,
    };
    let logits = wanted.min(tile_rows(v)) * v;
    let table = c.max_sequence_length * c.rotary_dim;
    let floats = tokens * token + together * (3 * f + routed) + wanted * 2 * d + logits + table;
    floats * size_of::<f32>() + quantised
}

/// The noise of one position.
fn noise(config: &ModelConfig, sampler: &Sampler) -> usize {
    let is_noisy = sampler.temperature > 0.0;
    if is_noisy { config.embedding_size * size_of::<f64>() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::SpecialTokens,
        diffusion::{Blocks, cache::CacheType},
        train::Recipe,
    };

    #[test]
    fn each_part_grows_with_what_it_is_for() {
        let config = Recipe::default().model_config(300, SpecialTokens::default()).unwrap();
        let model = Model::init(config.clone(), 1).unwrap();
        let plain = Sampler { gen_length: 64, steps: 64, ..Sampler::default() };
        let of = |sampler: &Sampler, prompt| Footprint::of(&model, sampler, prompt, 2).unwrap();
        let base = of(&plain, 32);
        assert_eq!((base.weights, base.cache), (4 * config.parameters(), 0));
        let stored = Weights::stored(&config, &Formats::usual(DType::F32));
        assert_eq!(Footprint::planned(&config, stored, &plain, 32, 2).unwrap(), base);
        let halved = Weights::stored(&config, &Formats::usual(DType::Bf16));
        assert!(halved.bytes.abs_diff(stored.bytes / 2) < stored.bytes / 100);
        assert!(of(&plain, 64).scratch > base.scratch);

        let cached = Sampler { cache: "dual".parse().unwrap(), ..plain.clone() };
        let bytes = KvCache::new(&config, 96).unwrap().bytes();
        assert_eq!(of(&cached, 32).cache, bytes);
        assert_eq!(of(&Sampler { cfg_scale: 1.0, ..cached.clone() }, 32).cache, 2 * bytes);
        let halved = Sampler { cache_type: CacheType::Bf16, ..cached.clone() };
        assert!(of(&halved, 32).cache.abs_diff(bytes / 2) <= 64 * config.n_layers);
        let blocks = Blocks::SemiAutoregressive;
        assert!(of(&Sampler { blocks, ..cached.clone() }, 32).scratch < of(&cached, 32).scratch);
        assert!(Footprint::of(&model, &plain, config.max_sequence_length, 1).is_err());
    }
}
