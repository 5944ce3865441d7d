//! The Euclidean norm as written.

/// The square root of the sum of the squares of all of `grads`.
pub fn forward(grads: &[&[f64]]) -> f64 {
    grads.iter().flat_map(|grad| grad.iter()).map(|g| g * g).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_value() {
        assert_eq!(forward(&[&[2.0, -3.0], &[], &[6.0]]), 7.0);
    }
}
