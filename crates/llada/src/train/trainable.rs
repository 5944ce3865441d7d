//! What a run trains: all weights of the model, or adapters of some of them.

use std::path::{Path, PathBuf};

use llada_kernels::{Cpu, DType, WeightView};

use super::{Lora, Recipe, TrainError, optimizer::Parameter};
use crate::{
    Result,
    checkpoint::{self, Checkpoint},
    model::{Adapter, Arena, Gradients, Layout, LowRank, Model, Tensors},
};

/// What the optimiser moves.
#[derive(Debug)]
pub(super) enum Trainable {
    /// All weights.
    Weights,
    /// Adapters only; the weights under them are frozen.
    Adapter(Box<Adapted>),
}

/// Adapters, and what they are trained with.
#[derive(Debug)]
pub(super) struct Adapted {
    adapter: Adapter,
    /// The gradients of their factors.
    gradients: Arena,
    /// The frozen weights, of which the model holds the sum with the adapters.
    base: Tensors,
    /// The folder of the frozen weights.
    path: PathBuf,
}

impl Trainable {
    /// All weights of `model`, which become changeable.
    pub(super) fn weights(model: &mut Model) -> Self {
        model.tensors.flatten();
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
        let (base, gradients) = (model.tensors.clone(), Arena::like(&adapter.factors));
        adapter.merge(cpu, &base, model)?;
        Ok(Self::Adapter(Box::new(Adapted { adapter, gradients, base, path })))
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
            Self::Adapter(adapted) => {
                let both = adapted.adapter.matrices.iter().flat_map(|matrix| {
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
        &'a mut self,
        cpu: &Cpu,
        model: &Model,
        full: &'a Gradients,
    ) -> Result<&'a Arena> {
        match self {
            Self::Weights => Ok(&full.0),
            Self::Adapter(adapted) => {
                let Adapted { adapter, gradients, .. } = &mut **adapted;
                adapter.gradients(cpu, &Layout::new(&model.config), full, gradients)?;
                Ok(gradients)
            }
        }
    }

    /// Their gradients, as they were last given, to be summed over ranks.
    pub(super) fn gradients_mut<'a>(&'a mut self, full: &'a mut Gradients) -> &'a mut Arena {
        match self {
            Self::Weights => &mut full.0,
            Self::Adapter(adapted) => &mut adapted.gradients,
        }
    }

    /// Has `change` change their numbers by their gradients, as they were last given, and brings the
    /// model up to date.
    pub(super) fn update(
        &mut self,
        cpu: &Cpu,
        model: &mut Model,
        full: &Gradients,
        change: impl FnOnce(&mut Arena, &Arena) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Weights => change(model.tensors.flatten(), &full.0),
            Self::Adapter(adapted) => {
                let Adapted { adapter, gradients, base, .. } = &mut **adapted;
                change(&mut adapter.factors, gradients)?;
                adapter.merge(cpu, base, model)
            }
        }
    }

    /// Changes their numbers, and brings the model up to date.
    pub(super) fn change(
        &mut self,
        cpu: &Cpu,
        model: &mut Model,
        change: impl FnOnce(&mut Arena),
    ) -> Result<()> {
        match self {
            Self::Weights => change(model.tensors.flatten()),
            Self::Adapter(adapted) => {
                let Adapted { adapter, base, .. } = &mut **adapted;
                change(&mut adapter.factors);
                adapter.merge(cpu, base, model)?;
            }
        }
        Ok(())
    }

    /// Their numbers.
    pub(super) fn values<'a>(&'a self, model: &'a mut Model) -> &'a Arena {
        match self {
            Self::Weights => model.tensors.flatten(),
            Self::Adapter(adapted) => &adapted.adapter.factors,
        }
    }

    /// Writes what is trained to `dir`, as a folder that can be loaded.
    pub(super) fn save(&self, model: &Model, dir: &Path) -> Result<()> {
        match self {
            Self::Weights => checkpoint::save(model, dir, DType::F32),
            Self::Adapter(adapted) => {
                let Adapted { adapter, path, .. } = &**adapted;
                checkpoint::save_adapter(adapter, &Layout::new(&model.config), path, dir)
            }
        }
    }

    /// CRC-32C of the frozen weights.
    pub(super) fn base_crc32c(&self) -> Option<u32> {
        let Self::Adapter(adapted) = self else { return None };
        Some(crc32c(&adapted.base))
    }

    /// Numbers that are trained.
    pub(super) fn count(&self, model: &Model) -> usize {
        self.parameters(model).iter().map(|p| p.shape.iter().product::<usize>()).sum()
    }
}

/// CRC-32C of weights.
pub(super) fn crc32c(tensors: &Tensors) -> u32 {
    let append = |crc, weights| match weights {
        WeightView::F32(w) => crc32c::crc32c_append(crc, bytemuck::cast_slice(w)),
        WeightView::Bf16(w) => crc32c::crc32c_append(crc, bytemuck::cast_slice(w)),
        WeightView::F16(w) => crc32c::crc32c_append(crc, bytemuck::cast_slice(w)),
        WeightView::Blocks { bytes, .. } => crc32c::crc32c_append(crc, bytes),
    };
    tensors.iter().fold(0, append)
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
