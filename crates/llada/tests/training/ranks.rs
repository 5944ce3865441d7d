//! Runs that several ranks share, as threads.

use std::{sync::Arc, thread};

use llada::ranks::{RankError, Threads};

use super::*;

/// Steps and outcome of a run on so many ranks, as the first tells of it.
fn on_ranks(
    bench: &Bench,
    run_dir: &str,
    recipe: &Recipe,
    start: &Start,
    world: usize,
    stop_after: u64,
) -> (Result<Outcome>, Vec<StepMetrics>) {
    let dir = bench.path(run_dir);
    thread::scope(|scope| {
        let (dir, recipe) = (&dir, recipe);
        let spawn = |rank: Threads| {
            scope.spawn(move || {
                let (cpu, ranks) = (Cpu::new(1).unwrap(), Arc::new(rank));
                match Trainer::on_ranks(recipe.clone(), dir, start.clone(), cpu, ranks) {
                    Ok(mut trainer) => run(&mut trainer, stop_after),
                    Err(error) => (Err(error), Vec::new()),
                }
            })
        };
        let threads: Vec<_> = Threads::world(world).into_iter().map(spawn).collect();
        let mut outcomes = threads.into_iter().map(|thread| thread.join().unwrap());
        let first = outcomes.next().unwrap();
        for (outcome, steps) in outcomes {
            assert!(steps.is_empty());
            match (outcome, &first.0) {
                (Ok(outcome), Ok(expected)) => assert_eq!(outcome, *expected),
                (Err(error), Err(_)) => {
                    let is_told =
                        matches!(error, Error::Rank(RankError::Elsewhere { rank: 0, .. }));
                    assert!(is_told, "{error}");
                }
                (outcome, expected) => panic!("{outcome:?}, the first {expected:?}"),
            }
        }
        first
    })
}

fn losses(steps: &[StepMetrics]) -> Vec<f64> {
    steps.iter().flat_map(|m| [m.loss, m.grad_norm]).collect()
}

fn model(bench: &Bench, run: &str, step: u64) -> Vec<u8> {
    fs::read(bench.path(run).join(format!("checkpoints/step-{step}/model.safetensors"))).unwrap()
}

fn numbers(file: &[u8]) -> Vec<f32> {
    let header = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let number = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().unwrap());
    file[header..].chunks_exact(4).map(number).collect()
}

#[test]
fn ranks_train_what_one_machine_trains() {
    let bench = Bench::new();
    let recipe = bench.recipe(&["train.micro_batch_size=2"]);
    let (outcome, alone) = on_ranks(&bench, "alone", &recipe, &Start::Fresh, 1, 99);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    for world in [2, 3] {
        for repeat in ["a", "b"] {
            let run = format!("{world}{repeat}");
            let (outcome, steps) = on_ranks(&bench, &run, &recipe, &Start::Fresh, world, 99);
            assert_eq!(outcome.unwrap(), Outcome::Finished);
            assert!(steps.iter().all(|m| m.communication.is_some()));
            for (found, expected) in losses(&steps).into_iter().zip(losses(&alone)) {
                assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
            }
            assert_eq!(steps[11].total_tokens, alone[11].total_tokens);
            let worst = numbers(&model(&bench, &run, 12))
                .into_iter()
                .zip(numbers(&model(&bench, "alone", 12)))
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(worst < 1e-3, "{worst}");
            let told = lines(&bench.path(&run).join("metrics.jsonl"));
            assert_eq!(told.len(), lines(&bench.path("alone/metrics.jsonl")).len());
        }
        let [a, b] = ["a", "b"].map(|repeat| model(&bench, &format!("{world}{repeat}"), 12));
        assert_eq!(a, b, "{world} ranks repeat themselves");
    }
}

#[test]
fn with_a_fixed_tree_any_number_of_ranks_gives_the_same_bits() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[
        "train.tree_reduction=true",
        "train.micro_batch_size=1",
        "optim.clip_norm=0.5",
    ]);
    let (_, alone) = on_ranks(&bench, "alone", &recipe, &Start::Fresh, 1, 99);
    let expected = model(&bench, "alone", 12);
    let wide = bench.trainer("wide", recipe.clone(), Start::Fresh, 3);
    assert_eq!(losses(&run(&mut wide.unwrap(), 99).1), losses(&alone));
    for world in [2, 3, 5] {
        let run = world.to_string();
        let (outcome, steps) = on_ranks(&bench, &run, &recipe, &Start::Fresh, world, 99);
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        assert_eq!(losses(&steps), losses(&alone), "{world}");
        assert!(model(&bench, &run, 12) == expected, "{world}");
    }
}

#[test]
fn a_run_goes_on_with_any_number_of_ranks() {
    let bench = Bench::new();
    let recipe = bench.recipe(&["train.tree_reduction=true"]);
    let (_, whole) = on_ranks(&bench, "whole", &recipe, &Start::Fresh, 2, 99);
    let expected = bench.path("whole/checkpoints/step-12");
    for worlds in [[2, 3, 1], [1, 2, 3], [3, 1, 2]] {
        let run = format!("{worlds:?}");
        let mut start = Start::Fresh;
        let mut all = Vec::new();
        for (world, steps) in worlds.into_iter().zip([3, 4, 99]) {
            let (outcome, steps) = on_ranks(&bench, &run, &recipe, &start, world, steps);
            outcome.unwrap();
            all.extend(losses(&steps));
            start = Start::Resume;
        }
        assert_eq!(all, losses(&whole), "{run}");
        assert!(model(&bench, &run, 12) == model(&bench, "whole", 12), "{run}");
    }
    // The optimiser is there once, in shares, and every byte of them is checked.
    let share = expected.join("optimizer-00002-of-00002.safetensors");
    assert!(!expected.join("optimizer.safetensors").exists());
    let mut bytes = fs::read(&share).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&share, bytes).unwrap();
    let (outcome, _) = on_ranks(&bench, "whole", &recipe, &Start::Resume, 3, 99);
    assert!(outcome.unwrap_err().to_string().contains("optimizer-00002-of-00002"));
}

#[test]
fn ranks_share_the_training_of_adapters() {
    let bench = Bench::new();
    let whole = bench.recipe(&["train.steps=1"]);
    run(&mut bench.trainer("base", whole, Start::Fresh, 1).unwrap(), 99).0.unwrap();
    let base = bench.path("base/checkpoints/step-1");
    let init = format!("model.init_from={}", base.display());
    let recipe = bench.recipe(&[&init, "lora.rank=2", "train.tree_reduction=true"]);
    let adapters = |world: usize| {
        let run = world.to_string();
        let (outcome, steps) = on_ranks(&bench, &run, &recipe, &Start::Fresh, world, 99);
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        let file = bench.path(&run).join("checkpoints/step-12/adapter_model.safetensors");
        (fs::read(file).unwrap(), losses(&steps))
    };
    let alone = adapters(1);
    assert!(adapters(2) == alone && adapters(3) == alone);
}

#[test]
fn more_ranks_than_sequences_are_refused() {
    let bench = Bench::new();
    for (overrides, what) in [
        (&["train.batch_size=2"][..], "2 sequences"),
        (&["train.tree_reduction=true", "train.micro_batch_size=3"], "2 micro-batches"),
    ] {
        let recipe = bench.recipe(overrides);
        let (outcome, _) = on_ranks(&bench, "many", &recipe, &Start::Fresh, 3, 99);
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(error.hint().unwrap().contains("fewer ranks"));
        assert!(!bench.path("many").exists());
    }
}

#[test]
fn ranks_keep_one_average_and_the_best_checkpoints() {
    let bench = Bench::new();
    let recipe = bench.recipe(&[
        "train.tree_reduction=true",
        "train.micro_batch_size=1",
        "optim.ema=0.8",
        "train.keep_last=1",
        "train.keep_best=1",
        "eval.every=3",
    ]);
    let (outcome, _) = on_ranks(&bench, "alone", &recipe, &Start::Fresh, 1, 99);
    outcome.unwrap();
    let (outcome, _) = on_ranks(&bench, "two", &recipe, &Start::Fresh, 2, 5);
    assert_eq!(outcome.unwrap(), Outcome::Stopped);
    let (outcome, _) = on_ranks(&bench, "two", &recipe, &Start::Resume, 2, 99);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(bench.checkpoints("two"), bench.checkpoints("alone"));
    assert!(model(&bench, "two", 12) == model(&bench, "alone", 12));
    let trained = |run: &str| bench.path(run).join("checkpoints/step-12/trained.safetensors");
    assert!(fs::read(trained("two")).unwrap() == fs::read(trained("alone")).unwrap());
}
