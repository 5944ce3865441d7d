//! `llada train` and `llada sft`: one training loop, whatever it learns from.

mod plan;
mod tasks;

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use llada::{
    checkpoint,
    config::Objective,
    data::{Format, conversations::Report},
    diffusion::{Blocks, Canvas, Prompt, Sampler, generate},
    files,
    hub::HubError,
    model::MaskPredictor,
    ranks::Collective,
    tokenizer::Tokenizer,
    train::{
        self, Change, Evaluating, Event, Hooks, Outcome, Recipe, RunRecipe, SftTemplate, Start,
        StepMetrics, Trainer, recipe_of,
    },
};
use llada_kernels::{Cpu, peak};

use super::STANDARD;
use crate::{
    args::{Resume, Train},
    error::{Failure, Interrupted},
    interrupt::Flag,
    locate::{self, Shipped},
    ranks,
    term::{self, Term},
    view::{progress, units},
};

/// Longest sample, in tokens.
const SAMPLE: usize = 64;

/// A real recipe has 1 kB.
const MAX_RECIPE: u64 = 1 << 20;

/// What a run trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Shards of text (`llada train`).
    Pretraining,
    /// Conversations (`llada sft`).
    FineTuning,
}

/// Trains until the recipe's last step, or Ctrl-C.
pub fn run(args: Train, stage: Stage, term: &Term) -> Result<()> {
    let args = args.normalized();
    if args.keys {
        return term::answer(Recipe::reference().trim_end());
    }
    ranks::together(term, |ranks, term| {
        let recipe = ranks::agree(&*ranks, read_recipe(&args, stage, term))?;
        match args.print_config {
            true if ranks.is_first() => term::answer(recipe.to_toml().trim_end()),
            true => Ok(()),
            false => train(args, recipe, ranks, term),
        }
    })
}

fn train(args: Train, recipe: Recipe, ranks: Arc<dyn Collective>, term: &Term) -> Result<()> {
    let dir = run_dir(&args)?;
    if args.code.allow_code && !tasks::runs_code(&recipe)? {
        let message = "--allow-code: no task of this run runs programs";
        return Err(Failure::usage(message, "leave it out").into());
    }
    let start = match (args.resume, args.branch_from) {
        (None, None) => Start::Fresh,
        (None, Some(from)) => Start::Branch(from),
        (Some(Resume::At(step)), _) => Start::ResumeAt(step),
        (Some(_), _) => Start::Resume,
    };
    let cpu = Cpu::new(args.threads.threads.into())?;
    let (world, is_first) = (ranks.world(), ranks.is_first());
    let mut trainer = match &recipe.reward {
        Some(settings) => {
            let function = super::reward::open(&recipe, settings, &args.code, term)?;
            Trainer::with_reward(recipe, &dir, start, cpu, ranks.clone(), function)?
        }
        None => Trainer::on_ranks(recipe, &dir, start, cpu, ranks.clone())?,
    };
    let monitor = match is_first {
        true => tasks::open(&trainer, &args.code, term),
        false => Ok(None),
    };
    let mut monitor = ranks::agree(&*ranks, monitor)?;
    let peak = world as f64 * peak::flops(trainer.predictor().cpu());
    introduce(&trainer, &dir, term);
    if world > 1 {
        term.note(&format!("on {world} ranks"));
    }
    let (warm_up, steps) = (trainer.recipe().optim.warmup_steps, trainer.recipe().train.steps);
    if warm_up >= steps {
        term.warn(&format!(
            "the rate still grows when the run ends: `optim.warmup_steps` is {warm_up}, the run has \
             {steps} steps"
        ));
    }
    if args.dry_run {
        let stop = Flag::listen(term, None)?;
        let Some(metrics) = trainer.rehearse(&now, stop.get())? else {
            return Err(Interrupted.into());
        };
        return match is_first {
            true => term::answer(&plan::text(&trainer, &metrics, world)),
            false => Ok(()),
        };
    }
    let saved = Cell::new(Some(trainer.step()));

    let message = "leaving the step and saving those before; press Ctrl-C again to quit now";
    let stop = Flag::listen(term, Some(message))?;
    let view = View {
        bar: progress::steps_bar(term, trainer.recipe().train.steps),
        term,
        peak,
        every: trainer.recipe().log.every.max(1),
        is_bound: trainer.recipe().train.objective == Objective::Diffusion,
        saved: &saved,
    };
    let (tokenizer, prompt) = (trainer.tokenizer().clone(), trainer.sample_prompt());
    let seed = trainer.recipe().train.seed;
    let mut sample = |predictor: &mut MaskPredictor| sample(predictor, &tokenizer, &prompt, seed);
    let mut evaluate = monitor
        .as_mut()
        .map(|monitor| |predictor: &mut MaskPredictor| monitor.evaluate(predictor, stop.get()));
    let outcome = trainer.run(&mut Hooks {
        clock: &now,
        stop: stop.get(),
        event: &mut |event| view.show(event),
        sample: Some(&mut sample),
        evaluate: evaluate.as_mut().map(|evaluate| evaluate as &mut Evaluating<'_>),
    })?;
    view.bar.finish_and_clear();
    match outcome {
        Outcome::Finished => {
            let last = dir.join(format!("checkpoints/step-{}", trainer.step()));
            let talks = trainer.recipe().template() == Some(SftTemplate::Chat);
            term.note(&format!("done; {}", next_command(talks, &last)));
            Ok(())
        }
        Outcome::Stopped => {
            let step = trainer.step();
            term.note(&match saved.get() {
                _ if step == 0 => "stopped before the first step was done: nothing is saved".into(),
                Some(saved) if saved == step => {
                    let verb = if trainer.recipe().sft.is_some() { "sft" } else { "train" };
                    let run = dir.display();
                    format!("stopped at step {step}; go on: `llada {verb} --resume --out {run}`")
                }
                _ => format!(
                    "stopped at step {step}, whose loss is not finite and which is not saved; \
                     `--resume` goes back to the last good checkpoint"
                ),
            });
            Err(Interrupted.into())
        }
    }
}

/// The recipe that is asked for: the one that is given, or that of the run to go on with.
fn read_recipe(args: &Train, stage: Stage, term: &Term) -> Result<Recipe> {
    let (text, from) = match (&args.recipe, &args.branch_from) {
        (Some(recipe), _) => (read(recipe)?, recipe.clone()),
        (None, Some(origin)) => (own_recipe(origin, term)?, origin.clone()),
        (None, None) => {
            let dir = run_dir(args)?;
            (own_recipe(&dir, term)?, dir)
        }
    };
    // The recipe of a run says what it is.
    let is_sft = stage == Stage::FineTuning && args.recipe.is_some();
    let parse = |overrides: &[String]| match is_sft {
        true => Recipe::parse_sft(&text, overrides),
        false => Recipe::parse(&text, overrides),
    };
    let mut recipe = match parse(&args.overrides) {
        Ok(recipe) => recipe,
        Err(error) => {
            let is_fine = |n: &usize| parse(&args.overrides[..*n]).is_ok();
            let blamed = match (0..args.overrides.len()).rev().find(is_fine) {
                Some(n) => args.overrides[n].clone(),
                None if !looks_like_recipe(&text) => return Err(no_recipe(&from).into()),
                None => from.display().to_string(),
            };
            return Err(error).with_context(|| format!("cannot use `{blamed}`"));
        }
    };
    if let Some(base) = &recipe.model.init_from {
        let goes_on = args.resume.is_some() || args.branch_from.is_some();
        match locate::model(Some(base), Shipped::Base) {
            // The run keeps the very checkpoint that a name means today.
            Ok(found) => recipe.model.init_from = Some(found),
            Err(error) if !goes_on && !args.print_config => return Err(no_start(base, error)),
            Err(_) => {}
        }
    }
    if stage == Stage::Pretraining && recipe.sft.is_some() {
        return Err(Failure::new(
            format!("`{}` is a recipe of fine-tuning: it has `[sft]`", from.display()),
            "run it with `llada sft`, or take the section out",
        )
        .into());
    }
    if stage == Stage::FineTuning && recipe.sft.is_none() {
        let stage = recipe.stage().name();
        let message = format!("`{}` is a run of {stage}", from.display());
        return Err(Failure::new(message, "go on with it by `llada train`").into());
    }
    Ok(recipe)
}

/// The recipe of a run; says where it is from if not from where it should be.
fn own_recipe(run: &Path, term: &Term) -> Result<String> {
    let RunRecipe { text, from } = recipe_of(run)?;
    if from.file_name() != Some("config.toml".as_ref()) {
        let from = from.display();
        term.warn(&format!("the run has no `config.toml`: its settings are those in `{from}`"));
    }
    Ok(text)
}

/// The text of a recipe, or of standard input.
pub fn read(recipe: &Path) -> Result<String> {
    if recipe.as_os_str() == STANDARD {
        return super::read_text(recipe);
    }
    if recipe.is_file() && Format::of(recipe).is_some() {
        return Err(no_recipe(recipe).into());
    }
    let hint = "give the path of a recipe, such as one of those in `configs/`";
    Ok(files::read_text(recipe, MAX_RECIPE).map_err(|e| Failure::new(e.to_string(), hint))?)
}

/// Whether a text has a line as recipes do: a section, or a key with its value.
fn looks_like_recipe(text: &str) -> bool {
    let is_key = |key: &str| {
        let key = key.trim();
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
    };
    text.trim().is_empty()
        || text.lines().map(str::trim).any(|line| {
            line.starts_with('[') && line.len() < 80
                || line.split_once('=').is_some_and(|(key, _)| is_key(key))
        })
}

/// Something else in the place of the recipe.
fn no_recipe(path: &Path) -> Failure {
    let hint = "a recipe is a TOML file, such as those in `configs/`. Text is trained on after \
                `llada data prepare TEXT --tokenizer MODEL --out DIR`, by `llada train RECIPE.toml \
                data.path=DIR`; conversations by `llada sft RECIPE.toml data.path=FILE.jsonl`";
    Failure::new(format!("`{}` is no recipe", path.display()), hint)
}

/// A model to start from that cannot be found: a path more often than a name on the hub.
fn no_start(base: &Path, error: anyhow::Error) -> anyhow::Error {
    let is_absent = match error.downcast_ref::<llada::Error>() {
        Some(llada::Error::Hub(HubError::NotCached(_))) => true,
        Some(_) => false,
        None => !base.exists(),
    };
    if !is_absent {
        return error.context("cannot start from `model.init_from`");
    }
    let message = format!("`model.init_from` is `{}`, and there is no such model", base.display());
    let hint = locate::near(base)
        .unwrap_or_else(|| "give the folder of a checkpoint, as seen from this folder".into());
    let hint = match locate::reference(base) {
        Some(reference) => {
            format!("{hint}; if it is one of the hub, `llada pull {reference}` fetches it")
        }
        None => hint,
    };
    Failure::new(message, hint).into()
}

/// The command that shows what the model in `dir` has learnt: to talk, or to continue a text.
fn next_command(talks: bool, dir: &Path) -> String {
    let dir = shell_word(&dir.display().to_string());
    match talks {
        true => format!("talk to the model: `llada chat {dir}`"),
        false => format!("the model continues a text: `llada run {dir} \"Once upon a time\"`"),
    }
}

/// A word as a shell reads it.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// The folder of the run: as given, or `runs/NAME` for a recipe `NAME.toml`.
fn run_dir(args: &Train) -> Result<PathBuf> {
    match (&args.out, &args.recipe) {
        (Some(out), _) => Ok(out.clone()),
        (None, Some(recipe)) if recipe.as_os_str() != STANDARD => {
            Ok(Path::new("runs").join(recipe.file_stem().unwrap_or_default()))
        }
        (None, _) => Err(Failure::usage("no run was named", "give its folder: `--out DIR`").into()),
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn introduce(trainer: &Trainer, dir: &Path, term: &Term) {
    let config = &trainer.predictor().model().config;
    let parameters = units::count(config.parameters() as u64);
    let cpu = trainer.predictor().cpu();
    let from = match trainer.step() {
        0 => String::new(),
        step => format!(", from step {step}"),
    };
    let trained = trainer.trained_parameters();
    let what = match trained == config.parameters() {
        true => format!("{parameters} parameters"),
        false => {
            let trained = units::count(trained as u64);
            format!("adapters of {trained} parameters, of a model of {parameters},")
        }
    };
    term.note(&format!("training {what} in {}{from}", dir.display()));
    for Change { key, run, asked } in trainer.changes() {
        term.note(&format!("{key}: {run} -> {asked}"));
    }
    let rows = match trainer.recipe().stage() {
        train::Stage::Preference => "pair",
        train::Stage::Reward => "prompt",
        _ => "dialogue",
    };
    for line in trainer.conversations().map(|r| conversations(r, rows)).unwrap_or_default() {
        term.note(&line);
    }
    let (isa, compute, threads) = (cpu.isa(), cpu.compute(), cpu.threads());
    term.detail(&format!("kernels {isa}, products in {compute}, {threads} threads"));
}

/// What was read of the conversations, pairs or prompts.
fn conversations(report: &Report, rows: &str) -> Vec<String> {
    let count = |n: usize| units::thousands(n as u64);
    let mut lines = vec![format!(
        "{} to train on, {} held out",
        units::counted(report.train as u64, rows),
        count(report.validation)
    )];
    if report.rejected > 0 {
        lines.push(format!("warning: {} rejected", units::counted(report.rejected, "row")));
        lines.extend(report.first_rejected.iter().map(|reason| format!("  {reason}")));
        if report.rejected > report.first_rejected.len() as u64 {
            lines.push("  …".into());
        }
    }
    if report.long_turns > 0 {
        let turns = units::thousands(report.long_turns);
        lines.push(format!(
            "warning: {turns} later turns left out, longer than `data.sequence_length`"
        ));
    }
    if report.rewritten > 0 {
        let dialogues = units::counted(report.rewritten, "dialogue");
        lines.push(format!(
            "warning: the chat template writes the prompts of {dialogues} otherwise once they are \
             answered; the loss covers all that it adds for the answer"
        ));
    }
    lines
}

/// A text that goes on from `prompt`.
fn sample(
    predictor: &mut MaskPredictor,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    seed: u64,
) -> llada::Result<String> {
    let config = predictor.model().config.clone();
    let special = checkpoint::special_tokens(&config, Some(tokenizer));
    // A model that attends by blocks fills whole ones.
    let (limit, block) = (config.max_sequence_length, config.attention.block_length());
    let limit = block.map_or(limit, |block| limit - limit % block);
    // One position at least is to be written.
    let longest = limit.saturating_sub(1);
    let start = prompt[prompt.len().saturating_sub(longest)..].to_vec();
    let gen_length = SAMPLE.min(limit.saturating_sub(start.len())).max(1);
    let defaults = Sampler::default();
    let sampler = Sampler {
        steps: gen_length,
        gen_length,
        temperature: 0.5,
        seed,
        blocks: match (config.objective, block) {
            (Objective::Diffusion, None) => Blocks::Pure,
            (Objective::Diffusion, Some(_)) => Blocks::BlockDiffusion,
            (Objective::Autoregressive, _) => Blocks::Autoregressive,
        },
        block_length: block.unwrap_or(defaults.block_length),
        ..defaults
    };
    let mut canvases = [Canvas::new(Prompt::from(start), &sampler, &special, config.attention)?];
    generate::run(predictor, &mut canvases, &mut |_, _| std::ops::ControlFlow::Continue(()))?;
    tokenizer.decode(canvases[0].useful(), true)
}

/// What a person sees of a run.
struct View<'a> {
    bar: progress::Bar,
    term: &'a Term,
    peak: f64,
    /// Steps between two lines.
    every: u64,
    is_bound: bool,
    /// The step of the last checkpoint.
    saved: &'a Cell<Option<u64>>,
}

impl View<'_> {
    fn show(&self, event: &Event<'_>) {
        match event {
            Event::Step(metrics) => self.step(metrics),
            Event::Validation(found) => {
                self.term.note(&progress::validation_line(found, self.is_bound));
            }
            Event::Tasks { step, scores } => {
                for line in progress::task_lines(scores) {
                    self.term.note(&format!("step {step}: {line}"));
                }
            }
            Event::Sample { step, text } => {
                let text: String = text.chars().take(200).collect();
                self.term.note(&format!("sample at step {step}: {text:?}"));
            }
            Event::Checkpoint { step, path } => {
                self.saved.set(Some(*step));
                self.term.note(&format!("saved {}", path.display()));
            }
        }
    }

    fn step(&self, metrics: &StepMetrics) {
        self.bar.set_position(metrics.step);
        let eta = units::duration(metrics.seconds_left);
        self.bar.set_message(format!("loss {:.3} · eta {eta}", metrics.loss_ema));
        let last = metrics.step == metrics.steps;
        if last || metrics.step.is_multiple_of(self.every) || metrics.skipped.is_some() {
            self.term.note(&progress::step_line(metrics, self.peak));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_command_can_be_pasted_into_a_shell() {
        let command = next_command(true, Path::new("runs/my own/checkpoints/step-4"));
        assert_eq!(command, "talk to the model: `llada chat 'runs/my own/checkpoints/step-4'`");
        let command = next_command(false, Path::new("runs/a/checkpoints/step-4"));
        assert!(command.contains("`llada run runs/a/checkpoints/step-4 \"Once"), "{command}");
        assert_eq!([shell_word("it's"), shell_word("")], [r"'it'\''s'", "''"]);
    }
}
