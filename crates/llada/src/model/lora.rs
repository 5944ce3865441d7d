//! Low-rank adapters (LoRA: Hu et al., arXiv 2106.09685): a frozen matrix W₀ [out, in] is used as
//! W = W₀ + s·B·A with A [r, in], B [out, r] and s = alpha/r, or alpha/√r with rsLoRA
//! (Kalajdzievski, arXiv 2312.03732).
//!
//! The passes know nothing of it: the model holds W, its backward gives dW, and the gradients of
//! the adapters follow exactly as dB = s·dW·Aᵀ and dA = s·Bᵀ·dW.

use llada_kernels::{
    Compute, Cpu, WeightView,
    linear::{self, Out},
};

use super::{Arena, Gradients, Layout, Model, ModelError, TensorSpec, Tensors};
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
    /// A [r, in] and then B [out, r] of each, row-major.
    pub factors: Arena,
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
        let (mut matrices, mut factors) = (Vec::new(), Arena::default());
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
            factors.push((0..rank * inputs).map(|_| draw()));
            factors.push((0..outputs * rank).map(|_| 0.0));
            matrices.push(LowRank { tensor, rank, alpha });
        }
        Ok(Self { rank_stabilized: false, matrices, factors })
    }

    /// Each adapted matrix with its A and its B.
    pub fn iter(&self) -> impl Iterator<Item = (&LowRank, &[f32], &[f32])> {
        let both = |(i, matrix)| (matrix, &self.factors[2 * i], &self.factors[2 * i + 1]);
        self.matrices.iter().enumerate().map(both)
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
    pub fn merge(&self, cpu: &Cpu, base: &Tensors, model: &mut Model) -> Result<()> {
        let layout = Layout::new(&model.config);
        // What is stored is summed exactly, whatever the passes compute in.
        let cpu = cpu.clone().with_compute(Compute::F32);
        for (matrix, a, b) in self.iter() {
            let (outputs, inputs) = shape(&layout, matrix.tensor);
            let mut b = b.to_vec();
            self.scale_by(matrix, &mut b);
            let (a, rank) = (WeightView::F32(a), matrix.rank);
            let mut w = base.get(matrix.tensor).to_f32();
            let shape = linear::Shape { m: outputs, n: rank, k: inputs };
            linear::backward_input(&cpu, shape, &b, a, &mut w, Out::Add)?;
            model.tensors.set(matrix.tensor, w);
        }
        Ok(())
    }

    /// Gives the gradients of the [factors](Self::factors), which lie as they do, from those of the
    /// whole matrices.
    ///
    /// # Errors
    /// When the gradients do not have the shapes of `layout`.
    pub fn gradients(
        &self,
        cpu: &Cpu,
        layout: &Layout,
        full: &Gradients,
        gradients: &mut Arena,
    ) -> Result<()> {
        for (i, (matrix, a, b)) in self.iter().enumerate() {
            let (m, k) = shape(layout, matrix.tensor);
            let (r, dw) = (matrix.rank, &full.0[matrix.tensor]);
            let shape = linear::Shape { m, n: r, k };
            let da = &mut gradients[2 * i];
            linear::backward_weight(cpu, shape, b, dw, da, Out::Write)?;
            self.scale_by(matrix, da);
            let db = &mut gradients[2 * i + 1];
            linear::forward(cpu, shape, dw, WeightView::F32(a), None, db, Out::Write)?;
            self.scale_by(matrix, db);
        }
        Ok(())
    }

    fn scale_by(&self, matrix: &LowRank, values: &mut [f32]) {
        let scale = self.scale(matrix);
        values.iter_mut().for_each(|x| *x *= scale);
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
