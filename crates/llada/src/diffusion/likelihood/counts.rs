//! How many tokens of an answer to mask in each noisy copy of it.

/// Numbers of answer tokens to mask in each of `copies` noisy copies of an answer of `answer_length`
/// tokens (`forward_process` of the reference). They are spread evenly around the circle 1..=L
/// from the first, `k`, which is drawn uniformly from there; a copy with m masks weighs L/m.
/// Over all k every count is equally likely, but for halves, which round to even as in the
/// reference. All are 0 if the answer is empty.
pub fn mask_counts(answer_length: usize, copies: usize, k: usize) -> Vec<usize> {
    if answer_length == 0 || k == 0 {
        return vec![0; copies];
    }
    let spacing = answer_length as f64 / copies.max(1) as f64;
    let end = k as f64 + copies.saturating_sub(1) as f64 * spacing;
    linspace(k as f32, end as f32, copies)
        .map(|x| (x.round_ties_even() as usize).saturating_sub(1) % answer_length + 1)
        .collect()
}

/// `torch.linspace` in `f32`: the second half is counted back from the end, which decides how the
/// halves round.
fn linspace(start: f32, end: f32, n: usize) -> impl Iterator<Item = f32> {
    let step = (end - start) / n.saturating_sub(1).max(1) as f32;
    (0..n).map(move |i| {
        if n == 1 || i < n / 2 { start + step * i as f32 } else { end - step * (n - 1 - i) as f32 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_spread_over_the_whole_answer() {
        assert_eq!(mask_counts(8, 4, 1), [1, 3, 5, 7]);
        assert_eq!(mask_counts(8, 4, 8), [8, 2, 4, 6]);
        assert_eq!(mask_counts(5, 1, 3), [3]);
        assert_eq!(mask_counts(0, 3, 1), [0, 0, 0]);
        assert!(mask_counts(5, 0, 1).is_empty());
        assert!(mask_counts(3, 64, 2).iter().all(|m| (1..=3).contains(m)));
    }
}
