//! The transfer schedule: how many tokens each step unmasks (`get_num_transfer_tokens` of the
//! reference).
//!
//! Alg. 5 as printed calls ⌊L(1−s)⌋ the number unmasked yet remasks that many; the reference code
//! is followed: the masks are shared equally by the steps, and the remainder goes to the first.

/// The transfer schedule of a block: its masks, shared equally by its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Masks in the block when it is opened.
    pub masks: usize,
    /// Steps given to the block.
    pub steps: usize,
}

impl Schedule {
    /// Tokens to unmask in step `i` of the block; never more than in the step before, and 0 from
    /// the last step on.
    pub fn tokens(self, i: usize) -> usize {
        if i >= self.steps {
            return 0;
        }
        self.masks / self.steps + usize::from(i < self.masks % self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_shares_sum_to_the_masks(masks in 0usize..500, steps in 1usize..300) {
            let schedule = Schedule { masks, steps };
            let shares: Vec<usize> = (0..steps + 2).map(|i| schedule.tokens(i)).collect();
            prop_assert_eq!(shares.iter().sum::<usize>(), masks);
            prop_assert!(shares.is_sorted_by(|a, b| a >= b));
        }
    }

    #[test]
    fn no_steps_unmask_nothing() {
        assert_eq!(Schedule { masks: 3, steps: 0 }.tokens(0), 0);
    }
}
