//! Runs that are stopped, killed, resumed and branched.

use super::*;

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
    for compute in ["f32", "bf16"] {
        is_killed_and_resumed(&format!("train.compute={compute}"));
    }
}

fn is_killed_and_resumed(compute: &str) {
    let bench = Bench::new();
    let recipe = || bench.recipe(&[compute]);
    let mut whole = bench.trainer("whole", recipe(), Start::Fresh, 1).unwrap();
    let (outcome, steps) = run(&mut whole, u64::MAX);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(steps.len(), 12);
    assert!(steps.iter().any(|s| s.length < 24), "a batch is cut short now and then");
    assert!(steps[11].loss_ema.is_finite() && steps.iter().all(|s| s.skipped.is_none()));

    // Killed during step 7: what counts is the checkpoint of step 4, and half a line of metrics.
    let mut killed = bench.trainer("killed", recipe(), Start::Fresh, 3).unwrap();
    run(&mut killed, 6).0.unwrap();
    drop(killed);
    fs::remove_dir_all(bench.path("killed/checkpoints/step-6")).unwrap();
    let metrics = bench.path("killed/metrics.jsonl");
    let half = fs::read_to_string(&metrics).unwrap() + "{\"kind\":\"tra";
    fs::write(&metrics, half).unwrap();
    fs::create_dir(bench.path("killed/checkpoints/step-7.tmp")).unwrap();
    fs::write(bench.path("killed/lock"), "mine").unwrap();

    let mut resumed = bench.trainer("killed", recipe(), Start::Resume, 2).unwrap();
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
    assert_eq!(Recipe::parse(&resolved, &none).unwrap(), recipe());
    let saved = checkpoint::load(&bench.path("whole/checkpoints/step-12")).unwrap();
    assert_eq!(saved.config, whole.predictor().model().config);
}

#[test]
fn what_auto_found_is_what_a_run_goes_on_with() {
    let bench = Bench::new();
    let recipe = bench.recipe(&["train.compute=auto"]);
    let mut first = bench.trainer("run", recipe.clone(), Start::Fresh, 1).unwrap();
    run(&mut first, 4).0.unwrap();
    let found = first.recipe().train.compute;
    assert_ne!(found, Compute::Auto);
    drop(first);
    let none: [&str; 0] = [];
    let kept = fs::read_to_string(bench.path("run/config.toml")).unwrap();
    let mut expected = recipe.clone();
    expected.train.compute = found;
    assert_eq!(Recipe::parse(&kept, &none).unwrap(), expected);
    for (name, start) in [("run", Start::Resume), ("branch", Start::Branch(bench.path("run")))] {
        let goes_on = bench.trainer(name, recipe.clone(), start, 1).unwrap();
        assert_eq!(goes_on.recipe().train.compute, found);
    }
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
        let mut hooks =
            Hooks { clock: &clock, stop: &stop, event: &mut event, sample: None, evaluate: None };
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
fn training_goes_on_from_a_checkpoint() {
    let bench = Bench::new();
    run(&mut bench.trainer("a", bench.recipe(&[]), Start::Fresh, 1).unwrap(), 100).0.unwrap();
    let from = format!("model.init_from={}", bench.path("a/checkpoints/step-12").display());
    let mut next = bench.trainer("b", bench.recipe(&[&from]), Start::Fresh, 1).unwrap();
    let a = checkpoint::load(&bench.path("a/checkpoints/step-12")).unwrap();
    let same = |model: &Model| {
        model.tensors.iter().zip(a.tensors.iter()).all(|(x, y)| x.to_f32() == y.to_f32())
    };
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
    let own = || Recipe::parse(&recipe_of(&bench.path("run")).unwrap().text, &none).unwrap();
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
    // What cannot be read is not made up for without a word, whether a recipe is given or not.
    for damaged in [&b"garbage ["[..], b"", &[0; 64], b"[model]\nd_model = \"x\"", b"\xff"] {
        fs::write(&config, damaged).unwrap();
        let given = bench.recipe(&["train.steps=14", "eval.every=7"]);
        let errors = [
            recipe_of(&bench.path("run")).map(|_| ()),
            recipe_of(&bench.path("run/step-6")).map(|_| ()),
            resume(given).map(|_| ()),
        ];
        for error in errors {
            let error = error.unwrap_err();
            assert!(error.to_string().contains("run/config.toml`, are damaged"), "{error}");
            assert!(error.hint().unwrap().contains("remove it"));
        }
        assert_eq!(fs::read(&config).unwrap(), damaged);
    }
    fs::remove_file(&config).unwrap();
    assert!(recipe_of(&bench.path("run")).unwrap().from.ends_with("step-6/state.json"));
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
    let own = Recipe::parse(&recipe_of(&bench.path("run")).unwrap().text, &none).unwrap();
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
        let outcome = trainer.run(&mut Hooks {
            clock: &clock,
            stop: &stop,
            event: &mut event,
            sample,
            evaluate: None,
        });
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
