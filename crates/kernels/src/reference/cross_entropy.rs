//! The output head and its soft-max cross-entropy as written, with all logits at once.

/// The output head: `logits = scale * weight * hidden`, `weight` `[vocab, d]`.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `[vocab, d]`.
    pub weight: &'a [f64],
    /// Width of a hidden row.
    pub d: usize,
    /// Factor of the logits.
    pub scale: f64,
    /// A token that takes no part in the soft-max.
    pub excluded: Option<u32>,
}

/// `-log p(target)` of each row of `hidden`, `[n, d]`.
pub fn forward(hidden: &[f64], head: &Head<'_>, targets: &[u32]) -> Vec<f64> {
    let loss = |(h, &target): (&[f64], &u32)| -head.log_softmax(h)[target as usize];
    hidden.chunks(head.d).zip(targets).map(loss).collect()
}

/// The entropy of the soft-max of each row.
pub fn entropies(hidden: &[f64], head: &Head<'_>) -> Vec<f64> {
    hidden.chunks(head.d).map(|h| entropy(&head.log_softmax(h))).collect()
}

/// The losses and, with `weights` the derivative of the total by each and `of_entropy` that by each
/// entropy, `(nll, dhidden, dweight)`.
pub fn forward_backward(
    hidden: &[f64],
    head: &Head<'_>,
    targets: &[u32],
    weights: &[f64],
    of_entropy: &[f64],
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let d = head.d;
    let (mut dhidden, mut dweight) = (vec![0.0; hidden.len()], vec![0.0; head.weight.len()]);
    for (row, h) in hidden.chunks(d).enumerate() {
        let log_p = head.log_softmax(h);
        let entropy = entropy(&log_p);
        for (token, &log_p) in log_p.iter().enumerate().filter(|(_, x)| x.is_finite()) {
            let onehot = if token == targets[row] as usize { 1.0 } else { 0.0 };
            let of_nll = (log_p.exp() - onehot) * weights[row];
            let dlogit = (of_nll - log_p.exp() * (log_p + entropy) * of_entropy[row]) * head.scale;
            for i in 0..d {
                dhidden[row * d + i] += dlogit * head.weight[token * d + i];
                dweight[token * d + i] += dlogit * h[i];
            }
        }
    }
    (forward(hidden, head, targets), dhidden, dweight)
}

fn entropy(log_p: &[f64]) -> f64 {
    -log_p.iter().filter(|x| x.is_finite()).map(|x| x.exp() * x).sum::<f64>()
}

impl Head<'_> {
    fn log_softmax(&self, h: &[f64]) -> Vec<f64> {
        let logit = |(token, w): (usize, &[f64])| match self.excluded {
            Some(excluded) if excluded as usize == token => f64::NEG_INFINITY,
            _ => self.scale * w.iter().zip(h).map(|(w, h)| w * h).sum::<f64>(),
        };
        let logits: Vec<f64> = self.weight.chunks(h.len()).enumerate().map(logit).collect();
        let greatest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - greatest).exp()).sum();
        logits.iter().map(|x| x - greatest - sum.ln()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn gradient() {
        let (hidden, weight, weights) = (wide(&noise(1, 6)), wide(&noise(2, 15)), [0.5, -2.0]);
        let (targets, scale, d) = ([4, 1], 0.7, 3);
        for (excluded, of_entropy) in [(None, [0.0; 2]), (None, [1.5, 0.3]), (Some(2), [0.0, 2.0])]
        {
            let head = Head { weight: &weight, d, scale, excluded };
            let (nll, dhidden, dweight) =
                forward_backward(&hidden, &head, &targets, &weights, &of_entropy);
            assert_eq!(nll, forward(&hidden, &head, &targets));
            let loss = |hidden: &[f64], head: &Head<'_>| {
                dot(&forward(hidden, head, &targets), &weights)
                    + dot(&entropies(hidden, head), &of_entropy)
            };
            assert_gradient("dhidden", &hidden, &dhidden, |h| loss(h, &head));
            assert_gradient("dweight", &weight, &dweight, |weight| {
                loss(&hidden, &Head { weight, ..head })
            });
        }
    }
}
