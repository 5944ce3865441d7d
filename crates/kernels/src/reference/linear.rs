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

/// [`forward`] of rows that were rounded by [`rounded`].
pub fn forward_quantized(x: &[f32], w: &[f32], m: usize, n: usize, k: usize) -> Vec<f64> {
    let x: Vec<f64> = x.chunks(k.max(1)).flat_map(rounded).collect();
    let dot = |i, j| (0..k).map(|p| x[i * k + p] * f64::from(w[j * k + p])).sum::<f64>();
    (0..m * n).map(|at| dot(at / n, at % n)).collect()
}

/// A row of activations in bytes: every 128 have one scale, their greatest magnitude over 127, and
/// become the nearest multiple of it, even ones in the middle. All are NaN where one is not finite.
pub fn rounded(row: &[f32]) -> Vec<f64> {
    let span = |x: &[f32]| {
        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let finite = x.iter().all(|x| x.is_finite());
        let scale = if finite { f64::from(most / 127.0) } else { f64::NAN };
        let factor = if most < 1e-36 { 0.0 } else { 127.0 / most };
        x.iter().map(|x| f64::from((x * factor).round_ties_even()) * scale).collect::<Vec<_>>()
    };
    row.chunks(128).flat_map(span).collect()
}
