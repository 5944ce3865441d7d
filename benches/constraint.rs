//! What a constraint costs: compiling it for a vocabulary of 126 thousand tokens, and beside steps without one, of
//! blocks of 32 tokens with a model of the 100 M shape.
//!
//! `cargo bench --bench constraint`

use std::{error::Error, ops::ControlFlow, sync::Arc, time::Instant};

use llada::{
    config::{ModelConfig, SpecialTokens},
    constraint::{Automaton, Constraint, Vocabulary},
    diffusion::{Blocks, Canvas, Prompt, Sampler, generate},
    model::{MaskPredictor, Model},
    rng::{Purpose, Stream},
};
use llada_kernels::Cpu;
use serde_json::{Value, json};

const VOCABULARY: usize = 126_464;
const BLOCK: usize = 32;
const TOKENS: usize = 96;
const THREADS: usize = 2;
const SPECIAL: SpecialTokens = SpecialTokens {
    mask: Some(126_336),
    eos: Some(126_081),
    eot: Some(126_348),
    bos: None,
    pad: None,
};

/// Tokens like those of byte-level BPE: all bytes, numbers, marks as JSON has them, and words of several scripts,
/// most of them after a space.
fn vocabulary() -> Arc<Vocabulary> {
    let mut stream = Stream::new(1, Purpose::Init, 0);
    let mut bytes: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    bytes.extend((0..1000).map(|n: u32| n.to_string().into_bytes()));
    bytes.extend((1..60).map(|n| vec![b' '; n]));
    let marks = [
        "{", "}", "[", "]", "\"", ":", ",", "\\", "\n", " ", "-", ".", "(", ")", "true", "null",
        "name",
    ];
    let mut pick = |n: usize| stream.below(n as u64) as usize;
    for _ in 0..4000 {
        let count = 2 + pick(3);
        bytes.push((0..count).flat_map(|_| marks[pick(marks.len())].bytes()).collect());
    }
    let letters = b"etaoinshrdlucmfwypvbgkjqxzETAOINSHRDLU";
    while bytes.len() < SPECIAL.eos.unwrap_or(0) as usize {
        let mut word = Vec::new();
        if pick(10) < 6 {
            word.push(b' ');
        }
        let length = 2 + pick(4) + pick(5);
        match pick(10) {
            0 | 1 => {
                for _ in 0..length.div_ceil(3) {
                    let c = char::from_u32(0x4e00 + pick(0x3000) as u32).unwrap_or('a');
                    word.extend(c.encode_utf8(&mut [0; 4]).bytes());
                }
            }
            _ => word
                .extend((0..length).map(|_| letters[pick(letters.len()).min(pick(letters.len()))])),
        }
        bytes.push(word);
    }
    bytes.resize(VOCABULARY, Vec::new());
    let ends = SPECIAL.eos.into_iter().chain(SPECIAL.eot).collect();
    Arc::new(Vocabulary::of(bytes, ends))
}

fn constraints() -> Vec<(&'static str, Constraint)> {
    let schema = |value: Value| Constraint::JsonSchema(value);
    let text = json!({ "type": "string" });
    let person = json!({ "type": "object", "properties": {
        "name": text, "age": { "type": "integer", "minimum": 0, "maximum": 120 }, "mail": { "type": "string", "format": "email" },
        "address": { "type": "object", "properties": { "street": text, "city": text, "zip": { "type": "string", "pattern": "^\\d{5}$" } }, "required": ["street", "city"] },
        "tags": { "type": "array", "items": text, "maxItems": 5 }
    }, "required": ["name", "age", "address"] });
    let wide = (0..20).map(|i| (format!("property_{i}"), text.clone()));
    let wide = json!({ "type": "object", "properties": wide.collect::<serde_json::Map<_, _>>() });
    vec![
        ("choices", Constraint::Choices(["yes", "no", "maybe"].map(String::from).into())),
        ("regex", Constraint::Regex("[A-Z][a-z ,]+\\.".into())),
        ("person", schema(person)),
        ("20 strings", schema(wide)),
        ("200 characters", schema(json!({ "type": "string", "maxLength": 200 }))),
        ("any object", Constraint::Json),
    ]
}

/// Seconds of the steps of one response.
fn run(
    predictor: &mut MaskPredictor,
    automaton: Option<&Arc<Automaton>>,
    temperature: f64,
) -> Result<f64, Box<dyn Error>> {
    let sampler = Sampler {
        gen_length: TOKENS,
        steps: 12,
        block_length: BLOCK,
        temperature,
        blocks: Blocks::BlockDiffusion,
        ..Sampler::default()
    };
    let attention = predictor.model().config.attention;
    let prompt = Prompt::from((0..32).map(|i| i * 37 + 300).collect::<Vec<u32>>());
    let mut canvas = Canvas::new(prompt, &sampler, &SPECIAL, attention)?;
    if let Some(automaton) = automaton {
        canvas.constrain(Arc::clone(automaton))?;
    }
    let mut canvases = [canvas];
    let begun = Instant::now();
    let summary = generate::run(predictor, &mut canvases, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(begun.elapsed().as_secs_f64() / summary.nfe as f64)
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let vocabulary = vocabulary();
    println!("vocabulary of {VOCABULARY} tokens in {:.2} s", begun.elapsed().as_secs_f64());
    let config = ModelConfig {
        max_sequence_length: 256,
        ..ModelConfig::llada(768, 12, 12, 2048, VOCABULARY)
    };
    let mut predictor = MaskPredictor::new(Model::init(config, 0)?, Cpu::new(THREADS)?)?;
    let free = |predictor: &mut MaskPredictor, temperature| -> Result<f64, Box<dyn Error>> {
        let times = [run(predictor, None, temperature)?, run(predictor, None, temperature)?];
        Ok(times[0].min(times[1]))
    };
    let plain = [free(&mut predictor, 0.0)?, free(&mut predictor, 1.0)?];
    println!(
        "a step without a constraint: {:.1} ms, with a temperature {:.1} ms",
        plain[0] * 1e3,
        plain[1] * 1e3
    );
    println!(
        "{:16}{:>10}{:>8}{:>9}{:>10}{:>8}{:>10}{:>8}",
        "constraint", "compiled", "states", "classes", "step", "more", "drawn", "more"
    );
    for (name, constraint) in constraints() {
        let begun = Instant::now();
        let automaton = Arc::new(Automaton::new(&constraint, &vocabulary)?);
        let compiled = begun.elapsed().as_secs_f64();
        let mut steps = [f64::INFINITY; 2];
        for _ in 0..2 {
            for (step, temperature) in steps.iter_mut().zip([0.0, 1.0]) {
                *step = step.min(run(&mut predictor, Some(&automaton), temperature)?);
            }
        }
        println!(
            "{name:16}{:>8.3} s{:>8}{:>9}{:>7.1} ms{:>6.1} %{:>7.1} ms{:>6.1} %",
            compiled,
            automaton.states(),
            automaton.classes(),
            steps[0] * 1e3,
            (steps[0] / plain[0] - 1.0) * 100.0,
            steps[1] * 1e3,
            (steps[1] / plain[1] - 1.0) * 100.0,
        );
    }
    Ok(())
}
