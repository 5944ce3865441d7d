//! The feed-forward half of a block, forward and backward: one SwiGLU network,
//! `x += W_down · swiglu(W_gate,up · h)`, or a mixture of them in which every token goes through the
//! few that the router chooses for it, `x += Σ_e w_e · expert_e(h)`, and through a shared one.
//!
//! Each expert takes its tokens together, and a token adds what its experts give in the order of their
//! numbers: its bits do not depend on the tokens beside it.

use std::sync::{Mutex, PoisonError};

use llada_kernels::{
    Cpu,
    linear::{self, Activations, Input, Out},
    swiglu,
};

use super::{
    ExpertIds, FeedForwardIds, Gradients, SwigluIds,
    pass::Pass,
    router::{Load, Routing},
};
use crate::{Result, config::Experts};

/// What the forward pass leaves for the backward pass. T tokens, each with k experts.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Of the dense network, or of the experts, expert after expert [T · k, f].
    inner: Inner,
    /// Of the shared network.
    shared: Inner,
    /// The experts of the tokens.
    routing: Routing,
    /// How the tokens were spread over the experts.
    pub(super) load: Load,
}

/// W_gate h and W_up h of one network [T, f].
#[derive(Debug, Default)]
struct Inner {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Inner {
    fn resize(&mut self, len: usize) {
        self.gate.resize(len, 0.0);
        self.up.resize(len, 0.0);
    }
}

/// Buffers that no later pass reads.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The input of linear layers, quantised; that of each expert.
    pub(super) quantized: Activations,
    quantized_of: Vec<Activations>,
    /// Output of SwiGLU [T, f], or of the experts' [T · k, f].
    activated: Vec<f32>,
    /// Logits of the router [T, experts], and their gradient.
    logits: Vec<f32>,
    /// The tokens of the experts, expert after expert, and what these give [T · k, d].
    gathered: Vec<f32>,
    given: Vec<f32>,
    /// Gradients: of the SwiGLU [T, f], and of what each expert counts [T · k].
    d_activated: Vec<f32>,
    d_gate: Vec<f32>,
    d_up: Vec<f32>,
    d_weights: Vec<f32>,
}

/// What the backward pass of a network reads beside the gradient of its output, and adds to.
pub(super) struct Backward<'a> {
    /// Input of the network [T, d].
    pub(super) h: &'a [f32],
    /// Its gradient [T, d].
    pub(super) dh: &'a mut [f32],
    pub(super) scratch: &'a mut Scratch,
    /// Those of the parameters.
    pub(super) gradients: &'a mut Gradients,
}

/// Tokens of one task that gathers or adds up rows.
const ROWS: usize = 16;
/// Experts for each thread from which on threads take whole experts. With fewer they share the products of
/// one, lest some have nothing left to do.
const EXPERTS: usize = 8;

/// The work of one network: its n tokens [n, d], where both its products and its SwiGLU go [n, f], and
/// where its output goes [n, d].
struct Network<'a> {
    ids: &'a SwigluIds,
    h: &'a [f32],
    gate: &'a mut [f32],
    up: &'a mut [f32],
    activated: &'a mut [f32],
    y: &'a mut [f32],
    out: Out,
    quantized: &'a mut Activations,
}

/// The first `len` elements, which the buffer then begins after.
fn take<'a>(buffer: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (taken, rest) = std::mem::take(buffer).split_at_mut(len);
    *buffer = rest;
    taken
}

impl Pass<'_> {
    /// Adds to `x` what the feed-forward network gives for `h`, both [T, d].
    pub(super) fn feed_forward(
        &self,
        ids: &FeedForwardIds,
        h: &[f32],
        x: &mut [f32],
        saved: &mut Saved,
        scratch: &mut Scratch,
    ) -> Result<()> {
        match (ids, &self.model.config.experts) {
            (FeedForwardIds::Experts(ids), Some(experts)) => {
                self.experts(ids, experts, h, x, saved, scratch)
            }
            (ids, _) => ids.networks().try_for_each(|ids| {
                let f = self.model.config.mlp_hidden_size;
                self.whole(&ids, h, x, f, &mut saved.inner, scratch)
            }),
        }
    }

    /// Adds to `x` what a network of `f` hidden units gives for all tokens.
    fn whole(
        &self,
        ids: &SwigluIds,
        h: &[f32],
        x: &mut [f32],
        f: usize,
        inner: &mut Inner,
        s: &mut Scratch,
    ) -> Result<()> {
        let t = h.len() / self.model.config.d_model;
        inner.resize(t * f);
        s.activated.resize(t * f, 0.0);
        let Inner { gate, up } = inner;
        let Scratch { activated, quantized, .. } = s;
        let network = Network { ids, h, gate, up, activated, y: x, out: Out::Add, quantized };
        self.network(self.cpu, network)
    }

    /// `y = W_down swiglu(W_gate h, W_up h)`, or added to it.
    fn network(&self, cpu: &Cpu, network: Network<'_>) -> Result<()> {
        let Network { ids, h, gate, up, activated, y, out, quantized } = network;
        let d = self.model.config.d_model;
        let t = h.len() / d;
        let f = gate.len() / t.max(1);
        let mut input = Input::new(h, t, d, quantized);
        input.forward(cpu, self.matrix(ids.gate), None, f, gate, Out::Write)?;
        input.forward(cpu, self.matrix(ids.up), None, f, up, Out::Write)?;
        swiglu::forward(cpu, gate, up, activated)?;
        let mut input = Input::new(activated, t, f, quantized);
        input.forward(cpu, self.matrix(ids.down), None, d, y, out)?;
        Ok(())
    }

    fn experts(
        &self,
        ids: &ExpertIds,
        experts: &Experts,
        h: &[f32],
        x: &mut [f32],
        saved: &mut Saved,
        s: &mut Scratch,
    ) -> Result<()> {
        let (cpu, d, f) = (self.cpu, self.model.config.d_model, experts.hidden_size);
        let t = h.len() / d;
        s.logits.resize(t * experts.count, 0.0);
        let router = self.matrix(ids.router);
        let shape = linear::Shape { m: t, n: experts.count, k: d };
        linear::forward(cpu, shape, h, router, None, &mut s.logits, Out::Write)?;
        let bias = ids.bias.map(|id| self.vector(id));
        saved.routing.choose(cpu, experts, bias, &s.logits);
        saved.load.add(&saved.routing, experts.count);

        let Saved { inner, shared, routing, .. } = saved;
        let slots = routing.slots();
        s.gathered.resize(slots * d, 0.0);
        s.given.resize(slots * d, 0.0);
        s.activated.resize(slots * f, 0.0);
        s.quantized_of.resize_with(experts.count, Activations::new);
        inner.resize(slots * f);
        self.gather(routing, h, &mut s.gathered);
        self.each_expert(ids, (d, f), routing, inner, s)?;
        let given = &s.given;
        cpu.chunks(x, ROWS * d, |chunk, x| {
            for (i, x) in x.chunks_exact_mut(d).enumerate() {
                for (slot, weight) in routing.of_token(chunk * ROWS + i) {
                    let given = &given[slot * d..][..d];
                    x.iter_mut().zip(given).for_each(|(x, y)| *x += weight * y);
                }
            }
        });
        if let Some(ids) = &ids.shared {
            self.whole(ids, h, x, experts.shared_hidden_size, shared, s)?;
        }
        Ok(())
    }

    /// What the experts give for the tokens gathered for them.
    fn each_expert(
        &self,
        ids: &ExpertIds,
        (d, f): (usize, usize),
        routing: &Routing,
        Inner { gate, up }: &mut Inner,
        s: &mut Scratch,
    ) -> Result<()> {
        let Scratch { quantized_of, gathered, activated, given, .. } = s;
        let [mut gate, mut up, mut activated, mut given] =
            [gate, up, activated, given].map(Vec::as_mut_slice);
        let mut networks =
            routing.experts().zip(quantized_of).map(|((expert, part), quantized)| {
                let n = part.len();
                Network {
                    ids: &ids.experts[expert],
                    h: &gathered[part.start * d..part.end * d],
                    gate: take(&mut gate, n * f),
                    up: take(&mut up, n * f),
                    activated: take(&mut activated, n * f),
                    y: take(&mut given, n * d),
                    out: Out::Write,
                    quantized,
                }
            });
        if routing.experts().count() < EXPERTS * self.cpu.threads() {
            return networks.try_for_each(|network| self.network(self.cpu, network));
        }
        let (result, alone) = (Mutex::new(Ok(())), self.cpu.alone());
        self.cpu.each_of(networks, |network| {
            if let Err(error) = self.network(&alone, network) {
                *result.lock().unwrap_or_else(PoisonError::into_inner) = Err(error);
            }
        });
        result.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies the row of each slot's token of `from` [T, d] to `to` [T · k, d].
    fn gather(&self, routing: &Routing, from: &[f32], to: &mut [f32]) {
        let d = self.model.config.d_model;
        self.cpu.chunks(to, ROWS * d, |chunk, to| {
            for (i, to) in to.chunks_exact_mut(d).enumerate() {
                let token = routing.token(chunk * ROWS + i);
                to.copy_from_slice(&from[token * d..][..d]);
            }
        });
    }

    /// Adds up the gradients of the feed-forward half; `dx` is the gradient of what it gave.
    pub(super) fn backward_networks(
        &self,
        ids: &FeedForwardIds,
        dx: &[f32],
        saved: &Saved,
        mut b: Backward<'_>,
    ) -> Result<()> {
        match (ids, &self.model.config.experts) {
            (FeedForwardIds::Experts(ids), Some(experts)) => {
                self.backward_experts(ids, experts, dx, saved, b)
            }
            (ids, _) => ids
                .networks()
                .try_for_each(|ids| self.backward_network(&ids, dx, &saved.inner, &mut b)),
        }
    }

    fn backward_network(
        &self,
        ids: &SwigluIds,
        dx: &[f32],
        Inner { gate, up }: &Inner,
        b: &mut Backward<'_>,
    ) -> Result<()> {
        let (cpu, d) = (self.cpu, self.model.config.d_model);
        let (t, s) = (dx.len() / d, &mut *b.scratch);
        let f = gate.len() / t.max(1);
        s.activated.resize(t * f, 0.0);
        s.d_activated.resize(t * f, 0.0);
        swiglu::forward(cpu, gate, up, &mut s.activated)?;
        let (w, dw) = (self.matrix(ids.down), &mut b.gradients.0[ids.down]);
        let shape = linear::Shape { m: t, n: d, k: f };
        linear::backward_weight(cpu, shape, dx, &s.activated, dw, Out::Add)?;
        linear::backward_input(cpu, shape, dx, w, &mut s.d_activated, Out::Write)?;
        self.backward_gated(ids, (gate, up), b, Out::Add)
    }

    /// From the gradient `scratch.d_activated` of swiglu(gate, up): adds those of W_gate and W_up, and
    /// gives or adds that of `h`.
    fn backward_gated(
        &self,
        ids: &SwigluIds,
        (gate, up): (&[f32], &[f32]),
        b: &mut Backward<'_>,
        out: Out,
    ) -> Result<()> {
        let (cpu, d) = (self.cpu, self.model.config.d_model);
        let Backward { h, dh, scratch: s, gradients } = b;
        let t = h.len() / d;
        let f = gate.len() / t.max(1);
        s.d_gate.resize(t * f, 0.0);
        s.d_up.resize(t * f, 0.0);
        swiglu::backward(cpu, gate, up, &s.d_activated, &mut s.d_gate, &mut s.d_up)?;
        let halves = [(ids.gate, &s.d_gate, out), (ids.up, &s.d_up, Out::Add)];
        let shape = linear::Shape { m: t, n: f, k: d };
        for (id, dy, _) in halves {
            linear::backward_weight(cpu, shape, dy, h, &mut gradients.0[id], Out::Add)?;
        }
        for (id, dy, out) in halves {
            linear::backward_input(cpu, shape, dy, self.matrix(id), dh, out)?;
        }
        Ok(())
    }

    fn backward_experts(
        &self,
        ids: &ExpertIds,
        experts: &Experts,
        dx: &[f32],
        saved: &Saved,
        mut b: Backward<'_>,
    ) -> Result<()> {
        let (cpu, d, f) = (self.cpu, self.model.config.d_model, experts.hidden_size);
        let (t, routing) = (dx.len() / d, &saved.routing);
        let slots = routing.slots();
        if let Some(ids) = &ids.shared {
            self.backward_network(ids, dx, &saved.shared, &mut b)?;
        }
        let Backward { h, dh, scratch: s, gradients } = b;
        // The inputs of the experts, and the gradients of these and of what the experts gave.
        let mut inputs = std::mem::take(&mut s.gathered);
        let mut d_given = std::mem::take(&mut s.given);
        inputs.resize(slots * d, 0.0);
        d_given.resize(slots * d, 0.0);
        self.gather(routing, h, &mut inputs);
        self.gather(routing, dx, &mut d_given);
        s.d_weights.resize(slots, 0.0);
        let mut d_inputs = vec![0.0; slots * d];
        for (expert, part) in routing.experts() {
            let (ids, n) = (&ids.experts[expert], part.len());
            let wide = part.start * d..part.end * d;
            let [gate, up] = [&saved.inner.gate, &saved.inner.up]
                .map(|inner| &inner[part.start * f..part.end * f]);
            s.activated.resize(n * f, 0.0);
            s.d_activated.resize(n * f, 0.0);
            swiglu::forward(cpu, gate, up, &mut s.activated)?;
            let (w, dy) = (self.matrix(ids.down), &mut d_given[wide.clone()]);
            let shape = linear::Shape { m: n, n: d, k: f };
            linear::backward_input(cpu, shape, dy, w, &mut s.d_activated, Out::Write)?;
            // What an expert gives counts by its weight w: ∂/∂w is ⟨dx, W_down a⟩ = ⟨W_downᵀ dx, a⟩.
            for (i, slot) in part.clone().enumerate() {
                let weight = routing.weight(slot);
                let row = i * f..(i + 1) * f;
                let (da, a) = (&mut s.d_activated[row.clone()], &s.activated[row]);
                s.d_weights[slot] = da.iter().zip(a).map(|(da, a)| da * a).sum();
                da.iter_mut().for_each(|da| *da *= weight);
                dy[i * d..][..d].iter_mut().for_each(|dy| *dy *= weight);
            }
            let dw = &mut gradients.0[ids.down];
            linear::backward_weight(cpu, shape, dy, &s.activated, dw, Out::Add)?;
            let (h, dh) = (&inputs[wide.clone()], &mut d_inputs[wide]);
            let mut expert = Backward { h, dh, scratch: &mut *s, gradients: &mut *gradients };
            self.backward_gated(ids, (gate, up), &mut expert, Out::Write)?;
        }
        cpu.chunks(dh, ROWS * d, |chunk, dh| {
            for (i, dh) in dh.chunks_exact_mut(d).enumerate() {
                for (slot, _) in routing.of_token(chunk * ROWS + i) {
                    let part = &d_inputs[slot * d..][..d];
                    dh.iter_mut().zip(part).for_each(|(dh, part)| *dh += part);
                }
            }
        });
        (s.gathered, s.given) = (inputs, d_given);

        s.logits.resize(t * experts.count, 0.0);
        let bias = ids.bias.map(|id| &mut gradients.0[id]);
        routing.backward(experts, &s.d_weights, self.balance, &mut s.logits, bias);
        let dw = &mut gradients.0[ids.router];
        let shape = linear::Shape { m: t, n: experts.count, k: d };
        linear::backward_weight(cpu, shape, &s.logits, h, dw, Out::Add)?;
        linear::backward_input(cpu, shape, &s.logits, self.matrix(ids.router), dh, Out::Add)?;
        Ok(())
    }
}
