//! Whole runs of a tiny model: what they promise about resuming, threads and damage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod average;
mod blocks;
mod documents;
mod mixture;
mod ranks;
mod resume;
mod tasks;
#[path = "../common/whole.rs"]
mod whole;

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use llada::{
    Compute, Error, Result, checkpoint,
    data::{PrepareOptions, prepare},
    model::Model,
    rng::{Purpose, Stream},
    tokenizer::{self, Kind},
    train::{
        Event, Hooks, Outcome, Recipe, Skip, Start, StepMetrics, TrainError, Trainer, recipe_of,
    },
};
use llada_kernels::Cpu;

const WORDS: [&str; 8] = ["fox", "dog", "sees", "the", "a", "red", "runs", "to"];

/// Text of a small grammar, the same every time.
fn corpus() -> String {
    let mut stream = Stream::new(1, Purpose::Init, 0);
    let mut text = String::new();
    for _ in 0..60 {
        for _ in 0..30 {
            text.push_str(WORDS[stream.below(8) as usize]);
            text.push(' ');
        }
        text.push_str("<|endoftext|>\n");
    }
    text
}

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("text.txt");
        fs::write(&input, corpus()).unwrap();
        let texts = [Ok(corpus())];
        let tokenizer = tokenizer::train(Kind::Character { min_count: 0 }, texts).unwrap();
        let options = PrepareOptions { validation: 0.1, ..PrepareOptions::default() };
        prepare(&[input], &dir.path().join("data"), &tokenizer, &options, &mut |_| {}).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn recipe(&self, overrides: &[&str]) -> Recipe {
        let text = format!(
            "[model]\nd_model = 16\nn_layers = 2\nn_heads = 2\nmlp_hidden_size = 32\n\
             [data]\npath = '{}'\nsequence_length = 24\nrandom_length = 0.2\n\
             [optim]\nlr = 1e-2\nwarmup_steps = 3\n\
             [train]\nsteps = 12\nbatch_size = 5\nmicro_batch_size = 2\ncheckpoint_every = 4\n\
             spike_factor = 100.0\ncompute = 'f32'\n[eval]\nevery = 6\nsequences = 4\ndraws = 3\n[log]\nevery = 1\n",
            self.path("data").display()
        );
        Recipe::parse(&text, overrides).unwrap()
    }

    fn trainer(&self, run: &str, recipe: Recipe, start: Start, threads: usize) -> Result<Trainer> {
        Trainer::new(recipe, &self.path(run), start, Cpu::new(threads).unwrap())
    }

    /// The names of the run's checkpoints, sorted.
    fn checkpoints(&self, run: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(run).join("checkpoints")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<String> = entries.map(|entry| name(entry).unwrap()).collect();
        names.sort();
        names
    }

    fn weights(&self, run: &str, step: u64) -> (Vec<u8>, Vec<u8>) {
        let dir = self.path(run).join(format!("checkpoints/step-{step}"));
        let read = |name| fs::read(dir.join(name)).unwrap();
        (read("model.safetensors"), read("optimizer.safetensors"))
    }
}

/// Runs to the end, or until a step has been done `stop_after` times.
fn run(trainer: &mut Trainer, stop_after: u64) -> (Result<Outcome>, Vec<StepMetrics>) {
    let stop = AtomicBool::new(false);
    let time = Cell::new(1e9);
    let clock = || {
        time.set(time.get() + 0.5);
        time.get()
    };
    let mut steps = Vec::new();
    let mut event = |event: &Event<'_>| {
        if let Event::Step(metrics) = event {
            steps.push((*metrics).clone());
            stop.store(steps.len() as u64 >= stop_after, Ordering::Relaxed);
        }
    };
    let mut hooks =
        Hooks { clock: &clock, stop: &stop, event: &mut event, sample: None, evaluate: None };
    let outcome = trainer.run(&mut hooks);
    (outcome, steps)
}

/// Gives the state of a checkpoint, the recipe in it too, another content.
fn reseal(state: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut sealed: serde_json::Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    change(&mut sealed["state"]);
    let crc = crc32c::crc32c(&serde_json::to_vec(&sealed["state"]).unwrap());
    sealed["crc32c"] = crc.into();
    fs::write(state, sealed.to_string()).unwrap();
}

/// Gives a checkpoint weights that overflow as soon as they are computed with.
fn spoil(checkpoint: &Path) {
    let path = checkpoint.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for number in bytes[header..].chunks_exact_mut(4) {
        number.copy_from_slice(&1e38f32.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes);
    fs::write(&path, bytes).unwrap();
    reseal(&checkpoint.join("state.json"), |state| {
        let files = state["files"].as_array_mut().unwrap();
        let file = files.iter_mut().find(|file| file["name"] == "model.safetensors").unwrap();
        file["crc32c"] = crc.into();
    });
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for line in &mut lines {
        for timed in ["seconds", "tokens_per_second", "seconds_left"] {
            line.as_object_mut().unwrap().remove(timed);
        }
    }
    lines
}

#[test]
fn impossible_sizes_are_named_as_in_the_recipe() {
    let bench = Bench::new();
    let error = bench.trainer("run", bench.recipe(&["model.d_model=15"]), Start::Fresh, 1);
    assert!(error.unwrap_err().to_string().starts_with("`model.d_model` is `15`"));
}

#[test]
fn steps_are_not_lost_for_a_sample_that_cannot_be_written() {
    let bench = Bench::new();
    let recipe = || bench.recipe(&["log.sample_every=6", "train.checkpoint_every=0"]);
    let sampled = |start: Start| {
        let mut trainer = bench.trainer("run", recipe(), start, 1).unwrap();
        let mut sample = |_: &mut llada::model::MaskPredictor| Ok("a sample".to_owned());
        let (stop, sample) = (AtomicBool::new(false), Some(&mut sample as _));
        let event = &mut |_: &Event<'_>| {};
        trainer.run(&mut Hooks { clock: &|| 1e9, stop: &stop, event, sample, evaluate: None })
    };
    let mut first = bench.trainer("run", recipe(), Start::Fresh, 1).unwrap();
    run(&mut first, 2).0.unwrap();
    drop(first);
    fs::write(bench.path("run/samples"), "in the way").unwrap();
    let error = sampled(Start::Resume).unwrap_err();
    assert!(error.to_string().contains("samples"), "{error}");
    assert!(bench.path("run/checkpoints/step-6").is_dir());
    fs::remove_file(bench.path("run/samples")).unwrap();
    assert_eq!(sampled(Start::Resume).unwrap(), Outcome::Finished);
    for step in [6, 12] {
        let text = fs::read_to_string(bench.path(&format!("run/samples/step-{step}.txt")));
        assert_eq!(text.unwrap(), "a sample");
    }
    let mut whole = bench.trainer("whole", bench.recipe(&[]), Start::Fresh, 1).unwrap();
    run(&mut whole, u64::MAX).0.unwrap();
    assert!(bench.weights("run", 12) == bench.weights("whole", 12));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_loads() {
    let bench = Bench::new();
    run(&mut bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 100).0.unwrap();
    for name in ["model.safetensors", "optimizer.safetensors", "config.json", "state.json"] {
        let path = bench.path("run/checkpoints/step-12").join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x55;
        for bad in [&bad[..], &good[..middle]] {
            fs::write(&path, bad).unwrap();
            let error = bench.trainer("run", bench.recipe(&[]), Start::Resume, 1).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(name), "{text}");
            assert!(error.hint().unwrap().contains("step-8"), "{text}");
        }
        fs::write(&path, good).unwrap();
    }
    let before = bench.trainer("run", bench.recipe(&[]), Start::ResumeAt(8), 1).unwrap();
    assert_eq!(before.step(), 8);
}

#[test]
fn both_objectives_learn() {
    let bench = Bench::new();
    for objective in ["diffusion", "autoregressive"] {
        let recipe = bench.recipe(&[
            &format!("train.objective={objective}"),
            "train.steps=60",
            "train.batch_size=8",
            "train.micro_batch_size=0",
            "diffusion.low_discrepancy=true",
            "train.recompute=true",
            "data.random_length=0",
        ]);
        let mut trainer = bench.trainer(objective, recipe, Start::Fresh, 2).unwrap();
        let before = trainer.measure().unwrap();
        assert_eq!(trainer.measure().unwrap(), before, "the noise is fixed");
        run(&mut trainer, u64::MAX).0.unwrap();
        let after = trainer.measure().unwrap();
        assert!(after.nll < 0.8 * before.nll, "{objective}: {} -> {}", before.nll, after.nll);
        // One byte is one token here, but for the token that ends a document.
        let bits = after.nll / std::f64::consts::LN_2;
        assert!((after.bits_per_byte / bits - 1.0).abs() < 0.03);
        assert_eq!(after.buckets.len(), if objective == "diffusion" { 10 } else { 0 });
    }
}

#[test]
fn a_run_that_only_skips_stops_and_names_the_last_good_checkpoint() {
    let bench = Bench::new();
    let mut good = bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap();
    run(&mut good, 4).0.unwrap();
    drop(good);
    spoil(&bench.path("run/checkpoints/step-4"));
    let mut trainer = bench.trainer("run", bench.recipe(&[]), Start::Resume, 1).unwrap();
    let (outcome, steps) = run(&mut trainer, u64::MAX);
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Train(TrainError::Diverged { times: 3, .. })), "{error}");
    assert!(error.hint().unwrap().contains("step-4"), "{:?}", error.hint());
    assert_eq!(steps.iter().filter(|s| s.skipped == Some(Skip::NotFinite)).count(), 3);
}

#[test]
fn steps_that_are_not_finite_are_no_checkpoints() {
    let bench = Bench::new();
    run(&mut bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 4).0.unwrap();
    let steps = || {
        let dir = fs::read_dir(bench.path("run/checkpoints")).unwrap();
        let mut names: Vec<_> =
            dir.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    spoil(&bench.path("run/checkpoints/step-4"));
    let spoilt = |more: &[&str]| {
        let recipe = bench.recipe(&[&["train.checkpoint_every=2"], more].concat());
        bench.trainer("run", recipe, Start::Resume, 1).unwrap()
    };
    // Step 6 would be a checkpoint, and so would the stop.
    let mut trainer = spoilt(&[]);
    let (outcome, done) = run(&mut trainer, 2);
    assert_eq!((outcome.unwrap(), trainer.step()), (Outcome::Stopped, 6));
    assert_eq!(done.iter().filter(|s| s.skipped == Some(Skip::NotFinite)).count(), 2);
    assert_eq!(steps(), ["step-4"]);
    drop(trainer);
    // A run that ends so does not end well.
    let mut trainer = spoilt(&["train.steps=6"]);
    let error = run(&mut trainer, u64::MAX).0.unwrap_err();
    assert!(error.hint().unwrap().contains("step-4"), "{error}");
    assert_eq!(steps(), ["step-4"]);
    drop(trainer);

    // What was not finite before a run was resumed does not count in it.
    let state = bench.path("run/checkpoints/step-4/state.json");
    reseal(&state, |state| state["not_finite"] = 2.into());
    let (outcome, done) = run(&mut spoilt(&[]), u64::MAX);
    assert!(matches!(outcome, Err(Error::Train(TrainError::Diverged { times: 3, .. }))));
    assert_eq!(done.len(), 3);
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let bench = Bench::new();
    for bad in ["data.path=none", "data.sequence_length=100000", "model.d_model=15"] {
        assert!(bench.trainer("new/run", bench.recipe(&[bad]), Start::Fresh, 1).is_err());
        assert!(!bench.path("new").exists(), "{bad}");
    }
    bench.trainer("new/run", bench.recipe(&[]), Start::Resume, 1).unwrap_err();
    assert!(!bench.path("new").exists());
    let text = bench.path("text.txt");
    let error = bench.recipe(&[&format!("data.path={}", text.display())]);
    let error = bench.trainer("new/run", error, Start::Fresh, 1).unwrap_err();
    assert!(error.to_string().contains("not a folder of token shards"), "{error}");
}

#[test]
fn a_model_that_does_not_fit_the_data_is_refused() {
    let bench = Bench::new();
    let config = {
        let trainer = bench.trainer("a", bench.recipe(&[]), Start::Fresh, 1).unwrap();
        let mut config = trainer.predictor().model().config.clone();
        (config.vocab_size, config.embedding_size) = (4, 4);
        config.tokens = Default::default();
        config
    };
    let other = bench.path("other");
    let model = Model::init(config, 0).unwrap();
    checkpoint::save(&model, &other, llada_kernels::DType::F32).unwrap();
    let from = format!("model.init_from={}", other.display());
    let error = bench.trainer("b", bench.recipe(&[&from]), Start::Fresh, 1).unwrap_err();
    assert!(error.to_string().contains("4 embeddings"), "{error}");
    let error = bench.trainer("c", bench.recipe(&["data.path=none"]), Start::Fresh, 1).unwrap_err();
    assert!(error.to_string().contains("meta.json"), "{error}");
    let long = bench.recipe(&["data.sequence_length=100000"]);
    assert!(bench.trainer("d", long, Start::Fresh, 1).unwrap_err().hint().is_some());
    run(&mut bench.trainer("e", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 1).0.unwrap();
    for (other, key) in [
        ("train.objective=autoregressive", "train.objective"),
        ("data.sequence_length=30", "data.sequence_length"),
    ] {
        let error = bench.trainer("e", bench.recipe(&[other]), Start::Resume, 1).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}` is ")), "{error}");
    }
}

#[test]
fn damage_of_the_data_is_found_before_anything_is_trained_on() {
    let bench = Bench::new();
    for name in ["train-00000.bin", "val-00000.bin", "meta.json", "tokenizer.json"] {
        let path = bench.path("data").join(name);
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(good.len() / 13 + 1) {
            let mut bad = good.clone();
            bad[at] ^= 0x04;
            fs::write(&path, bad).unwrap();
            let error = bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap_err();
            assert!(error.to_string().contains(name) && error.hint().is_some(), "{error}");
            assert!(!bench.path("run").exists());
        }
        fs::write(&path, good).unwrap();
    }
    assert!(bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).is_ok());
}

#[test]
fn sizes_that_cannot_be_are_refused_by_name() {
    let bench = Bench::new();
    for (size, key) in [
        ("train.batch_size=1000000000000", "train.batch_size"),
        ("train.batch_size=9000000000000000", "train.batch_size"),
        ("train.batch_size=100000000", "train.batch_size"),
        ("data.sequence_length=9000000000000000", "data.sequence_length"),
        ("model.d_model=9000000000000000", "model.d_model"),
        ("model.d_model=10000000", "model.d_model"),
        ("model.n_layers=1000000000", "model.n_layers"),
        ("model.n_heads=1000000000", "model.n_heads"),
        ("model.mlp_hidden_size=1000000000", "model.mlp_hidden_size"),
        ("model.max_sequence_length=1000000000", "model.max_sequence_length"),
        ("train.steps=9000000000000000", "train.steps"),
        ("eval.draws=1000000000", "eval.draws"),
    ] {
        let none: [&str; 0] = [];
        let text = bench.recipe(&none).to_toml();
        let made = Recipe::parse(&text, &[size])
            .and_then(|recipe| bench.trainer("run", recipe, Start::Fresh, 1));
        let error = made.unwrap_err().to_string();
        assert!(error.starts_with(&format!("`{key}` is `")), "{size}: {error}");
        assert!(!bench.path("run").exists());
    }
}

#[cfg(unix)]
#[test]
fn pipes_in_the_place_of_a_run_s_files_are_refused_at_once() {
    let bench = Bench::new();
    let run_to = |steps: &str, start| {
        let trainer = bench.trainer("run", bench.recipe(&[steps]), start, 1);
        trainer.and_then(|mut trainer| run(&mut trainer, u64::MAX).0)
    };
    run_to("train.steps=4", Start::Fresh).unwrap();
    for name in ["config.toml", "metrics.jsonl", "report.html", "checkpoints/step-4/state.json"] {
        let path = bench.path("run").join(name);
        let kept = fs::read(&path).ok();
        let _ = fs::remove_file(&path);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = run_to("train.steps=8", Start::Resume).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        fs::remove_file(&path).unwrap();
        if let Some(kept) = kept {
            fs::write(&path, kept).unwrap();
        }
    }
    run_to("train.steps=8", Start::Resume).unwrap();
}

#[test]
fn a_checkpoint_without_its_state_is_damaged() {
    let bench = Bench::new();
    let mut trainer = bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap();
    run(&mut trainer, 4).0.unwrap();
    drop(trainer);
    let damaged = || {
        let files = llada::verify::verify(&bench.path("run")).unwrap();
        let is_damaged = |file: &llada::verify::Verified| {
            matches!(file.integrity, llada::verify::Integrity::Damaged(_))
        };
        files.into_iter().filter(is_damaged).map(|file| file.path).collect::<Vec<_>>()
    };
    assert!(damaged().is_empty());
    let state = bench.path("run").join("checkpoints/step-4/state.json");
    fs::remove_file(&state).unwrap();
    assert_eq!(damaged(), [state]);
}
