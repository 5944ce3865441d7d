//! Whole runs of a tiny model: what they promise about resuming, threads and damage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    cell::Cell,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use llada::{
    Error, Result, checkpoint,
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
             spike_factor = 100.0\n[eval]\nevery = 6\nrows = 4\ndraws = 3\n[log]\nevery = 1\n",
            self.path("data").display()
        );
        Recipe::parse(&text, overrides).unwrap()
    }

    fn trainer(&self, run: &str, recipe: Recipe, start: Start, threads: usize) -> Result<Trainer> {
        Trainer::new(recipe, &self.path(run), start, Cpu::new(threads).unwrap())
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
    let mut hooks = Hooks { clock: &clock, stop: &stop, event: &mut event, sample: None };
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
fn a_run_is_not_resumed_with_another_model() {
    let bench = Bench::new();
    let mut first =
        bench.trainer("run", bench.recipe(&["train.steps=4"]), Start::Fresh, 1).unwrap();
    run(&mut first, u64::MAX).0.unwrap();
    drop(first);
    let other = bench.recipe(&["model.d_model=32"]);
    let error = bench.trainer("run", other.clone(), Start::Resume, 1).unwrap_err();
    assert!(error.to_string().contains("`model.d_model` is 16, not 32"), "{error}");
    // Neither does a branch change the model.
    let branch = Start::Branch(bench.path("run"));
    let error = bench.trainer("branch", other, branch, 1).unwrap_err();
    assert!(matches!(error, Error::Train(TrainError::OtherModel { key: "model.d_model", .. })));
    assert!(error.hint().unwrap().contains("`model.d_model=16`"), "{error}");
}

#[test]
fn a_killed_and_resumed_run_ends_with_the_same_bits_for_any_threads() {
    let bench = Bench::new();
    let mut whole = bench.trainer("whole", bench.recipe(&[]), Start::Fresh, 1).unwrap();
    let (outcome, steps) = run(&mut whole, u64::MAX);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(steps.len(), 12);
    assert!(steps.iter().any(|s| s.length < 24), "a batch is cut short now and then");
    assert!(steps[11].loss_ema.is_finite() && steps.iter().all(|s| s.skipped.is_none()));

    // Killed during step 7: what counts is the checkpoint of step 4, and half a line of metrics.
    let mut killed = bench.trainer("killed", bench.recipe(&[]), Start::Fresh, 3).unwrap();
    run(&mut killed, 6).0.unwrap();
    drop(killed);
    fs::remove_dir_all(bench.path("killed/checkpoints/step-6")).unwrap();
    let metrics = bench.path("killed/metrics.jsonl");
    let half = fs::read_to_string(&metrics).unwrap() + "{\"kind\":\"tra";
    fs::write(&metrics, half).unwrap();
    fs::create_dir(bench.path("killed/checkpoints/step-7.tmp")).unwrap();
    fs::write(bench.path("killed/lock"), "mine").unwrap();

    let mut resumed = bench.trainer("killed", bench.recipe(&[]), Start::Resume, 2).unwrap();
    assert_eq!(resumed.step(), 4);
    assert_eq!(run(&mut resumed, u64::MAX).0.unwrap(), Outcome::Finished);
    assert!(bench.weights("whole", 12) == bench.weights("killed", 12), "weights differ");
    assert_eq!(lines(&metrics), lines(&bench.path("whole/metrics.jsonl")));
    assert!(bench.path("killed/checkpoints/step-7.tmp").exists(), "it is nobody's but the user's");
    assert_eq!(fs::read(bench.path("killed/lock")).unwrap(), b"mine");

    let report = fs::read_to_string(bench.path("whole/report.html")).unwrap();
    assert!(report.contains("<svg") && report.contains("n_layers = 2"));
    let resolved = fs::read_to_string(bench.path("whole/config.toml")).unwrap();
    let none: [&str; 0] = [];
    assert_eq!(Recipe::parse(&resolved, &none).unwrap(), bench.recipe(&[]));
    let saved = checkpoint::load(&bench.path("whole/checkpoints/step-12")).unwrap();
    assert_eq!(saved.config, whole.predictor().model().config);
}

#[test]
fn a_run_that_is_asked_to_stop_saves_and_goes_on() {
    let bench = Bench::new();
    let mut first = bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap();
    assert_eq!(run(&mut first, 3).0.unwrap(), Outcome::Stopped);
    assert_eq!(first.step(), 3);
    let recipe = bench.recipe(&["train.steps=14"]);
    let error = bench.trainer("run", recipe.clone(), Start::Resume, 1).unwrap_err();
    assert!(matches!(error, Error::Train(TrainError::Locked { .. })), "{error}");
    drop(first);
    let error = bench.trainer("run", recipe.clone(), Start::Fresh, 1).unwrap_err();
    assert!(matches!(error, Error::Train(TrainError::Exists { .. })), "{error}");
    let mut again = bench.trainer("run", recipe, Start::Resume, 1).unwrap();
    assert_eq!(run(&mut again, u64::MAX).0.unwrap(), Outcome::Finished);
    assert_eq!(again.step(), 14);
}

#[test]
fn a_step_that_is_stopped_changes_nothing() {
    let bench = Bench::new();
    let mut whole = bench.trainer("whole", bench.recipe(&[]), Start::Fresh, 1).unwrap();
    run(&mut whole, u64::MAX).0.unwrap();
    // The clock is read at the start of every step, so that the stop falls into the one after.
    let stopped_within = |name: &str, start: Start, after: u64| {
        let mut trainer = bench.trainer(name, bench.recipe(&[]), start, 1).unwrap();
        let (stop, done) = (AtomicBool::new(false), Cell::new(trainer.step()));
        let clock = || {
            stop.store(done.get() == after, Ordering::Relaxed);
            1e9
        };
        let mut event = |event: &Event<'_>| match event {
            Event::Step(metrics) => done.set(metrics.step),
            _ => stop.store(false, Ordering::Relaxed),
        };
        let mut hooks = Hooks { clock: &clock, stop: &stop, event: &mut event, sample: None };
        (trainer.run(&mut hooks).unwrap(), trainer.step())
    };
    let folder = |step: u64| bench.path(&format!("run/checkpoints/step-{step}"));
    assert_eq!(stopped_within("run", Start::Fresh, 0), (Outcome::Stopped, 0));
    assert!(!folder(0).exists(), "there is nothing to save");
    assert_eq!(stopped_within("run", Start::Fresh, 3), (Outcome::Stopped, 3));
    assert!(folder(3).is_dir());
    assert_eq!(stopped_within("run", Start::Resume, 3), (Outcome::Stopped, 3));
    assert_eq!(stopped_within("run", Start::Resume, 99), (Outcome::Finished, 12));
    assert!(bench.weights("run", 12) == bench.weights("whole", 12));
    assert_eq!(
        lines(&bench.path("run/metrics.jsonl")).len(),
        lines(&bench.path("whole/metrics.jsonl")).len()
    );
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
        trainer.run(&mut Hooks { clock: &|| 1e9, stop: &stop, event, sample })
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
fn training_goes_on_from_a_checkpoint() {
    let bench = Bench::new();
    run(&mut bench.trainer("a", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 100).0.unwrap();
    let from = format!("model.init_from={}", bench.path("a/checkpoints/step-12").display());
    let mut next = bench.trainer("b", bench.recipe(&[&from]), Start::Fresh, 1).unwrap();
    let a = checkpoint::load(&bench.path("a/checkpoints/step-12")).unwrap();
    let same =
        |model: &Model| model.tensors.iter().zip(&a.tensors).all(|(x, y)| x.to_f32() == y.to_f32());
    assert!(same(next.predictor().model()) && next.step() == 0);
    run(&mut next, 2).0.unwrap();
    assert!(!same(next.predictor().model()));
}

#[test]
fn a_run_goes_on_with_its_own_settings() {
    let bench = Bench::new();
    run(&mut bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 5).0.unwrap();
    let resume = |recipe| bench.trainer("run", recipe, Start::Resume, 1);
    let error = resume(bench.recipe(&["optim.lr=1e-3", "train.seed=7"])).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`optim.lr` is 0.01, not 0.001"), "{message}");
    assert!(message.contains("`train.seed` is 0, not 7"), "{message}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--branch-from") && hint.contains("optim.lr=0.001"), "{hint}");

    // What may change is told; the run has it from then on.
    let mut longer = resume(bench.recipe(&["train.steps=14", "eval.every=7"])).unwrap();
    let keys: Vec<&str> = longer.changes().iter().map(|c| c.key.as_str()).collect();
    assert_eq!(keys, ["eval.every", "train.steps"]);
    run(&mut longer, 1).0.unwrap();
    drop(longer);
    let none: [&str; 0] = [];
    let own = || Recipe::parse(&recipe_of(&bench.path("run")).unwrap(), &none).unwrap();
    assert_eq!((own().train.steps, own().eval.every), (14, 7));
    assert!(resume(own()).unwrap().changes().is_empty());
    let error = resume(bench.recipe(&["train.steps=5"])).unwrap_err();
    assert!(error.to_string().contains("at least 6: 6 steps are done"), "{error}");

    // A `config.toml` that was changed by hand or damaged does not become the run's.
    let config = bench.path("run/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("lr = 0.01", "lr = 0.02")).unwrap();
    assert_eq!(own().optim.lr, 0.02);
    assert!(resume(own()).unwrap_err().to_string().contains("`optim.lr` is 0.01, not 0.02"));
    fs::write(&config, "garbage [").unwrap();
    assert_eq!(own().optim.lr, 0.01);
    fs::remove_file(&config).unwrap();
    assert_eq!(own().optim.lr, 0.01);
    assert!(resume(own()).is_ok());
}

#[test]
fn a_kill_before_the_first_checkpoint_leaves_what_belongs_together() {
    let bench = Bench::new();
    run(&mut bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 99).0.unwrap();
    let steps = |path: &str| -> Vec<u64> {
        lines(&bench.path(path)).iter().map(|l| l["step"].as_u64().unwrap()).collect()
    };
    // Preparing to go on from an older step changes nothing.
    let longer = || bench.recipe(&["train.steps=14", "train.checkpoint_every=100"]);
    let prepared = bench.trainer("run", longer(), Start::ResumeAt(4), 1).unwrap();
    assert!(bench.path("run/checkpoints/step-12").exists());
    assert_eq!(steps("run/metrics.jsonl").last(), Some(&12));
    drop(prepared);
    // Killed after step 6: the lines of steps 5 and 6 are there, a checkpoint is not.
    let mut killed = bench.trainer("run", longer(), Start::ResumeAt(4), 1).unwrap();
    let (_, done) = run(&mut killed, 2);
    assert_eq!(done.len(), 2);
    drop(killed);
    let checkpoints = bench.path("run/checkpoints");
    fs::remove_dir_all(checkpoints.join("step-6")).unwrap();
    // Weights, settings and metrics are those of step 4.
    let none: [&str; 0] = [];
    let own = Recipe::parse(&recipe_of(&bench.path("run")).unwrap(), &none).unwrap();
    let mut again = bench.trainer("run", own, Start::Resume, 2).unwrap();
    assert_eq!((again.step(), again.recipe().train.steps), (4, 14));
    run(&mut again, 99).0.unwrap();
    let mut whole = bench.trainer("whole", longer(), Start::Fresh, 1).unwrap();
    run(&mut whole, 99).0.unwrap();
    let other = |run: &str| lines(&bench.path(run)).into_iter().skip(4).collect::<Vec<_>>();
    // The run was lengthened at step 4, and the decay of the rate starts later than that.
    assert_eq!(other("run/metrics.jsonl"), other("whole/metrics.jsonl"));
    assert!(bench.weights("run", 14) == bench.weights("whole", 14));
    let aside = fs::read_dir(&checkpoints).unwrap().map(|e| e.unwrap().file_name());
    assert!(aside.into_iter().all(|name| !name.to_string_lossy().starts_with("superseded")));
}

#[test]
fn what_a_stop_left_out_is_made_up_for() {
    let bench = Bench::new();
    let recipe = || bench.recipe(&["log.sample_every=3", "train.checkpoint_every=5"]);
    let sampled = |name: &str, start: Start, stop_after: u64| {
        let mut trainer = bench.trainer(name, recipe(), start, 1).unwrap();
        let stop = AtomicBool::new(false);
        let mut steps = 0;
        let mut event = |event: &Event<'_>| {
            if let Event::Step(_) = event {
                steps += 1;
                stop.store(steps >= stop_after, Ordering::Relaxed);
            }
        };
        let mut sample = |_: &mut llada::model::MaskPredictor| Ok("a sample".to_owned());
        let (clock, sample) = (|| 1e9, Some(&mut sample as &mut llada::train::Sampling<'_>));
        let outcome =
            trainer.run(&mut Hooks { clock: &clock, stop: &stop, event: &mut event, sample });
        outcome.unwrap()
    };
    let metrics = |name: &str| fs::read_to_string(bench.path(name).join("metrics.jsonl")).unwrap();
    let samples = |name: &str| {
        let entries = fs::read_dir(bench.path(name).join("samples")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    sampled("whole", Start::Fresh, 99);
    // Stopped where a sample is due, where both are, and at the last step, where both are too.
    assert_eq!(sampled("stopped", Start::Fresh, 3), Outcome::Stopped);
    assert_eq!(sampled("stopped", Start::Resume, 3), Outcome::Stopped);
    let before = metrics("stopped");
    // Killed after the validation that it made up for, before anything else.
    let line = metrics("whole").lines().find(|l| l.contains("validation")).unwrap().to_owned();
    fs::write(bench.path("stopped/metrics.jsonl"), format!("{before}{line}\n")).unwrap();
    assert_eq!(sampled("stopped", Start::Resume, 6), Outcome::Stopped);
    assert_eq!(sampled("stopped", Start::Resume, 99), Outcome::Finished);
    let after = metrics("stopped");
    assert_eq!(sampled("stopped", Start::Resume, 99), Outcome::Finished);
    assert_eq!(metrics("stopped"), after);
    assert_eq!(metrics("whole"), after);
    assert_eq!(samples("whole"), samples("stopped"));
    assert!(bench.weights("whole", 12) == bench.weights("stopped", 12));
}

#[test]
fn a_branch_is_a_new_run_with_other_settings() {
    let bench = Bench::new();
    run(&mut bench.trainer("run", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 99).0.unwrap();
    let origin = lines(&bench.path("run/metrics.jsonl"));
    // With the same settings it is the same run.
    for from in ["run/step-8", "run/checkpoints/step-8"] {
        let name = from.replace('/', "-");
        let start = Start::Branch(bench.path(from));
        let mut same = bench.trainer(&name, bench.recipe(&[]), start, 1).unwrap();
        assert!(same.changes().is_empty() && same.step() == 8);
        run(&mut same, 99).0.unwrap();
        assert!(bench.weights(&name, 12) == bench.weights("run", 12));
    }
    // With others it is not; the old one stays as it is.
    let other = bench.recipe(&["optim.lr=5e-3", "train.steps=14"]);
    let start = Start::Branch(bench.path("run"));
    let mut branch = bench.trainer("other", other.clone(), start.clone(), 1).unwrap();
    assert_eq!(branch.changes().len(), 2);
    run(&mut branch, 1).0.unwrap();
    drop(branch);
    let error = bench.trainer("other", other.clone(), start, 1).unwrap_err();
    assert!(matches!(error, Error::Train(TrainError::Exists { .. })), "{error}");
    let mut branch = bench.trainer("other", other, Start::Resume, 1).unwrap();
    run(&mut branch, 99).0.unwrap();
    assert_eq!(lines(&bench.path("run/metrics.jsonl")), origin);
    assert_eq!(lines(&bench.path("other/metrics.jsonl"))[0]["step"], 13);
    let config = fs::read_to_string(bench.path("other/config.toml")).unwrap();
    assert!(config.contains("# It branched at step 12 from ") && config.contains("lr = 0.005"));
    let state = fs::read_to_string(bench.path("other/checkpoints/step-14/state.json")).unwrap();
    assert!(state.contains("\"origin\"") && state.contains("step-12"));
    let none = Start::Branch(bench.path("run"));
    let error = bench.trainer("never", bench.recipe(&[]), none, 1).unwrap_err();
    assert!(error.to_string().contains("`train.steps` is `12`, expected at least 13"), "{error}");
    for missing in ["run/step-7", "nowhere"] {
        let start = Start::Branch(bench.path(missing));
        let error = bench.trainer("never", bench.recipe(&[]), start, 1).unwrap_err();
        assert!(matches!(error, Error::Train(TrainError::NoCheckpoint { .. })), "{error}");
        assert!(!bench.path("never").exists());
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
