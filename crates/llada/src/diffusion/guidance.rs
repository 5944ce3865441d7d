//! Unsupervised classifier-free guidance (Eq. 16).

/// Moves the `conditional` logits away from the `unconditional` ones: l ← u + (w + 1)(l − u).
/// The second come from the same sequence with its prompt masked; both have the same length.
pub fn combine(conditional: &mut [f32], unconditional: &[f32], cfg_scale: f32) {
    for (l, &u) in conditional.iter_mut().zip(unconditional) {
        *l = u + (cfg_scale + 1.0) * (*l - u);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_changes_nothing_and_one_doubles_the_difference() {
        let mut logits = [1.0, -2.0];
        combine(&mut logits, &[0.5, -1.0], 0.0);
        assert_eq!(logits, [1.0, -2.0]);
        combine(&mut logits, &[0.5, -1.0], 1.0);
        assert_eq!(logits, [1.5, -3.0]);
    }
}
