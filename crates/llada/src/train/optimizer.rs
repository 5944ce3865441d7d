//! AdamW over all parameters of a model, and its state on disk.

use std::{collections::BTreeMap, path::Path};

use llada_kernels::{DType, WeightView, adamw::AdamW};

use crate::{
    Result,
    checkpoint::safetensors::{self, Source},
    model::{Gradients, Layout, MaskPredictor, Model, Tensor},
    train::Optim,
};

/// The running means of the gradient and of its square, for each parameter.
#[derive(Debug)]
pub(super) struct Optimizer {
    adamw: AdamW,
    mean: Vec<Vec<f32>>,
    square: Vec<Vec<f32>>,
}

impl Optimizer {
    /// Zero means of the model's shapes.
    pub(super) fn new(optim: &Optim, model: &Model) -> Self {
        let zeros = || model.tensors.iter().map(|t| vec![0.0; t.view().len()]).collect();
        let Optim { beta1, beta2, eps, weight_decay, .. } = *optim;
        let adamw = AdamW { beta1, beta2, eps, weight_decay };
        Self { adamw, mean: zeros(), square: zeros() }
    }

    /// Update number `update`, from 1, by `gradients` times `scale`.
    pub(super) fn update(
        &mut self,
        predictor: &mut MaskPredictor,
        gradients: &Gradients,
        update: u64,
        lr: f64,
        scale: f32,
    ) -> Result<()> {
        let cpu = predictor.cpu().clone();
        let states = self.mean.iter_mut().zip(&mut self.square);
        let tensors = predictor.model_mut().tensors.iter_mut().zip(&gradients.0);
        for ((tensor, gradient), (mean, square)) in tensors.zip(states) {
            if let Tensor::Mapped { .. } = tensor {
                *tensor = Tensor::Owned(tensor.to_f32());
            }
            if let Tensor::Owned(weights) = tensor {
                self.adamw.step(&cpu, update, lr, scale, weights, gradient, mean, square)?;
            }
        }
        Ok(())
    }

    /// Writes the means as `mean.NAME` and `square.NAME`.
    pub(super) fn save(&self, model: &Model, path: &Path) -> Result<()> {
        let layout = Layout::new(&model.config);
        let named: Vec<_> = [("mean", &self.mean), ("square", &self.square)]
            .into_iter()
            .flat_map(|(kind, values)| {
                let specs = layout.specs().iter().zip(values);
                specs.map(move |(spec, values)| (format!("{kind}.{}", spec.name), spec, values))
            })
            .collect();
        let sources: Vec<_> = named
            .iter()
            .map(|(name, spec, values)| Source {
                name,
                shape: &spec.shape,
                values: WeightView::F32(values),
                dtype: DType::F32,
            })
            .collect();
        safetensors::write(path, &sources, &BTreeMap::new())
    }

    /// Reads what [`Optimizer::save`] wrote.
    pub(super) fn load(&mut self, model: &Model, path: &Path) -> Result<()> {
        let file = safetensors::File::open(path)?;
        let layout = Layout::new(&model.config);
        for (kind, values) in [("mean", &mut self.mean), ("square", &mut self.square)] {
            for (spec, values) in layout.specs().iter().zip(values) {
                let name = format!("{kind}.{}", spec.name);
                *values = file.tensor(&name, &spec.shape)?.to_f32();
            }
        }
        Ok(())
    }
}
