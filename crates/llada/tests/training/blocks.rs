//! Runs of block diffusion.

use std::ops::ControlFlow;

use llada::{
    config::{AttentionMask, ModelConfig},
    diffusion::{Canvas, Preset, Sampler, generate},
    model::MaskPredictor,
};

use super::*;
use crate::whole::Whole;

/// Blocks of the model in a checkpoint.
fn blocks(path: &Path) -> Option<usize> {
    checkpoint::load_config(path).unwrap().attention.block_length()
}

#[test]
fn every_preset_learns_and_the_checkpoint_says_its_blocks() {
    let bench = Bench::new();
    for (name, overrides) in [
        ("bd3lm", &["block.length=4"][..]),
        ("sdar", &["block.preset=sdar", "block.length=8", "diffusion.low_discrepancy=true"]),
        ("llada2", &["block.preset=llada2", "block.length=5", "block.cap_weight=2"]),
        ("experts", &["block.length=4", "model.experts=4", "model.qk_norm=true"]),
        ("long", &["block.length=1000"]),
        ("bf16", &["block.length=4", "train.compute=bf16"]),
    ] {
        let more = [
            "train.steps=60",
            "train.batch_size=8",
            "train.micro_batch_size=3",
            "train.recompute=true",
            "data.random_length=0.1",
        ];
        let recipe = bench.recipe(&[&more[..], overrides].concat());
        let length = recipe.block.as_ref().unwrap().last_length().min(24);
        let mut trainer = bench.trainer(name, recipe, Start::Fresh, 2).unwrap();
        let before = trainer.measure().unwrap();
        assert_eq!(trainer.measure().unwrap(), before, "the noise is fixed");
        run(&mut trainer, u64::MAX).0.unwrap();
        let after = trainer.measure().unwrap();
        assert!(after.nll < 0.9 * before.nll, "{name}: {} -> {}", before.nll, after.nll);
        let last = bench.path(name).join("checkpoints/step-60");
        assert_eq!(blocks(&last), Some(length), "{name}");
    }
}

#[test]
fn a_schedule_of_blocks_is_resumed_to_the_bit() {
    let bench = Bench::new();
    let overrides = [
        "block.length=1,4,8",
        "block.from_step=0,3,7",
        "block.preset=llada2",
        "block.noise_level=block",
        "block.cap_weight=1",
        "train.checkpoint_every=3",
        "eval.every=5",
    ];
    let whole = |recompute: &str, name: &str| {
        let recipe = bench.recipe(&[&overrides[..], &[recompute]].concat());
        run(&mut bench.trainer(name, recipe, Start::Fresh, 1).unwrap(), u64::MAX).0.unwrap();
    };
    whole("train.recompute=false", "whole");
    whole("train.recompute=true", "recomputed");
    let recipe = || bench.recipe(&overrides);
    for stop in [2, 3, 1, 100] {
        let start = if stop == 2 { Start::Fresh } else { Start::Resume };
        run(&mut bench.trainer("parts", recipe(), start, 3).unwrap(), stop).0.unwrap();
    }
    assert!(bench.weights("whole", 12) == bench.weights("parts", 12), "bits differ");
    assert!(bench.weights("whole", 12) == bench.weights("recomputed", 12), "bits differ");
    let metrics = |name: &str| lines(&bench.path(name).join("metrics.jsonl"));
    assert_eq!(metrics("whole"), metrics("parts"));
    // A checkpoint says the blocks that its last step was trained with.
    for (step, length) in [(6, 4), (9, 8), (12, 8)] {
        let path = bench.path("whole").join(format!("checkpoints/step-{step}"));
        assert_eq!(blocks(&path), Some(length), "{step}");
    }
}

#[test]
fn a_model_that_attends_to_all_tokens_becomes_one_that_attends_by_blocks() {
    let bench = Bench::new();
    run(&mut bench.trainer("full", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 12).0.unwrap();
    let full = bench.path("full/checkpoints/step-12");
    assert_eq!(blocks(&full), None);
    let from = format!("model.init_from={}", full.display());
    let recipe = bench.recipe(&[&from, "block.length=4"]);
    run(&mut bench.trainer("block", recipe, Start::Fresh, 1).unwrap(), 12).0.unwrap();
    let path = bench.path("block/checkpoints/step-12");
    let config = checkpoint::load_config(&path).unwrap();
    assert_eq!(config.attention, AttentionMask::BlockCausal { block_length: 4 });
    let text = fs::read_to_string(path.join("config.json")).unwrap();
    assert_eq!(ModelConfig::from_json(&text).unwrap(), config);

    // It goes on only by blocks, and generates by them.
    let from = format!("model.init_from={}", path.display());
    let error = bench.trainer("c", bench.recipe(&[&from]), Start::Fresh, 1).unwrap_err();
    assert!(error.hint().unwrap().contains("block.length"), "{error}");
    let special = checkpoint::special_tokens(&config, None);
    let model = || {
        let model = checkpoint::load(&path).unwrap();
        MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap()
    };
    for preset in Preset::ALL {
        let sampler = Sampler { gen_length: 12, steps: 12, ..preset.sampler_for(&config) };
        let canvas = || {
            let prompt = vec![1, 2, 3].into();
            [Canvas::new(prompt, &sampler, &special, config.attention).unwrap()]
        };
        let go_on = &mut |_, _: &_| ControlFlow::Continue(());
        let (mut cached, mut whole) = (canvas(), canvas());
        let fed = generate::run(&mut model(), &mut cached, go_on).unwrap();
        let all = generate::run(&mut Whole(model()), &mut whole, go_on).unwrap();
        assert_eq!(cached[0].tokens(), whole[0].tokens(), "{preset}: the cache is exact");
        assert!(fed.tokens_fed < all.tokens_fed, "{preset}");
    }
}
