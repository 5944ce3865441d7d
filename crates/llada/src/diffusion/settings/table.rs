//! The table of all settings. One row is one setting everywhere: its flag and help, its key in files
//! and commands, its range, its place in the [`Sampler`].

use super::{
    Group::Saving,
    Key, Kind, MAX_FACTOR, MAX_LENGTH, MAX_STEPS, above,
    key::Value,
    places::{self, refresh, set_refresh},
    real, whole,
};
use crate::diffusion::{
    Blocks, Cache, Preset, Reference, Remasking, Sampler, SamplerError, TransferRule,
    cache::CacheType,
};
use crate::model::Reuse;

/// Makes [`Settings`] of the table. A row has what the setting is, its name and type, in braces the
/// columns of its [`Key`] that say something, and in brackets where it takes effect: a `field` of the
/// sampler, an `option` of it, or what two functions read and write.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $name:ident: $type:ty { $($column:ident: $cell:expr),* $(,)? } [$($place:tt)+]
    )*) => {
        /// Settings that were made; `None` is left open.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Settings {
            $($(#[doc = $about])+ pub $name: Option<$type>,)*
        }

        impl Settings {
            /// No setting at all.
            pub const NONE: Self = Self { $($name: None,)* };

            /// The rows of the table, in the order in which people are told of them.
            pub const KEYS: &'static [Key] = &[$(Key {
                name: stringify!($name),
                about: concat!($($about),+),
                $($column: $cell,)*
                ..Key::PLAIN
            },)*];

            /// Makes a setting from its text, or leaves it open.
            pub(super) fn assign(
                &mut self,
                key: &Key,
                value: Option<&str>,
            ) -> Result<(), SamplerError> {
                match key.name {
                    $(stringify!($name) => {
                        let read = |text| <$type>::read(stringify!($name), text);
                        self.$name = value.map(read).transpose()?;
                    })*
                    _ => {}
                }
                Ok(())
            }

            /// These settings, and where they are open those of `other`.
            #[must_use]
            pub fn over(&self, other: &Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }

            /// The settings whose rows are `wanted`.
            #[must_use]
            pub fn only(&self, wanted: impl Fn(&Key) -> bool) -> Self {
                let mut wanted = Self::KEYS.iter().map(wanted);
                // Each row is asked about, whether it is set or not.
                Self { $($name: wanted.next().filter(|is| *is).and(self.$name),)* }
            }

            /// The values in the order of the rows, in the spelling that [`set`](Self::set) reads.
            pub(super) fn texts(&self) -> Vec<Option<String>> {
                vec![$(self.$name.map(|value| value.to_string()),)*]
            }

            /// The values that are numbers, in the order of the rows.
            pub(super) fn numbers(&self) -> Vec<Option<f64>> {
                vec![$(self.$name.and_then(Value::number),)*]
            }

            /// What a sampler does, as settings; of a preset and what belongs to one it knows nothing.
            pub fn of(sampler: &Sampler) -> Self {
                Self { $($name: settings!(@read sampler, $($place)+),)* }
            }

            /// The sampler with what is set here.
            ///
            /// # Errors
            /// If a setting needs another that is not made.
            pub fn apply(&self, sampler: Sampler) -> Result<Sampler, SamplerError> {
                let mut sampler = sampler;
                $(if let Some(value) = self.$name {
                    settings!(@write sampler, value, $($place)+);
                })*
                Ok(sampler)
            }
        }
    };
    (@read $sampler:ident, field $field:ident) => { Some($sampler.$field) };
    (@read $sampler:ident, option $field:ident) => { $sampler.$field };
    (@read $sampler:ident, read $read:expr, write $write:expr) => {
        places::read($sampler, $read)
    };
    (@write $sampler:ident, $value:ident, field $field:ident) => { $sampler.$field = $value };
    (@write $sampler:ident, $value:ident, option $field:ident) => {
        $sampler.$field = Some($value)
    };
    (@write $sampler:ident, $value:ident, read $read:expr, write $write:expr) => {
        places::write(&mut $sampler, $value, $write)?
    };
}

settings! {
    /// Where to start: exact, balanced (default), fast
    preset: Preset {
        kind: Kind::Name(|| Preset::ALL.map(Preset::name).into()), placeholder: "PRESET", is_frequent: true,
    } [read |_| None, write |_, _| Ok(())]

    /// With --preset exact: whose published code is followed: llada, dream, dream-origin, llada2,
    /// llada2.1, sdar, fast-dllm-v2, diffusers
    reference: Reference {
        kind: Kind::Name(|| Reference::NAMES.into()), placeholder: "CODE",
        default: Some("that of the model's family"),
        source: "the families' repositories; `LLaDA2Pipeline` of diffusers",
    } [read |_| None, write |sampler, reference| {
        sampler.reference = reference;
        Ok(())
    }]

    /// Length of the response
    gen_length: usize {
        kind: Kind::Number(whole(1.0, MAX_LENGTH)), placeholder: "TOKENS", is_frequent: true,
        default: Some("as fits, up to 128"), short: Some('n'), aliases: &["n-predict", "predict", "max-new-tokens", "max-tokens"],
        source: "LLaDA's `generate()`",
    } [field gen_length]

    /// Sampling steps
    steps: usize {
        kind: Kind::Number(whole(1.0, MAX_STEPS)), placeholder: "N", is_frequent: true,
        default: Some("one for each token"), aliases: &["diffusion-steps"],
        source: "LLaDA's `generate()`",
    } [read |s| Some(s.total_steps()), write |s, n| { s.steps = n; Ok(()) }]

    /// Where tokens may be committed: pure, semi-autoregressive, block-diffusion, autoregressive
    blocks: Blocks {
        kind: Kind::Name(|| Blocks::ALL.map(Blocks::name).into()), placeholder: "LAYOUT", source: "LLaDA, Fig. 4",
    } [field blocks]

    /// Length of a block; alone, it asks for semi-autoregressive blocks
    block_length: usize {
        kind: Kind::Number(whole(1.0, MAX_LENGTH)), placeholder: "TOKENS",
        aliases: &["diffusion-block-length"], source: "LLaDA's `generate()`",
    } [read |s| Some(s.block()), write |s, n| { s.block_length = n; Ok(()) }]

    /// Fill each block a part of this length at a time
    sub_block_length: usize {
        kind: Kind::Number(whole(1.0, MAX_LENGTH)), placeholder: "TOKENS",
        source: "Fast-dLLM v2, arXiv 2509.26328",
    } [option sub_block_length]

    /// End blocks at a delimiter of the text, such as the end of a line; asks for semi-autoregressive
    /// blocks
    adaptive_blocks: bool {
        source: "AdaBlock, arXiv 2509.26432",
    } [read |s| Some(s.adaptive_blocks.is_some()), write places::set_adaptive_blocks]

    /// Find the length of the response, of which `--gen-length` is then the most
    variable_length: bool {
        source: "DAEDAL, arXiv 2508.00819",
    } [read |s| Some(s.variable_length.is_some()), write places::set_variable_length]

    /// Which positions are unmasked: low-confidence, random, margin, entropy, sequential
    remasking: Remasking {
        kind: Kind::Name(|| Remasking::ALL.map(Remasking::name).into()), placeholder: "STRATEGY",
        aliases: &["diffusion-algorithm"],
        source: "LLaDA, Alg. 4 and 5; arXiv 2502.06768; Dream; SDAR",
    } [field remasking]

    /// Factor on the Gumbel noise; 0 takes the most probable token
    temperature: f64 {
        kind: Kind::Number(real(0.0, MAX_FACTOR)), placeholder: "T", is_frequent: true,
        default: Some("the model's, or 0"), aliases: &["temp"], source: "LLaDA's `generate()`",
        is_free: true,
    } [field temperature]

    /// Draw among this many most probable tokens only; with a temperature
    top_k: usize {
        kind: Kind::Number(whole(1.0, MAX_STEPS)), placeholder: "N",
        source: "Dream's `diffusion_generate()`", is_free: true,
    } [option top_k]

    /// Draw among the fewest most probable tokens that have this probability together; with a
    /// temperature
    top_p: f64 {
        kind: Kind::Number(above(0.0, 1.0)), placeholder: "P",
        source: "Dream's `diffusion_generate()`", is_free: true,
    } [option top_p]

    /// Draw which positions are unmasked, in proportion to exp(confidence / this); 0 takes the surest
    alg_temp: f64 {
        kind: Kind::Number(real(0.0, MAX_FACTOR)), placeholder: "T",
        aliases: &["diffusion-alg-temp"], source: "Dream's `diffusion_generate()`",
    } [field alg_temp]

    /// Weight of classifier-free guidance; above 0 it doubles the work
    cfg_scale: f32 {
        kind: Kind::Number(real(0.0, MAX_FACTOR)), placeholder: "W", default: Some("0"),
        aliases: &["diffusion-cfg-scale"], source: "LLaDA, Eq. 16",
    } [field cfg_scale]

    /// Never choose the end-of-text token
    logits_eos_inf: bool { source: "LLaDA's `generate()`" } [field logits_eos_inf]

    /// Choose the end-of-text and end-of-turn tokens last
    confidence_eos_eot_inf: bool { source: "LLaDA's `generate()`" } [field confidence_eos_eot_inf]

    /// Seed of all random draws
    seed: u64 {
        kind: Kind::Seed, placeholder: "N", is_frequent: true, default: Some("drawn"),
        short: Some('s'), is_free: true,
    } [field seed]

    /// Transfer rule, how many tokens a step unmasks: schedule, threshold=0.9, factor=1, entropy=0.1,
    /// klass=0.9,divergence=0.01,steps=2, leap=0.9,neighbour=0.75,reach=4 or
    /// credit=0.9,weight=0.7,decay=0.8,exponent=0.2; all but the first unmask more where the model is
    /// sure
    transfer: TransferRule {
        kind: Kind::Name(|| TransferRule::NAMES.into()), placeholder: "RULE", group: Saving,
        source: "Fast-dLLM, arXiv 2505.22618; EB-Sampler, arXiv 2505.24857; KLASS, arXiv 2511.05664; \
                 LocalLeap, arXiv 2510.07081; CreditDecoding, arXiv 2510.06133",
    } [field transfer]

    /// Which keys and values are cached between passes: none, prefix (of the tokens before the
    /// block), dual (before and after it)
    cache: Cache {
        kind: Kind::Name(|| Cache::NAMES.into()), placeholder: "CACHE", group: Saving,
        source: "Fast-dLLM, arXiv 2505.22618",
    } [field cache]

    /// With a cache: passes of a block after which one is over the whole sequence; 0 is never
    cache_refresh: usize {
        kind: Kind::Number(whole(0.0, MAX_STEPS)), placeholder: "N", group: Saving,
    } [read |s| refresh(s).map(|r| r.every),
       write |s, n| set_refresh(s, "cache_refresh", n, |r| r.every = n)]

    /// With a cache: passes at the beginning of a block that are over the whole sequence
    cache_warm_up: usize {
        kind: Kind::Number(whole(0.0, MAX_STEPS)), placeholder: "N", group: Saving,
        default: Some("1"),
    } [read |s| refresh(s).map(|r| r.warm_up),
       write |s, n| set_refresh(s, "cache_warm_up", n, |r| r.warm_up = n)]

    /// With a cache: positions around the block that every pass feeds along with it
    cache_window: usize {
        kind: Kind::Number(whole(0.0, MAX_LENGTH)), placeholder: "TOKENS", group: Saving,
        source: "dInfer, arXiv 2510.08666",
    } [read |s| refresh(s).map(|r| r.before.max(r.after)),
       write |s, n| set_refresh(s, "cache_window", n, |r| (r.before, r.after) = (n, n))]

    /// With a cache: take over keys and values of an earlier sequence that begins with the same tokens, as
    /// the next turn of a conversation does; with bidirectional attention an approximation, by which what
    /// is generated depends on what was before
    cache_reuse: bool {
        group: Saving,
    } [read |s| Some(s.cache.reuse() == Reuse::Approximate),
       write |s, on| set_refresh(s, "cache_reuse", usize::from(on), |r| r.reuse = on)]

    /// With a cache: the type of the cached keys and values: f32, or bf16 in half the memory
    cache_type: CacheType {
        kind: Kind::Name(|| CacheType::NAMES.into()), placeholder: "TYPE", group: Saving,
    } [field cache_type]

    /// Leave out the masks that are further behind the block; alone, it asks for
    /// semi-autoregressive blocks
    suffix_window: usize {
        kind: Kind::Number(whole(0.0, MAX_LENGTH)), placeholder: "TOKENS", group: Saving,
        source: "DPad, arXiv 2508.14148",
    } [read |s| s.suffix_window.map(|window| window.masks), write places::set_suffix_window]

    /// Let the masks of that window thin out with their distance
    suffix_decay: bool {
        needs: Some("suffix_window"), group: Saving, source: "DPad, arXiv 2508.14148",
    } [read |s| Some(s.suffix_window.is_some_and(|window| window.decay)),
       write places::set_suffix_decay]

    /// Mask a token of the block again once the model gives another one at least this probability
    revise: f64 {
        kind: Kind::Number(real(0.0, 1.0)), placeholder: "P", group: Saving,
        source: "T2M, arXiv 2604.18738",
    } [option revise]

    /// Edit: replace a token of the open block by another that has more than this probability
    edit: f64 {
        kind: Kind::Number(real(0.0, 1.0)), placeholder: "P", group: Saving,
        source: "LLaDA2.1's `generate()`",
    } [read |s| s.edit.map(|edit| edit.threshold), write places::set_edit]

    /// With --edit: passes over a block that is full already, at most
    edit_rounds: usize {
        kind: Kind::Number(whole(0.0, MAX_STEPS)), placeholder: "N", group: Saving,
        default: Some("16"), source: "LLaDA2.1's `generate()`",
    } [read |s| s.edit.map(|edit| edit.rounds), write places::set_edit_rounds]
}
