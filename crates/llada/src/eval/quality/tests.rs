//! Tests of the comparison, on a tiny model and by hand.

use std::ops::ControlFlow;

use llada_kernels::Cpu;

use super::*;
use crate::{
    config::{ModelConfig, SpecialTokens},
    diffusion::Blocks,
    model::Model,
};

const PROMPTS: [[u32; 3]; 5] = [[1, 2, 3], [4, 5, 6], [1, 1, 1], [7, 8, 9], [2, 4, 8]];

fn tiny() -> (MaskPredictor, SpecialTokens, Vec<Vec<u32>>) {
    let special = SpecialTokens { mask: Some(30), eos: Some(31), ..SpecialTokens::default() };
    let config = ModelConfig {
        max_sequence_length: 48,
        tokens: special,
        ..ModelConfig::llada(16, 2, 2, 32, 32)
    };
    let predictor = MaskPredictor::new(Model::init(config, 3).unwrap(), Cpu::new(1).unwrap());
    (predictor.unwrap(), special, PROMPTS.map(|prompt| prompt.to_vec()).to_vec())
}

fn short(sampler: Sampler) -> Sampler {
    let blocks = Blocks::SemiAutoregressive;
    Sampler { gen_length: 16, block_length: 16, steps: 16, blocks, ..sampler }
}

fn go_on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn judged(sampler: &Sampler, batch_size: usize) -> Judged {
    let (mut predictor, special, prompts) = tiny();
    let model = &mut predictor;
    let answers = answer(model, &special, &prompts, sampler, batch_size, &mut go_on).unwrap();
    let log_likelihoods = log_likelihoods(model, &special, &prompts, &answers, 8).unwrap();
    Judged { right: vec![None; prompts.len()], answers, log_likelihoods }
}

#[test]
fn the_reference_beside_itself_changes_nothing() {
    let reference = short(Sampler::balanced()).reference();
    let (one, other) = (judged(&reference, 1), judged(&reference, 3));
    let difference = other.against(&one);
    assert_eq!((difference.agreement, difference.identical), (1.0, 1.0));
    assert_eq!(difference.log_likelihood.unwrap().value, 0.0);
    assert!(difference.score.is_none() && !difference.is_loss());
    assert_eq!(one.answers.summary.sequence_forwards, 5 * 16);
    // What is fed does not depend on the batch, the number of passes does.
    assert_eq!(one.answers.summary.tokens_fed, other.answers.summary.tokens_fed);
    assert!(one.answers.summary.nfe > other.answers.summary.nfe);
}

#[test]
fn presets_feed_less_than_the_reference() {
    let fed = |sampler: &Sampler| judged(sampler, 1).answers.summary.tokens_fed;
    let (balanced, fast) = (short(Sampler::balanced()), short(Sampler::fast()));
    let exact = balanced.reference();
    assert_eq!(exact, fast.reference());
    assert!(fed(&fast) < fed(&balanced) && fed(&balanced) < fed(&exact));
}

#[test]
fn the_likelihood_is_that_of_the_answers_alone() {
    let (mut predictor, special, prompts) = tiny();
    let mut answers = judged(&short(Sampler::fast()), 2).answers;
    answers.tokens[1].clear();
    let found = log_likelihoods(&mut predictor, &special, &prompts, &answers, 8).unwrap();
    assert!(found[1].is_none());
    // Padding or a prompt in what is scored would show in the number of tokens.
    let pair = |i: usize| Pair { prompt: prompts[i].clone(), answer: answers.tokens[i].clone() };
    let pairs = [0, 2, 3, 4].map(pair);
    let settings = Settings::with_samples(8);
    let mut on = |_: usize, _: &_| ControlFlow::Continue(());
    let scored = likelihood::score(&mut predictor, &special, &pairs, &settings, &mut on).unwrap();
    let expected: Vec<f64> = scored.iter().map(|e| e.log_likelihood / 16.0).collect();
    assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), expected);
}

#[test]
fn a_break_leaves_the_rest_out() {
    let (mut predictor, special, prompts) = tiny();
    let sampler = short(Sampler::fast());
    let mut stop = |done| if done >= 2 { ControlFlow::Break(()) } else { go_on(done) };
    let answers = answer(&mut predictor, &special, &prompts, &sampler, 2, &mut stop).unwrap();
    assert_eq!(answers.tokens.len(), 2);
}

#[test]
fn a_loss_is_more_than_two_standard_errors() {
    let judged = |right: [bool; 8]| Judged {
        right: right.map(Some).to_vec(),
        answers: Answers { tokens: vec![vec![1, 2]; 8], ..Answers::default() },
        log_likelihoods: vec![Some(-1.0); 8],
    };
    let reference = judged([true; 8]);
    let mut few = [true; 8];
    few[0] = false;
    // 1/8 lost, with an error of 1/8.
    assert!(!judged(few).against(&reference).is_loss());
    let score = judged(few).against(&reference).score.unwrap();
    assert_eq!((score.value, score.standard_error), (-0.125, Some(0.125)));
    few[1..5].fill(false);
    assert!(judged(few).against(&reference).is_loss());
    assert!(!reference.against(&judged(few)).is_loss());

    let worse = Judged { log_likelihoods: vec![Some(-1.1); 8], ..judged([true; 8]) };
    assert!(worse.against(&reference).is_loss());
    let shorter = Answers { tokens: vec![vec![1, 3, 5, 7]; 8], ..Answers::default() };
    let other = Judged { answers: shorter, ..judged([true; 8]) };
    assert_eq!(other.against(&reference).agreement, 0.25);
}

#[test]
fn answers_agree_but_for_case_punctuation_and_articles() {
    assert!(is_right("The King.", "king"));
    assert!(is_right(" \"an apple\" ", "Apple!"));
    assert!(!is_right("the king's son", "the king") && !is_right("", "king"));
}

#[test]
fn bad_questions_name_their_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let read = |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        questions(file.path()).map_err(|e| (e.to_string(), e.hint().unwrap_or_default()))
    };
    let good =
        read("{\"prompt\":\"a\",\"more\":1}\n\n{\"prompt\":\"b\",\"response\":\"c\"}\n").unwrap();
    assert_eq!(good[0].response, None);
    assert_eq!(good[1].response.as_deref(), Some("c"));
    let (error, hint) = read("{\"prompt\":\"a\"}\n{\"question\":1}").unwrap_err();
    assert!(error.contains("line 2") && hint.contains("prompt"), "{error} {hint}");
    assert!(read("\n").unwrap_err().0.contains("it has none"));
    assert!(questions(std::path::Path::new("/nowhere")).is_err());
}
