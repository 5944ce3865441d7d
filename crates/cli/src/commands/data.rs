//! `llada data`.

use std::path::Path;

use anyhow::Result;
use indicatif::HumanBytes;
use llada::{
    data::{Meta, PrepareOptions, PrepareProgress, merge, prepare},
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;

use super::Inputs;
use crate::{
    args::{Data, Prepare},
    term::Term,
    view::{progress::bytes_bar, units},
};

/// Runs the verb below `data`.
pub fn run(args: Data, term: &Term) -> Result<()> {
    match args {
        Data::Prepare(args) => prepare_shards(args, term),
        Data::Merge(args) => {
            let meta = merge(&args.parts, &args.out, args.overwrite, &Cpu::new(0)?)?;
            tell(&meta, &args.out, term);
            Ok(())
        }
    }
}

fn prepare_shards(args: Prepare, term: &Term) -> Result<()> {
    let tokenizer = super::tokenizer::open(&args.tokenizer)?;
    let defaults = PrepareOptions::default();
    let options = PrepareOptions {
        format: args.format.map(Into::into),
        separator: args.separator.map_or(defaults.separator, Into::into),
        field: args.field.unwrap_or(defaults.field),
        validation: args.validation.unwrap_or(defaults.validation),
        seed: args.seed.unwrap_or(defaults.seed),
        part: args.shard.map(Into::into),
        overwrite: args.overwrite,
        ..defaults
    };
    let inputs = Inputs::take(&args.inputs)?;
    let meta = prepare_with_bar(&inputs.paths, &args.out, &tokenizer, &options, term)?;
    tell(&meta, &args.out, term);
    Ok(())
}

fn prepare_with_bar(
    inputs: &[std::path::PathBuf],
    out: &Path,
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    term: &Term,
) -> Result<Meta> {
    let bar = bytes_bar(term);
    let meta = prepare(inputs, out, tokenizer, options, &mut |at: PrepareProgress| {
        bar.set_length(at.total);
        bar.set_position(at.read);
        bar.set_message(format!("{} tokens", units::thousands(at.tokens)));
    })?;
    bar.finish_and_clear();
    Ok(meta)
}

fn tell(meta: &Meta, out: &Path, term: &Term) {
    for line in summary(meta, out) {
        term.note(&line);
    }
}

fn summary(meta: &Meta, out: &Path) -> Vec<String> {
    let split = |name: &str, split: &llada::data::SplitMeta| {
        format!(
            "{name}: {} tokens, {} documents, {}",
            units::thousands(split.tokens),
            units::thousands(split.documents),
            HumanBytes(split.bytes),
        )
    };
    let mut lines = vec![split("training", &meta.train), split("validation", &meta.validation)];
    if meta.duplicates > 0 {
        lines.push(format!("{} duplicates dropped", units::thousands(meta.duplicates)));
    }
    if meta.rejected > 0 {
        lines.push(format!("warning: {} rejected", units::counted(meta.rejected, "row")));
        lines.extend(meta.first_rejected.iter().map(|reason| format!("  {reason}")));
    }
    lines.push(format!("wrote {}", out.display()));
    lines
}
