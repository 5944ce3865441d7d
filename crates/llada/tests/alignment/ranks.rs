//! Runs by preferences and rewards that several ranks share, as threads.

use std::{sync::Arc, thread};

use llada::{
    ranks::{Collective, Threads},
    train::{Recipe, Start, StepMetrics, Trainer},
};
use llada_kernels::Cpu;

use super::{Bench, preference, reward, run};

/// The steps of a run on so many ranks, stopped once and resumed, as the first tells of it.
fn steps(bench: &Bench, recipe: &Recipe, world: usize) -> Vec<StepMetrics> {
    let mut all = Vec::new();
    for (start, stop_after) in [(Start::Fresh, 4), (Start::Resume, usize::MAX)] {
        let dir = bench.path(&format!("on-{world}"));
        let told = thread::scope(|scope| {
            let (dir, start) = (&dir, &start);
            let spawn = |rank: Threads| {
                scope.spawn(move || {
                    let ranks: Arc<dyn Collective> = Arc::new(rank);
                    let (recipe, start, cpu) =
                        (recipe.clone(), start.clone(), Cpu::new(1).unwrap());
                    let trainer = match recipe.reward {
                        Some(_) => {
                            let function = Box::new(reward::Letters);
                            Trainer::with_reward(recipe, dir, start, cpu, ranks, function)
                        }
                        None => Trainer::on_ranks(recipe, dir, start, cpu, ranks),
                    };
                    let (outcome, told) = run(&mut trainer.unwrap(), stop_after);
                    outcome.unwrap();
                    told.steps
                })
            };
            let threads: Vec<_> = Threads::world(world).into_iter().map(spawn).collect();
            let mut told = threads.into_iter().map(|thread| thread.join().unwrap());
            told.next().unwrap()
        });
        all.extend(told);
    }
    all
}

#[test]
fn ranks_do_the_steps_of_one_machine() {
    // Completions of later cycles are those of weights that were rounded otherwise.
    for (bench, section, overrides, alike) in [
        (preference::bench(), preference::SECTION, &["lora.rank=2"][..], 8),
        (preference::bench(), preference::SECTION, &["preference.antithetic=true"], 8),
        (Bench::new(), reward::SECTION, &["reward.iterations=3", "reward.beta=0.01"], 3),
    ] {
        let overrides = [overrides, &["train.compute=f32"]].concat();
        let recipe = bench.recipe(section, &overrides).unwrap();
        let alone = steps(&bench, &recipe, 1);
        assert_eq!(alone.len(), 8);
        for world in [2, 3] {
            let found = steps(&bench, &recipe, world);
            // Before the first update nothing was rounded otherwise.
            assert_eq!(found[0].loss, alone[0].loss);
            assert_eq!(found[0].measured, alone[0].measured);
            let norms = [found[0].grad_norm, alone[0].grad_norm];
            assert!((norms[0] - norms[1]).abs() <= 1e-5 * norms[1], "{norms:?}");
            for (found, alone) in found.iter().zip(&alone).take(alike) {
                let (found_loss, loss) = (found.loss, alone.loss);
                // The optimiser makes as much of a tiny gradient that was rounded as of any other.
                assert!((found_loss - loss).abs() < 1e-2, "{found_loss}, {loss} alone");
                assert_eq!(found.total_tokens, alone.total_tokens);
            }
        }
    }
}
