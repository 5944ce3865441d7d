//! Half rotation as written, with exact angles.

/// Rotates `x`, `[rows, heads, head_dim]`; row `i` stands at `positions[i]`.
pub fn forward(
    x: &[f64],
    heads: usize,
    head_dim: usize,
    theta: f64,
    positions: &[u32],
) -> Vec<f64> {
    rotate(x, heads, head_dim, theta, positions, 1.0)
}

/// The gradient for `dout`: the rotation by the negative angle.
pub fn backward(
    dout: &[f64],
    heads: usize,
    head_dim: usize,
    theta: f64,
    positions: &[u32],
) -> Vec<f64> {
    rotate(dout, heads, head_dim, theta, positions, -1.0)
}

fn rotate(
    x: &[f64],
    heads: usize,
    head_dim: usize,
    theta: f64,
    positions: &[u32],
    sign: f64,
) -> Vec<f64> {
    let half = head_dim / 2;
    let mut out = vec![0.0; x.len()];
    for (row, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            let start = (row * heads + head) * head_dim;
            for i in 0..half {
                let frequency = theta.powf(-2.0 * i as f64 / head_dim as f64);
                let (sin, cos) = (sign * f64::from(position) * frequency).sin_cos();
                let (a, b) = (x[start + i], x[start + half + i]);
                out[start + i] = a * cos - b * sin;
                out[start + half + i] = b * cos + a * sin;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn gradient() {
        let (x, dout, positions) = (wide(&noise(1, 24)), wide(&noise(2, 24)), [3, 0, 11]);
        let dx = backward(&dout, 2, 4, 100.0, &positions);
        assert_gradient("dx", &x, &dx, |x| dot(&forward(x, 2, 4, 100.0, &positions), &dout));
    }
}
