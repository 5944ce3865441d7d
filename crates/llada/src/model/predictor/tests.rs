use super::{read::tiles, *};
use crate::{config::SpecialTokens, model::FFN_CHUNK, train::Recipe};

/// Where nothing is saved for a backward pass, the tokens go through the feed-forward halves some
/// at a time.
#[test]
fn long_sequences_get_the_same_bits_whether_passes_are_saved_or_not() {
    let mut recipe = Recipe::default();
    recipe.model.max_sequence_length = Some(FFN_CHUNK + 40);
    let config = recipe.model_config(300, SpecialTokens::default()).unwrap();
    let model = Model::init(config, 1).unwrap();
    let mut predictor = MaskPredictor::new(model.clone(), Cpu::new(2).unwrap()).unwrap();
    let length = FFN_CHUNK + 40;
    let tokens: Vec<u32> = (0..length as u32).map(|i| i * 7 % 300).collect();
    let batch = Batch { tokens: &tokens, starts: &[0, length], attention_mask: None };
    let positions: Vec<usize> = (0..length).collect();
    let weights = vec![1.0; length];
    let targets =
        Targets { positions: &positions, tokens: &tokens, weights: &weights, ..Targets::default() };
    let (mut plain, mut saved) = (Vec::new(), Vec::new());
    predictor.nll(batch, &targets, &mut plain).unwrap();
    let mut gradients = Gradients::zeros(&model);
    predictor.nll_and_gradient(batch, &targets, false, &mut saved, &mut gradients).unwrap();
    assert_eq!(plain, saved);
}

#[test]
fn tiles_hold_whole_groups() {
    let tiles = |groups: &[usize], most| tiles(groups, most).collect::<Vec<_>>();
    assert_eq!(tiles(&[0, 2, 4, 5, 9, 10], 4), [0..2, 2..3, 3..4, 4..5]);
    assert_eq!(tiles(&[0, 2, 4, 5, 9, 10], 5), [0..3, 3..5]);
    assert_eq!(tiles(&[0, 7, 8], 3), [0..1, 1..2]);
    assert_eq!(tiles(&[0, 0, 0], 3), vec![0..2; 1]);
    assert!(tiles(&[0], 3).is_empty() && tiles(&[], 3).is_empty());
}
