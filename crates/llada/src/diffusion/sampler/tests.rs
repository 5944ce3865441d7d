//! Tests of the settings.

use super::*;
use crate::{
    config::{AttentionMask, SpecialTokens},
    diffusion::SamplerError,
};

fn complaint(sampler: Sampler) -> (String, String) {
    let error = sampler.check().unwrap_err();
    (error.to_string(), error.hint().unwrap_or_default())
}

#[test]
fn the_presets_are_valid_and_survive_json() {
    let presets = [Sampler::default(), Sampler::exact(), Sampler::balanced(), Sampler::fast()];
    let references = presets.clone().map(|sampler| sampler.reference());
    for sampler in presets.into_iter().chain(references) {
        sampler.check().unwrap();
        let json = serde_json::to_string(&sampler).unwrap();
        assert_eq!(serde_json::from_str::<Sampler>(&json).unwrap(), sampler);
    }
    let partial: Sampler = serde_json::from_str(r#"{"steps": 7}"#).unwrap();
    assert_eq!(partial, Sampler { steps: 7, ..Sampler::default() });
}

#[test]
fn contradictions_name_the_values_that_would_do() {
    let blocks = Blocks::SemiAutoregressive;
    let sampler = Sampler { gen_length: 100, blocks, ..Sampler::default() };
    let (error, hint) = complaint(sampler);
    assert_eq!(error, "block_length 32 does not divide gen_length 100");
    assert_eq!(hint, "use --gen-length 96 or 128");

    let (error, hint) = complaint(Sampler { steps: 10, blocks, ..Sampler::default() });
    assert_eq!(error, "steps 10 cannot be shared equally by 4 blocks");
    assert_eq!(hint, "use --steps 8 or 12");

    let (_, hint) = complaint(Sampler { gen_length: 8, blocks, ..Sampler::default() });
    assert_eq!(hint, "use --gen-length 32");
}

#[test]
fn absurd_numbers_are_refused() {
    let d = Sampler::default;
    for sampler in [
        Sampler { steps: 0, ..d() },
        Sampler { gen_length: 0, ..d() },
        Sampler { gen_length: usize::MAX, ..d() },
        Sampler { steps: usize::MAX, ..d() },
        Sampler { block_length: 0, blocks: Blocks::BlockDiffusion, ..d() },
        Sampler { temperature: f64::NAN, ..d() },
        Sampler { temperature: -1.0, ..d() },
        Sampler { cfg_scale: f32::INFINITY, ..d() },
    ] {
        assert!(sampler.check().is_err(), "{sampler:?}");
    }
}

#[test]
fn unused_settings_are_not_checked() {
    Sampler { block_length: 0, ..Sampler::default() }.check().unwrap();
    let blocks = Blocks::Autoregressive;
    let sampler = Sampler { steps: 0, blocks, gen_length: 10, ..Sampler::default() };
    sampler.check().unwrap();
    assert_eq!((sampler.total_steps(), sampler.forwards()), (10, 10));
}

#[test]
fn a_cache_type_asks_for_a_cache() {
    let mask = SpecialTokens { mask: Some(1), ..SpecialTokens::default() };
    let with = |cache: &str, attention, base: Sampler| {
        let cache = cache.parse().unwrap();
        let sampler = Sampler { cache, cache_type: "bf16".parse().unwrap(), ..base };
        sampler.check().and_then(|()| sampler.check_model(&mask, attention))
    };
    let (diffusion, causal) = (AttentionMask::Bidirectional, AttentionMask::Causal);
    assert_eq!(with("dual", diffusion, Sampler::default()), Ok(()));
    let error = with("none", diffusion, Sampler::default()).unwrap_err();
    assert!(error.hint().unwrap().contains("--cache-type"), "{error}");
    let blocks = Blocks::Autoregressive;
    assert_eq!(with("none", causal, Sampler { blocks, ..Sampler::default() }), Ok(()));
    assert!(with("none", causal, Sampler { blocks, ..Sampler::exact() }).is_err());
}

#[test]
fn the_model_must_have_what_the_settings_need() {
    let none = SpecialTokens::default();
    let mask = SpecialTokens { mask: Some(1), ..none };
    let s = Sampler::default();
    assert_eq!(s.check_model(&none, AttentionMask::Bidirectional), Err(SamplerError::NoMask));
    assert_eq!(s.check_model(&mask, AttentionMask::Bidirectional), Ok(()));
    assert!(s.check_model(&mask, AttentionMask::Causal).is_err());
    let ar = Sampler { blocks: Blocks::Autoregressive, ..s.clone() };
    assert_eq!(ar.check_model(&none, AttentionMask::Causal), Ok(()));
    assert_eq!(ar.check_model(&mask, AttentionMask::Bidirectional), Ok(()));
    let guided = Sampler { cfg_scale: 1.0, ..ar };
    assert!(guided.check_model(&mask, AttentionMask::Causal).is_err());
    let eos = Sampler { logits_eos_inf: true, ..s };
    assert!(eos.check_model(&mask, AttentionMask::Bidirectional).is_err());
}
