//! AdamW over the parameters of a run, and its state on disk.

use std::{collections::BTreeMap, path::Path};

use llada_kernels::{
    Cpu, DType, WeightView,
    adamw::{self, AdamW},
};

use crate::{
    Result,
    checkpoint::safetensors::{self, Source},
    model::Arena,
    train::Optim,
};

/// Name and shape of what the optimiser moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// The running means of the gradient and of its square, which lie as the parameters do.
#[derive(Debug)]
pub(super) struct Optimizer {
    adamw: AdamW,
    parameters: Vec<Parameter>,
    mean: Arena,
    square: Arena,
}

impl Optimizer {
    /// Zero means of the parameters' shapes.
    pub(super) fn new(optim: &Optim, parameters: Vec<Parameter>) -> Self {
        let mean = Arena::zeros(parameters.iter().map(|p| p.shape.iter().product()));
        let square = Arena::like(&mean);
        let Optim { beta1, beta2, eps, weight_decay, .. } = *optim;
        let adamw = AdamW { beta1, beta2, eps, weight_decay };
        Self { adamw, parameters, mean, square }
    }

    /// Update number `update`, from 1, of the parameters' `values` by `gradients` times `scale`.
    pub(super) fn update(
        &mut self,
        cpu: &Cpu,
        values: &mut Arena,
        gradients: &Arena,
        update: u64,
        lr: f64,
        scale: f32,
    ) -> Result<()> {
        let parameter = adamw::Parameter {
            value: values.values_mut(),
            grad: gradients.values(),
            mean: self.mean.values_mut(),
            square: self.square.values_mut(),
        };
        let step = adamw::Step { number: update, lr, grad_scale: scale };
        Ok(self.adamw.step(cpu, step, parameter)?)
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
            for (i, parameter) in self.parameters.iter().enumerate() {
                let name = format!("{kind}.{}", parameter.name);
                file.tensor(&name, &parameter.shape)?.view().widen(&mut values[i]);
            }
        }
        Ok(())
    }
}
