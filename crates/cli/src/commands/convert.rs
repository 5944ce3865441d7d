//! `llada convert` and `llada quantize`: folders into GGUF files and back, with fewer bits where
//! they are asked for.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use llada::{
    checkpoint::{
        self, Checkpoint,
        gguf::{self, Formats},
    },
    config::ModelConfig,
    files::{self, Existing, Output},
    model::{Layout, Model},
    tokenizer::TokenizerFiles,
};
use llada_kernels::{Cpu, DType};

use crate::{
    args::{Convert, Format, Quantize},
    error::Failure,
    locate::{self, Shipped},
    term::Term,
    view::{progress::weights_bar, units},
};

/// Writes the model as a file or a folder, whichever `--out` names.
pub fn convert(args: Convert, term: &Term) -> Result<()> {
    let source = locate::model(args.model.get(), Shipped::Base)?;
    let out = Output::lock(&args.out)?;
    check_free(&args.out, args.force)?;
    out.check_own(checkpoint::is_model(&args.out), &checkpoint::is_written)?;
    let source = Checkpoint::open(&source)?;
    let model = source.load()?;
    let dtype = match (args.dtype, model.tensors.get(Layout::new(&model.config).wte).dtype()) {
        (Some(storage), _) => storage.into(),
        (None, DType::Blocks(_)) => DType::Bf16,
        (None, stored) => stored,
    };
    if names_file(&args.out) {
        let formats = Formats::all(dtype);
        return write_file(&source, &model, &out, args.force, &formats, &Cpu::new(0)?, term);
    }
    let tokenizer = tokenizer_files(&source, &model.config)?;
    out.fill(existing(args.force), |dir| {
        checkpoint::save(&model, dir, dtype)?;
        tokenizer.write(dir)
    })
    .with_context(|| format!("cannot write `{}`", args.out.display()))?;
    report(&model, &args.out, &args.out.join("model.safetensors"), term)
}

/// Writes the model as a file of fewer bits.
pub fn quantize(args: Quantize, term: &Term) -> Result<()> {
    let format = args.format.format;
    if let Some(mixture) = &args.format.mixture {
        term.note(&format!(
            "`{mixture}` is llama.cpp's name of a mixture that keeps some matrices in more bits; \
             here all matrices of the blocks are in {}",
            name(format.into())
        ));
    }
    if let Format::F32 | Format::F16 | Format::Bf16 = format {
        return Err(Failure::usage(
            "`--format` takes a quantised format",
            "`llada convert --dtype` writes f32, bf16 and f16",
        )
        .into());
    }
    if !names_file(&args.out) {
        return Err(Failure::usage(
            format!("`{}` does not end in `.gguf`", args.out.display()),
            "quantised models are GGUF files: name one",
        )
        .into());
    }
    let source = locate::model(args.model.get(), Shipped::Base)?;
    let out = Output::lock(&args.out)?;
    check_free(&args.out, args.force)?;
    let source = Checkpoint::open(&source)?;
    let model = source.load()?;
    let layout = Layout::new(&model.config);
    if args.head.is_some() && layout.head.is_none() {
        return Err(Failure::usage(
            "this model has no LM head of its own: it is tied to the embedding",
            "leave out `--head`; `--embedding` is the format of both",
        )
        .into());
    }
    if model.tensors.iter().any(|t| matches!(t.dtype(), DType::Blocks(_))) {
        term.warn("this model is quantised already: quantise the original to lose less");
    }
    let formats = Formats {
        blocks: format.into(),
        embedding: args.embedding.into(),
        head: args.head.unwrap_or(Format::Q8_0).into(),
    };
    for line in fallbacks(&formats, &layout) {
        term.note(&line);
    }
    let cpu = Cpu::new(args.threads.threads.into())?;
    write_file(&source, &model, &out, args.force, &formats, &cpu, term)
}

fn write_file(
    source: &Checkpoint,
    model: &Model,
    out: &Output,
    force: bool,
    formats: &Formats,
    cpu: &Cpu,
    term: &Term,
) -> Result<()> {
    let bar = weights_bar(term);
    let mut progress = |written, all| {
        bar.set_length(all as u64);
        bar.set_position(written as u64);
    };
    let tokenizer = tokenizer_files(source, &model.config)?;
    let missed = out
        .fill(existing(force), |path| {
            gguf::save_watched(model, tokenizer, path, formats, cpu, &mut progress)
        })
        .with_context(|| format!("cannot write `{}`", out.path().display()))?;
    bar.finish_and_clear();
    if let Some(missed) = missed {
        term.note(&missed);
    }
    report(model, out.path(), out.path(), term)
}

/// What matrices whose width is no whole number of blocks get instead.
fn fallbacks(formats: &Formats, layout: &Layout) -> Vec<String> {
    let mut counts: BTreeMap<(usize, &str, &str), u64> = BTreeMap::new();
    let all = layout.specs().iter().zip(formats.asked(layout)).zip(formats.of_each(layout));
    for ((spec, asked), given) in all.filter(|((_, asked), given)| asked != given) {
        let width = spec.shape.last().copied().unwrap_or(0);
        *counts.entry((width, name(asked), name(given))).or_default() += 1;
    }
    let line = |((width, asked, given), n): (&(usize, &str, &str), &u64)| {
        let matrices = if *n == 1 { "matrix" } else { "matrices" };
        format!("{n} {matrices} of width {width} in {given}: {asked} needs whole blocks")
    };
    counts.iter().map(line).collect()
}

/// GGML's name of a format.
pub fn name(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "f32",
        DType::Bf16 => "bf16",
        DType::F16 => "f16",
        DType::Blocks(format) => format.name(),
    }
}

fn report(model: &Model, out: &Path, weights: &Path, term: &Term) -> Result<()> {
    let before: usize = model.tensors.iter().map(|t| t.bytes()).sum();
    let after = std::fs::metadata(weights)
        .with_context(|| format!("cannot read `{}`", weights.display()))?
        .len();
    term.note(&format!(
        "wrote {}: weights of {} as {}",
        out.display(),
        units::bytes(before as u64),
        units::bytes(after)
    ));
    Ok(())
}

/// The tokenizer of a model, which must be usable and its own.
pub fn tokenizer_files<'a>(
    source: &'a Checkpoint,
    config: &ModelConfig,
) -> Result<&'a TokenizerFiles> {
    let files = source.tokenizer_files()?;
    if files.get(TokenizerFiles::JSON).is_some() {
        source.tokenizer()?.check(config)?;
    }
    Ok(files)
}

/// Whether what is to be written is a GGUF file.
fn names_file(out: &Path) -> bool {
    gguf::is_gguf(out)
}

/// What `--force` does: of a folder, the files of a model are replaced, and others stay.
fn existing(force: bool) -> Existing<'static> {
    if force { Existing::Replace(&checkpoint::is_written) } else { Existing::Refuse }
}

/// Checks that nothing is lost by writing `out`.
pub fn check_free(out: &Path, force: bool) -> Result<(), Failure> {
    if !force && files::is_occupied(out) {
        return Err(Failure::new(
            format!("`{}` is there already", out.display()),
            "choose another name, or replace it with `--force`",
        ));
    }
    Ok(())
}
