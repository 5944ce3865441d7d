//! Low-rank adapters (LoRA: Hu et al., arXiv 2106.09685): a frozen matrix W₀ [out, in] is used as
//! W = W₀ + s·B·A with A [r, in], B [out, r] and s = alpha/r, or alpha/√r with rsLoRA
//! (Kalajdzievski, arXiv 2312.03732).
//!
//! The passes know nothing of it: the model holds W, its backward gives dW, and the gradients of
//! the adapters follow exactly as dB = s·dW·Aᵀ and dA = s·Bᵀ·dW.

use llada_kernels::{
    Cpu, WeightView,
    linear::{self, Out},
};

use super::{Gradients, Layout, Model, ModelError, Tensor, TensorSpec};
use crate::{
    Result,
    rng::{Purpose, Stream},
};

/// Adapters of some matrices of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Whether the products count alpha/√r times (rsLoRA) and not alpha/r times.
    pub rank_stabilized: bool,
    /// One for each adapted matrix, in the order of the [`Layout`].
    pub matrices: Vec<LowRank>,
}

/// The adapter of one matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRank {
    /// Index of the matrix in the [`Layout`].
    pub tensor: usize,
    /// Rank r.
    pub rank: usize,
    /// What the product counts by, beside the rank.
    pub alpha: f64,
    /// A [r, in], row-major.
    pub a: Vec<f32>,
    /// B [out, r], row-major.
    pub b: Vec<f32>,
}

impl Adapter {
    /// Fresh adapters as PEFT makes them: A uniform up to 1/√in (Kaiming's with a = √5), B zero, so
    /// that the model is as before. `targets` are names of matrices in the blocks, such as
    /// `q_proj`, as the checkpoint calls them; none stands for all.
    ///
    /// # Errors
    /// When no block has a matrix of such a name, or a matrix is smaller than `rank`.
    pub fn init(
        layout: &Layout,
        rank: usize,
        alpha: f64,
        targets: &[String],
        seed: u64,
    ) -> Result<Self> {
        let known: Vec<&str> = in_blocks(layout).map(|id| module(&layout.specs()[id])).collect();
        if let Some(unknown) = targets.iter().find(|t| !known.contains(&t.as_str())) {
            let mut once: Vec<&str> = Vec::new();
            known.iter().for_each(|name| {
                if !once.contains(name) {
                    once.push(name)
                }
            });
            let known = once.join(", ");
            return Err(ModelError::Target { found: unknown.clone(), known }.into());
        }
        let mut matrices = Vec::new();
        for tensor in in_blocks(layout) {
            let spec = &layout.specs()[tensor];
            if !targets.is_empty() && !targets.iter().any(|t| t == module(spec)) {
                continue;
            }
            let (outputs, inputs) = (spec.shape[0], spec.shape[1]);
            let most = outputs.min(inputs);
            if rank == 0 || rank > most {
                return Err(ModelError::Rank { found: rank, name: spec.name.clone(), most }.into());
            }
            let mut stream = Stream::new(seed, Purpose::Adapter, tensor as u64);
            let bound = 1.0 / (inputs as f64).sqrt();
            let mut draw = || ((2.0 * stream.uniform() - 1.0) * bound) as f32;
            let a = (0..rank * inputs).map(|_| draw()).collect();
            matrices.push(LowRank { tensor, rank, alpha, a, b: vec![0.0; outputs * rank] });
        }
        Ok(Self { rank_stabilized: false, matrices })
    }

    /// The names of the adapted modules, each once, as targets of [`Adapter::init`].
    pub fn targets(&self, layout: &Layout) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for matrix in &self.matrices {
            let name = module(&layout.specs()[matrix.tensor]);
            if names.iter().all(|n| n != name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// s = alpha/r, or alpha/√r with rsLoRA.
    pub fn scale(&self, matrix: &LowRank) -> f32 {
        let rank = matrix.rank.max(1) as f64;
        (matrix.alpha / if self.rank_stabilized { rank.sqrt() } else { rank }) as f32
    }

    /// Puts W = W₀ + s·B·A into `model` for every adapted matrix, W₀ being that of `base`.
    ///
    /// # Errors
    /// When the adapters do not have the shapes of the model.
    pub fn merge(&self, cpu: &Cpu, base: &[Tensor], model: &mut Model) -> Result<()> {
        let layout = Layout::new(&model.config);
        for matrix in &self.matrices {
            let (outputs, inputs) = shape(&layout, matrix.tensor);
            let b = self.scaled(matrix, matrix.b.clone());
            let (a, rank) = (WeightView::F32(&matrix.a), matrix.rank);
            let mut w = base[matrix.tensor].to_f32();
            linear::backward_input(cpu, &b, a, outputs, rank, inputs, &mut w, Out::Add)?;
            model.tensors[matrix.tensor] = Tensor::Owned(w);
        }
        Ok(())
    }

    /// The gradients dA and dB of each matrix in turn, from those of the whole matrices.
    ///
    /// # Errors
    /// When the gradients do not have the shapes of `layout`.
    pub fn gradients(&self, cpu: &Cpu, layout: &Layout, full: &Gradients) -> Result<Vec<Vec<f32>>> {
        let mut gradients = Vec::with_capacity(2 * self.matrices.len());
        for matrix in &self.matrices {
            let LowRank { tensor, rank: r, a, b, .. } = matrix;
            let (m, k) = shape(layout, *tensor);
            let (r, dw) = (*r, &full.0[*tensor]);
            let (mut da, mut db) = (vec![0.0; r * k], vec![0.0; m * r]);
            linear::backward_weight(cpu, b, dw, m, r, k, &mut da, Out::Write)?;
            linear::forward(cpu, dw, WeightView::F32(a), None, m, r, k, &mut db, Out::Write)?;
            gradients.extend([self.scaled(matrix, da), self.scaled(matrix, db)]);
        }
        Ok(gradients)
    }

    fn scaled(&self, matrix: &LowRank, mut values: Vec<f32>) -> Vec<f32> {
        let scale = self.scale(matrix);
        values.iter_mut().for_each(|x| *x *= scale);
        values
    }
}

/// The matrices of the blocks that can be adapted, in the order of the layout. Those that a
/// checkpoint keeps as one tensor cannot: they would share their A.
pub(crate) fn in_blocks(layout: &Layout) -> impl Iterator<Item = usize> {
    let matrices = layout.blocks.iter().flat_map(|block| block.matrices());
    matrices.filter(|&id| layout.specs()[id].fused.is_none())
}

/// The name of the module that a matrix belongs to: `q_proj` of `….blocks.0.q_proj.weight`.
fn module(spec: &TensorSpec) -> &str {
    let path = spec.name.strip_suffix(".weight").unwrap_or(&spec.name);
    path.rsplit('.').next().unwrap_or(path)
}

fn shape(layout: &Layout, tensor: usize) -> (usize, usize) {
    let shape = &layout.specs()[tensor].shape;
    (shape[0], shape[1])
}
