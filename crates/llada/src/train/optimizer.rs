//! AdamW over the parameters of a run, and its state on disk.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use llada_kernels::{
    Cpu, DType, WeightView,
    adamw::{self, AdamW},
};

use crate::{
    Result,
    checkpoint::{
        CheckpointError,
        safetensors::{self, Source},
    },
    train::Optim,
};

/// Name and shape of what the optimiser moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

/// Where the share of a file begins, among the numbers of all parameters.
const START: &str = "start";

/// The running means of the gradient and of its square, of a share of the numbers of all parameters,
/// which follow one another.
#[derive(Debug)]
pub(super) struct Optimizer {
    adamw: AdamW,
    parameters: Vec<Parameter>,
    share: Range<usize>,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl Optimizer {
    /// Zero means for a share of the parameters' numbers.
    pub(super) fn new(optim: &Optim, parameters: Vec<Parameter>, share: Range<usize>) -> Self {
        let zeros = || vec![0.0; share.len()];
        let (mean, square) = (zeros(), zeros());
        let Optim { beta1, beta2, eps, weight_decay, .. } = *optim;
        let adamw = AdamW { beta1, beta2, eps, weight_decay };
        Self { adamw, parameters, share, mean, square }
    }

    /// Update number `update`, from 1, of the `values` of the share by `gradients` times `scale`.
    pub(super) fn update(
        &mut self,
        cpu: &Cpu,
        values: &mut [f32],
        gradients: &[f32],
        update: u64,
        lr: f64,
        scale: f32,
    ) -> Result<()> {
        let parameter = adamw::Parameter {
            value: values,
            grad: gradients,
            mean: &mut self.mean,
            square: &mut self.square,
        };
        let step = adamw::Step { number: update, lr, grad_scale: scale };
        Ok(self.adamw.step(cpu, step, parameter)?)
    }

    /// The parameters, and where the numbers of each are.
    fn ranges(&self) -> impl Iterator<Item = (&Parameter, Range<usize>)> {
        let mut end = 0;
        self.parameters.iter().map(move |parameter| {
            let start = end;
            end += parameter.shape.iter().product::<usize>();
            (parameter, start..end)
        })
    }

    /// Writes the means as `mean.NAME` and `square.NAME`; a parameter that is not whole in the share is
    /// a list of its numbers.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let total = self.ranges().last().map_or(0, |(_, range)| range.end);
        let is_whole = self.share == (0..total);
        let mut named = Vec::new();
        for (kind, values) in [("mean", &self.mean), ("square", &self.square)] {
            for (parameter, range) in self.ranges() {
                let part = overlap(&range, &self.share);
                if part.is_empty() && !is_whole {
                    continue;
                }
                let shape = parameter.shape_of(&range, &part);
                let values = &values[part.start - self.share.start..][..part.len()];
                named.push((format!("{kind}.{}", parameter.name), shape, values));
            }
        }
        let sources: Vec<_> = named
            .iter()
            .map(|(name, shape, values)| Source {
                name,
                shape: shape.clone(),
                parts: vec![WeightView::F32(values)],
                dtype: DType::F32,
            })
            .collect();
        let mut metadata = BTreeMap::new();
        if !is_whole {
            metadata.insert(START.into(), self.share.start.to_string());
        }
        safetensors::write(path, &sources, &metadata)
    }

    /// Reads its share of what [`Optimizer::save`] wrote, into one file or several.
    pub(super) fn load(&mut self, paths: &[PathBuf]) -> Result<()> {
        let files: Vec<_> =
            paths.iter().map(|p| safetensors::File::open(p)).collect::<Result<_>>()?;
        let start = |file: &safetensors::File| file.metadata().get(START)?.parse().ok();
        let starts: Vec<usize> = files.iter().map(|file| start(file).unwrap_or(0)).collect();
        let (mut mean, mut square) =
            (std::mem::take(&mut self.mean), std::mem::take(&mut self.square));
        for (kind, values) in [("mean", &mut mean), ("square", &mut square)] {
            for (parameter, range) in self.ranges() {
                let wanted = overlap(&range, &self.share);
                let (name, mut found) = (format!("{kind}.{}", parameter.name), 0);
                for (file, &start) in files.iter().zip(&starts) {
                    let Some(entry) = file.entries().get(&name) else { continue };
                    let first = range.start.max(start);
                    let count = entry.shape.iter().fold(1, |n: usize, &d| n.saturating_mul(d));
                    let part = first..range.end.min(first.saturating_add(count));
                    let both = overlap(&part, &wanted);
                    let tensor = file.tensor(&name, &parameter.shape_of(&range, &part))?;
                    let numbers = tensor.view();
                    if !both.is_empty() {
                        let numbers = numbers.slice(both.start - part.start..both.end - part.start);
                        numbers.widen(&mut values[both.start - self.share.start..][..both.len()]);
                        found += both.len();
                    }
                }
                if found != wanted.len() {
                    let file = paths.last().cloned().unwrap_or_default();
                    return Err(CheckpointError::Missing { tensor: name, file }.into());
                }
            }
        }
        (self.mean, self.square) = (mean, square);
        Ok(())
    }
}

impl Parameter {
    /// The shape of a part of the parameter, whose numbers are at `range`.
    fn shape_of(&self, range: &Range<usize>, part: &Range<usize>) -> Vec<usize> {
        if part == range { self.shape.clone() } else { vec![part.len()] }
    }
}

/// What two ranges have in common, within the second.
fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    let start = a.start.clamp(b.start, b.end);
    start..a.end.clamp(start, b.end)
}
