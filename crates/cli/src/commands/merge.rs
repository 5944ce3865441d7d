//! `llada merge`: adapters and their model into one checkpoint.

use std::path::Path;

use anyhow::{Context, Result};
use llada::{
    checkpoint::{self, Merged},
    tokenizer::TokenizerFiles,
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
    if is_occupied(&args.out) {
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
    checkpoint::save(&model, &args.out, storage)
        .with_context(|| format!("cannot write `{}`", args.out.display()))?;
    let has_tokenizer = adapter.join("tokenizer.json").is_file();
    let from = if has_tokenizer { &adapter } else { &base };
    TokenizerFiles::read(from)?.write(&args.out)?;
    let (adapter, base) = (adapter.display(), base.display());
    term.note(&format!("wrote {}: {base} with the adapters {adapter}", args.out.display()));
    Ok(())
}

fn is_occupied(dir: &Path) -> bool {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => dir.exists(),
    }
}
