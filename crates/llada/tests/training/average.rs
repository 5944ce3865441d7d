//! The running average of the weights, and the checkpoints that are kept for their loss.

use llada::model::Tensors;

use super::*;

const TRAINED: &str = "trained.safetensors";

fn file(bench: &Bench, run: &str, step: u64, name: &str) -> Vec<u8> {
    fs::read(bench.path(run).join(format!("checkpoints/step-{step}/{name}"))).unwrap()
}

fn weights(folder: &Path) -> Vec<f32> {
    let tensors: Tensors = checkpoint::load(folder).unwrap().tensors;
    tensors.clone().flatten().values().to_vec()
}

#[test]
fn a_checkpoint_holds_the_average_of_what_a_plain_run_trains() {
    let bench = Bench::new();
    let all = ["train.steps=6", "train.checkpoint_every=1", "train.keep_last=0"];
    for (name, ema) in [("plain", "optim.ema=0"), ("averaged", "optim.ema=0.7")] {
        let recipe = bench.recipe(&[all[0], all[1], all[2], ema]);
        let mut trainer = bench.trainer(name, recipe, Start::Fresh, 2).unwrap();
        assert_eq!(run(&mut trainer, u64::MAX).0.unwrap(), Outcome::Finished);
    }
    let folder = |run: &str, step| bench.path(run).join(format!("checkpoints/step-{step}"));
    let mut average = vec![0.0f64; weights(&folder("plain", 1)).len()];
    for step in 1..=6 {
        let plain = weights(&folder("plain", step));
        // The weights at the start have a tenth left after the first update.
        let rate = (9.0 / (9.0 + step as f64)).max(0.3);
        if step > 1 {
            average.iter_mut().zip(&plain).for_each(|(a, p)| *a += rate * (f64::from(*p) - *a));
        } else {
            let first = weights(&folder("averaged", 1));
            average = first.iter().map(|x| f64::from(*x)).collect();
        }
        let found = weights(&folder("averaged", step));
        let off = found.iter().zip(&average).map(|(f, a)| (f64::from(*f) - a).abs());
        assert!(off.fold(0.0, f64::max) < 1e-6, "step {step}");
        let kept = folder("averaged", step);
        fs::copy(kept.join(TRAINED), kept.join("model.safetensors")).unwrap();
        assert_eq!(weights(&kept), plain, "step {step}");
    }
}

#[test]
fn a_run_with_an_average_goes_on_as_if_it_had_not_been_stopped() {
    let bench = Bench::new();
    for adapters in [false, true] {
        let base = bench.path("base/checkpoints/step-12");
        let init = format!("model.init_from={}", base.display());
        let extra = match adapters {
            false => vec!["optim.ema=0.9"],
            true => vec!["optim.ema=0.9", "lora.rank=2", &init],
        };
        let [whole, halves] = ["whole", "halves"].map(|name| format!("{name}-{adapters}"));
        let mut trainer = bench.trainer(&whole, bench.recipe(&extra), Start::Fresh, 1).unwrap();
        run(&mut trainer, u64::MAX).0.unwrap();
        let mut trainer = bench.trainer(&halves, bench.recipe(&extra), Start::Fresh, 2).unwrap();
        assert_eq!(run(&mut trainer, 5).0.unwrap(), Outcome::Stopped);
        drop(trainer);
        let mut trainer = bench.trainer(&halves, bench.recipe(&extra), Start::Resume, 2).unwrap();
        run(&mut trainer, u64::MAX).0.unwrap();
        drop(trainer);
        let model = if adapters { "adapter_model.safetensors" } else { "model.safetensors" };
        for name in [model, TRAINED, "optimizer.safetensors"] {
            let same = file(&bench, &whole, 12, name) == file(&bench, &halves, 12, name);
            assert!(same, "{name}, adapters: {adapters}");
        }
        let refused = bench.trainer(&halves, bench.recipe(&extra[1..]), Start::Resume, 1);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("optim.ema"), "{error}");
        if !adapters {
            fs::rename(bench.path(&whole), bench.path("base")).unwrap();
        }
    }
    // A branch may begin an average, and may end one.
    for (ema, from) in [("optim.ema=0", "halves-false"), ("optim.ema=0.5", "plain")] {
        if from == "plain" {
            let mut trainer = bench.trainer(from, bench.recipe(&[]), Start::Fresh, 1).unwrap();
            run(&mut trainer, u64::MAX).0.unwrap();
        }
        let recipe = bench.recipe(&[ema, "train.steps=14"]);
        let start = Start::Branch(bench.path(from));
        let mut trainer = bench.trainer(&format!("{from}-on"), recipe, start, 1).unwrap();
        assert_eq!(run(&mut trainer, u64::MAX).0.unwrap(), Outcome::Finished);
    }
}

#[test]
fn the_best_checkpoints_are_written_and_stay() {
    let bench = Bench::new();
    // The loss rises in the end: the rate is absurd once it is warm.
    let recipe = bench.recipe(&[
        "train.keep_best=1",
        "train.keep_last=1",
        "train.checkpoint_every=0",
        "eval.every=1",
        "optim.lr=3",
        "optim.min_lr=3",
        "optim.weight_decay=0",
        "optim.warmup_steps=11",
    ]);
    let mut trainer = bench.trainer("run", recipe, Start::Fresh, 2).unwrap();
    let mut losses = Vec::new();
    let stop = AtomicBool::new(false);
    let mut event = |event: &Event<'_>| {
        if let Event::Validation(found) = event {
            losses.push((found.nll, found.step));
        }
    };
    let (clock, event) = (&|| 0.0, &mut event);
    trainer.run(&mut Hooks { clock, stop: &stop, event, sample: None, evaluate: None }).unwrap();
    losses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let best = losses[0].1;
    assert!(best < 12, "{losses:?}");
    let mut expected = vec![format!("step-{best}"), "step-12".to_owned()];
    expected.sort();
    assert_eq!(bench.checkpoints("run"), expected);
}
