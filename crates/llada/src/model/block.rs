//! One transformer block, forward and backward:
//! `x += W_o · attention(rope(W_qkv · rms(x)))`, then `x += W_down · swiglu(W_gate,up · rms(x))`.

use llada_kernels::{
    Cpu, WeightView,
    attention::{self, CachedRow, Mask, Rows},
    linear::{self, Activations, Out},
    rms_norm,
    rope::{self, Table},
};

use super::{BlockIds, Gradients, Model, cache::shape, feed_forward, router::Balance};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig, QkNorm},
};

/// Tokens that go through the feed-forward half together where nothing is kept: its buffers are the widest,
/// and matrices are gone through for as many tokens at a time anyway.
pub(crate) const TOGETHER: usize = 256;

/// What every block of one forward pass shares.
pub(super) struct Pass<'a> {
    pub(super) cpu: &'a Cpu,
    pub(super) model: &'a Model,
    pub(super) table: &'a Table,
    pub(super) rows: Rows<'a>,
    /// Index of each token in its row.
    pub(super) positions: &'a [u32],
    /// What the load-balancing loss adds to the gradients of the router's scores.
    pub(super) balance: Balance<'a>,
}

/// What the forward pass of one block leaves for its backward pass. T tokens.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Input of the block [T, d].
    pub(super) x: Vec<f32>,
    /// 1/rms of the input [T].
    rstd_attn: Vec<f32>,
    /// Queries, keys and values as the projections gave them, kept when q and k are normalised.
    raw: [Vec<f32>; 2],
    /// 1/rms of q and k [T].
    rstd_qk: [Vec<f32>; 2],
    /// Queries, keys and values as attention takes them [T, d], [T, kv], [T, kv].
    qkv: [Vec<f32>; 3],
    /// Output of attention [T, d].
    attended: Vec<f32>,
    /// log Σ exp of each query's scores [T, heads].
    lse: Vec<f32>,
    /// Input of the feed-forward half [T, d].
    x_mid: Vec<f32>,
    /// 1/rms of it [T].
    rstd_ff: Vec<f32>,
    /// What the feed-forward half leaves.
    pub(super) ff: feed_forward::Saved,
}

/// Buffers that no pass needs to keep.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// A normalised input [T, d].
    pub(super) normed: Vec<f32>,
    /// The same, quantised for the layers of blocks that share it.
    pub(super) quantized: Activations,
    /// Gradients: of `normed` [T, d], of attention's output and of q, k, v.
    pub(super) d_normed: Vec<f32>,
    d_attended: Vec<f32>,
    d_qkv: [Vec<f32>; 3],
    d_raw: Vec<f32>,
    /// Those of the feed-forward half.
    pub(super) ff: feed_forward::Scratch,
}

impl Saved {
    /// Makes room for the `t` tokens of attention.
    pub(super) fn resize(&mut self, config: &ModelConfig, t: usize) {
        let (q, kv) = (config.q_dim(), config.kv_dim());
        let sizes = [q, kv, kv];
        self.rstd_attn.resize(t, 0.0);
        if config.qk_norm != QkNorm::None {
            self.raw.iter_mut().zip(sizes).for_each(|(b, n)| b.resize(t * n, 0.0));
            let norms = [config.n_heads, config.n_kv_heads];
            let norms = norms.map(|n| if config.qk_norm == QkNorm::PerHead { n } else { 1 });
            self.rstd_qk.iter_mut().zip(norms).for_each(|(b, n)| b.resize(t * n, 0.0));
        }
        self.qkv.iter_mut().zip(sizes).for_each(|(b, n)| b.resize(t * n, 0.0));
        self.attended.resize(t * q, 0.0);
        self.lse.resize(t * config.n_heads, 0.0);
        self.rstd_ff.resize(t, 0.0);
    }
}

impl Pass<'_> {
    /// Runs the block on the residual stream `x` [T, d], in place. With `keep`, the inputs of both
    /// halves are kept in `saved` for [`Pass::backward`]. The tokens attend to those of their rows,
    /// or where there are caches, one for each row, to what these hold.
    pub(super) fn forward(
        &self,
        ids: &BlockIds,
        caches: &mut [CachedRow<'_>],
        x: &mut [f32],
        saved: &mut Saved,
        scratch: &mut Scratch,
        keep: bool,
    ) -> Result<()> {
        let config = &self.model.config;
        let (d, q, kv) = (config.d_model, config.q_dim(), config.kv_dim());
        let (cpu, t) = (self.cpu, self.positions.len());
        let together = if keep { t } else { t.min(TOGETHER) };
        saved.resize(config, t);
        scratch.normed.resize(t * d, 0.0);
        saved.ff.load.clear();
        if keep {
            copy(&mut saved.x, x);
        }
        let eps = config.rms_norm_eps;
        let h = &mut scratch.normed;
        rms_norm::forward(cpu, x, self.vector(ids.attn_norm), eps, h, &mut saved.rstd_attn)?;
        let shared = &mut scratch.quantized;
        self.quantize(&ids.qkv, h, d, shared)?;
        for (part, width) in [q, kv, kv].into_iter().enumerate() {
            let bias = ids.qkv_bias.map(|b| self.vector(b[part]));
            let normalised = ids.qk_norm.is_some() && part < 2;
            let out = if normalised { &mut saved.raw[part] } else { &mut saved.qkv[part] };
            self.linear(ids.qkv[part], h, shared, bias, width, out)?;
        }
        if let Some(norms) = ids.qk_norm {
            for (part, norm) in norms.into_iter().enumerate() {
                let (raw, out) = (&saved.raw[part], &mut saved.qkv[part]);
                let rstd = &mut saved.rstd_qk[part];
                rms_norm::forward(cpu, raw, self.vector(norm), eps, out, rstd)?;
            }
        }
        rope::forward(cpu, &mut saved.qkv[0], config.n_heads, self.table, self.positions)?;
        rope::forward(cpu, &mut saved.qkv[1], config.n_kv_heads, self.table, self.positions)?;
        let [queries, keys, values] = &saved.qkv;
        let (shape, mask) = (shape(config), self.mask());
        let (out, lse) = (&mut saved.attended, &mut saved.lse);
        match caches {
            [] => {
                let rows = self.rows;
                attention::forward(cpu, shape, mask, rows, queries, keys, values, out, lse)?;
            }
            rows => {
                attention::forward_cached(cpu, shape, mask, rows, queries, keys, values, out, lse)?;
            }
        }
        let w = self.matrix(ids.attn_out);
        linear::forward(cpu, &saved.attended, w, None, t, d, q, x, Out::Add)?;

        if keep {
            copy(&mut saved.x_mid, x);
        }
        for first in (0..t).step_by(together.max(1)) {
            let rows = together.min(t - first);
            let (x, h) = (&mut x[first * d..][..rows * d], &mut scratch.normed[..rows * d]);
            let rstd = &mut saved.rstd_ff[first..][..rows];
            rms_norm::forward(cpu, x, self.vector(ids.ff_norm), eps, h, rstd)?;
            let (quantized, ff) = (&mut scratch.quantized, &mut scratch.ff);
            self.feed_forward(&ids.ff, h, x, quantized, &mut saved.ff, ff)?;
        }
        Ok(())
    }

    /// Quantises the rows of `h` [T, d] once for all the matrices `ids`, if any of them are of blocks.
    pub(super) fn quantize(
        &self,
        ids: &[usize],
        h: &[f32],
        d: usize,
        shared: &mut Activations,
    ) -> Result<()> {
        if ids.iter().any(|&id| matches!(self.matrix(id), WeightView::Blocks { .. })) {
            shared.quantize(self.cpu, h, h.len() / d, d)?;
        }
        Ok(())
    }

    /// `y = W h + bias` [T, n], where `shared` has the rows of `h` [T, d] if `W` is of blocks.
    pub(super) fn linear(
        &self,
        id: usize,
        h: &[f32],
        shared: &Activations,
        bias: Option<&[f32]>,
        n: usize,
        y: &mut [f32],
    ) -> Result<()> {
        let (cpu, w, d) = (self.cpu, self.matrix(id), self.model.config.d_model);
        let t = h.len() / d;
        match w {
            WeightView::Blocks { .. } => {
                linear::forward_quantized(cpu, shared, w, bias, n, y, Out::Write)?
            }
            _ => linear::forward(cpu, h, w, bias, t, n, d, y, Out::Write)?,
        }
        Ok(())
    }

    /// Turns the gradient `dx` [T, d] of the block's output into that of its input, and adds the
    /// gradients of its parameters. `saved` is what a keeping forward pass left.
    pub(super) fn backward(
        &self,
        ids: &BlockIds,
        dx: &mut [f32],
        saved: &Saved,
        scratch: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<()> {
        self.backward_feed_forward(ids, dx, saved, scratch, gradients)?;
        self.backward_attention(ids, dx, saved, scratch, gradients)
    }

    fn backward_feed_forward(
        &self,
        ids: &BlockIds,
        dx: &mut [f32],
        saved: &Saved,
        s: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<()> {
        self.normalise(ids.ff_norm, &saved.x_mid, &saved.rstd_ff, &mut s.normed);
        s.d_normed.resize(dx.len(), 0.0);
        s.d_normed.fill(0.0);
        let (h, dh) = (&s.normed, &mut s.d_normed);
        self.backward_networks(&ids.ff, h, dx, &saved.ff, dh, &mut s.ff, gradients)?;
        let (w, dw) = (self.vector(ids.ff_norm), &mut gradients.0[ids.ff_norm]);
        rms_norm::backward(self.cpu, &saved.x_mid, w, &saved.rstd_ff, &s.d_normed, dx, dw)?;
        Ok(())
    }

    fn backward_attention(
        &self,
        ids: &BlockIds,
        dx: &mut [f32],
        saved: &Saved,
        s: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let config = &self.model.config;
        let (d, kv) = (config.d_model, config.kv_dim());
        let widths = [config.q_dim(), kv, kv];
        let (cpu, t) = (self.cpu, self.positions.len());
        s.d_attended.resize(t * widths[0], 0.0);
        s.d_qkv.iter_mut().zip(widths).for_each(|(b, n)| b.resize(t * n, 0.0));
        let g = &mut gradients.0;

        let (w, dw) = (self.matrix(ids.attn_out), &mut g[ids.attn_out]);
        linear::backward_weight(cpu, dx, &saved.attended, t, d, widths[0], dw, Out::Add)?;
        linear::backward_input(cpu, dx, w, t, d, widths[0], &mut s.d_attended, Out::Write)?;
        let [q, k, v] = &saved.qkv;
        let [dq, dk, dv] = &mut s.d_qkv;
        attention::backward(
            cpu,
            shape(config),
            self.mask(),
            self.rows,
            q,
            k,
            v,
            &saved.attended,
            &saved.lse,
            &s.d_attended,
            dq,
            dk,
            dv,
        )?;
        rope::backward(cpu, dq, config.n_heads, self.table, self.positions)?;
        rope::backward(cpu, dk, config.n_kv_heads, self.table, self.positions)?;
        if let Some(norms) = ids.qk_norm {
            for (part, norm) in norms.into_iter().enumerate() {
                s.d_raw.clear();
                s.d_raw.resize(t * widths[part], 0.0);
                let (raw, rstd) = (&saved.raw[part], &saved.rstd_qk[part]);
                let (w, d_out) = (self.vector(norm), &s.d_qkv[part]);
                rms_norm::backward(cpu, raw, w, rstd, d_out, &mut s.d_raw, &mut g[norm])?;
                std::mem::swap(&mut s.d_raw, &mut s.d_qkv[part]);
            }
        }

        self.normalise(ids.attn_norm, &saved.x, &saved.rstd_attn, &mut s.normed);
        for (part, n) in widths.into_iter().enumerate() {
            let (dy, id) = (&s.d_qkv[part], ids.qkv[part]);
            linear::backward_weight(cpu, dy, &s.normed, t, n, d, &mut g[id], Out::Add)?;
            if let Some(biases) = ids.qkv_bias {
                linear::backward_bias(cpu, dy, t, n, &mut g[biases[part]])?;
            }
            let out = if part == 0 { Out::Write } else { Out::Add };
            linear::backward_input(cpu, dy, self.matrix(id), t, n, d, &mut s.d_normed, out)?;
        }
        let (w, dw) = (self.vector(ids.attn_norm), &mut g[ids.attn_norm]);
        rms_norm::backward(cpu, &saved.x, w, &saved.rstd_attn, &s.d_normed, dx, dw)?;
        Ok(())
    }

    /// rms(x) again from the kept 1/rms: cheaper to compute than to keep.
    fn normalise(&self, norm: usize, x: &[f32], rstd: &[f32], out: &mut [f32]) {
        let w = self.vector(norm);
        let d = w.len();
        const ROWS: usize = 64;
        self.cpu.chunks(out, ROWS * d, |chunk, out| {
            let first = chunk * ROWS;
            for (i, out) in out.chunks_exact_mut(d).enumerate() {
                let r = rstd[first + i];
                let x = &x[(first + i) * d..][..d];
                for ((o, x), w) in out.iter_mut().zip(x).zip(w) {
                    *o = x * r * w;
                }
            }
        });
    }

    fn mask(&self) -> Mask {
        match self.model.config.attention {
            AttentionMask::Bidirectional => Mask::Bidirectional,
            AttentionMask::Causal => Mask::Causal,
            AttentionMask::BlockCausal { block_length } => Mask::BlockCausal(block_length),
        }
    }

    pub(super) fn matrix(&self, id: usize) -> WeightView<'_> {
        self.model.tensors.get(id)
    }

    /// A norm or a bias; [`super::MaskPredictor::new`] made all of these owned `f32`.
    pub(super) fn vector(&self, id: usize) -> &[f32] {
        match self.model.tensors.get(id) {
            WeightView::F32(values) => values,
            _ => &[],
        }
    }
}

fn copy(to: &mut Vec<f32>, from: &[f32]) {
    to.clear();
    to.extend_from_slice(from);
}
