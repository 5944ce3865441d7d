//! Tests of [`Canvas`] without a model.

use super::*;

const SPECIAL: SpecialTokens =
    SpecialTokens { mask: Some(0), eos: Some(1), eot: Some(2), bos: None, pad: None };

fn canvas(prompt: &[u32], sampler: Sampler) -> Canvas {
    let prompt = Prompt::from(prompt.to_vec());
    Canvas::new(prompt, &sampler, &SPECIAL, AttentionMask::Bidirectional).unwrap()
}

/// Reads the logits of all wanted positions and commits.
fn commit(canvas: &mut Canvas, mut logits: Vec<f32>) -> Result<Step, SamplerError> {
    let wanted = canvas.plan().map_or(vec![], |query| query.wanted.to_vec());
    let vocabulary = (logits.len() / wanted.len().max(1)).max(1);
    let rows = logits.chunks_mut(vocabulary).zip(wanted);
    let readings = rows
        .map(|(row, position)| canvas.read(position, row, None))
        .collect::<Result<Vec<_>, _>>()?;
    canvas.commit(&readings).cloned()
}

/// Position and token of each commit.
fn unmasked(step: &Step) -> Vec<(usize, u32)> {
    step.committed.iter().map(|commit| (commit.position, commit.token)).collect()
}

fn two_steps() -> Sampler {
    Sampler { steps: 2, gen_length: 2, ..Sampler::exact() }
}

#[test]
fn the_most_probable_prediction_is_unmasked_first() {
    let mut canvas = canvas(&[7], two_steps());
    assert_eq!(canvas.plan().unwrap().wanted, [1, 2]);
    let step = commit(&mut canvas, vec![0., 0., 0., 4., 0., 0., 0., 0., 0., 5.]).unwrap();
    assert_eq!(unmasked(&step), [(2, 4)]);
    assert_eq!((step.nfe, step.step, step.block, step.stable), (1, 0, 0, 1));
    let e = 5f64.exp();
    assert_eq!(step.committed[0].confidence, (e / (e + 4.0)) as f32);
    let step = commit(&mut canvas, vec![0., 0., 0., 4., 0.]).unwrap();
    assert_eq!((unmasked(&step), step.stable), (vec![(1, 3)], 3));
    assert!(canvas.plan().is_none());
    assert_eq!(canvas.tokens(), [7, 3, 4]);
}

#[test]
fn eos_without_confidence_comes_last_and_renormalises_the_rest() {
    let sampler = Sampler { confidence_eos_eot_inf: true, ..two_steps() };
    let mut canvas = canvas(&[], sampler);
    // Position 0 is sure of EOS; position 1 prefers token 3, EoT being near.
    let step = commit(&mut canvas, vec![0., 9., 0., 0., 0., 2., 2.5, 3.]).unwrap();
    assert_eq!(unmasked(&step), [(1, 3)]);
    let e = 3f64.exp();
    assert_eq!(step.committed[0].confidence, (e / (e + 1.0)) as f32);
    let step = commit(&mut canvas, vec![0., 9., 0., 0.]).unwrap();
    assert_eq!(unmasked(&step), [(0, 1)]);
    assert_eq!(step.committed[0].confidence, 0.0);
}

#[test]
fn with_a_temperature_only_exact_trusts_eos() {
    for (exact, first) in [(true, (0, 1)), (false, (1, 3))] {
        let sampler =
            Sampler { confidence_eos_eot_inf: true, temperature: 1e-3, exact, ..two_steps() };
        let mut canvas = canvas(&[], sampler);
        let step = commit(&mut canvas, vec![0., 9., 0., 0., 0., 0., 0., 3.]).unwrap();
        assert_eq!(unmasked(&step), [first], "exact: {exact}");
    }
}

#[test]
fn guidance_masks_all_of_the_prompt_but_its_own_masks() {
    let sampler = Sampler { cfg_scale: 1.0, ..two_steps() };
    let prompt = Prompt { tokens: vec![6, 5, 0, 3], padding: 1 };
    let mut canvas = Canvas::new(prompt, &sampler, &SPECIAL, AttentionMask::Bidirectional).unwrap();
    let query = canvas.plan().unwrap();
    assert_eq!((query.padding, query.wanted), (1, &[2, 4, 5][..]));
    assert_eq!(query.unconditional, Some(&[0; 6][..]));
    let reading = |position| {
        let mut logits = [0.0; 7];
        logits[4] = if position == 2 { 9.0 } else { 0.0 };
        canvas.read(position, &mut logits, Some(&[0.0; 7])).unwrap()
    };
    let readings = [2, 4, 5].map(reading);
    canvas.commit(&readings).unwrap();
    let query = canvas.plan().unwrap();
    assert_eq!(query.tokens, [6, 5, 4, 3, 0, 0]);
    assert_eq!(query.unconditional, Some(&[0, 0, 4, 0, 0, 0][..]));
}

#[test]
fn bad_logits_are_refused_and_change_nothing() {
    let mut canvas = canvas(&[7], two_steps());
    let mut refused = |logits: &[f32]| commit(&mut canvas, logits.to_vec()).unwrap_err();
    assert_eq!(refused(&[]), SamplerError::Readings { found: 0, positions: 2 });
    let nan = refused(&[0.0, 1.0, 0.0, f32::NAN]);
    assert_eq!(nan, SamplerError::NotFinite { position: 2 });
    assert_eq!((canvas.tokens(), canvas.outcome().nfe), (&[7, 0, 0][..], 0));

    for (found, unconditional) in [(4, Some(&[0.0; 4][..])), (0, None)] {
        let unasked = canvas.read(1, &mut [0.0; 4][..found], unconditional).unwrap_err();
        assert_eq!(unasked, SamplerError::LogitCount { found, positions: 1 });
    }
    let reading = |position| canvas.read(position, &mut [0.0, 1.0], None).unwrap();
    for wrong in [vec![reading(2), reading(1)], vec![reading(1)]] {
        let found = wrong.len();
        let refused = canvas.commit(&wrong);
        assert_eq!(refused, Err(SamplerError::Readings { found, positions: 2 }));
    }

    commit(&mut canvas, vec![0., 1., 2., 3., 0., 1., 2., 3.]).unwrap();
    commit(&mut canvas, vec![0., 1., 2., 3.]).unwrap();
    assert_eq!(commit(&mut canvas, vec![]), Err(SamplerError::Finished));
}

#[test]
fn steps_beyond_the_tokens_are_passed_over() {
    let sampler = Sampler {
        steps: 10,
        gen_length: 4,
        block_length: 2,
        blocks: crate::diffusion::Blocks::SemiAutoregressive,
        ..Sampler::exact()
    };
    let mut canvas = canvas(&[], sampler);
    let mut steps = Vec::new();
    while let Some(query) = canvas.plan() {
        let logits = [0., 0., 0., 1.].repeat(query.wanted.len());
        let step = commit(&mut canvas, logits).unwrap();
        steps.push((step.nfe, step.step, step.block, step.committed[0].position));
    }
    assert_eq!(steps, [(1, 0, 0, 0), (2, 1, 0, 1), (3, 5, 1, 2), (4, 6, 1, 3)]);
}

#[test]
fn more_padding_than_prompt_is_refused() {
    let prompt = Prompt { tokens: vec![3], padding: 2 };
    let canvas = Canvas::new(prompt, &two_steps(), &SPECIAL, AttentionMask::Bidirectional);
    assert_eq!(canvas.err(), Some(SamplerError::Padding { padding: 2, length: 1 }));
}
