//! The most probable token of each row of logits, and how probable it is.

use crate::{Cpu, KernelError, Result, error::check, math::soft_max_sum};

/// Logits of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// What a row of logits predicts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Choice {
    /// The token with the greatest logit, the first of equals.
    pub token: u32,
    /// Its soft-max probability.
    pub probability: f64,
}

/// Chooses a token for each row of `logits`, `[out.len(), v]`.
///
/// A logit of negative infinity excludes its token.
///
/// # Errors
/// [`Length`](KernelError::Length) when `logits` is not of that shape, and
/// [`Argument`](KernelError::Argument), naming the first such row, when a row has a NaN or a
/// positive infinity or excludes every token.
pub fn forward(cpu: &Cpu, logits: &[f32], v: usize, out: &mut [Choice]) -> Result<()> {
    check("argmax::forward", "logits", logits.len(), out.len() * v)?;
    let rows = CHUNK.div_ceil(v.max(1));
    cpu.chunks(out, rows, |i, out| {
        for (j, out) in out.iter_mut().enumerate() {
            let row = &logits[(i * rows + j) * v..][..v];
            let (greatest, total) = soft_max_sum(cpu.isa(), row);
            let token = row.iter().position(|&x| x == greatest).unwrap_or(0) as u32;
            *out = Choice { token, probability: 1.0 / total };
        }
    });
    match out.iter().position(|choice| !choice.probability.is_normal()) {
        Some(row) => Err(no_distribution("argmax::forward", &format!("row {row}"))),
        None => Ok(()),
    }
}

/// The soft-max probability of `token` in one row of logits.
///
/// # Errors
/// [`Argument`](KernelError::Argument) when `token` is not in the row, or the row has a NaN or a
/// positive infinity or excludes every token.
pub fn probability(cpu: &Cpu, logits: &[f32], token: u32) -> Result<f64> {
    let op = "argmax::probability";
    let Some(&logit) = logits.get(token as usize) else {
        let what = format!("token {token} is not one of the {} logits", logits.len());
        return Err(KernelError::Argument { op, what });
    };
    let (greatest, total) = soft_max_sum(cpu.isa(), logits);
    if !(1.0 / total).is_normal() {
        return Err(no_distribution(op, "the row"));
    }
    Ok((f64::from(logit) - f64::from(greatest)).exp() / total)
}

fn no_distribution(op: &'static str, row: &str) -> KernelError {
    let what = format!(
        "the logits of {row} have no soft-max: one is NaN or infinite, or none is above -inf"
    );
    KernelError::Argument { op, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    const INF: f32 = f32::INFINITY;

    #[test]
    fn agrees_with_the_reference() {
        for (rows, v) in [(0, 3), (1, 1), (9, 37), (300, 130), (3, CHUNK + 7)] {
            let logits: Vec<f32> = noise(1, rows * v).iter().map(|x| x * 9.0).collect();
            let expected = reference::argmax::forward(&wide(&logits), v);
            let results: Vec<Vec<Choice>> = cpus()
                .iter()
                .map(|cpu| {
                    let mut out = vec![Choice::default(); rows];
                    forward(cpu, &logits, v, &mut out).unwrap();
                    out
                })
                .collect();
            assert!(results.iter().all(|result| *result == results[0]));
            for (row, (found, expected)) in results[0].iter().zip(expected).enumerate() {
                assert_eq!(found.token, expected.token);
                let error = (found.probability / expected.probability - 1.0).abs();
                assert!(error < 3e-7, "row {row} of {v}: {error:e}");
                let cpu = Cpu::new(1).unwrap();
                let token = (found.token + 1) % v as u32;
                let other = probability(&cpu, &logits[row * v..][..v], token).unwrap();
                let expected =
                    reference::argmax::probability(&wide(&logits[row * v..][..v]), token);
                assert!((other / expected - 1.0).abs() < 3e-7);
            }
        }
    }

    #[test]
    fn ties_exclusions_and_certainty() {
        let cpu = Cpu::new(1).unwrap();
        let choose = |logits: &[f32]| {
            let mut out = [Choice::default()];
            forward(&cpu, logits, logits.len(), &mut out).unwrap();
            (out[0].token, out[0].probability)
        };
        assert_eq!(choose(&[1.0, 3.0, 3.0, 2.0]).0, 1);
        assert_eq!(choose(&[0.0, -0.0]), (0, 0.5));
        assert_eq!(choose(&[-INF, -5.0, -INF]), (1, 1.0));
        assert_eq!(choose(&[200.0, -200.0]), (0, 1.0));
        assert_eq!(choose(&[f32::MAX, f32::MIN]), (0, 1.0));
        assert_eq!(choose(&[f32::MIN, f32::MIN]), (0, 0.5));
        assert_eq!(probability(&cpu, &[-INF, 0.0], 0).unwrap(), 0.0);
    }

    #[test]
    fn refuses_rows_without_a_distribution() {
        let cpu = Cpu::new(1).unwrap();
        for bad in [[0.0, f32::NAN], [f32::NAN, f32::NAN], [-INF, -INF], [INF, 0.0]] {
            let logits = [&[1.0, 2.0], &bad[..], &bad[..]].concat();
            let error = forward(&cpu, &logits, 2, &mut [Choice::default(); 3]).unwrap_err();
            assert!(error.to_string().contains("row 1"), "{error}");
            assert!(probability(&cpu, &bad, 0).is_err());
        }
        assert!(forward(&cpu, &[], 0, &mut [Choice::default(); 2]).is_err());
        assert!(forward(&cpu, &[1.0; 3], 2, &mut [Choice::default(); 2]).is_err());
        assert!(probability(&cpu, &[1.0, 2.0], 2).is_err());
    }
}
