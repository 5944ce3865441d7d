//! `llada show --train`: the memory that a run takes.

use std::path::Path;

use anyhow::Result;
use llada::train::{Memory, Recipe};
use serde_json::json;

use crate::{commands::train, term, view::units};

/// Prints what each of so many ranks has in memory, as text or as JSON.
pub fn show(recipe: &Path, ranks: usize, as_json: bool) -> Result<()> {
    let recipe = Recipe::parse(&train::read(recipe)?, &[""; 0])?;
    let memory = Memory::of(&recipe, ranks)?;
    let Memory { weights, gradients, optimizer, activations, sequences } = memory;
    if as_json {
        let total = memory.total();
        let facts = json!({ "ranks": ranks, "memory": memory, "total": total });
        return term::answer(&serde_json::to_string_pretty(&facts)?);
    }
    let rows = [
        ("weights", weights),
        ("gradients", gradients),
        ("optimiser", optimizer),
        ("activations", activations),
        ("sequences", sequences),
        ("in all", memory.total()),
    ];
    let rows = rows.map(|(name, bytes)| format!("{name:<12} {:>10}", units::bytes(bytes as u64)));
    let title = match ranks {
        1 => "memory of the run, at least".to_owned(),
        _ => format!("memory of each of {ranks} ranks, at least"),
    };
    term::answer(&format!("{title}\n{}", rows.join("\n")))
}
