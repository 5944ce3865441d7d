//! Models with experts are trained, adapted and saved as any other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::golden;
use llada::{
    checkpoint,
    config::SpecialTokens,
    model::{Batch, Gradients, Layout, MaskPredictor, Model, Targets, balance_loss},
    train::Recipe,
};
use llada_kernels::Cpu;

/// The recipe of a small model with experts.
fn recipe(overrides: &[&str]) -> Recipe {
    let sizes = ["model.d_model=32", "model.n_layers=2", "model.experts=6", "train.steps=9"];
    Recipe::parse("", &[&sizes, overrides].concat()).unwrap()
}

fn model(recipe: &Recipe) -> Model {
    let config = recipe.model_config(50, SpecialTokens::default()).unwrap();
    Model::init(config, 1).unwrap()
}

#[test]
fn a_recipe_makes_llada_moe() {
    let recipe = recipe(&["model.experts_per_token=3", "model.mlp_hidden_size=96"]);
    let config = model(&recipe).config;
    let experts = config.experts.as_ref().unwrap();
    assert_eq!((experts.count, experts.per_token, experts.hidden_size), (6, 3, 32));
    let dir = tempfile::tempdir().unwrap();
    checkpoint::save(&model(&recipe), dir.path(), llada_kernels::DType::F32).unwrap();
    let text = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(text.contains("LLaDAMoEModelLM"), "{text}");
    let read = checkpoint::load(dir.path()).unwrap();
    assert_eq!(read.config, config);
    for (bad, key) in [
        ("model.experts_per_token=7", "model.experts_per_token"),
        ("model.expert_hidden_size=0", "model.expert_hidden_size"),
    ] {
        let recipe = self::recipe(&[bad]);
        let error = recipe.model_config(50, SpecialTokens::default()).unwrap_err();
        assert!(error.to_string().contains(key), "{bad}: {error}");
    }
    for (bad, key) in [
        (&["model.experts=4", "model.qkv_bias=true"][..], "model.qkv_bias"),
        (&["model.expert_hidden_size=8"], "model.expert_hidden_size"),
        (&["train.balance=-1"], "train.balance"),
    ] {
        let error = Recipe::parse("", bad).unwrap_err();
        assert!(error.to_string().contains(key), "{bad:?}: {error}");
    }
}

/// The load-balancing loss spreads tokens that all like one expert.
#[test]
fn the_balance_spreads_the_tokens() {
    let recipe = recipe(&["model.experts_per_token=1"]);
    let mut predictor = MaskPredictor::new(model(&recipe), Cpu::new(2).unwrap()).unwrap();
    let layout = Layout::new(&predictor.model().config);
    let tokens: Vec<u32> = (0..48).map(|i| i * 7 % 50).collect();
    let batch = Batch { tokens: &tokens, starts: &[0, 48], attention_mask: None };
    let (positions, weights) = ((0..48).collect::<Vec<_>>(), vec![0.0; 48]);
    let targets = Targets {
        positions: &positions,
        tokens: &tokens,
        weights: &weights,
        balance: 1.0,
        ..Targets::default()
    };
    let mut nll = Vec::new();
    let mut measure = |predictor: &mut MaskPredictor, gradients: &mut Gradients| {
        gradients.clear();
        predictor.nll_and_gradient(batch, &targets, false, &mut nll, gradients).unwrap();
        balance_loss(predictor.loads())
    };
    let mut gradients = Gradients::zeros(predictor.model());
    let before = measure(&mut predictor, &mut gradients);
    for _ in 0..100 {
        let weights = predictor.model_mut().tensors.flatten();
        for (id, spec) in layout.specs().iter().enumerate() {
            if spec.name.ends_with("mlp.gate.weight") {
                weights[id].iter_mut().zip(&gradients.0[id]).for_each(|(v, g)| *v -= 0.05 * g);
            }
        }
        measure(&mut predictor, &mut gradients);
    }
    let after = measure(&mut predictor, &mut gradients);
    // 1 is a perfect spread.
    assert!(before > 1.05 && after < before && after >= 0.99, "{before} {after}");
    let counts: u64 = predictor.loads().iter().flat_map(|load| &load.counts).sum();
    assert_eq!(counts, 2 * 48);
}

/// A sequence gets the same bits alone and beside others, whether threads share the products of an
/// expert or have experts of their own.
#[test]
fn experts_do_not_depend_on_the_batch() {
    let models = golden::MODELS.map(|golden| checkpoint::load(&golden.own_folder()).unwrap());
    let many = model(&recipe(&["model.experts=64", "model.experts_per_token=4"]));
    for model in models.into_iter().chain([many]).filter(|model| model.config.experts.is_some()) {
        let name = model.config.family.word();
        let vocabulary = model.config.embedding_size;
        let tokens: Vec<u32> = (0..40).map(|i| i * 13 % 50).collect();
        let logits = |threads: usize, starts: &[usize], range: std::ops::Range<usize>| {
            let mut predictor = MaskPredictor::new(model.clone(), Cpu::new(threads).unwrap());
            let tokens = &tokens[range];
            let batch = Batch { tokens, starts, attention_mask: None };
            let all: Vec<usize> = (0..tokens.len()).collect();
            let mut logits = Vec::new();
            predictor.as_mut().unwrap().logits(batch, &all, &mut logits).unwrap();
            logits
        };
        let together = logits(3, &[0, 7, 19, 40], 0..40);
        for (first, end) in [(0, 7), (7, 19), (19, 40)] {
            let alone = logits(1, &[0, end - first], first..end);
            assert_eq!(alone, together[first * vocabulary..end * vocabulary], "{name}");
        }
    }
}
