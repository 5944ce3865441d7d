//! One step of AdamW, in the order and rounding of `torch.optim.AdamW`.
//!
//! Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101, algorithm 2.

use crate::{Cpu, KernelError, Result, error::check, isa::vectorised};

/// Elements of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// The constants of the optimiser. They are `f64` because PyTorch forms `1 - beta` and the bias
/// corrections in double precision before it rounds them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of the gradient.
    pub beta1: f64,
    /// Decay of the mean of its square.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Weight decay, decoupled: times the learning rate.
    pub weight_decay: f64,
}

/// One step of the optimiser, the same for all parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Its number, counted from 1.
    pub number: u64,
    /// The learning rate.
    pub lr: f64,
    /// Multiplies the gradient first (clipping; 1 for none).
    pub grad_scale: f32,
}

/// A parameter, its gradient and the optimiser's state, all of one length.
#[derive(Debug)]
pub struct Parameter<'a, T = f32> {
    /// The values: updated.
    pub value: &'a mut [T],
    /// The gradient.
    pub grad: &'a [T],
    /// The mean of the gradient: updated.
    pub mean: &'a mut [T],
    /// The mean of its square: updated.
    pub square: &'a mut [T],
}

/// The factors of one step, as every element uses them.
#[derive(Clone, Copy)]
struct Factors {
    grad_scale: f32,
    keep: f32,
    mean_rate: f32,
    beta2: f32,
    square_rate: f32,
    root_correction: f32,
    eps: f32,
    step_size: f32,
}

impl AdamW {
    /// Updates a parameter.
    ///
    /// # Errors
    /// [`Length`](KernelError::Length) when the lengths differ, and
    /// [`Argument`](KernelError::Argument) when the number of the step is 0.
    pub fn step(&self, cpu: &Cpu, step: Step, parameter: Parameter<'_>) -> Result<()> {
        const OP: &str = "adamw::step";
        let Parameter { value, grad, mean, square } = parameter;
        check(OP, "value", value.len(), &[grad.len()])?;
        check(OP, "mean", mean.len(), &[grad.len()])?;
        check(OP, "square", square.len(), &[grad.len()])?;
        if step.number == 0 {
            let what = "the number of the step is 0, but steps are counted from 1".into();
            return Err(KernelError::Argument { op: OP, what });
        }
        let factors = self.factors(step);
        let states = mean.chunks_mut(CHUNK).zip(square.chunks_mut(CHUNK));
        let mut jobs: Vec<_> = value.chunks_mut(CHUNK).zip(states).collect();
        cpu.chunks(&mut jobs, 1, |i, jobs| {
            for (value, (mean, square)) in jobs {
                let grad = &grad[i * CHUNK..][..value.len()];
                step_chunk(cpu.isa(), factors, value, grad, mean, square);
            }
        });
        Ok(())
    }

    fn factors(&self, Step { number, lr, grad_scale }: Step) -> Factors {
        let correction1 = 1.0 - self.beta1.powf(number as f64);
        let correction2 = 1.0 - self.beta2.powf(number as f64);
        Factors {
            grad_scale,
            keep: (1.0 - lr * self.weight_decay) as f32,
            mean_rate: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            square_rate: (1.0 - self.beta2) as f32,
            root_correction: correction2.sqrt() as f32,
            eps: self.eps as f32,
            step_size: (lr / correction1) as f32,
        }
    }
}

vectorised! {
    fn step_chunk(f: Factors, param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32]) {
        for (((p, g), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
            let g = g * f.grad_scale;
            *m += f.mean_rate * (g - *m);
            *v = *v * f.beta2 + f.square_rate * g * g;
            let denominator = v.sqrt() / f.root_correction + f.eps;
            *p = *p * f.keep - f.step_size * (*m / denominator);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    const OPTIMISER: AdamW = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };

    fn step(number: u64) -> Step {
        Step { number, lr: 1e-3, grad_scale: 0.5 }
    }

    #[test]
    fn agrees_with_the_reference() {
        for n in [0, 1, 37, CHUNK + 9] {
            let start = noise(1, n);
            let grads: Vec<Vec<f32>> = (0..5).map(|t| noise(10 + t, n)).collect();
            let found = on_every_cpu(|cpu| {
                let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
                for (t, grad) in (1..).zip(&grads) {
                    let parameter = Parameter { value: &mut p, grad, mean: &mut m, square: &mut v };
                    OPTIMISER.step(cpu, step(t), parameter).unwrap();
                }
                [p, m, v].concat()
            });
            let (mut p, mut m, mut v) = (wide(&start), vec![0.0; n], vec![0.0; n]);
            for (t, grad) in (1..).zip(&grads) {
                let grad = wide(grad);
                let parameter =
                    Parameter { value: &mut p, grad: &grad, mean: &mut m, square: &mut v };
                reference::adamw::step(&OPTIMISER, step(t), parameter);
            }
            // Each of the five steps rounds a few times, by 6e-8 at most.
            assert_close("param", &found[..n], &p, 4e-7);
            assert_close("m", &found[n..2 * n], &m, 4e-7);
            assert_close("v", &found[2 * n..], &v, 4e-7);
        }
    }

    #[test]
    fn nan_touches_its_element_only() {
        let cpu = Cpu::new(1).unwrap();
        let (mut p, mut m, mut v) = ([1.0; 3], [0.0; 3], [0.0; 3]);
        let grad = [1.0, f32::NAN, -1.0];
        let parameter = Parameter { value: &mut p, grad: &grad, mean: &mut m, square: &mut v };
        OPTIMISER.step(&cpu, step(1), parameter).unwrap();
        assert_eq!(p.map(f32::is_nan), [false, true, false]);
    }

    #[test]
    fn refuses_step_zero_and_other_lengths() {
        let cpu = Cpu::new(1).unwrap();
        let run = |t, p: usize, m: usize, v: usize| {
            let (mut p, mut m, mut v) = (vec![0.0; p], vec![0.0; m], vec![0.0; v]);
            let grad = &[1.0, 2.0];
            let parameter = Parameter { value: &mut p, grad, mean: &mut m, square: &mut v };
            OPTIMISER.step(&cpu, step(t), parameter)
        };
        assert!(run(1, 2, 2, 2).is_ok());
        assert!(run(0, 2, 2, 2).is_err());
        assert!(run(1, 3, 2, 2).is_err());
        assert!(run(1, 2, 1, 2).is_err());
        assert!(run(1, 2, 2, 1).is_err());
    }
}
