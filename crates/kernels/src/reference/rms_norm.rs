//! `x / sqrt(mean(x^2) + eps) * weight` as written.

/// `x`, `[rows, d]`, normalised over each row and multiplied by `weight`, `[d]`.
pub fn forward(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks(weight.len()) {
        let rstd = rstd(row, eps);
        out.extend(row.iter().zip(weight).map(|(x, w)| x * rstd * w));
    }
    out
}

/// The gradients `(dx, dweight)`.
pub fn backward(x: &[f64], weight: &[f64], eps: f64, dout: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let d = weight.len();
    let (mut dx, mut dweight) = (Vec::with_capacity(x.len()), vec![0.0; d]);
    for (x, dout) in x.chunks(d).zip(dout.chunks(d)) {
        let rstd = rstd(x, eps);
        let along: f64 = (0..d).map(|i| dout[i] * weight[i] * x[i]).sum();
        for i in 0..d {
            dx.push(rstd * dout[i] * weight[i] - rstd.powi(3) / d as f64 * along * x[i]);
            dweight[i] += dout[i] * x[i] * rstd;
        }
    }
    (dx, dweight)
}

fn rstd(row: &[f64], eps: f64) -> f64 {
    let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
    1.0 / (mean + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn gradient() {
        let (x, weight, dout) = (wide(&noise(1, 15)), wide(&noise(2, 5)), wide(&noise(3, 15)));
        let (dx, dweight) = backward(&x, &weight, 0.1, &dout);
        assert_gradient("dx", &x, &dx, |x| dot(&forward(x, &weight, 0.1), &dout));
        assert_gradient("dweight", &weight, &dweight, |w| dot(&forward(&x, w, 0.1), &dout));
    }
}
