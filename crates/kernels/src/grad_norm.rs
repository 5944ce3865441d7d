//! The global norm of the gradients, for clipping.

use crate::{Cpu, Result, isa::vectorised, math::sum};

/// Elements whose squares are summed by one task.
pub const CHUNK: usize = 65536;

/// The Euclidean norm of all of `grads` together, summed in `f64` in a fixed order.
///
/// A gradient that is not finite gives a norm that is not finite.
///
/// # Errors
/// None; the `Result` is that of every operation.
pub fn forward(cpu: &Cpu, grads: &[&[f32]]) -> Result<f64> {
    Ok(squares(cpu, grads).iter().sum::<f64>().sqrt())
}

/// The sums of squares of the chunks of [`CHUNK`] numbers, of each of `grads` in turn: the norm is the
/// root of their sum in this order, whoever has computed which.
pub fn squares(cpu: &Cpu, grads: &[&[f32]]) -> Vec<f64> {
    let parts: Vec<&[f32]> = grads.iter().flat_map(|grad| grad.chunks(CHUNK)).collect();
    let mut sums = vec![0.0; parts.len()];
    cpu.chunks(&mut sums, 1, |i, sum| sum[0] = sum_of_squares(cpu.isa(), parts[i]));
    sums
}

vectorised! {
    fn sum_of_squares(x: &[f32]) -> f64 {
        sum(x, |x| f64::from(x) * f64::from(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    #[test]
    fn agrees_with_the_reference() {
        let (a, b, c) = (noise(1, 2 * CHUNK + 11), noise(2, 37), noise(3, CHUNK));
        let expected = reference::grad_norm::forward(&[&wide(&a), &wide(&b), &[], &wide(&c)]);
        let norms: Vec<f64> =
            cpus().iter().map(|cpu| forward(cpu, &[&a, &b, &[], &c]).unwrap()).collect();
        assert!((norms[0] - expected).abs() < 1e-12 * expected);
        assert!(norms.iter().all(|norm| norm.to_bits() == norms[0].to_bits()));
    }

    #[test]
    fn edges() {
        let cpu = Cpu::new(1).unwrap();
        assert_eq!(forward(&cpu, &[]).unwrap(), 0.0);
        let large = forward(&cpu, &[&[3e30], &[4e30]]).unwrap();
        assert!((large / 5e30 - 1.0).abs() < 1e-7, "{large}");
        assert!(forward(&cpu, &[&[1.0], &[f32::NAN]]).unwrap().is_nan());
        assert_eq!(forward(&cpu, &[&[f32::NEG_INFINITY]]).unwrap(), f64::INFINITY);
    }
}
