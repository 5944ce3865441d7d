//! `silu(gate) * up` as written.

/// `silu(gate) * up`.
pub fn forward(gate: &[f64], up: &[f64]) -> Vec<f64> {
    gate.iter().zip(up).map(|(g, u)| g * sigmoid(*g) * u).collect()
}

/// The gradients `(dgate, dup)`.
pub fn backward(gate: &[f64], up: &[f64], dout: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let silu_slope = |g: f64| sigmoid(g) + g * sigmoid(g) * (1.0 - sigmoid(g));
    let dgate = gate.iter().zip(up).zip(dout).map(|((g, u), d)| d * u * silu_slope(*g)).collect();
    let dup = gate.iter().zip(dout).map(|(g, d)| d * g * sigmoid(*g)).collect();
    (dgate, dup)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn gradient() {
        let gate: Vec<f64> = wide(&noise(1, 9)).iter().map(|g| g * 4.0).collect();
        let (up, dout) = (wide(&noise(2, 9)), wide(&noise(3, 9)));
        let (dgate, dup) = backward(&gate, &up, &dout);
        assert_gradient("dgate", &gate, &dgate, |g| dot(&forward(g, &up), &dout));
        assert_gradient("dup", &up, &dup, |u| dot(&forward(&gate, u), &dout));
    }
}
