//! The linear layer in `f64`, by definition.

/// `y[m, n] = x[m, k] w[n, k]^T + bias[n]`.
pub fn forward(
    x: &[f32],
    w: &[f32],
    bias: Option<&[f32]>,
    m: usize,
    n: usize,
    k: usize,
) -> Vec<f64> {
    let dot = |i, j| (0..k).map(|p| f64::from(x[i * k + p]) * f64::from(w[j * k + p])).sum::<f64>();
    let bias = |j| bias.map_or(0.0, |b| f64::from(b[j]));
    (0..m * n).map(|at| dot(at / n, at % n) + bias(at % n)).collect()
}

/// `dx[m, k] = dy[m, n] w[n, k]`.
pub fn backward_input(dy: &[f32], w: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    let dot =
        |i, p| (0..n).map(|j| f64::from(dy[i * n + j]) * f64::from(w[j * k + p])).sum::<f64>();
    (0..m * k).map(|at| dot(at / k, at % k)).collect()
}

/// `dw[n, k] = dy[m, n]^T x[m, k]`.
pub fn backward_weight(dy: &[f32], x: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    let dot =
        |j, p| (0..m).map(|i| f64::from(dy[i * n + j]) * f64::from(x[i * k + p])).sum::<f64>();
    (0..n * k).map(|at| dot(at / k, at % k)).collect()
}

/// `db[n]`: the sum of the rows of `dy[m, n]`.
pub fn backward_bias(dy: &[f32], m: usize, n: usize) -> Vec<f64> {
    (0..n).map(|j| (0..m).map(|i| f64::from(dy[i * n + j])).sum()).collect()
}
