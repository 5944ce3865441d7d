//! AdamW as written in the documentation of `torch.optim.AdamW`.

use crate::adamw::{AdamW, Parameter, Step};

/// One step: updates the values, the mean and the mean square of a parameter.
pub fn step(optimiser: &AdamW, step: Step, parameter: Parameter<'_, f64>) {
    let AdamW { beta1, beta2, eps, weight_decay } = *optimiser;
    let Step { number: t, lr, grad_scale } = step;
    let Parameter { value: param, grad, mean: m, square: v } = parameter;
    for i in 0..param.len() {
        let g = grad[i] * f64::from(grad_scale);
        param[i] -= lr * weight_decay * param[i];
        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
        let m_hat = m[i] / (1.0 - beta1.powf(t as f64));
        let v_hat = v[i] / (1.0 - beta2.powf(t as f64));
        param[i] -= lr * m_hat / (v_hat.sqrt() + eps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_moves_by_the_learning_rate() {
        let optimiser = AdamW { beta1: 0.9, beta2: 0.95, eps: 0.0, weight_decay: 0.5 };
        let (mut p, mut m, mut v) = ([2.0, 2.0], [0.0; 2], [0.0; 2]);
        let first = Step { number: 1, lr: 0.1, grad_scale: 7.0 };
        let grad = &[3.0, -1e-3];
        let parameter = Parameter { value: &mut p, grad, mean: &mut m, square: &mut v };
        step(&optimiser, first, parameter);
        // 2 * (1 - 0.1 * 0.5) -+ 0.1
        assert!((p[0] - 1.8).abs() < 1e-12 && (p[1] - 2.0).abs() < 1e-12);
    }
}
