//! How much better a completion is than the others of its prompt.

/// r − the mean of the others of its group, as ESPO and GDSD have it: a baseline that does not depend on
/// the completion itself. Groups are `size` completions each; alone, a completion has the advantage 0.
pub fn leave_one_out(rewards: &[f64], size: usize) -> Vec<f64> {
    grouped(rewards, size, |reward, sum, n| reward - (sum - reward) / (n - 1.0))
}

/// r − the mean of its group, as diffu-GRPO has it.
pub fn group_mean(rewards: &[f64], size: usize) -> Vec<f64> {
    grouped(rewards, size, |reward, sum, n| reward - sum / n)
}

fn grouped(rewards: &[f64], size: usize, of: impl Fn(f64, f64, f64) -> f64) -> Vec<f64> {
    let group = |group: &[f64]| -> Vec<f64> {
        let (sum, n) = (group.iter().sum(), group.len() as f64);
        // A difference of sums is not exactly 0.
        match is_flat(group) {
            true => vec![0.0; group.len()],
            false => group.iter().map(|&reward| of(reward, sum, n)).collect(),
        }
    };
    rewards.chunks(size.max(1)).flat_map(group).collect()
}

/// Whether all rewards of a group are the same, so that nothing is to be learnt of it.
pub fn is_flat(group: &[f64]) -> bool {
    group.windows(2).all(|pair| pair[0] == pair[1])
}

/// The share of the groups that are flat.
pub fn flat_share(rewards: &[f64], size: usize) -> f64 {
    let groups = rewards.chunks(size.max(1));
    let count = groups.len().max(1) as f64;
    groups.filter(|group| is_flat(group)).count() as f64 / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_compared_with_those_of_their_prompt() {
        let rewards = [1.0, 0.0, 0.5, 2.0, 2.0, 2.0, 0.1];
        assert_eq!(leave_one_out(&rewards, 3), [0.75, -0.75, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(group_mean(&rewards, 3), [0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(flat_share(&rewards[..6], 3), 0.5);
        assert!(leave_one_out(&[0.1; 7], 7).iter().all(|a| *a == 0.0));
        assert!(leave_one_out(&[], 3).is_empty() && flat_share(&[], 3) == 0.0);
    }
}
