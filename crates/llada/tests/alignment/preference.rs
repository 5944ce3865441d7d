use std::{fs, path::Path};

use llada::{
    Result,
    train::{Recipe, Start, TrainError, Trainer},
};
use llada_kernels::Cpu;

use super::{Bench, assert_resumes, run, weights};

pub(super) const SECTION: &str = "[preference]\nbeta = 0.3\ndraws = 4\nheld_out = 0.2\n";

/// The chosen answer is the one with an `a`.
pub(super) fn bench() -> Bench {
    let bench = Bench::new();
    let rows = (0..30).map(|i| {
        let (a, b) = (["ab ba", "aa"][i % 2], ["cd dc", "dd d"][i % 2]);
        match i % 3 {
            0 => format!(
                "{{\"chosen\":[{{\"role\":\"user\",\"content\":\"say {i}\"}},\
                 {{\"role\":\"assistant\",\"content\":\"{a}\"}}],\
                 \"rejected\":[{{\"role\":\"user\",\"content\":\"say {i}\"}},\
                 {{\"role\":\"assistant\",\"content\":\"{b}\"}}]}}\n"
            ),
            _ => format!("{{\"prompt\":\"say {i}\",\"chosen\":\"{a}\",\"rejected\":\"{b}\"}}\n"),
        }
    });
    let bad = "{\"prompt\":\"p\",\"chosen\":\"x\"}\n".to_owned();
    fs::write(bench.path("data.jsonl"), rows.chain([bad]).collect::<String>()).unwrap();
    bench
}

fn trainer(bench: &Bench, overrides: &[&str], run: &Path, start: Start, cpu: Cpu) -> Trainer {
    Trainer::new(bench.recipe(SECTION, overrides).unwrap(), run, start, cpu).unwrap()
}

#[test]
fn a_run_resumes_to_the_same_bits() {
    for (overrides, names) in [
        (&[][..], &["model.safetensors", "optimizer.safetensors"][..]),
        (&["preference.antithetic=true", "preference.sft_weight=0.5"], &["model.safetensors"]),
        (&["lora.rank=2"], &["adapter_model.safetensors", "optimizer.safetensors"]),
    ] {
        let bench = bench();
        let new = |run: &Path, start, cpu| trainer(&bench, overrides, run, start, cpu);
        assert_resumes(&bench, 3, names, &new);
    }
}

#[test]
fn the_policy_moves_to_what_is_preferred() {
    let bench = bench();
    for (name, overrides) in [("full", &[][..]), ("adapters", &["lora.rank=4"])] {
        let more =
            ["train.steps=40", "eval.every=40", "eval.sequences=8", "train.checkpoint_every=0"];
        let overrides = [&more[..], overrides].concat();
        let cpu = Cpu::new(2).unwrap();
        let mut trainer = trainer(&bench, &overrides, &bench.path(name), Start::Fresh, cpu);
        let report = trainer.conversations().unwrap().clone();
        assert_eq!((report.train + report.validation, report.rejected), (30, 1));
        assert!(report.validation >= 2, "{report:?}");
        assert!(trainer.measure().unwrap().measured["margin"].abs() < 1e-9);
        let (outcome, told) = run(&mut trainer, usize::MAX);
        outcome.unwrap();
        let (first, last) = (&told.steps[0], told.steps.last().unwrap());
        // At the start policy and reference are the same.
        assert!((first.loss - 2.0f64.ln()).abs() < 1e-9 && first.measured["margin"].abs() < 1e-9);
        assert!(last.measured["margin"] > 1.0, "{name}: {:?}", last.measured);
        let found = &told.validations[0].measured;
        assert!(found["accuracy"] > 0.9 && found["margin"] > 1.0, "{name}: {found:?}");
        assert!(found["loss"] < 0.5 && told.validations[0].nll.is_finite());
    }
}

#[test]
fn micro_batches_give_the_gradient_of_the_whole() {
    let bench = bench();
    let after = |micro: &str| {
        let overrides =
            ["train.steps=1", "eval.every=0", &format!("train.micro_batch_size={micro}")];
        let cpu = Cpu::new(1).unwrap();
        let mut trainer = trainer(&bench, &overrides, &bench.path(micro), Start::Fresh, cpu);
        let (outcome, told) = run(&mut trainer, usize::MAX);
        outcome.unwrap();
        (told.steps[0].grad_norm, told.steps[0].tokens, weights(&trainer))
    };
    let (norm, tokens, _) = after("0");
    for micro in ["1", "2"] {
        let found = after(micro);
        assert!((found.0 / norm - 1.0).abs() < 1e-5, "{} {norm}", found.0);
        assert_eq!(found.1, tokens);
    }
}

#[test]
fn what_does_not_go_together_is_refused() {
    let bench = bench();
    let refuse = |overrides: &[&str]| -> String {
        let recipe = bench.recipe(SECTION, overrides);
        recipe
            .and_then(|recipe| {
                Trainer::new(recipe, &bench.path("x"), Start::Fresh, Cpu::new(1).unwrap())
            })
            .unwrap_err()
            .to_string()
    };
    for (overrides, expected) in [
        (&["preference.draws=3", "preference.antithetic=true"][..], "`preference.draws` is `3`"),
        (&["train.objective=autoregressive"], "`train.objective` is"),
        (&["sft.held_out=0.1"], "`preference` is `a section`"),
        (&["preference.beta=0"], "`preference.beta` is `0`"),
        (&["data.sequence_length=4"], "no usable conversation"),
    ] {
        let found = refuse(overrides);
        assert!(found.starts_with(expected), "{found}");
    }
    let none = Recipe::parse("[preference]", &[""; 0]).unwrap();
    let found: Result<Trainer> =
        Trainer::new(none, &bench.path("x"), Start::Fresh, Cpu::new(1).unwrap());
    assert!(matches!(found.unwrap_err(), llada::Error::Train(TrainError::NoModel)));
    // A run is not resumed with another reference.
    let new = |overrides: &[&str], start| {
        let recipe = bench.recipe(SECTION, overrides).unwrap();
        Trainer::new(recipe, &bench.path("run"), start, Cpu::new(1).unwrap())
    };
    let mut trainer = new(&["train.steps=1", "eval.every=0"], Start::Fresh).unwrap();
    run(&mut trainer, usize::MAX).0.unwrap();
    drop(trainer);
    let moved = format!("model.init_from={}", bench.path("run/checkpoints/step-1").display());
    let found = new(&["train.steps=2", "eval.every=0", &moved], Start::Resume).unwrap_err();
    assert!(found.to_string().contains("of the reference"), "{found}");
}
