//! Blocks that are filled a part at a time, and whose other parts are kept as they were.
#![allow(clippy::unwrap_used)]

mod common;

use std::ops::ControlFlow;

use llada::{
    checkpoint,
    diffusion::{
        Cache, Canvas, Keep, Preset, Reference, Sampler, SamplerError, cache::Refresh, generate,
    },
    model::MaskPredictor,
};
use llada_kernels::Cpu;

/// Tokens of a part.
const PART: usize = 4;

/// A model of blocks of eight, and its own sampler with parts, one token a pass.
fn load(name: &str) -> (MaskPredictor, Sampler) {
    let mut model = checkpoint::load(&common::own("models").join(name)).unwrap();
    model.config.attention = llada::config::AttentionMask::BlockCausal { block_length: 8 };
    let sampler = Sampler {
        gen_length: 20,
        steps: 20,
        sub_block_length: Some(PART),
        keep: Keep::Threshold(1.0),
        stop_at_eos: false,
        ..Preset::Balanced.sampler_for(&model.config)
    };
    (MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap(), sampler)
}

/// The row that `sampler` gives, and how many tokens were fed for it.
fn run(predictor: &mut MaskPredictor, sampler: &Sampler) -> (Vec<u32>, usize) {
    let config = &predictor.model().config;
    let mut special = checkpoint::special_tokens(config, None);
    (special.mask, special.eos) = (special.mask.or(Some(159)), None);
    let prompt: Vec<u32> = (3..14).collect();
    let attention = config.attention;
    let mut canvases = [Canvas::new(prompt.into(), sampler, &special, attention).unwrap()];
    let mut last = 0;
    let summary = generate::run(predictor, &mut canvases, &mut |_, step| {
        for commit in &step.committed {
            assert!(commit.position / PART >= last, "parts come one after the other");
        }
        last = step.committed.first().map_or(last, |commit| commit.position / PART);
        let is_one_part = step.committed.iter().all(|commit| commit.position / PART == last);
        assert!(is_one_part && !step.committed.is_empty());
        ControlFlow::Continue(())
    });
    let summary = summary.unwrap();
    assert_eq!(summary.masks_left, 0);
    (canvases[0].tokens().to_vec(), summary.tokens_fed)
}

#[test]
fn parts_are_filled_in_order_and_kept() {
    for name in ["h_llada2_moe", "i_sdar", "j_fast_dllm_v2"] {
        let (mut predictor, sampler) = load(name);
        let (row, fed) = run(&mut predictor, &sampler);
        assert_eq!(row.len(), 31, "{name}");
        let cache = Cache::Dual(Refresh::default());
        let kept = Sampler { cache, ..sampler.clone() };
        let (_, less) = run(&mut predictor, &kept);
        assert!(less < fed, "{name}: {less} of {fed}");
        // What is renewed in every pass is no approximation.
        let renewed = Cache::Dual(Refresh { every: 1, ..Refresh::default() });
        assert_eq!(run(&mut predictor, &Sampler { cache: renewed, ..sampler }).0, row, "{name}");
    }
}

#[test]
fn other_caches_and_parts_are_refused() {
    let (mut predictor, sampler) = load("i_sdar");
    let special = checkpoint::special_tokens(&predictor.model().config, None);
    let attention = predictor.model().config.attention;
    let check =
        |sampler: Sampler| sampler.check().and_then(|()| sampler.check_model(&special, attention));
    let prefix = Cache::Prefix(Refresh::default());
    assert!(check(Sampler { cache: prefix, ..sampler.clone() }).is_err());
    let whole = Sampler { sub_block_length: None, ..sampler.clone() };
    assert_eq!(check(whole.clone()), Ok(()));
    assert!(check(Sampler { cache: Cache::Dual(Refresh::default()), ..whole }).is_err());
    let odd = check(Sampler { sub_block_length: Some(3), ..sampler.clone() }).unwrap_err();
    assert_eq!(odd.hint().unwrap(), "use --sub-block-length 2");
    assert!(check(Sampler { revise: Some(0.9), ..sampler.clone() }).is_err());
    // Code for logits of the next token, with a model whose logits are for their own.
    let keep = Keep::Threshold(0.9);
    let other = Sampler { keep, reference: Reference::FastDllmV2, ..sampler };
    let mut canvas =
        [Canvas::new((1..9).collect::<Vec<u32>>().into(), &other, &special, attention).unwrap()];
    let error = generate::run(&mut predictor, &mut canvas, &mut |_, _| ControlFlow::Continue(()));
    let expected = SamplerError::Unshifted.to_string();
    assert_eq!(error.unwrap_err().to_string(), expected);
}
