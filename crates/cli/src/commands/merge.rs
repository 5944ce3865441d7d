//! `llada merge`: adapters and their model into one checkpoint.

use anyhow::{Context, Result};
use llada::{
    checkpoint::{self, Merged},
    files::{self, Existing, Output},
    tokenizer::{Tokenizer, TokenizerFiles},
};

use crate::{
    args::Merge,
    error::Failure,
    locate::{self, Shipped},
    term::Term,
};

/// Writes the merged model, with the tokenizer of the adapters or else of their model.
pub fn run(args: Merge, term: &Term) -> Result<()> {
    let adapter = locate::model(Some(&args.adapter), Shipped::Base)?;
    if !checkpoint::is_adapter(&adapter) {
        return Err(Failure::new(
            format!("`{}` holds no adapters to merge", adapter.display()),
            "give the folder with `adapter_config.json` that `llada sft` or PEFT wrote",
        )
        .into());
    }
    let out = Output::lock(&args.out)?;
    if files::is_occupied(&args.out) {
        return Err(Failure::new(
            format!("`{}` is not empty", args.out.display()),
            "choose another folder; a merged model takes one of its own",
        )
        .into());
    }
    let base = match args.base {
        Some(base) => locate::model(Some(&base), Shipped::Base)?,
        None => checkpoint::base_of(&adapter)?,
    };
    let Merged { model, left_out } = checkpoint::merge(&adapter, Some(&base))?;
    if let Some(first) = left_out.first() {
        let count = left_out.len();
        term.warn(&format!(
            "`target_modules` leaves {count} tensors of the adapters out, `{first}` first"
        ));
    }
    // The embedding is never adapted, and so is as the base stores it.
    let embedding = &model.tensors[llada::model::Layout::new(&model.config).wte];
    let storage = args.storage.map_or(embedding.dtype(), Into::into);
    let has_tokenizer = adapter.join("tokenizer.json").exists();
    let from = if has_tokenizer { &adapter } else { &base };
    let tokenizer = TokenizerFiles::read(from)?;
    if tokenizer.get("tokenizer.json").is_some() {
        Tokenizer::from_dir(from)?.check(&model.config)?;
    }
    out.fill(Existing::Keep, |dir| {
        checkpoint::save(&model, dir, storage)?;
        tokenizer.write(dir)
    })
    .with_context(|| format!("cannot write `{}`", args.out.display()))?;
    let (adapter, base) = (adapter.display(), base.display());
    term.note(&format!("wrote {}: {base} with the adapters {adapter}", args.out.display()));
    Ok(())
}
