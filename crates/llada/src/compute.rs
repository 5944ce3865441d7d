//! What matrix products multiply: `f32`, or `bf16` where that is faster.

use llada_kernels::{Compute as Kernels, Cpu, DType, peak};

use crate::model::{MaskPredictor, Model};

/// What matrix products multiply. Weights, sums, norms, softmax, losses and the optimiser are `f32` whatever
/// it is, and quantised weights are multiplied as integers unless it is `bf16` on a matrix unit (AMX).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// `bf16` if this processor multiplies it faster, which is measured, and `f32` if not.
    #[default]
    Auto,
    /// `f32`.
    F32,
    /// Both factors rounded to `bf16`. A processor without such products takes long.
    Bf16,
}

impl Compute {
    /// All, by their names.
    pub const ALL: [(&str, Self); 3] =
        [("auto", Self::Auto), ("f32", Self::F32), ("bf16", Self::Bf16)];

    /// One of the other two; `Auto` measures, once a process, for about 40 ms.
    pub fn settled(self, cpu: &Cpu) -> Self {
        match self {
            Self::Auto if peak::is_bf16_faster(cpu) => Self::Bf16,
            Self::Auto => Self::F32,
            chosen => chosen,
        }
    }

    /// The same for an inference of `model`.
    fn for_model(self, model: &Model, cpu: &Cpu) -> Self {
        let is_stored_so = || model.tensors.iter().any(|tensor| tensor.dtype() == DType::Bf16);
        match self {
            Self::Auto if !is_stored_so() => Self::F32,
            choice => choice.settled(cpu),
        }
    }

    /// `cpu`, computing so; `Auto` as [`settled`](Self::settled).
    #[must_use]
    pub fn on(self, cpu: Cpu) -> Cpu {
        let kernels = match self.settled(&cpu) {
            Self::Bf16 => Kernels::Bf16,
            _ => Kernels::F32,
        };
        cpu.with_compute(kernels)
    }

    /// Has `predictor` compute so. `Auto` keeps the precision that the weights of its model are stored in, and so
    /// takes `bf16` for one of `bf16` weights alone.
    pub fn set(self, predictor: &mut MaskPredictor) {
        let (model, cpu) = (predictor.model(), predictor.cpu().clone());
        let cpu = self.for_model(model, &cpu).on(cpu);
        predictor.set_cpu(cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_computed_with() {
        let cpu = Cpu::new(1).unwrap();
        assert_eq!(Compute::F32.on(cpu.clone()).compute(), Kernels::F32);
        assert_eq!(Compute::Bf16.on(cpu.clone()).compute(), Kernels::Bf16);
        assert_ne!(Compute::Auto.settled(&cpu), Compute::Auto);
        if !cpu.has_bf16() {
            assert_eq!(Compute::Auto.settled(&cpu), Compute::F32);
        }
        for (name, compute) in Compute::ALL {
            assert_eq!(serde_json::to_value(compute).unwrap(), name);
        }
    }
}
