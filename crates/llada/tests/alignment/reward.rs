use std::{fs, path::Path};

use llada::{
    Result,
    train::{RewardFunction, RewardPrompt, Start, TrainError, Trainer},
};
use llada_kernels::Cpu;

use super::{Bench, assert_resumes, run};

const SECTION: &str = "[reward]\ntask = \"letters\"\ntemplate = \"plain\"\ncompletions = 4\n\
    iterations = 2\ngen_length = 8\n[lora]\nalpha = 8.0\n";

/// The share of `a` in a completion.
#[derive(Debug)]
struct Letters;

impl RewardFunction for Letters {
    fn prompts(&self) -> Vec<RewardPrompt> {
        let prompt = |i: usize| RewardPrompt { text: format!("say {i}"), held_out: i % 4 == 3 };
        (0..12).map(prompt).collect()
    }

    fn reward(&mut self, prompt: usize, completion: &str) -> Result<f64> {
        assert!(prompt < 12);
        let count = completion.chars().filter(|c| *c == 'a').count();
        Ok(count as f64 / 8.0)
    }
}

fn trainer(bench: &Bench, overrides: &[&str], run: &Path, start: Start, cpu: Cpu) -> Trainer {
    let recipe = bench.recipe(SECTION, overrides).unwrap();
    Trainer::with_reward(recipe, run, start, cpu, Box::new(Letters)).unwrap()
}

#[test]
fn a_run_resumes_to_the_same_bits() {
    for (from, overrides, names) in [
        // Between two cycles, and within one.
        (3, &["reward.iterations=3", "reward.beta=0.01"][..], &["model.safetensors"][..]),
        (3, &["reward.iterations=4", "reward.algorithm=gdsd"], &["model.safetensors"]),
        (5, &["reward.iterations=4", "reward.algorithm=diffu-grpo"], &["optimizer.safetensors"]),
        (3, &["lora.rank=2", "reward.beta=0.1"], &["adapter_model.safetensors"]),
    ] {
        let bench = Bench::new();
        let new = |run: &Path, start, cpu| trainer(&bench, overrides, run, start, cpu);
        assert_resumes(&bench, from, names, &new);
    }
}

#[test]
fn completions_become_better() {
    let bench = Bench::new();
    for algorithm in ["espo", "diffu-grpo", "gdsd"] {
        let named = format!("reward.algorithm={algorithm}");
        let overrides = [
            "train.steps=60",
            "train.batch_size=16",
            "train.micro_batch_size=16",
            "eval.every=60",
            "reward.completions=8",
            "train.checkpoint_every=0",
            &named,
        ];
        let cpu = Cpu::new(2).unwrap();
        let run_dir = bench.path(algorithm);
        let mut trainer = trainer(&bench, &overrides, &run_dir, Start::Fresh, cpu);
        let report = trainer.conversations().unwrap();
        assert_eq!((report.train, report.validation), (9, 3));
        let before = trainer.measure().unwrap().measured["reward"];
        let (outcome, told) = run(&mut trainer, usize::MAX);
        outcome.unwrap();
        let reward = |i: usize| told.steps[i].measured["reward"];
        let after = told.validations[0].measured["reward"];
        assert!(after > before + 0.2, "{algorithm}: {before} {after}");
        // Steps of a cycle are of the same completions.
        assert_eq!(reward(0), reward(1));
        assert_eq!(told.steps[0].measured["clipped"], 0.0);
        assert!(told.validations[0].nll.is_nan());
        assert!(
            fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap().contains("\"flat_groups\":")
        );
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let bench = Bench::new();
    let new = |overrides: &[&str]| {
        let recipe = bench.recipe(SECTION, overrides)?;
        let cpu = Cpu::new(1).unwrap();
        Trainer::with_reward(recipe, &bench.path("x"), Start::Fresh, cpu, Box::new(Letters))
    };
    for (overrides, expected) in [
        (&["train.batch_size=6"][..], "`train.batch_size` is `6`, expected a multiple"),
        (&["reward.completions=1"], "`reward.completions` is `1`"),
        (&["reward.gen_length=64"], "`reward.gen_length` is `64`"),
        (&["data.sequence_length=12"], "no prompt can be trained on, first prompt 0: 13 tokens"),
        (&["reward.block_length=3"], ""),
    ] {
        let found = new(overrides).unwrap_err().to_string();
        assert!(found.starts_with(expected), "{found}");
    }
    let recipe = bench.recipe(SECTION, &[]).unwrap();
    let found = Trainer::new(recipe, &bench.path("x"), Start::Fresh, Cpu::new(1).unwrap());
    assert!(matches!(found.unwrap_err(), llada::Error::Train(TrainError::NoReward)));
}
