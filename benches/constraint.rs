//! What a constraint costs: compiling it for a vocabulary of 126 thousand tokens, and beside steps without one, of
//! blocks of 32 tokens with a model of the 100 M shape.
//!
//! `cargo bench --bench constraint`

use std::{error::Error, ops::ControlFlow, sync::Arc, time::Instant};

use llada::{
    config::{AttentionMask, ModelConfig, SpecialTokens},
    constraint::{Automaton, Constraint, Vocabulary},
    diffusion::{Canvas, Logits, Predictor, Prompt, Sampler, Step, generate},
    model::{Batch, MaskPredictor, Model},
    rng::{Purpose, Stream},
};
use llada_kernels::Cpu;
use serde_json::{Value, json};

const VOCABULARY: usize = 126_464;
const BLOCK: usize = 32;
const STEPS: usize = 8;
const ROUNDS: u64 = 3;
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

/// The same logits at every position.
struct Rows(Vec<f32>);

impl Logits for Rows {
    fn logits(&mut self, _: &Batch<'_>, wanted: &[usize], out: &mut Vec<f32>) -> llada::Result<()> {
        out.clear();
        wanted.iter().for_each(|_| out.extend_from_slice(&self.0));
        Ok(())
    }

    fn vocabulary(&self) -> usize {
        VOCABULARY
    }
}

/// Seconds of a step, at best of a few blocks.
fn step<P: Predictor>(
    predictor: &mut P,
    automaton: Option<&Arc<Automaton>>,
    temperature: f64,
) -> Result<f64, Box<dyn Error>> {
    let mut best = f64::INFINITY;
    for seed in 0..ROUNDS {
        let sampler = Sampler {
            gen_length: BLOCK,
            steps: STEPS,
            block_length: BLOCK,
            temperature,
            seed,
            ..Sampler::default()
        };
        let prompt = Prompt::from((0..32).map(|i| i * 37 + 300).collect::<Vec<u32>>());
        let attention = AttentionMask::Bidirectional;
        let mut canvas = Canvas::new(prompt, &sampler, &SPECIAL, attention)?;
        if let Some(automaton) = automaton {
            canvas.constrain(Arc::clone(automaton))?;
        }
        let mut canvases = [canvas];
        let go_on = &mut |_, _: &Step| ControlFlow::Continue(());
        let begun = Instant::now();
        let summary = generate::run(predictor, &mut canvases, go_on)?;
        best = best.min(begun.elapsed().as_secs_f64() / summary.nfe as f64);
    }
    Ok(best)
}

#[allow(clippy::print_stdout)]
fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let vocabulary = vocabulary();
    println!("vocabulary of {VOCABULARY} tokens in {:.2} s", begun.elapsed().as_secs_f64());
    let config = ModelConfig {
        max_sequence_length: 128,
        ..ModelConfig::llada(768, 12, 12, 2048, VOCABULARY)
    };
    let mut model = MaskPredictor::new(Model::init(config, 0)?, Cpu::new(THREADS)?)?;
    let mut stream = Stream::new(2, Purpose::Init, 0);
    let mut rows = Rows((0..VOCABULARY).map(|_| stream.normal() as f32 * 3.0).collect());
    // The whole step, and what of it is not the model: reading logits on one thread, and choosing.
    let whole = [step(&mut model, None, 0.0)?, step(&mut model, None, 1.0)?];
    let free = [step(&mut rows, None, 0.0)?, step(&mut rows, None, 1.0)?];
    let ms = |seconds: f64| seconds * 1e3;
    println!("a step without a constraint: {:.0} ms, drawn {:.0} ms", ms(whole[0]), ms(whole[1]));
    println!("of these reading and choosing: {:.1} ms, drawn {:.1} ms", ms(free[0]), ms(free[1]));
    println!("constraint        compiled  states classes  more a step      drawn");
    for (name, constraint) in constraints() {
        let begun = Instant::now();
        let automaton = Arc::new(Automaton::new(&constraint, &vocabulary)?);
        let compiled = begun.elapsed().as_secs_f64();
        let mut more = [0.0; 2];
        for (i, temperature) in [0.0, 1.0].into_iter().enumerate() {
            more[i] = step(&mut rows, Some(&automaton), temperature)? - free[i];
        }
        println!(
            "{name:16}{compiled:>8.3} s{:>8}{:>8}{:>6.1} ms {:>3.0} %{:>6.1} ms {:>3.0} %",
            automaton.states(),
            automaton.classes(),
            ms(more[0]),
            more[0] / whole[0] * 100.0,
            ms(more[1]),
            more[1] / whole[1] * 100.0,
        );
    }
    Ok(())
}
