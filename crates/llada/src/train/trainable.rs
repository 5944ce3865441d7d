//! What a run trains: all weights of the model, or adapters of some of them.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use llada_kernels::{Cpu, DType, WeightView};

use super::{Lora, Recipe, TrainError, optimizer::Parameter};
use crate::{
    Result,
    checkpoint::{self, Checkpoint},
    model::{Adapter, Gradients, Layout, LowRank, Model, Tensor},
};

/// What the optimiser moves.
#[derive(Debug)]
pub(super) enum Trainable {
    /// All weights.
    Weights,
    /// Adapters only; the weights under them are frozen.
    Adapter {
        adapter: Adapter,
        /// The frozen weights, of which the model holds the sum with the adapters.
        base: Vec<Tensor>,
        /// The folder of the frozen weights.
        path: PathBuf,
    },
}

impl Trainable {
    /// All weights of `model`, which become changeable.
    pub(super) fn weights(model: &mut Model) -> Self {
        for tensor in &mut model.tensors {
            *tensor = Tensor::Owned(tensor.to_f32());
        }
        Self::Weights
    }

    /// Adapters of `model` as the recipe wants them: fresh, or those of the checkpoint `found`.
    pub(super) fn adapter(
        recipe: &Recipe,
        cpu: &Cpu,
        model: &mut Model,
        base: &Path,
        found: Option<&Path>,
    ) -> Result<Self> {
        let Lora { rank, alpha, targets } = &recipe.lora;
        let layout = Layout::new(&model.config);
        let fresh = Adapter::init(&layout, *rank, *alpha, targets.as_slice(), recipe.train.seed)?;
        let adapter = match found {
            None => fresh,
            Some(dir) => {
                let adapter = Checkpoint::open(dir)?.adapter(&layout)?;
                check_same(&fresh, &adapter, &layout)?;
                adapter
            }
        };
        let path = base.canonicalize().unwrap_or_else(|_| base.to_path_buf());
        let trainable = Self::Adapter { adapter, base: model.tensors.clone(), path };
        trainable.refresh(cpu, model)?;
        Ok(trainable)
    }

    /// Names and shapes of what is trained.
    pub(super) fn parameters(&self, model: &Model) -> Vec<Parameter> {
        let layout = Layout::new(&model.config);
        let specs = layout.specs();
        match self {
            Self::Weights => specs
                .iter()
                .map(|spec| Parameter { name: spec.own_name(), shape: spec.shape.clone() })
                .collect(),
            Self::Adapter { adapter, .. } => {
                let both = adapter.matrices.iter().flat_map(|matrix| {
                    let spec = &specs[matrix.tensor];
                    let rank = matrix.rank;
                    let shapes = [vec![rank, spec.shape[1]], vec![spec.shape[0], rank]];
                    let names = ["lora_A", "lora_B"].map(|f| format!("{}.{f}", spec.name));
                    names.into_iter().zip(shapes).map(|(name, shape)| Parameter { name, shape })
                });
                both.collect()
            }
        }
    }

    /// Their gradients, from those of all weights.
    pub(super) fn gradients<'a>(
        &self,
        cpu: &Cpu,
        model: &Model,
        full: &'a Gradients,
    ) -> Result<Cow<'a, [Vec<f32>]>> {
        Ok(match self {
            Self::Weights => Cow::Borrowed(&full.0),
            Self::Adapter { adapter, .. } => {
                Cow::Owned(adapter.gradients(cpu, &Layout::new(&model.config), full)?)
            }
        })
    }

    /// Their numbers.
    pub(super) fn values<'a>(&'a mut self, model: &'a mut Model) -> Vec<&'a mut [f32]> {
        match self {
            Self::Weights => {
                let owned = model.tensors.iter_mut().filter_map(|tensor| match tensor {
                    Tensor::Owned(values) => Some(values.as_mut_slice()),
                    Tensor::Mapped { .. } => None,
                });
                owned.collect()
            }
            Self::Adapter { adapter, .. } => {
                let both = adapter.matrices.iter_mut().flat_map(|m| [&mut m.a[..], &mut m.b[..]]);
                both.collect()
            }
        }
    }

    /// Brings the model up to date after a change of the numbers.
    pub(super) fn refresh(&self, cpu: &Cpu, model: &mut Model) -> Result<()> {
        match self {
            Self::Weights => Ok(()),
            Self::Adapter { adapter, base, .. } => adapter.merge(cpu, base, model),
        }
    }

    /// Writes what is trained to `dir`, as a folder that can be loaded.
    pub(super) fn save(&self, model: &Model, dir: &Path) -> Result<()> {
        match self {
            Self::Weights => checkpoint::save(model, dir, DType::F32),
            Self::Adapter { adapter, path, .. } => {
                checkpoint::save_adapter(adapter, &Layout::new(&model.config), path, dir)
            }
        }
    }

    /// CRC-32C of the frozen weights.
    pub(super) fn base_crc32c(&self) -> Option<u32> {
        let Self::Adapter { base, .. } = self else { return None };
        let append = |crc, tensor: &Tensor| match tensor.view() {
            WeightView::F32(w) => crc32c::crc32c_append(crc, bytemuck::cast_slice(w)),
            WeightView::Bf16(w) => crc32c::crc32c_append(crc, bytemuck::cast_slice(w)),
            WeightView::F16(w) => crc32c::crc32c_append(crc, bytemuck::cast_slice(w)),
            WeightView::Blocks { bytes, .. } => crc32c::crc32c_append(crc, bytes),
        };
        Some(base.iter().fold(0, append))
    }

    /// Numbers that are trained.
    pub(super) fn count(&self, model: &Model) -> usize {
        self.parameters(model).iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }
}

/// Refuses to go on with other adapters than the run was started with.
fn check_same(asked: &Adapter, started: &Adapter, layout: &Layout) -> Result<()> {
    let keys = |a: &Adapter| {
        let all = |of: fn(&LowRank) -> String| {
            let mut found: Vec<String> = a.matrices.iter().map(of).collect();
            found.dedup();
            found.join(",")
        };
        [
            ("lora.rank", all(|m| m.rank.to_string())),
            ("lora.alpha", all(|m| m.alpha.to_string())),
            ("lora.targets", a.targets(layout).join(",")),
        ]
    };
    for ((key, found), (_, expected)) in keys(asked).into_iter().zip(keys(started)) {
        if found != expected {
            return Err(TrainError::OtherModel { key, found, expected }.into());
        }
    }
    Ok(())
}
