//! What judges the completions of a run of reinforcement learning.

use std::path::Path;

use anyhow::Result;
use llada::{
    eval::{
        Checker,
        reward::{RewardSettings, TaskReward},
        shipped,
    },
    train::{Recipe, Reward, RewardFunction, SftTemplate},
};

use super::eval::{not_allowed, sandbox::Sandbox};
use crate::{args::CodeArgs, error::Failure, term::Term, view::units};

/// How many rows that cannot be used are named.
const NAMED: usize = 5;

/// The task of `settings` as a reward function.
pub fn open(
    recipe: &Recipe,
    settings: &Reward,
    code: &CodeArgs,
    term: &Term,
) -> Result<Box<dyn RewardFunction>> {
    let task = shipped::task(&settings.task)?;
    let [data] = recipe.data.path.as_slice() else {
        let message = "`data.path` must be the one folder with the data of the task";
        return Err(Failure::new(message, "give it by `data.path=DIR`").into());
    };
    let validation = match recipe.data.validation.as_ref().map(|paths| paths.as_slice()) {
        None => None,
        Some([one]) => Some(one.as_path()),
        Some(_) => {
            let message = "`data.validation` must be one folder with data of the task";
            return Err(Failure::new(message, "give it by `data.validation=DIR`").into());
        }
    };
    let checker = match task.code {
        None => None,
        Some(_) if !code.allow_code => return Err(not_allowed(&task.name).into()),
        Some(_) => {
            let sandbox = Sandbox::new(code.allow_network, term)?;
            Some(Box::new(sandbox) as Box<dyn Checker>)
        }
    };
    // Without a folder the rows are those of the task file.
    let here = Path::new(".");
    let data = if data.as_os_str().is_empty() { here } else { data };
    let reward = RewardSettings {
        data,
        validation,
        held_out: settings.held_out,
        metrics: settings.metrics.as_slice(),
        chat: settings.template == SftTemplate::Chat,
    };
    let function = TaskReward::open(&task, &reward, checker)?;
    let bad = function.bad_rows().count();
    if bad > 0 {
        term.warn(&format!("{} of the task cannot be used", units::counted(bad as u64, "row")));
        for row in function.bad_rows().take(NAMED) {
            term.note(&format!("  {}: {}", row.place, row.reason));
        }
    }
    Ok(Box::new(function))
}
