//! One transformer block, forward and backward:
//! `x += W_o · attention(rope(W_qkv · rms(x)))`, then `x += W_down · swiglu(W_gate,up · rms(x))`.

use llada_kernels::{
    WeightView,
    attention::{self, CachedSequence},
    linear::{self, Input, Out},
    rms_norm, rope,
};

use super::{BlockIds, Gradients, cache::shape, feed_forward, pass::Pass};
use crate::{
    Result,
    config::{ModelConfig, QkNorm},
};

/// Tokens that go through the feed-forward half together where nothing is saved for a backward
/// pass: its buffers are the widest, and matrices are gone through for as many tokens at a time
/// anyway.
pub(crate) const FFN_CHUNK: usize = 256;

/// What the forward pass of one block saves for its backward pass. T tokens.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Input of the block [T, d].
    pub(super) x: Vec<f32>,
    /// 1/rms of the input [T].
    rstd_attn: Vec<f32>,
    /// Queries and keys as the projections gave them, where they are normalised.
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
    /// What the feed-forward half saves.
    pub(super) ff: feed_forward::Saved,
}

/// Buffers that no later pass reads.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// A normalised input [T, d].
    pub(super) normed: Vec<f32>,
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
    /// Runs the block on the residual stream `x` [T, d], in place. With `save`, the inputs of both
    /// halves are saved in `saved` for [`Pass::backward`]. The tokens attend to those of their
    /// sequences, or where there are caches, one for each sequence, to what these hold.
    pub(super) fn forward(
        &self,
        ids: &BlockIds,
        caches: &mut [CachedSequence<'_>],
        x: &mut [f32],
        saved: &mut Saved,
        scratch: &mut Scratch,
        save: bool,
    ) -> Result<()> {
        let config = &self.model.config;
        let (d, q, kv) = (config.d_model, config.q_dim(), config.kv_dim());
        let (cpu, t) = (self.cpu, self.positions.len());
        let together = if save { t } else { t.min(FFN_CHUNK) };
        saved.resize(config, t);
        scratch.normed.resize(t * d, 0.0);
        saved.ff.load.clear();
        if save {
            copy(&mut saved.x, x);
        }
        let eps = config.rms_norm_eps;
        let h = &mut scratch.normed;
        rms_norm::forward(cpu, x, self.vector(ids.attn_norm), eps, h, &mut saved.rstd_attn)?;
        let mut input = Input::new(h, t, d, &mut scratch.ff.quantized);
        for (part, width) in [q, kv, kv].into_iter().enumerate() {
            let bias = ids.qkv_bias.map(|b| self.vector(b[part]));
            let normalised = ids.qk_norm.is_some() && part < 2;
            let out = if normalised { &mut saved.raw[part] } else { &mut saved.qkv[part] };
            input.forward(cpu, self.matrix(ids.qkv[part]), bias, width, out, Out::Write)?;
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
        let inputs = self.attention_inputs(&saved.qkv);
        let (out, lse) = (&mut saved.attended, &mut saved.lse);
        match caches {
            [] => attention::forward(cpu, inputs, self.sequences, out, lse)?,
            caches => attention::forward_cached(cpu, inputs, caches, out, lse)?,
        }
        let (w, shape) = (self.matrix(ids.attn_out), linear::Shape { m: t, n: d, k: q });
        linear::forward(cpu, shape, &saved.attended, w, None, x, Out::Add)?;

        if save {
            copy(&mut saved.x_mid, x);
        }
        for first in (0..t).step_by(together.max(1)) {
            let rows = together.min(t - first);
            let (x, h) = (&mut x[first * d..][..rows * d], &mut scratch.normed[..rows * d]);
            let rstd = &mut saved.rstd_ff[first..][..rows];
            rms_norm::forward(cpu, x, self.vector(ids.ff_norm), eps, h, rstd)?;
            self.feed_forward(&ids.ff, h, x, &mut saved.ff, &mut scratch.ff)?;
        }
        Ok(())
    }

    /// Turns the gradient `dx` [T, d] of the block's output into that of its input, and adds the
    /// gradients of its parameters. `saved` is what a forward pass with `save` saved.
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
        let (h, dh, scratch) = (&s.normed, &mut s.d_normed, &mut s.ff);
        let backward = feed_forward::Backward { h, dh, scratch, gradients };
        self.backward_networks(&ids.ff, dx, &saved.ff, backward)?;
        let saved = rms_norm::Saved { x: &saved.x_mid, rstd: &saved.rstd_ff };
        self.backward_norm(ids.ff_norm, saved, &s.d_normed, dx, gradients)
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

        let shape = linear::Shape { m: t, n: d, k: widths[0] };
        let (w, dw) = (self.matrix(ids.attn_out), &mut gradients.0[ids.attn_out]);
        linear::backward_weight(cpu, shape, dx, &saved.attended, dw, Out::Add)?;
        linear::backward_input(cpu, shape, dx, w, &mut s.d_attended, Out::Write)?;
        let inputs = self.attention_inputs(&saved.qkv);
        let outputs = attention::Saved { out: &saved.attended, lse: &saved.lse };
        let [dq, dk, dv] = &mut s.d_qkv;
        let d_inputs = attention::Gradients { dq, dk, dv };
        attention::backward(cpu, inputs, self.sequences, outputs, &s.d_attended, d_inputs)?;
        let [dq, dk, _] = &mut s.d_qkv;
        rope::backward(cpu, dq, config.n_heads, self.table, self.positions)?;
        rope::backward(cpu, dk, config.n_kv_heads, self.table, self.positions)?;
        if let Some(norms) = ids.qk_norm {
            for (part, norm) in norms.into_iter().enumerate() {
                s.d_raw.clear();
                s.d_raw.resize(t * widths[part], 0.0);
                let saved = rms_norm::Saved { x: &saved.raw[part], rstd: &saved.rstd_qk[part] };
                self.backward_norm(norm, saved, &s.d_qkv[part], &mut s.d_raw, gradients)?;
                std::mem::swap(&mut s.d_raw, &mut s.d_qkv[part]);
            }
        }

        self.normalise(ids.attn_norm, &saved.x, &saved.rstd_attn, &mut s.normed);
        for (part, n) in widths.into_iter().enumerate() {
            let (dy, id, shape) = (&s.d_qkv[part], ids.qkv[part], linear::Shape { m: t, n, k: d });
            linear::backward_weight(cpu, shape, dy, &s.normed, &mut gradients.0[id], Out::Add)?;
            if let Some(biases) = ids.qkv_bias {
                linear::backward_bias(cpu, dy, t, n, &mut gradients.0[biases[part]])?;
            }
            let out = if part == 0 { Out::Write } else { Out::Add };
            linear::backward_input(cpu, shape, dy, self.matrix(id), &mut s.d_normed, out)?;
        }
        let saved = rms_norm::Saved { x: &saved.x, rstd: &saved.rstd_attn };
        self.backward_norm(ids.attn_norm, saved, &s.d_normed, dx, gradients)
    }

    /// Adds to `dx` the gradient of the input of the norm `id`, and to `gradients` that of its weight.
    fn backward_norm(
        &self,
        id: usize,
        saved: rms_norm::Saved<'_>,
        dout: &[f32],
        dx: &mut [f32],
        gradients: &mut Gradients,
    ) -> Result<()> {
        let gradients = rms_norm::Gradients { dx, dweight: &mut gradients.0[id] };
        rms_norm::backward(self.cpu, self.vector(id), saved, dout, gradients)?;
        Ok(())
    }

    fn attention_inputs<'a>(&self, [q, k, v]: &'a [Vec<f32>; 3]) -> attention::Inputs<'a> {
        attention::Inputs { shape: shape(&self.model.config), mask: self.mask, q, k, v }
    }

    /// rms(x) again from the saved 1/rms: cheaper to compute than to save.
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
