//! `llada merge`: adapters and their model into one checkpoint.

use anyhow::{Context, Result};
use llada::{
    checkpoint::{self, Checkpoint, Merged},
    files::{self, Existing, Output},
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
    let out = Output::lock(&args.out)?;
    if files::is_occupied(&args.out) {
        return Err(Failure::new(
            format!("`{}` is not empty", args.out.display()),
            "choose another folder; a merged model takes one of its own",
        )
        .into());
    }
    let adapter = Checkpoint::open(&adapter)?;
    let other = match args.base {
        Some(base) => Some(Checkpoint::open(&locate::model(Some(&base), Shipped::Base)?)?),
        None => None,
    };
    let base = match &other {
        Some(base) => base,
        None => adapter.base()?.unwrap_or(&adapter),
    };
    let Merged { model, left_out } = adapter.merge(base)?;
    if let Some(first) = left_out.first() {
        let count = left_out.len();
        term.warn(&format!(
            "`target_modules` leaves {count} tensors of the adapters out, `{first}` first"
        ));
    }
    // The embedding is never adapted, and so is as the base stores it.
    let embedding = model.tensors.get(llada::model::Layout::new(&model.config).wte);
    let storage = args.storage.map_or(embedding.dtype(), Into::into);
    let has_tokenizer = adapter.path().join(TokenizerFiles::JSON).exists();
    let from = if has_tokenizer { &adapter } else { base };
    let tokenizer = super::convert::tokenizer_files(from, &model.config)?;
    out.fill(Existing::Refuse, |dir| {
        checkpoint::save(&model, dir, storage)?;
        tokenizer.write(dir)
    })
    .with_context(|| format!("cannot write `{}`", args.out.display()))?;
    let (adapter, base) = (adapter.path().display(), base.path().display());
    term.note(&format!("wrote {}: {base} with the adapters {adapter}", args.out.display()));
    Ok(())
}
