//! The tasks by which a model is measured while it is trained.

use anyhow::Result;
use llada::{
    eval::{Checker, Monitor, Overrides, SEED, prepare, shipped},
    train::{Recipe, SftTemplate, Trainer},
};

use crate::{
    args::CodeArgs,
    commands::eval::{name_bad_rows, not_allowed, sandbox::Sandbox},
    term::Term,
};

/// Those of the recipe, ready for the model of `trainer`; none where there are none.
pub fn open(trainer: &Trainer, code: &CodeArgs, term: &Term) -> Result<Option<Monitor>> {
    let recipe = trainer.recipe();
    let tasks = recipe.eval.tasks.as_slice().iter().map(|name| shipped::task(name));
    let tasks = tasks.collect::<llada::Result<Vec<_>>>()?;
    if tasks.is_empty() {
        return Ok(None);
    }
    let checker = match tasks.iter().find(|task| task.code.is_some()) {
        None => None,
        Some(task) if !code.allow_code => return Err(not_allowed(&task.name).into()),
        Some(_) => {
            let sandbox = Sandbox::new(code.allow_network, term)?;
            Some(Box::new(sandbox) as Box<dyn Checker>)
        }
    };
    let limit = Some(recipe.eval.task_rows).filter(|&rows| rows > 0);
    let prepared = tasks.into_iter().map(|task| prepare(task, &recipe.eval.task_data, None, limit));
    let prepared = prepared.collect::<llada::Result<Vec<_>>>()?;
    prepared.iter().for_each(|prepared| name_bad_rows(prepared, term));
    let chat = recipe.template() == Some(SftTemplate::Chat);
    let asked = Overrides { chat, seed: SEED, ..Overrides::default() };
    let config = &trainer.predictor().model().config;
    let (tokenizer, template) = (trainer.tokenizer().clone(), trainer.template()?);
    Ok(Some(Monitor::new(prepared, asked, tokenizer, template, config, checker)?))
}

/// Whether a task of the recipe, or its reward, runs programs that the model writes.
pub fn runs_code(recipe: &Recipe) -> Result<bool> {
    let tasks = recipe.eval.tasks.as_slice().iter();
    let names = tasks.chain(recipe.reward.as_ref().map(|reward| &reward.task));
    let tasks = names.map(|name| shipped::task(name)).collect::<llada::Result<Vec<_>>>()?;
    Ok(tasks.iter().any(|task| task.code.is_some()))
}
