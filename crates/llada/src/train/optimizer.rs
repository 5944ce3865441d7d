//! AdamW over the parameters of a run, and its state on disk.

use std::{collections::BTreeMap, path::Path};

use llada_kernels::{Cpu, DType, WeightView, adamw::AdamW};

use crate::{
    Result,
    checkpoint::safetensors::{self, Source},
    train::Optim,
};

/// Name and shape of what the optimiser moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// The running means of the gradient and of its square, for each parameter.
#[derive(Debug)]
pub(super) struct Optimizer {
    adamw: AdamW,
    parameters: Vec<Parameter>,
    mean: Vec<Vec<f32>>,
    square: Vec<Vec<f32>>,
}

impl Optimizer {
    /// Zero means of the parameters' shapes.
    pub(super) fn new(optim: &Optim, parameters: Vec<Parameter>) -> Self {
        let zeros = || parameters.iter().map(|p| vec![0.0; p.shape.iter().product()]).collect();
        let (mean, square) = (zeros(), zeros());
        let Optim { beta1, beta2, eps, weight_decay, .. } = *optim;
        let adamw = AdamW { beta1, beta2, eps, weight_decay };
        Self { adamw, parameters, mean, square }
    }

    /// Update number `update`, from 1, of the parameters' `values` by `gradients` times `scale`.
    pub(super) fn update(
        &mut self,
        cpu: &Cpu,
        values: Vec<&mut [f32]>,
        gradients: &[Vec<f32>],
        update: u64,
        lr: f64,
        scale: f32,
    ) -> Result<()> {
        let states = self.mean.iter_mut().zip(&mut self.square);
        for ((values, gradient), (mean, square)) in values.into_iter().zip(gradients).zip(states) {
            self.adamw.step(cpu, update, lr, scale, values, gradient, mean, square)?;
        }
        Ok(())
    }

    /// Writes the means as `mean.NAME` and `square.NAME`.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let named: Vec<_> = [("mean", &self.mean), ("square", &self.square)]
            .into_iter()
            .flat_map(|(kind, values)| {
                let parameters = self.parameters.iter().zip(values);
                parameters.map(move |(p, values)| (format!("{kind}.{}", p.name), &p.shape, values))
            })
            .collect();
        let sources: Vec<_> = named
            .iter()
            .map(|(name, shape, values)| Source {
                name,
                shape: shape.to_vec(),
                parts: vec![WeightView::F32(values)],
                dtype: DType::F32,
            })
            .collect();
        safetensors::write(path, &sources, &BTreeMap::new())
    }

    /// Reads what [`Optimizer::save`] wrote.
    pub(super) fn load(&mut self, path: &Path) -> Result<()> {
        let file = safetensors::File::open(path)?;
        for (kind, values) in [("mean", &mut self.mean), ("square", &mut self.square)] {
            for (parameter, values) in self.parameters.iter().zip(values) {
                let name = format!("{kind}.{}", parameter.name);
                *values = file.tensor(&name, &parameter.shape)?.to_f32();
            }
        }
        Ok(())
    }
}
