//! `llada bench speed`: single passes and whole generations, of random weights or of a model.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use llada::{
    checkpoint::{
        self,
        gguf::{self, Formats},
    },
    config::{ModelConfig, SpecialTokens},
    diffusion::{Spelling, blocks::AdaptiveBlocks, settings::Request},
    model::{Layout, MaskPredictor, Model},
    session,
    tokenizer::{Tokenizer, TokenizerFiles},
};
use llada_kernels::{Cpu, DType};

use super::{
    measure::{self, Plan},
    report::{Measured, Report},
};
use crate::{
    args::{SamplerArgs, Speed},
    commands::{convert, doctor},
    error::Failure,
    locate::{self, Shipped},
    term::{self, Term},
    view::{progress, units},
};

/// Seed of random weights.
const SEED: u64 = 0;

/// Lengths of sequences, where nobody says others.
const LENGTHS: [usize; 3] = [32, 128, 512];

/// Measures, and prints the table or JSON.
pub fn run(args: Speed, term: &Term) -> Result<()> {
    check(&args)?;
    let cpu = Cpu::new(args.machine.threads())?;
    let mut models = Vec::new();
    if let Some(path) = &args.model {
        models.push(of_model(path, &args, &cpu, term)?);
    } else {
        for &shape in &args.shape {
            for &format in &args.format {
                models.push(of_random(shape.into(), format.into(), &args, &cpu, term)?);
            }
        }
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernels: cpu.isa().to_string(),
        threads: cpu.threads(),
        models,
    };
    match args.json {
        true => term::answer(&serde_json::to_string_pretty(&report)?),
        false => term::answer(&report.text()),
    }
}

/// Refuses flags that would have no effect.
fn check(args: &Speed) -> Result<(), Failure> {
    if !args.generate && args.sampler != SamplerArgs::default() {
        return Err(Failure::usage(
            "the flags of sampling say how to generate, and nothing is to be generated",
            "add `--generate`",
        ));
    }
    let Some(out) = &args.save else { return Ok(()) };
    if args.shape.len() * args.format.len() != 1 {
        return Err(Failure::usage(
            "`--save` writes one model, and several are to be measured",
            "give one `--shape` and one `--format`",
        ));
    }
    if !gguf::is_gguf(out) {
        return Err(Failure::usage(
            format!("`{}` does not end in `.gguf`", out.display()),
            "random weights are saved as a GGUF file: name one",
        ));
    }
    convert::check_free(out, args.force)
}

/// The model in a folder or a file.
fn of_model(path: &Path, args: &Speed, cpu: &Cpu, term: &Term) -> Result<Measured> {
    let path = locate::model(Some(path), Shipped::Base)?;
    let tokenizer = TokenizerFiles::read(&path)?.tokenizer(&path)?;
    measure::forget_peak_memory();
    let begun = Instant::now();
    let model = checkpoint::load(&path)?;
    let name = session::name(&path);
    let special = checkpoint::special_tokens(&model.config, tokenizer.as_ref());
    let plan = plan(args, &model.config, tokenizer.as_ref())?;
    measured(Subject { name, model, begun, special, random: false }, &plan, cpu, term)
}

/// Random weights of a shape.
fn of_random(
    shape: llada::model::Shape,
    dtype: DType,
    args: &Speed,
    cpu: &Cpu,
    term: &Term,
) -> Result<Measured> {
    let config = shape.config();
    let formats = Formats::usual(dtype);
    let special = config.tokens;
    let plan = plan(args, &config, None)?;
    check_memory(shape.name(), &config, &formats)?;
    let wait = progress::status_line(term);
    wait.set_message(format!("{} in {}: making weights", shape.name(), convert::name(dtype)));
    measure::forget_peak_memory();
    let begun = Instant::now();
    let model = Model::random(config, &formats, SEED, cpu)?;
    let seconds = begun.elapsed();
    wait.finish_and_clear();
    if let Some(out) = &args.save {
        gguf::save(&model, &TokenizerFiles::default(), out, &formats, cpu)
            .with_context(|| format!("cannot write `{}`", out.display()))?;
        term.note(&format!("wrote {}", out.display()));
    }
    let begun = Instant::now() - seconds;
    let name = shape.name().to_owned();
    measured(Subject { name, model, begun, special, random: true }, &plan, cpu, term)
}

/// Refuses what would not fit the memory, before the system ends the program for it.
fn check_memory(name: &str, config: &ModelConfig, formats: &Formats) -> Result<(), Failure> {
    let layout = Layout::new(config);
    let of_each = layout.specs().iter().zip(formats.of_each(&layout));
    let bytes: usize = of_each.map(|(spec, dtype)| dtype.bytes(spec.len()).unwrap_or(0)).sum();
    match doctor::memory("MemAvailable") {
        Some(available) if bytes as u64 > available => Err(Failure::new(
            format!(
                "{name} in {} needs {}, and {} of memory are available",
                convert::name(formats.blocks),
                units::bytes(bytes as u64),
                units::bytes(available)
            ),
            "choose a smaller `--shape`, or a `--format` of fewer bits",
        )),
        _ => Ok(()),
    }
}

/// A model that is to be measured.
struct Subject {
    name: String,
    model: Model,
    /// When its loading or making began.
    begun: Instant,
    special: SpecialTokens,
    random: bool,
}

fn measured(subject: Subject, plan: &Plan, cpu: &Cpu, term: &Term) -> Result<Measured> {
    let Subject { name, model, begun, special, random } = subject;
    let config = model.config.clone();
    let weight_bytes = model.tensors.iter().map(|weights| weights.bytes()).sum();
    let dtype = model.tensors.get(Layout::new(&config).blocks[0].attn_out).dtype();
    let mut predictor = MaskPredictor::new(model, cpu.clone())?;
    plan.compute.set(&mut predictor);
    let seconds_to_start = begun.elapsed().as_secs_f64();

    let status = progress::status_line(term);
    let tell = |round: usize| {
        let message =
            format!("{name} in {}: round {} of {}", convert::name(dtype), round + 1, plan.rounds);
        status.set_message(message);
    };
    let found = measure::measure(&mut predictor, &special, plan, dtype, &tell)?;
    status.finish_and_clear();
    Ok(Measured {
        format: convert::name(dtype),
        parameters: config.parameters(),
        weight_bytes,
        random,
        seconds_to_start,
        peak_memory_bytes: measure::peak_memory(),
        peak_operations_per_second: found.peak,
        forward: found.forward,
        generation: found.generation,
        model: name,
    })
}

/// What the flags ask for, of a model with this configuration.
fn plan(args: &Speed, config: &ModelConfig, tokenizer: Option<&Tokenizer>) -> Result<Plan> {
    let limit = config.max_sequence_length;
    let lengths: Vec<usize> = match args.lengths.as_slice() {
        [] if limit < LENGTHS[0] => vec![limit],
        [] => LENGTHS.into_iter().filter(|&length| length <= limit).collect(),
        given => given.iter().map(|&length| length as usize).collect(),
    };
    if let Some(length) = lengths.iter().find(|&&length| length > limit) {
        return Err(Failure::usage(
            format!(
                "a sequence of {length} tokens does not fit the model, whose longest is {limit}"
            ),
            format!("give `--lengths` of up to {limit}"),
        )
        .into());
    }
    let generation = match args.generate {
        true => {
            let prompt = args.prompt as usize;
            if args.sampler.settings.adaptive_blocks == Some(true) && tokenizer.is_none() {
                return Err(Failure::usage(
                    "adaptive blocks end at a delimiter of the text, and there is no tokenizer",
                    "name a model that has one, or leave out `--adaptive-blocks`",
                )
                .into());
            }
            let delimiters =
                || tokenizer.map_or(AdaptiveBlocks::new(Vec::new()), AdaptiveBlocks::of);
            let request = Request::new(&args.sampler.settings, &delimiters);
            let sampler = request.sampler(config, prompt);
            Some((sampler.map_err(|error| Failure::sampler(error, Spelling::Flag))?, prompt))
        }
        false => None,
    };
    let (wanted, rounds) = (args.wanted as usize, args.rounds.into());
    let compute = args.machine.sampling(&args.sampler.settings).compute;
    Ok(Plan { lengths, wanted, rounds, compute, generation })
}
