//! Tests of infilling with predictors that are no models.

#[path = "../../../../../tests/hash.rs"]
mod hash;

use std::{ops::ControlFlow, sync::OnceLock};

use hash::mix;
use proptest::prelude::*;

use super::{
    length::{Search, search},
    *,
};
use crate::{
    Result,
    diffusion::{Logits, Predictor, Remasking, Step, generate},
    model::Batch,
    tokenizer::{Kind, Tokenizer, train},
};

const TEXT: &str =
    "The cat sat on the mat. The dog sat on the log, and 日本 too.\n    let x = {1};\n";

fn tokenizers() -> &'static [Tokenizer; 2] {
    static BOTH: OnceLock<[Tokenizer; 2]> = OnceLock::new();
    BOTH.get_or_init(|| {
        [Kind::Bpe { vocab_size: 320 }, Kind::Character { min_count: 0 }]
            .map(|kind| train(kind, [Ok(TEXT.repeat(3))]).unwrap())
    })
}

/// Logits by the sequence's tokens and the position alone. Special tokens are the favourites.
struct Hash<'a>(&'a Tokenizer);

impl Logits for Hash<'_> {
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        for &at in wanted {
            let sequence = batch.starts.iter().rposition(|&start| start <= at).unwrap();
            let (start, end) = (batch.starts[sequence], batch.starts[sequence + 1]);
            let seen = batch.tokens[start..end].iter().copied().chain([(at - start) as u32]);
            let mut state = seen.fold(7, |state, token| mix(state ^ u64::from(token)));
            for id in 0..Logits::vocabulary(self) as u32 {
                state = mix(state);
                let favour = if self.0.is_special(id) { 9.0 } else { 0.0 };
                out.push((state >> 40) as f32 / (1 << 22) as f32 + favour);
            }
        }
        Ok(())
    }

    /// Some rows of the embedding belong to no token.
    fn vocabulary(&self) -> usize {
        self.0.vocab_size() + 3
    }
}

fn frame(tokenizer: &Tokenizer, source: &str) -> (Template, Frame) {
    let template: Template = source.parse().unwrap();
    let frame = Encoder::new(tokenizer).frame(&template).unwrap();
    (template, frame)
}

fn canvas(tokenizer: &Tokenizer, frame: &Frame, lengths: &[usize], sampler: &Sampler) -> Canvas {
    let special = tokenizer.special_tokens();
    Canvas::infill(frame, lengths, sampler, &special, AttentionMask::Bidirectional).unwrap()
}

fn run<P: Predictor>(predictor: &mut P, canvases: &mut [Canvas]) -> Vec<Vec<Step>> {
    let mut steps = vec![Vec::new(); canvases.len()];
    generate::run(predictor, canvases, &mut |index, step| {
        steps[index].push(step.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    steps
}

fn found<P: Predictor>(
    predictor: &mut P,
    tokenizer: &Tokenizer,
    frame: &Frame,
    (max_hole, limit): (usize, usize),
) -> Result<length::Lengths> {
    let special = tokenizer.special_tokens();
    let request = Search {
        frame,
        sampler: &Sampler { seed: 3, ..Sampler::default() },
        special: &special,
        attention: AttentionMask::Bidirectional,
        max_hole,
        limit,
    };
    Ok(search(predictor, &request, &mut || false)?.unwrap())
}

fn samplers() -> impl Strategy<Value = Sampler> {
    (1usize..9, 0usize..5, 0u8..3, 0u8..2, any::<bool>(), any::<u64>()).prop_map(
        |(steps, block_length, temperature, cfg, random, seed)| Sampler {
            steps,
            block_length,
            blocks: if block_length == 0 { Blocks::Pure } else { Blocks::SemiAutoregressive },
            temperature: f64::from(temperature),
            cfg_scale: f32::from(cfg),
            remasking: if random { Remasking::Random } else { Remasking::LowConfidence },
            seed,
            ..Sampler::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_text_around_the_holes_stays(
        texts in prop::collection::vec("[The catson日,.{} \n]{0,9}", 1..4),
        lengths in prop::collection::vec(1usize..5, 3),
        sampler in samplers(),
        which in 0usize..2,
    ) {
        let tokenizer = &tokenizers()[which];
        let mut source = String::new();
        for (text, length) in texts.iter().zip(&lengths) {
            source += &format!("{}{{{{hole:{length}}}}}", text.replace("{{", "{ "));
        }
        let tail = "the end";
        let Ok(template) = format!("{source}{tail}").parse::<Template>() else { return Ok(()) };
        let frame = Encoder::new(tokenizer).frame(&template).unwrap();
        let lengths = &lengths[..texts.len()];
        let mut canvases = [canvas(tokenizer, &frame, lengths, &sampler)];
        let before = canvases[0].tokens().to_vec();
        run(&mut Hash(tokenizer), &mut canvases);
        let tokens = canvases[0].tokens();
        let places = frame.places(lengths);

        // Tokens: nothing changes but the holes, which hold plain text.
        prop_assert_eq!(tokens.len(), before.len());
        for (i, (&token, &given)) in tokens.iter().zip(&before).enumerate() {
            if places.iter().any(|place| place.contains(&i)) {
                prop_assert!(!tokenizer.is_special(token) && tokenizer.token(token).is_some());
            } else {
                prop_assert_eq!(token, given);
            }
        }
        // Characters: what the tokens say is the template with its fills. A fill may end within a
        // character, which reads as another one, or as one with the start of the next fill.
        let fills = frame.fills(tokenizer, tokens, lengths).unwrap();
        let said = tokenizer.decode(tokens, false).unwrap();
        let read = template.fill(&fills);
        if !said.contains('\u{fffd}') && !read.contains('\u{fffd}') {
            prop_assert_eq!(said, read);
        }
    }

    #[test]
    fn a_sequence_is_the_same_in_any_batch(sampler in samplers(), other in samplers()) {
        let [tokenizer, _] = tokenizers();
        let (_, short) = frame(tokenizer, "The {{hole}} sat.");
        let (_, long) = frame(tokenizer, "{{hole:2}} and {{hole}} on the mat, too");
        let make = || canvas(tokenizer, &long, &[2, 3], &sampler);
        let mut together = [canvas(tokenizer, &short, &[4], &other), make()];
        let mut alone = [make()];
        let steps = run(&mut Hash(tokenizer), &mut together);
        prop_assert_eq!(&run(&mut Hash(tokenizer), &mut alone)[0], &steps[1]);
        prop_assert_eq!(alone[0].outcome().masks_left, 0);
        prop_assert_eq!(alone[0].outcome().committed, 5);
        prop_assert!(alone[0].response().is_empty());
    }
}

#[test]
fn a_space_before_a_hole_is_the_first_thing_in_it() {
    let [bpe, characters] = tokenizers();
    let hole = |length, spaced| Piece::Hole { length, spaced };
    let tokens = |text: &str| Piece::Tokens(bpe.encode(text).unwrap());
    for (source, pieces) in [
        ("The {{hole}} sat", vec![tokens("The"), hole(None, true), tokens(" sat")]),
        ("The{{hole:2}}", vec![tokens("The"), hole(Some(2), false)]),
        ("a  {{hole}}{{hole}}", vec![tokens("a "), hole(None, true), hole(None, false)]),
        ("a\n{{hole}} ", vec![tokens("a\n"), hole(None, false), tokens(" ")]),
        (" {{hole}}", vec![tokens(""), hole(None, true)]),
    ] {
        assert_eq!(frame(bpe, source).1.pieces(), pieces, "{source}");
    }
    let (template, of_words) = frame(bpe, "The {{hole}} sat");
    let mut canvases = [canvas(bpe, &of_words, &[2], &Sampler::default())];
    run(&mut Hash(bpe), &mut canvases);
    let first = bpe.token(canvases[0].tokens()[of_words.places(&[2])[0].start]).unwrap();
    assert!(first.len() > 1 && first.starts_with(' '), "{first:?}");
    let fills = of_words.fills(bpe, canvases[0].tokens(), &[2]).unwrap();
    assert_eq!(template.fill(&fills), bpe.decode(canvases[0].tokens(), false).unwrap());
    // A tokenizer without such tokens leaves the space where it is.
    let before = Piece::Tokens(characters.encode("The ").unwrap());
    assert_eq!(frame(characters, "The {{hole}}").1.pieces()[0], before);
}

#[test]
fn special_tokens_around_a_hole_are_text() {
    let [tokenizer, _] = tokenizers();
    let (_, frame) = frame(tokenizer, "<|mdm_mask|>{{hole:1}}<|endoftext|>");
    for piece in frame.pieces() {
        if let Piece::Tokens(tokens) = piece {
            assert!(tokens.iter().all(|&id| !tokenizer.is_special(id)));
        }
    }
}

#[test]
fn a_whole_text_is_followed_by_its_end() {
    let [tokenizer, _] = tokenizers();
    let special = tokenizer.special_tokens();
    let (template, frame) = frame(tokenizer, "The {{hole:2}}.");
    let open = canvas(tokenizer, &frame, &[2], &Sampler::default()).tokens().to_vec();
    let ended = frame.ended(special.eos.unwrap());
    let whole = canvas(tokenizer, &ended, &[2], &Sampler::default()).tokens().to_vec();
    assert_eq!(whole, [&open[..], &[special.eos.unwrap()]].concat());
    let fills = ended.fills(tokenizer, &whole, &[2]).unwrap();
    assert_eq!(template.fill(&fills).matches('.').count(), 1);
}

#[test]
fn blocks_run_over_the_masks_from_left_to_right() {
    let [tokenizer, _] = tokenizers();
    let (_, frame) = frame(tokenizer, "{{hole:3}} and {{hole:4}}");
    for (steps, block_length, expected) in [
        (7, 2, vec![1, 1, 1, 1, 1, 1, 1]),
        (4, 2, vec![2, 2, 2, 1]),
        (1, 5, vec![5, 2]),
        (99, 99, vec![1; 7]),
    ] {
        let blocks = Blocks::SemiAutoregressive;
        let sampler = Sampler { steps, block_length, blocks, ..Sampler::default() };
        let mut canvases = [canvas(tokenizer, &frame, &[3, 4], &sampler)];
        let steps = run(&mut Hash(tokenizer), &mut canvases).remove(0);
        let counts: Vec<usize> = steps.iter().map(|step| step.committed.len()).collect();
        assert_eq!(counts, expected);
        let masks: Vec<usize> = frame.places(&[3, 4]).into_iter().flatten().collect();
        for step in steps {
            for commit in step.committed {
                let index = masks.iter().position(|&i| i == commit.position).unwrap();
                assert_eq!(index / block_length, step.block);
            }
        }
    }
}

#[test]
fn what_cannot_be_filled_is_refused() {
    let [tokenizer, _] = tokenizers();
    let special = tokenizer.special_tokens();
    let (_, frame) = frame(tokenizer, "a {{hole}} b {{hole:2}}");
    let start = |sampler: Sampler, lengths: &[usize], attention| {
        Canvas::infill(&frame, lengths, &sampler, &special, attention).map(|_| ()).unwrap_err()
    };
    let diffusion = AttentionMask::Bidirectional;
    let causal = start(Sampler::default(), &[1, 2], AttentionMask::Causal);
    assert_eq!(causal, SamplerError::CausalInfill);
    assert!(causal.hint().is_some() && causal.to_string().contains("never sees what follows"));
    for lengths in [&[1][..], &[1, 2, 3], &[1, 0], &[]] {
        let error = start(Sampler::default(), lengths, diffusion);
        assert!(matches!(error, SamplerError::HoleLengths { .. }), "{error}");
    }
    let semi = Blocks::SemiAutoregressive;
    for sampler in [
        Sampler { blocks: Blocks::BlockDiffusion, ..Sampler::default() },
        Sampler { blocks: Blocks::Autoregressive, ..Sampler::default() },
        Sampler { steps: 0, ..Sampler::default() },
        Sampler { block_length: 0, blocks: semi, ..Sampler::default() },
        Sampler { temperature: -1.0, ..Sampler::default() },
    ] {
        assert!(start(sampler.clone(), &[1, 2], diffusion).hint().is_some(), "{sampler:?}");
    }
}

#[test]
fn given_lengths_need_no_search_and_sequences_fit_the_model() {
    let [tokenizer, _] = tokenizers();
    let (_, given) = frame(tokenizer, "The {{hole:3}} sat{{hole:2}}");
    let lengths = found(&mut Hash(tokenizer), tokenizer, &given, (8, 99)).unwrap();
    assert_eq!((lengths.lengths, lengths.nfe), (vec![3, 2], 0));
    let (_, free) = frame(tokenizer, "The {{hole}} sat{{hole:2}} on {{hole}}");
    let least = free.given() + 4;
    for limit in [least, least + 1, least + 9] {
        let found = found(&mut Hash(tokenizer), tokenizer, &free, (8, limit)).unwrap();
        assert!(free.given() + found.lengths.iter().sum::<usize>() <= limit);
        assert!(found.lengths[1] == 2 && found.lengths.iter().all(|&n| (1..=8).contains(&n)));
    }
    let error = found(&mut Hash(tokenizer), tokenizer, &free, (8, least - 1)).unwrap_err();
    assert_eq!(
        error.to_string(),
        InfillError::TooLong { tokens: least, limit: least - 1 }.to_string()
    );
}

/// Sure of what it says when the hole has `self.length` tokens, and of what follows it then.
struct Taste<'a> {
    tokenizer: &'a Tokenizer,
    /// Tokens of the sequence when the hole is as it likes it.
    length: usize,
    /// Whether it is sure of fills (`true`) or of what follows them.
    fills: bool,
    after: Vec<u32>,
}

impl Logits for Taste<'_> {
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], out: &mut Vec<f32>) -> Result<()> {
        out.clear();
        let mask = self.tokenizer.special_tokens().mask.unwrap();
        for &at in wanted {
            let sequence = batch.starts.iter().rposition(|&start| start <= at).unwrap();
            let tokens = &batch.tokens[batch.starts[sequence]..batch.starts[sequence + 1]];
            let from_end = batch.starts[sequence + 1] - at;
            let in_hole = from_end > self.after.len();
            let sure = tokens.len() == self.length && in_hole == self.fills;
            assert_eq!(batch.tokens[at], mask);
            let favourite = if in_hole { 3 } else { self.after[self.after.len() - from_end] };
            let logit = |id| if sure && id == favourite { 9.0 } else { 0.0 };
            out.extend((0..Logits::vocabulary(self) as u32).map(logit));
        }
        Ok(())
    }

    fn vocabulary(&self) -> usize {
        self.tokenizer.vocab_size()
    }
}

#[test]
fn the_length_of_the_surest_fill_or_of_the_likeliest_text_after_it_is_chosen() {
    let [tokenizer, _] = tokenizers();
    let (_, frame) = frame(tokenizer, "mat {{hole}}, and the dog");
    let Piece::Tokens(after) = frame.pieces()[2].clone() else { panic!() };
    for (length, fills) in [(1, true), (3, true), (5, false), (6, false)] {
        let length_of_all = frame.given() + length;
        let mut taste = Taste { tokenizer, length: length_of_all, fills, after: after.clone() };
        let found = found(&mut taste, tokenizer, &frame, (6, 99)).unwrap();
        // 6 sequences of up to 6 steps, and one look at what follows.
        assert_eq!((found.lengths, found.nfe, found.sequence_forwards), (vec![length], 7, 27));
    }
}

#[test]
fn a_search_can_be_stopped() {
    let [tokenizer, _] = tokenizers();
    let (_, frame) = frame(tokenizer, "The {{hole}}.");
    let special = tokenizer.special_tokens();
    let request = Search {
        frame: &frame,
        sampler: &Sampler::default(),
        special: &special,
        attention: AttentionMask::Bidirectional,
        max_hole: 4,
        limit: 99,
    };
    assert_eq!(search(&mut Hash(tokenizer), &request, &mut || true).unwrap(), None);
    let causal = Search { attention: AttentionMask::Causal, ..request };
    let error = search(&mut Hash(tokenizer), &causal, &mut || false).unwrap_err();
    assert!(error.to_string().contains("cannot fill holes"), "{error}");
}
