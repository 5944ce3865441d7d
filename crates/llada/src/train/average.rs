//! The running average of what is trained: steadier than the weights of any one step, and what is
//! measured and used of a run that keeps one.

use std::{collections::BTreeMap, path::Path};

use llada_kernels::{Cpu, DType, WeightView, average};

use super::{optimizer::Parameter, trainable::Trainable};
use crate::{
    Result,
    checkpoint::safetensors::{self, Source},
    model::{Arena, Model},
};

/// What training goes on from, in a checkpoint whose weights are their average.
pub(super) const TRAINED: &str = "trained.safetensors";

/// An exponential moving average of the numbers that a run trains.
#[derive(Debug)]
pub(super) struct Average {
    decay: f64,
    values: Arena,
}

impl Average {
    /// Begins with `values`.
    pub(super) fn new(decay: f64, values: Arena) -> Self {
        Self { decay, values }
    }

    /// Follows update number `update`, from 1, which led to `values`. The first updates count more, so
    /// that the weights at the start are soon forgotten.
    pub(super) fn follow(&mut self, cpu: &Cpu, update: u64, values: &Arena) -> Result<()> {
        let rate = rate(self.decay, update) as f32;
        Ok(average::step(cpu, rate, values.values(), self.values.values_mut())?)
    }

    /// Gives the model the average in the place of what is trained, or takes it back.
    pub(super) fn exchange(
        &mut self,
        cpu: &Cpu,
        model: &mut Model,
        trainable: &mut Trainable,
    ) -> Result<()> {
        trainable.change(cpu, model, |values| std::mem::swap(values, &mut self.values))
    }

    /// Writes what is trained while the model has the average.
    pub(super) fn save(&self, parameters: &[Parameter], path: &Path) -> Result<()> {
        let sources: Vec<_> = parameters
            .iter()
            .zip(&self.values)
            .map(|(parameter, values)| Source {
                name: &parameter.name,
                shape: parameter.shape.clone(),
                parts: vec![WeightView::F32(values)],
                dtype: DType::F32,
            })
            .collect();
        safetensors::write(path, &sources, &BTreeMap::new())
    }

    /// Reads what [`Average::save`] wrote, in the place of the average that the model has then.
    pub(super) fn load(&mut self, parameters: &[Parameter], path: &Path) -> Result<()> {
        let file = safetensors::File::open(path)?;
        for (i, parameter) in parameters.iter().enumerate() {
            file.tensor(&parameter.name, &parameter.shape)?.view().widen(&mut self.values[i]);
        }
        Ok(())
    }
}

fn rate(decay: f64, update: u64) -> f64 {
    (1.0 - decay).max(9.0 / (9.0 + update as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_weights_are_soon_forgotten() {
        let left = |decay: f64, updates: u64| {
            (1..=updates).map(|update| 1.0 - rate(decay, update)).product::<f64>()
        };
        assert_eq!(rate(0.999, 1), 0.9);
        assert!(left(0.999, 100) < 1e-6);
        assert!((rate(0.999, 9000) - 0.001).abs() < 1e-6);
        assert_eq!(rate(0.5, 9), 0.5);
    }
}
