//! Whole runs of a tiny model by preferences and by rewards.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod preference;
mod ranks;
mod reward;
mod variance;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use llada::{
    Result, checkpoint,
    model::Model,
    tokenizer::{self, Kind},
    train::{Event, Hooks, Outcome, Recipe, Start, StepMetrics, Trainer, Validation},
};
use llada_kernels::{Cpu, DType};

/// A fresh model with its tokenizer in `base`.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        let alphabet = "abcdefghijklmnopqrstuvwxyz 0123456789?.\n".to_owned();
        let tokenizer = tokenizer::train(Kind::Character { min_count: 0 }, [Ok(alphabet)]).unwrap();
        let sizes = "[model]\nd_model = 16\nn_layers = 2\nn_heads = 2\nmlp_hidden_size = 32\n\
                     max_sequence_length = 64\n";
        let recipe = Recipe::parse(sizes, &[""; 0]).unwrap();
        let config =
            recipe.model_config(tokenizer.vocab_size(), tokenizer.special_tokens()).unwrap();
        checkpoint::save(&Model::init(config, 3).unwrap(), &bench.path("base"), DType::F32)
            .unwrap();
        tokenizer.save_dir(&bench.path("base")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The recipe of `sections`, eight steps by default.
    fn recipe(&self, sections: &str, overrides: &[&str]) -> Result<Recipe> {
        let text = format!(
            "[model]\ninit_from = '{}'\n[data]\npath = '{}'\nsequence_length = 64\n{sections}\n\
             [optim]\nlr = 1e-2\nwarmup_steps = 2\n\
             [train]\nsteps = 8\nbatch_size = 4\nmicro_batch_size = 3\ncheckpoint_every = 3\n\
             [eval]\nevery = 4\nsequences = 4\ndraws = 3\n[log]\nevery = 1\n",
            self.path("base").display(),
            self.path("data.jsonl").display(),
        );
        Recipe::parse(&text, overrides)
    }

    fn files(&self, run: &str, step: u64, names: &[&str]) -> Vec<Vec<u8>> {
        let dir = self.path(run).join(format!("checkpoints/step-{step}"));
        names.iter().map(|name| fs::read(dir.join(name)).unwrap()).collect()
    }

    fn metrics(&self, run: &str) -> String {
        fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap()
    }
}

/// What a run told.
#[derive(Debug, Default)]
struct Told {
    steps: Vec<StepMetrics>,
    validations: Vec<Validation>,
}

/// Runs to the end, or until so many steps have been done.
fn run(trainer: &mut Trainer, stop_after: usize) -> (Result<Outcome>, Told) {
    let stop = AtomicBool::new(false);
    let mut told = Told::default();
    let mut event = |event: &Event<'_>| match event {
        Event::Step(metrics) => {
            told.steps.push((*metrics).clone());
            stop.store(told.steps.len() >= stop_after, Ordering::Relaxed);
        }
        Event::Validation(found) => told.validations.push((*found).clone()),
        _ => {}
    };
    let mut hooks =
        Hooks { clock: &|| 1e9, stop: &stop, event: &mut event, sample: None, evaluate: None };
    let outcome = trainer.run(&mut hooks);
    (outcome, told)
}

/// One run of eight steps, against one that was stopped after step 5, lost that checkpoint's successors
/// and was resumed from `from`.
fn assert_resumes(
    bench: &Bench,
    from: u64,
    names: &[&str],
    trainer: &dyn Fn(&Path, Start, Cpu) -> Trainer,
) {
    let new =
        |run: &str, start, threads| trainer(&bench.path(run), start, Cpu::new(threads).unwrap());
    let mut whole = new("whole", Start::Fresh, 1);
    let (outcome, told) = run(&mut whole, usize::MAX);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(told.steps.len(), 8);
    let mut killed = new("killed", Start::Fresh, 2);
    run(&mut killed, 5).0.unwrap();
    drop(killed);
    let mut resumed = new("killed", Start::ResumeAt(from), 2);
    assert_eq!(resumed.step(), from);
    run(&mut resumed, usize::MAX).0.unwrap();
    assert!(bench.files("whole", 8, names) == bench.files("killed", 8, names), "bits differ");
    assert_eq!(bench.metrics("whole"), bench.metrics("killed"));
    assert!(bench.path("whole/report.html").is_file());
    for run in ["whole", "killed"] {
        fs::remove_dir_all(bench.path(run)).unwrap();
    }
}

fn weights(trainer: &Trainer) -> Vec<f32> {
    trainer.predictor().model().tensors.iter().flat_map(|t| t.to_f32()).collect()
}
