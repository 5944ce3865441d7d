//! What must hold of every canvas under a constraint, with predictors that are only hashes: it comes to its end, and
//! its text is accepted. A step that could not be completed would be an error of the step after it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/mock.rs"]
mod mock;

use std::sync::Arc;

use llada::{
    config::{AttentionMask, LogitShift, SpecialTokens},
    constraint::{Automaton, Constraint, Vocabulary},
    diffusion::{
        Blocks, Canvas, Edit, Logits, Prompt, Reference, Remasking, Sampler, SamplerError,
        TransferRule, blocks::AdaptiveBlocks, generate,
    },
    model::Batch,
};
use mock::{EOS, EOT, MASK, Mock, SPECIAL};
use proptest::prelude::*;

/// Texts of the tokens before the special ones.
const WORDS: [&str; 20] = [
    "a", "b", "c", "aa", "ab", "ba", "abc", "cab", "bb", "1", "2", "12", "{", "}", "\"", ", ",
    ": ", "\": ", "日", "d",
];

fn vocabulary(ends: &[u32]) -> Arc<Vocabulary> {
    let mut bytes: Vec<Vec<u8>> = WORDS.iter().map(|word| word.as_bytes().to_vec()).collect();
    bytes.resize(23, Vec::new());
    Arc::new(Vocabulary::of(bytes, ends.to_vec()))
}

fn text(tokens: &[u32]) -> String {
    tokens.iter().map(|&token| WORDS[token as usize]).collect()
}

/// Logits for the position after, too.
struct Shifted(Mock, LogitShift);

impl Logits for Shifted {
    fn logits(
        &mut self,
        batch: &Batch<'_>,
        wanted: &[usize],
        out: &mut Vec<f32>,
    ) -> llada::Result<()> {
        self.0.logits(batch, wanted, out)
    }

    fn vocabulary(&self) -> usize {
        mock::VOCABULARY
    }

    fn shift(&self) -> LogitShift {
        self.1
    }
}

fn constraints() -> impl Strategy<Value = Constraint> {
    let pattern = |pattern: &str| Constraint::Regex(pattern.into());
    let schema = serde_json::json!({ "type": "object", "required": ["a"], "properties": {
        "a": { "type": "integer", "maximum": 212 }, "b": { "enum": ["cab", "日"] }
    } });
    prop::sample::select(vec![
        pattern("a+b?c*"),
        pattern("[abc]*d"),
        pattern("(ab|日){1,3}"),
        pattern(".*"),
        pattern("(aaa)+"),
        pattern("[ab]*12[ab]*"),
        Constraint::Choices(["abcabc", "ab", "cabcab1212"].map(String::from).into()),
        Constraint::JsonSchema(schema),
    ])
}

fn rules() -> impl Strategy<Value = TransferRule> {
    let names = [
        "schedule",
        "threshold=0.3",
        "factor=1",
        "entropy=1",
        "klass=0.2",
        "leap=0.3",
        "credit=0.3",
    ];
    prop::sample::select(names.map(|name| name.parse().unwrap()).to_vec())
}

fn samplers() -> impl Strategy<Value = Sampler> {
    let layout = (
        0usize..4,
        1usize..5,
        1usize..6,
        1usize..7,
        rules(),
        prop::sample::select(Remasking::ALL.to_vec()),
    );
    let draws =
        (0u8..3, prop::option::of(1usize..4), prop::option::of(0.2f64..1.0), any::<u64>(), 0u8..2);
    let flags = any::<[bool; 8]>();
    (layout, draws, flags).prop_map(|(layout, draws, flags)| {
        let (blocks, count, block_length, per_block, transfer, remasking) = layout;
        let (temperature, top_k, top_p, seed, cfg) = draws;
        let [exact, eos_last, eos_inf, stops, revises, adapts, windowed, noisy] = flags;
        let blocks = Blocks::ALL[blocks];
        let gen_length = count * block_length;
        let steps = if blocks == Blocks::Pure { per_block } else { count * per_block };
        let is_semi = blocks == Blocks::SemiAutoregressive;
        let mut sampler = Sampler {
            steps,
            gen_length,
            block_length,
            temperature: f64::from(temperature) / 2.0,
            cfg_scale: f32::from(cfg),
            blocks,
            logits_eos_inf: eos_inf,
            confidence_eos_eot_inf: eos_last,
            stop_at_eos: stops,
            seed,
            ..Sampler::default()
        };
        if exact {
            sampler.exact = true;
            return sampler;
        }
        sampler.remasking = remasking;
        if !matches!(remasking, Remasking::Random | Remasking::Sequential) {
            sampler.transfer = transfer;
        }
        sampler.top_k = top_k;
        sampler.top_p = top_p;
        sampler.alg_temp = f64::from(u8::from(noisy));
        sampler.revise = revises.then_some(0.2);
        sampler.adaptive_blocks = (adapts && is_semi)
            .then(|| AdaptiveBlocks { delimiters: vec![2, 15], confidence: 0.05 });
        sampler.suffix_window = None;
        if windowed && is_semi {
            sampler.suffix_window =
                Some(llada::diffusion::cache::SuffixWindow { masks: 2, decay: false });
        }
        sampler
    })
}

/// Runs a canvas to its end and checks what it holds.
fn check(
    mut canvas: Canvas,
    automaton: &Arc<Automaton>,
    shift: LogitShift,
) -> Result<(), TestCaseError> {
    let room = canvas.sampler().gen_length;
    match canvas.constrain(Arc::clone(automaton)) {
        Ok(()) => {}
        Err(SamplerError::ShortOfRoom { least, room: found }) => {
            prop_assert!(least > room && found == room && least == automaton.shortest());
            return Ok(());
        }
        Err(SamplerError::UnfitLength { length }) => {
            prop_assert_eq!(length, room);
            return Ok(());
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    }
    let mut canvases = [canvas];
    let mut predictor = Shifted(Mock::default(), shift);
    let summary = generate::run(&mut predictor, &mut canvases, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    });
    prop_assert!(summary.is_ok(), "{:?}", summary.err());
    let [canvas] = canvases;
    let useful = canvas.useful();
    prop_assert_eq!(canvas.outcome().masks_left, 0);
    prop_assert!(!useful.contains(&MASK));
    prop_assert!(automaton.accepts(&text(useful)), "{:?} is not accepted", text(useful));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn every_canvas_ends_with_a_text_that_is_accepted(
        constraint in constraints(), sampler in samplers(), length in 0usize..5, has_ends: bool,
    ) {
        let ends: &[u32] = if has_ends { &[EOS, EOT] } else { &[] };
        let automaton = Arc::new(Automaton::new(&constraint, &vocabulary(ends)).unwrap());
        let special = match has_ends {
            true => SPECIAL,
            false => SpecialTokens { eos: None, eot: None, ..SPECIAL },
        };
        let sampler = match has_ends {
            true => sampler,
            false => Sampler { logits_eos_inf: false, confidence_eos_eot_inf: false, ..sampler },
        };
        let prompt = Prompt::from((0..length as u32).collect::<Vec<_>>());
        let attention = AttentionMask::Bidirectional;
        let canvas = Canvas::new(prompt, &sampler, &special, attention);
        if let Ok(canvas) = canvas {
            check(canvas, &automaton, LogitShift::Same)?;
        }
    }

    #[test]
    fn models_by_blocks_and_causal_ones_too(
        constraint in constraints(),
        length in 1usize..7,
        gen_length in 1usize..18,
        temperature in 0u8..2,
        seed: u64,
        kind in 0u8..4,
    ) {
        let automaton = Arc::new(Automaton::new(&constraint, &vocabulary(&[EOS, EOT])).unwrap());
        let prompt = Prompt::from((0..length as u32).collect::<Vec<_>>());
        let blocks = Sampler {
            gen_length,
            steps: gen_length,
            block_length: 4,
            temperature: f64::from(temperature),
            blocks: Blocks::BlockDiffusion,
            seed,
            ..Sampler::default()
        };
        let by_blocks = AttentionMask::BlockCausal { block_length: 4 };
        let (sampler, attention, shift) = match kind {
            0 => (Sampler { blocks: Blocks::Autoregressive, ..blocks }, AttentionMask::Causal, LogitShift::Same),
            1 => (blocks, by_blocks, LogitShift::Same),
            2 => {
                let parts = Sampler { sub_block_length: Some(2), ..blocks };
                (Sampler { reference: Reference::FastDllmV2, ..parts }, by_blocks, LogitShift::Next)
            }
            _ => (Sampler { transfer: "threshold=0.2".parse().unwrap(), ..blocks }, by_blocks, LogitShift::Same),
        };
        check(Canvas::new(prompt, &sampler, &SPECIAL, attention).unwrap(), &automaton, shift)?;
    }
}

#[test]
fn what_a_constraint_does_not_go_with_is_refused_by_name() {
    let automaton =
        Arc::new(Automaton::new(&Constraint::Regex("a{4}".into()), &vocabulary(&[EOS])).unwrap());
    let base = Sampler {
        gen_length: 8,
        steps: 8,
        block_length: 4,
        blocks: Blocks::SemiAutoregressive,
        ..Sampler::default()
    };
    let refused = |sampler: &Sampler, prompt: &[u32]| {
        let attention = match sampler.reference.name() {
            "llada" => AttentionMask::Bidirectional,
            _ => AttentionMask::BlockCausal { block_length: 4 },
        };
        let mut canvas =
            Canvas::new(Prompt::from(prompt.to_vec()), sampler, &SPECIAL, attention).unwrap();
        canvas.constrain(Arc::clone(&automaton)).unwrap_err()
    };
    let edit = Sampler { edit: Some(Edit::default()), ..base.clone() };
    let open = Sampler { variable_length: Some(Default::default()), ..base.clone() };
    let literal = Sampler {
        exact: true,
        reference: Reference::Llada2,
        blocks: Blocks::BlockDiffusion,
        ..base.clone()
    };
    for (sampler, name) in [(edit, "edit"), (open, "variable_length"), (literal, "preset")] {
        let error = refused(&sampler, &[1]);
        let SamplerError::Combination { setting, .. } = &error else { panic!("{error}") };
        assert_eq!(*setting, name);
        assert!(error.hint().unwrap().contains(&name.replace('_', "-")));
    }
    assert_eq!(refused(&base, &[1, MASK]), SamplerError::ConstrainedMasks);
    let short = Sampler { gen_length: 1, steps: 1, block_length: 1, ..base.clone() };
    let error = refused(&short, &[1]);
    assert_eq!(error, SamplerError::ShortOfRoom { least: 2, room: 1 });
    assert_eq!(error.hint().unwrap(), "use --gen-length 2 or more");
    let mut canvas = mock::canvas(&Prompt::from(vec![1]), &base, 0);
    let readings: Vec<_> = canvas
        .plan()
        .unwrap()
        .wanted
        .to_vec()
        .into_iter()
        .map(|position| canvas.read(position, &mut [0.0; 23], None).unwrap())
        .collect();
    canvas.commit(&readings).unwrap();
    assert_eq!(canvas.constrain(automaton), Err(SamplerError::Begun));
}

#[test]
fn a_constraint_that_a_text_meets_anyway_changes_nothing() {
    let automaton =
        Arc::new(Automaton::new(&Constraint::Regex("(?s).*".into()), &vocabulary(&[])).unwrap());
    let special = SpecialTokens { eos: None, eot: None, ..SPECIAL };
    for temperature in [0.0, 0.7] {
        let sampler = Sampler {
            gen_length: 12,
            steps: 6,
            block_length: 4,
            temperature,
            blocks: Blocks::SemiAutoregressive,
            seed: 3,
            ..Sampler::default()
        };
        let run = |constrained: bool| {
            let prompt = Prompt::from(vec![1, 2]);
            let mut canvas =
                Canvas::new(prompt, &sampler, &special, AttentionMask::Bidirectional).unwrap();
            if constrained {
                canvas.constrain(Arc::clone(&automaton)).unwrap();
            }
            let mut canvases = [canvas];
            let mut steps = Vec::new();
            let mut predictor = TextOnly(Mock::default());
            generate::run(&mut predictor, &mut canvases, &mut |_, step| {
                steps.push(step.clone());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            steps
        };
        assert_eq!(run(false), run(true), "{temperature}");
    }
}

/// Logits under which special tokens are never the most probable.
struct TextOnly(Mock);

impl Logits for TextOnly {
    fn logits(
        &mut self,
        batch: &Batch<'_>,
        wanted: &[usize],
        out: &mut Vec<f32>,
    ) -> llada::Result<()> {
        self.0.logits(batch, wanted, out)?;
        for row in out.chunks_mut(mock::VOCABULARY) {
            row[20..].fill(-50.0);
        }
        Ok(())
    }

    fn vocabulary(&self) -> usize {
        mock::VOCABULARY
    }
}
