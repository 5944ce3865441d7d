//! The learning rate: warm-up, stable, decay (the paper's appendix B.1; Hu et al., MiniCPM).

use super::{Optim, Schedule};

/// The learning rate of the update that `step` (from 0) of `steps` makes.
///
/// The warm-up rises linearly and reaches the peak with its last step; the decay starts from the
/// peak and reaches `min_lr` with the last step of all. Where the two overlap the lower one rules.
pub fn learning_rate(optim: &Optim, step: u64, steps: u64) -> f64 {
    let mut rate = optim.lr;
    if optim.schedule == Schedule::Wsd {
        let decay = (optim.decay_fraction * steps as f64).round();
        let left = steps.saturating_sub(step + 1) as f64;
        if left < decay {
            rate = optim.min_lr + (optim.lr - optim.min_lr) * left / decay;
        }
    }
    if step < optim.warmup_steps {
        rate = rate.min(optim.lr * (step + 1) as f64 / optim.warmup_steps as f64);
    }
    rate
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn optim(warmup: u64, decay: f64, schedule: Schedule) -> Optim {
        Optim {
            lr: 4e-4,
            min_lr: 1e-5,
            warmup_steps: warmup,
            decay_fraction: decay,
            schedule,
            ..Optim::default()
        }
    }

    proptest! {
        #[test]
        fn rises_rests_and_falls(steps in 1u64..400, warmup in 0u64..100, decay in 0.0f64..1.0) {
            let optim = optim(warmup, decay, Schedule::Wsd);
            let rates: Vec<f64> = (0..steps).map(|s| learning_rate(&optim, s, steps)).collect();
            prop_assert!(rates.iter().all(|r| *r > 0.0 && *r <= optim.lr));
            let peak = rates.iter().copied().fold(0.0, f64::max);
            let top = rates.iter().position(|r| *r == peak).unwrap();
            prop_assert!(rates[..=top].is_sorted());
            prop_assert!(rates[top..].iter().rev().is_sorted());
        }
    }

    #[test]
    fn corners_are_where_the_recipe_says() {
        let wsd = optim(10, 0.2, Schedule::Wsd);
        assert_eq!(learning_rate(&wsd, 0, 100), 4e-5);
        assert_eq!(learning_rate(&wsd, 9, 100), 4e-4);
        assert_eq!(learning_rate(&wsd, 79, 100), 4e-4);
        assert!(learning_rate(&wsd, 80, 100) < 4e-4);
        assert_eq!(learning_rate(&wsd, 99, 100), 1e-5);
        let constant = optim(0, 0.2, Schedule::Constant);
        assert_eq!(learning_rate(&constant, 0, 100), 4e-4);
        assert_eq!(learning_rate(&constant, 99, 100), 4e-4);
    }
}
