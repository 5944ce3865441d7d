use ::safetensors::{Dtype, SafeTensors};
use llada_kernels::{Cpu, grad_norm};

use super::*;
use crate::{
    checkpoint,
    config::LogitShift,
    golden,
    model::{Gradients, Layout, MaskPredictor},
};

/// Recipe of fine-tuning with the keys of `overrides`.
fn sft(overrides: &[&str]) -> Recipe {
    Recipe::parse_sft("", overrides).unwrap()
}

#[test]
fn lengths_are_cut_as_often_as_asked() {
    let mut recipe = Recipe::default();
    recipe.data.sequence_length = 64;
    recipe.data.random_length = 0.25;
    let lengths: Vec<usize> = (0..4000).map(|step| sequence_length(&recipe, step)).collect();
    let cut = lengths.iter().filter(|l| **l < 64).count();
    assert!((850..1120).contains(&cut), "{cut}");
    assert!(lengths.iter().all(|l| (1..=64).contains(l)));
    recipe.train.objective = Objective::Autoregressive;
    assert!((0..4000).all(|step| sequence_length(&recipe, step) >= 2));
    recipe.data.random_length = 0.0;
    assert!((0..100).all(|step| sequence_length(&recipe, step) == 64));
}

/// Sequences of 5, 3 and 6 tokens with prompts of 2, 1 and 0.
fn ragged() -> Sequences {
    let mut sequences = Sequences::default();
    for (sequence, prompt) in
        [(&[1, 2, 3, 4, 5][..], 2), (&[6, 7, 8], 1), (&[9, 10, 11, 12, 13, 14], 0)]
    {
        sequences.push(sequence, prompt, (0, 0));
    }
    sequences
}

#[test]
fn a_batch_is_the_same_however_it_is_divided() {
    for overrides in [
        &[][..],
        &["train.objective=autoregressive"],
        &["diffusion.low_discrepancy=true"],
        &["block.length=2"],
        &["block.length=3", "block.preset=llada2"],
    ] {
        let recipe = sft(overrides);
        let step = StepBatch::new(&recipe, ragged(), 99, LogitShift::Same, 7);
        let whole = step.micro_batch(0..3).noised;
        let mut parts = Noised::default();
        for sequence in 0..3 {
            let part = step.micro_batch(sequence..sequence + 1).noised;
            let begin = parts.tokens.len();
            parts.tokens.extend(part.tokens);
            parts.positions.extend(part.positions.iter().map(|at| begin + at));
            parts.targets.extend(part.targets);
            parts.weights.extend(part.weights);
            parts.sequences.extend(part.sequences);
        }
        assert_eq!(whole, parts, "{overrides:?}");
        assert!(!whole.positions.is_empty());
    }
}

#[test]
fn documents_of_a_row_are_sequences_of_their_own() {
    let mut recipe = Recipe::default();
    recipe.data.split_documents = true;
    // Documents of 40, 60 and 1 tokens and one cut off at the end; one alone; two of one token.
    let document = |length: usize| (1..length).map(|_| 7).chain([0]).collect::<Vec<u32>>();
    let mut sequences = Sequences::default();
    sequences.push_documents(&[document(40), document(60), document(1), vec![5; 50]].concat(), 0);
    sequences.push_documents(&document(80), 0);
    sequences.push_documents(&[0, 0], 0);
    assert_eq!((sequences.rows(), sequences.tokens().len()), (3, 233));
    let step = StepBatch::new(&recipe, sequences, 99, LogitShift::Same, 3);
    let whole = step.micro_batch(0..3);
    assert_eq!(whole.feed().batch.starts, [0, 40, 100, 101, 151, 231, 232, 233]);
    let of = |row: usize| step.micro_batch(row..row + 1);
    let rows: Vec<u32> = (0..3).flat_map(|row| of(row).noised.tokens).collect();
    assert_eq!(whole.noised.tokens, rows);
    assert_eq!(of(1).feed().batch.starts, [0, 80]);
    // Each has a noise level, and a token counts as in the whole batch.
    let mut levels = step.levels.clone();
    levels.dedup();
    assert_eq!(levels.len(), 7);
    let weight = 1.0 / forward::masking_probability(step.levels[4], recipe.diffusion.eps) / 233.0;
    assert!(of(1).noised.weights.iter().all(|&found| (f64::from(found) - weight).abs() < 1e-7));
}

#[test]
fn blocks_have_the_noise_of_the_recipe_and_prompts_have_none() {
    let text: Vec<u32> = (0..4000).map(|i| i % 90).collect();
    let of = |overrides: &[&str]| {
        let recipe = sft(overrides);
        let mut sequences = Sequences::default();
        sequences.push(&text, 10, (0, 0));
        sequences.push(&text, 0, (0, 0));
        StepBatch::new(&recipe, sequences, 99, LogitShift::Same, 5).micro_batch(0..2)
    };
    let share =
        |part: &[u32]| part.iter().filter(|&&token| token == 99).count() as f64 / part.len() as f64;
    let micro = of(&["block.length=400", "block.noise_range=0.3,0.8"]);
    let (tokens, pairs) = (&micro.noised.tokens, micro.feed());
    assert_eq!((tokens.len(), micro.tokens()), (16_000, 8000));
    assert_eq!((pairs.batch.starts, pairs.paired), (&[0, 8000, 16_000][..], true));
    assert_eq!(tokens[..10], text[..10]);
    assert!(tokens[4000..8000] == text && tokens[12_000..] == text, "the clean halves");
    let shares: Vec<f64> = tokens[8000..12_000].chunks(400).map(share).collect();
    assert!(shares.iter().all(|share| (0.2..0.9).contains(share)), "{shares:?}");
    let spread =
        shares.iter().copied().fold(0.0, f64::max) - shares.iter().copied().fold(1.0, f64::min);
    assert!(spread > 0.15, "each block has its own: {shares:?}");
    let total: f32 = micro.noised.weights.iter().sum();
    assert!((total - 1.0).abs() < 0.2, "1/t makes up for what is not masked: {total}");
    assert_eq!(micro.targets().excluded, Some(99));

    let micro = of(&["block.length=400", "block.preset=llada2"]);
    let shares: Vec<f64> = micro.noised.tokens[8000..12_000].chunks(400).map(share).collect();
    let mean = shares.iter().sum::<f64>() / 10.0;
    assert!(shares.iter().all(|share| (share - mean).abs() < 0.1), "{shares:?}");
    let weight = 1.0 / micro.noised.positions.len() as f32;
    assert!(micro.noised.weights.iter().all(|&w| w == weight));
    assert_eq!(micro.targets().excluded, None);
}

#[test]
fn padding_belongs_to_the_response() {
    let mut sequences = Sequences::default();
    sequences.push(&[1, 2, 3], 1, (0, 5));
    sequences.push(&[1, 2, 3, 4, 5], 2, (0, 5));
    assert_eq!(sequences.tokens(), [1, 2, 3, 0, 0, 1, 2, 3, 4, 5]);
    assert_eq!(sequences.lengths().collect::<Vec<_>>(), [5, 5]);
    assert_eq!(sequences.answers(Objective::Diffusion), [4, 3]);
    assert_eq!(ragged().answers(Objective::Autoregressive), [3, 2, 5]);
}

#[test]
fn complements_mask_each_response_token_once() {
    let recipe = sft(&["sft.complementary_masks=true", "train.batch_size=4"]);
    let mut sequences = Sequences::default();
    for _ in 0..2 {
        sequences.push(&[1, 2, 3, 4, 5, 6, 7, 8], 3, (0, 0));
    }
    for _ in 0..2 {
        sequences.push(&[1, 2, 3, 4], 1, (0, 0));
    }
    let step = StepBatch::new(&recipe, sequences, 99, LogitShift::Same, 3);
    assert_eq!(step.levels.len(), 2);
    let noised = step.micro_batch(0..4).noised;
    let masked_in = |begin: usize, n: usize| -> Vec<usize> {
        (0..n).filter(|i| noised.tokens[begin + i] == 99).collect()
    };
    for (begin, n, prompt) in [(0, 8, 3), (16, 4, 1)] {
        let mut both = [masked_in(begin, n), masked_in(begin + n, n)].concat();
        both.sort_unstable();
        assert_eq!(both, (prompt..n).collect::<Vec<_>>());
    }
    // The other half of a pair alone is the same.
    assert_eq!(step.micro_batch(1..2).noised.tokens, noised.tokens[8..16]);
}

/// Loss and all gradients of the official code (Eq. 5) through padding, noise and weights as a run
/// makes them, in micro-batches of every size.
#[test]
fn golden_fine_tuning_step() {
    let train = golden::fixture("train");
    let cases: serde_json::Value =
        serde_json::from_slice(&std::fs::read(train.join("cases.json")).unwrap()).unwrap();
    let cases = cases.as_array().unwrap().iter().filter(|case| case["kind"] == "sft");
    let mut compared = 0;
    for case in cases {
        compared += 1;
        let (id, model) = (case["id"].as_str().unwrap(), case["model"].as_str().unwrap());
        let bytes = std::fs::read(train.join(format!("{id}.safetensors"))).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (tokens, lengths) = (numbers(&file, "input_ids"), numbers(&file, "prompt_lengths"));
        let (t, u) = (numbers(&file, "t"), numbers(&file, "u"));
        let model = checkpoint::load(&golden::model(model)).unwrap();
        let (mask, eos) = (model.config.tokens.mask.unwrap(), model.config.tokens.eos.unwrap());

        let count = lengths.len();
        let recipe = sft(&[&format!("train.batch_size={count}")]);
        let length = tokens.len() / count;
        let mut sequences = Sequences::default();
        for (sequence, prompt) in tokens.chunks_exact(length).zip(&lengths) {
            let sequence: Vec<u32> = sequence.iter().map(|id| *id as u32).collect();
            let end = sequence.iter().rposition(|id| *id != eos).unwrap() + 1;
            sequences.push(&sequence[..end], *prompt as usize, (eos, length));
        }
        assert!(sequences.tokens().iter().zip(&tokens).all(|(a, b)| f64::from(*a) == *b));
        let mut step = StepBatch::new(&recipe, sequences, mask, LogitShift::Same, 0);
        step.levels = t;
        let answers = numbers(&file, "answer_lengths");
        assert!(step.answers.iter().zip(&answers).all(|(a, b)| *a as f64 == *b));

        let mut predictor = MaskPredictor::new(model, Cpu::new(2).unwrap()).unwrap();
        for size in 1..=count {
            let mut gradients = Gradients::zeros(predictor.model());
            let (mut loss, mut nll) = (0.0, Vec::new());
            let mut draws = u.iter();
            for start in (0..count).step_by(size) {
                let end = count.min(start + size);
                let micro = step.noised(start..end, &mut |_| *draws.next().unwrap());
                let (batch, targets) = (micro.feed(), micro.targets());
                predictor
                    .nll_and_gradient(batch, &targets, false, &mut nll, &mut gradients)
                    .unwrap();
                loss += crate::diffusion::loss::value(&micro.noised.weights, &nll);
            }
            let close = |found: f64, key: &str, tolerance: f64| {
                let golden = case[key].as_f64().unwrap();
                assert!((found / golden - 1.0).abs() < tolerance, "{id} {key}: {found} {golden}");
            };
            close(loss, "loss", 1e-5);
            let all: Vec<&[f32]> = gradients.0.iter().collect();
            close(grad_norm::forward(predictor.cpu(), &all).unwrap(), "grad_norm", 1e-4);
            let layout = Layout::new(&predictor.model().config);
            for (spec, found) in layout.specs().iter().zip(&gradients.0) {
                let name = format!("grad.{}", spec.name);
                if file.tensor(&name).is_err() {
                    continue;
                }
                let expected = numbers(&file, &name);
                let largest = expected.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
                let is_close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-4 * largest;
                assert!(found.iter().zip(&expected).all(is_close), "{id} {}", spec.name);
            }
        }
    }
    assert!(compared > 0 || std::env::var_os("LLADA_GOLDEN").is_some());
}

fn numbers(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let view = file.tensor(name).unwrap();
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => {
            data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect()
        }
        Dtype::I64 => {
            data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect()
        }
        other => panic!("{name} is of type {other:?}"),
    }
}
