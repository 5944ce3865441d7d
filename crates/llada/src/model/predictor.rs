//! A model on a processor: logits for sampling, losses and gradients for training.

mod read;
#[cfg(test)]
mod tests;

use std::ops::Range;

use llada_kernels::{
    Cpu,
    attention::{self, CachedSequence, Mask, Storage},
    cross_entropy::{self, Confidence, Head},
    embedding,
    linear::{self, Out},
    rms_norm,
    rope::Table,
};

use super::{
    Batch, Feed, Gradients, KvCache, Layout, Model, ModelError, Opened, Reuse, SequenceId, Targets,
    block::{Saved, Scratch},
    cache::{self, Past},
    pass::Pass,
    router::{self, Load},
    sequences::Sequences,
};
use crate::{
    Result,
    config::{AttentionMask, ModelConfig},
    recycle::recycled,
};
pub(crate) use read::{Output, Wanted, tile_rows};

/// A model on a processor, with the memory that its passes reuse.
#[derive(Debug)]
pub struct MaskPredictor {
    model: Model,
    layout: Layout,
    cpu: Cpu,
    table: Table,
    /// The keys and values that are cached between passes.
    sequences: Sequences,
    memory: Memory,
}

/// Buffers of the passes; they grow to the largest batch seen and stay.
#[derive(Debug, Default)]
struct Memory {
    positions: Vec<u32>,
    /// The residual stream and its gradient [T, d].
    x: Vec<f32>,
    dx: Vec<f32>,
    /// What each block saves for the backward pass; one that all share when nothing is saved.
    saved: Vec<Saved>,
    scratch: Scratch,
    /// The positions that are scored, n of them: x, its 1/rms, rms(x), and their gradients.
    x_wanted: Vec<f32>,
    rstd: Vec<f32>,
    hidden: Vec<f32>,
    d_hidden: Vec<f32>,
    d_wanted: Vec<f32>,
    /// How sure the positions are of what, and what their entropies count.
    confidences: Vec<Confidence>,
    of_entropy: Vec<f32>,
    mean_entropy: f64,
    /// Those of a tile of positions, and its groups.
    logits: Vec<f32>,
    parts: Vec<(usize, &'static mut [f32], &'static mut ())>,
    /// The rows of the logits that are read, and where the group of each reading begins.
    wanted: Vec<usize>,
    groups: Vec<usize>,
    /// The tokens whose losses are wanted, and these.
    targets: Vec<u32>,
    nll: Vec<f32>,
    /// How the tokens were spread over the experts of each layer; of layers without, nothing.
    loads: Vec<Load>,
    /// What attention needs of the caches in one block.
    caches: Vec<CachedSequence<'static>>,
}

impl MaskPredictor {
    /// Prepares `model` to run on `cpu`. Norms and biases are widened to `f32`; matrices stay in
    /// their storage type.
    pub fn new(mut model: Model, cpu: Cpu) -> Result<Self> {
        let layout = Layout::new(&model.config);
        let (expected, found) = (layout.specs().len(), model.tensors.len());
        if expected != found {
            return Err(ModelError::Tensors { expected, found }.into());
        }
        for (id, spec) in layout.specs().iter().enumerate() {
            let (expected, found) = (spec.len(), model.tensors.get(id).len());
            if expected != found {
                return Err(ModelError::Shape { name: spec.name.clone(), expected, found }.into());
            }
            if spec.shape.len() == 1 {
                model.tensors.own(id);
            }
        }
        let config = &model.config;
        let (head, rotated) = (config.head_dim, config.rotary_dim);
        let table = Table::partial(config.rope_theta, head, rotated, config.max_sequence_length)?;
        let (sequences, memory) = (Sequences::default(), Memory::default());
        Ok(Self { model, layout, cpu, table, sequences, memory })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model, to be changed by an optimiser.
    pub fn model_mut(&mut self) -> &mut Model {
        self.sequences.distrust();
        &mut self.model
    }

    /// The processor.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// Computes on another one from now on; what is cached is no longer taken over.
    pub fn set_cpu(&mut self, cpu: Cpu) {
        self.sequences.distrust();
        self.cpu = cpu;
    }

    /// Caches the keys and values of a sequence of up to `capacity` tokens from now on, as `storage`
    /// says. It has those of its first tokens already where another sequence, open or
    /// [retained](Self::retain), has them: as many of `beginning` as `reuse` allows.
    ///
    /// # Errors
    /// If the model is not made for sequences that long.
    pub fn open(
        &mut self,
        capacity: usize,
        storage: Storage,
        reuse: Reuse,
        beginning: &[u32],
    ) -> Result<Opened> {
        self.sequences.open(&self.model.config, capacity, storage, reuse, beginning)
    }

    /// Retains the keys and values of the last `count` sequences that were closed, for sequences that
    /// begin as they did; none unless asked. With bidirectional attention only those are retained that
    /// [`Reuse::Approximate`] was allowed.
    pub fn retain(&mut self, count: usize) {
        self.sequences.retain(count);
    }

    /// Forgets a sequence, unless it is to be [retained](Self::retain). One that is not open is left
    /// alone.
    pub fn close(&mut self, id: SequenceId) {
        self.sequences.close(id);
    }

    /// The cached keys and values of a sequence; `None` if it is not open.
    pub fn cache(&self, id: SequenceId) -> Option<&KvCache> {
        self.sequences.get(id)
    }

    /// The same, to forget some of them.
    pub fn cache_mut(&mut self, id: SequenceId) -> Option<&mut KvCache> {
        self.sequences.get_mut(id)
    }

    /// Logits [wanted, embedding_size] at the positions `wanted` (indices into the tokens of `feed`);
    /// `logits` is resized to hold them. Tokens that see the same keys and values get the same logits
    /// to the last bit, in one call or in many, with other sequences or without.
    ///
    /// # Errors
    /// If the feed contradicts itself, a sequence is longer than the model's longest, or tokens do not
    /// follow on what is cached. What is cached is then as before.
    pub fn logits<'a>(
        &mut self,
        feed: impl Into<Feed<'a>>,
        wanted: &[usize],
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        self.hidden(&feed.into(), wanted, Save::Nothing)?;
        self.project(0..wanted.len(), logits)
    }

    /// Logits of the wanted positions numbered `part`, from what [`hidden`](Self::hidden) left.
    fn project(&self, part: Range<usize>, logits: &mut Vec<f32>) -> Result<()> {
        let config = &self.model.config;
        let (vocab, d, n) = (config.embedding_size, config.d_model, part.len());
        logits.resize(n * vocab, 0.0);
        let head = self.model.tensors.get(self.layout.head_or_tied());
        let hidden = &self.memory.hidden[part.start * d..part.end * d];
        let shape = linear::Shape { m: n, n: vocab, k: d };
        linear::forward(&self.cpu, shape, hidden, head, None, logits, Out::Write)?;
        if config.scale_logits {
            logits.iter_mut().for_each(|l| *l *= config.logit_scale());
        }
        Ok(())
    }

    /// The residual stream before each block and after the final norm, each [T, d], as the
    /// reference's `output_hidden_states` gives them. For tests and study.
    pub fn hidden_states(&mut self, batch: &Batch<'_>) -> Result<Vec<Vec<f32>>> {
        let all: Vec<usize> = (0..batch.tokens.len()).collect();
        self.hidden(&batch.into(), &all, Save::Inputs)?;
        let inputs = self.memory.saved[..self.layout.blocks.len()].iter().map(|s| s.x.clone());
        Ok(inputs.chain([self.memory.hidden.clone()]).collect())
    }

    /// How the tokens of the last pass were spread over the experts of each layer; of layers without
    /// experts, nothing.
    pub fn loads(&self) -> &[Load] {
        &self.memory.loads
    }

    /// The mean entropy that [`Targets::cap`] counts, of the last pass with gradients; 0 where it counts
    /// nothing or no position was right.
    pub fn mean_entropy(&self) -> f64 {
        self.memory.mean_entropy
    }

    /// −log p of each target, without gradients.
    pub fn nll<'a>(
        &mut self,
        feed: impl Into<Feed<'a>>,
        targets: &Targets<'_>,
        nll: &mut Vec<f32>,
    ) -> Result<()> {
        self.hidden(&feed.into(), targets.positions, Save::Nothing)?;
        nll.resize(targets.positions.len(), 0.0);
        let head = head(&self.model, &self.layout, targets.excluded);
        cross_entropy::forward(&self.cpu, &self.memory.hidden, &head, targets.tokens, nll)?;
        Ok(())
    }

    /// −log p of each target, and the gradient of Σ weight · nll added to `gradients`. With
    /// `recompute` (gradient checkpointing), only the inputs of the blocks are saved for the backward
    /// pass and the rest is computed again: less memory for a third more arithmetic.
    ///
    /// # Errors
    /// If the feed contradicts itself, or some of it is cached.
    pub fn nll_and_gradient<'a>(
        &mut self,
        feed: impl Into<Feed<'a>>,
        targets: &Targets<'_>,
        recompute: bool,
        nll: &mut Vec<f32>,
        gradients: &mut Gradients,
    ) -> Result<()> {
        let (save, feed) = (if recompute { Save::Inputs } else { Save::All }, feed.into());
        if !feed.cached.is_empty() {
            let what = "nothing is cached of what is trained on";
            return Err(ModelError::Batch(what.into()).into());
        }
        self.hidden(&feed, targets.positions, save)?;
        let (balance, batch) = (router::balance(&self.memory.loads, targets.balance), feed.batch);
        let Self { model, layout, cpu, table, memory: m, .. } = self;
        let (d, n) = (model.config.d_model, targets.positions.len());

        nll.resize(n, 0.0);
        m.d_hidden.resize(n * d, 0.0);
        let head = head(model, layout, targets.excluded);
        let tokens = targets.tokens;
        m.mean_entropy = 0.0;
        m.of_entropy.clear();
        if targets.cap != 0.0 {
            m.confidences.resize(n, Confidence::default());
            cross_entropy::confidences(cpu, &m.hidden, &head, tokens, nll, &mut m.confidences)?;
            let right = || m.confidences.iter().filter(|told| told.is_right);
            let count = right().count().max(1) as f64;
            m.mean_entropy = right().map(|told| f64::from(told.entropy)).sum::<f64>() / count;
            let each = (targets.cap / count) as f32;
            let counts = |told: &Confidence| if told.is_right { each } else { 0.0 };
            m.of_entropy.extend(m.confidences.iter().map(counts));
        }
        let d_head = &mut gradients.0[layout.head_or_tied()];
        let weights = cross_entropy::Weights { nll: targets.weights, entropy: &m.of_entropy };
        let of_head = cross_entropy::Gradients { dhidden: &mut m.d_hidden, dweight: d_head };
        cross_entropy::forward_backward(cpu, &m.hidden, &head, tokens, weights, nll, of_head)?;

        zero(&mut m.d_wanted, n * d);
        let pass = Pass {
            cpu,
            model,
            table,
            sequences: attention::Sequences {
                starts: batch.starts,
                attention_mask: batch.attention_mask,
            },
            mask: mask(&model.config, feed.paired)?,
            positions: &m.positions,
            balance: balance.as_deref(),
        };
        let (norm, d_norm) = (pass.vector(layout.ln_f), &mut gradients.0[layout.ln_f]);
        let saved = rms_norm::Saved { x: &m.x_wanted, rstd: &m.rstd };
        let of_norm = rms_norm::Gradients { dx: &mut m.d_wanted, dweight: d_norm };
        rms_norm::backward(cpu, norm, saved, &m.d_hidden, of_norm)?;
        zero(&mut m.dx, batch.tokens.len() * d);
        for (&position, row) in targets.positions.iter().zip(m.d_wanted.chunks_exact(d)) {
            m.dx[position * d..][..d].iter_mut().zip(row).for_each(|(a, b)| *a += b);
        }

        for (i, ids) in layout.blocks.iter().enumerate().rev() {
            if recompute {
                let shared = layout.blocks.len();
                let input = std::mem::take(&mut m.saved[i].x);
                m.x.copy_from_slice(&input);
                m.saved[i].x = input;
                let (saved, scratch) = (&mut m.saved[shared], &mut m.scratch);
                pass.forward(ids, &mut [], &mut m.x, saved, scratch, true)?;
                pass.backward(ids, &mut m.dx, &m.saved[shared], &mut m.scratch, gradients)?;
            } else {
                pass.backward(ids, &mut m.dx, &m.saved[i], &mut m.scratch, gradients)?;
            }
        }
        scale_embedding(model, &mut m.dx);
        let (vocab, d_table) = (model.config.embedding_size, &mut gradients.0[layout.wte]);
        embedding::backward(cpu, batch.tokens, &m.dx, vocab, d, d_table)?;
        Ok(())
    }

    /// Runs the blocks and leaves rms(x) at the positions `wanted` in `memory.hidden`.
    fn hidden(&mut self, feed: &Feed<'_>, wanted: &[usize], save: Save) -> Result<()> {
        let mut pasts = self.sequences.take(&self.model.config, feed)?;
        let result = self.blocks(feed, &mut pasts, wanted, save);
        if result.is_err() {
            pasts.iter_mut().for_each(|past| past.cache.distrust());
        }
        self.sequences.put_back(pasts);
        result
    }

    /// [`hidden`](Self::hidden) with the caches of the sequences: none, or one for each.
    fn blocks(
        &mut self,
        feed: &Feed<'_>,
        pasts: &mut [Past],
        wanted: &[usize],
        save: Save,
    ) -> Result<()> {
        let Feed { batch, positions, paired, .. } = feed;
        let limit = self.model.config.max_sequence_length;
        let mask = mask(&self.model.config, *paired)?;
        check(batch, wanted, if *paired { limit.saturating_mul(2) } else { limit })?;
        if *paired && (!pasts.is_empty() || batch.ranges().any(|r| !r.len().is_multiple_of(2))) {
            let what = "pairs have two halves of the same length, and are not cached";
            return Err(ModelError::Batch(what.into()).into());
        }
        check_positions(*positions, batch.tokens.len(), limit)?;
        cache::check(batch, pasts, &self.model.config)?;
        let Self { model, layout, cpu, table, memory: m, .. } = self;
        let (d, t, blocks) = (model.config.d_model, batch.tokens.len(), layout.blocks.len());
        m.positions.clear();
        match positions {
            Some(positions) => m.positions.extend_from_slice(positions),
            None => {
                for (i, range) in batch.ranges().enumerate() {
                    let first = pasts.get(i).map_or(0, |past| past.first) as u32;
                    let halves = if *paired { 2 } else { 1 };
                    let length = (range.len() / halves) as u32;
                    (0..halves).for_each(|_| m.positions.extend(first..first + length));
                }
            }
        }
        m.x.resize(t * d, 0.0);
        let wte = model.tensors.get(layout.wte);
        embedding::forward(cpu, batch.tokens, wte, model.config.embedding_size, d, &mut m.x)?;
        scale_embedding(model, &mut m.x);
        for (past, range) in pasts.iter_mut().zip(batch.ranges()) {
            let attention_mask = batch.attention_mask.map(|mask| &mask[range.clone()]);
            let end = past.first + range.len();
            let (tokens, positions) = (&batch.tokens[range.clone()], &m.positions[range]);
            past.cache.extend(past.first, tokens, positions, attention_mask);
            past.cache.truncate(past.len.max(end));
        }

        let sequences =
            attention::Sequences { starts: batch.starts, attention_mask: batch.attention_mask };
        let positions = m.positions.as_slice();
        let pass = Pass { cpu, model, table, sequences, mask, positions, balance: None };
        // One more than the blocks: the one that all share when little is saved.
        m.saved.resize_with(blocks + 1, Saved::default);
        m.loads.resize_with(blocks, Load::default);
        for (i, ids) in layout.blocks.iter().enumerate() {
            let saved = if save == Save::All { i } else { blocks };
            if save == Save::Inputs {
                let input = &mut m.saved[i].x;
                input.clear();
                input.extend_from_slice(&m.x);
            }
            let mut caches = recycled(std::mem::take(&mut m.caches));
            let pairs = pasts.iter_mut().zip(batch.ranges());
            caches.extend(pairs.map(|(past, range)| past.cache.view(i, past.first, range.len())));
            let (saved, scratch) = (&mut m.saved[saved], &mut m.scratch);
            pass.forward(ids, &mut caches, &mut m.x, saved, scratch, save == Save::All)?;
            m.loads[i].clone_from(&saved.ff.load);
            m.caches = recycled(caches);
        }

        m.x_wanted.clear();
        for &position in wanted {
            m.x_wanted.extend_from_slice(&m.x[position * d..][..d]);
        }
        m.rstd.resize(wanted.len(), 0.0);
        m.hidden.resize(wanted.len() * d, 0.0);
        let (norm, eps) = (pass.vector(layout.ln_f), model.config.rms_norm_eps);
        rms_norm::forward(cpu, &m.x_wanted, norm, eps, &mut m.hidden, &mut m.rstd)?;
        Ok(())
    }
}

/// What a forward pass saves for the backward pass.
#[derive(Clone, Copy, PartialEq)]
enum Save {
    Nothing,
    /// The input of each block.
    Inputs,
    /// All that the backward pass reads.
    All,
}

/// The keys that the tokens of a pass see.
fn mask(config: &ModelConfig, paired: bool) -> Result<Mask> {
    Ok(match (config.attention, paired) {
        (AttentionMask::Bidirectional, false) => Mask::Bidirectional,
        (AttentionMask::Causal, false) => Mask::Causal,
        (AttentionMask::BlockCausal { block_length }, false) => Mask::BlockCausal(block_length),
        (AttentionMask::BlockCausal { block_length }, true) => Mask::BlockDiffusion(block_length),
        (_, true) => {
            let what = "noisy and clean halves are of models that attend by blocks";
            return Err(ModelError::Batch(what.into()).into());
        }
    })
}

fn head<'a>(model: &'a Model, layout: &Layout, excluded: Option<u32>) -> Head<'a> {
    Head {
        weight: model.tensors.get(layout.head_or_tied()),
        vocab: model.config.embedding_size,
        d: model.config.d_model,
        scale: model.config.logit_scale(),
        excluded,
    }
}

/// The factor √d_model of `input_emb_norm`, the same forward and backward.
fn scale_embedding(model: &Model, x: &mut [f32]) {
    if model.config.input_emb_norm {
        let factor = (model.config.d_model as f32).sqrt();
        x.iter_mut().for_each(|x| *x *= factor);
    }
}

fn zero(buffer: &mut Vec<f32>, len: usize) {
    buffer.clear();
    buffer.resize(len, 0.0);
}

fn check(batch: &Batch<'_>, wanted: &[usize], limit: usize) -> Result<()> {
    let t = batch.tokens.len();
    let malformed = |what: &str| Err(ModelError::Batch(what.into()).into());
    if batch.starts.first() != Some(&0) || batch.starts.last() != Some(&t) {
        return malformed("`starts` must begin at 0 and end at the number of tokens");
    }
    for bounds in batch.starts.windows(2) {
        match bounds[1].checked_sub(bounds[0]) {
            None => return malformed("`starts` must not decrease"),
            Some(found) if found > limit => {
                return Err(ModelError::TooLong { found, limit }.into());
            }
            Some(_) => {}
        }
    }
    if batch.attention_mask.is_some_and(|mask| mask.len() != t) {
        return malformed("`attention_mask` must have one flag for each token");
    }
    if wanted.iter().any(|&p| p >= t) {
        return malformed("a wanted position lies beyond the tokens");
    }
    Ok(())
}

fn check_positions(positions: Option<&[u32]>, tokens: usize, limit: usize) -> Result<()> {
    let Some(positions) = positions else { return Ok(()) };
    if positions.len() != tokens {
        let what = "there must be one position for each token";
        return Err(ModelError::Batch(what.into()).into());
    }
    match positions.iter().max() {
        Some(&last) if last as usize >= limit => {
            Err(ModelError::TooLong { found: last as usize + 1, limit }.into())
        }
        _ => Ok(()),
    }
}
