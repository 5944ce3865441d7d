//! The output head and its soft-max cross-entropy as written, with all logits at once.

/// `-log p(target)` of each row of `hidden`, `[n, d]`, for the head `weight`, `[vocab, d]`.
pub fn forward(hidden: &[f64], weight: &[f64], d: usize, scale: f64, targets: &[u32]) -> Vec<f64> {
    let loss = |(h, &target): (&[f64], &u32)| -log_softmax(h, weight, scale)[target as usize];
    hidden.chunks(d).zip(targets).map(loss).collect()
}

/// The losses and, with `weights` the derivative of the total by each, `(nll, dhidden, dweight)`.
pub fn forward_backward(
    hidden: &[f64],
    weight: &[f64],
    vocab: usize,
    d: usize,
    scale: f64,
    targets: &[u32],
    weights: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut dhidden, mut dweight) = (vec![0.0; hidden.len()], vec![0.0; weight.len()]);
    for (row, h) in hidden.chunks(d).enumerate() {
        let log_p = log_softmax(h, weight, scale);
        for token in 0..vocab {
            let onehot = if token == targets[row] as usize { 1.0 } else { 0.0 };
            let dlogit = (log_p[token].exp() - onehot) * weights[row] * scale;
            for i in 0..d {
                dhidden[row * d + i] += dlogit * weight[token * d + i];
                dweight[token * d + i] += dlogit * h[i];
            }
        }
    }
    (forward(hidden, weight, d, scale, targets), dhidden, dweight)
}

fn log_softmax(h: &[f64], weight: &[f64], scale: f64) -> Vec<f64> {
    let logit = |w: &[f64]| scale * w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>();
    let logits: Vec<f64> = weight.chunks(h.len()).map(logit).collect();
    let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|x| (x - greatest).exp()).sum();
    logits.iter().map(|x| x - greatest - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn gradient() {
        let (hidden, weight, weights) = (wide(&noise(1, 6)), wide(&noise(2, 15)), [0.5, -2.0]);
        let (targets, scale) = ([4, 1], 0.7);
        let (nll, dhidden, dweight) =
            forward_backward(&hidden, &weight, 5, 3, scale, &targets, &weights);
        assert_eq!(nll, forward(&hidden, &weight, 3, scale, &targets));
        assert_gradient("dhidden", &hidden, &dhidden, |h| {
            dot(&forward(h, &weight, 3, scale, &targets), &weights)
        });
        assert_gradient("dweight", &weight, &dweight, |w| {
            dot(&forward(&hidden, w, 3, scale, &targets), &weights)
        });
    }
}
