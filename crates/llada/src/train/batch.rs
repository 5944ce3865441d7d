//! The sequences of one update: which tokens, how noisy, and what is to be predicted.

use std::ops::Range;

use crate::{
    config::{LogitShift, Objective},
    diffusion::{
        forward::{self, Noised},
        loss::{self, Normalisation},
    },
    model::{Batch, Feed, Ragged, Targets},
    rng::{Purpose, Stream},
    train::{NoiseLevel, Recipe, Weighting},
};

/// Some sequences of an update with their targets, ready for the model.
#[derive(Debug)]
pub(super) struct MicroBatch {
    /// The sequences before any token was masked.
    sequences: Ragged,
    /// Tokens and targets; the weights are ∂loss/∂nll of each target.
    pub(super) noised: Noised,
    /// Where the pairs [x_t ; x_0] of block diffusion begin that the sequences are.
    pairs: Option<Vec<usize>>,
    /// The token whose logit is left out.
    excluded: Option<u32>,
}

impl MicroBatch {
    /// Sequences of which some tokens were masked already.
    pub(super) fn new(sequences: Ragged, noised: Noised) -> Self {
        Self { sequences, noised, pairs: None, excluded: None }
    }

    pub(super) fn feed(&self) -> Feed<'_> {
        let batch = Batch { tokens: &self.noised.tokens, ..self.sequences.as_batch() };
        match &self.pairs {
            None => batch.into(),
            Some(starts) => Feed::pairs(Batch { starts, ..batch }),
        }
    }

    pub(super) fn targets(&self) -> Targets<'_> {
        let Noised { positions, targets, weights, .. } = &self.noised;
        let excluded = self.excluded;
        Targets { positions, tokens: targets, weights, excluded, ..Targets::default() }
    }

    /// Tokens of the sequences, clean copies not counted.
    pub(super) fn tokens(&self) -> usize {
        self.sequences.tokens().len()
    }
}

/// Sequences, and what is given of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sequences {
    sequences: Ragged,
    /// How many tokens at the start of each sequence are given and never masked.
    prompts: Vec<usize>,
    /// How many sequences there are up to the end of each row: what a batch is counted and divided by.
    rows: Vec<usize>,
}

impl Sequences {
    /// Adds a row of one sequence, padded with `padding.0` up to `padding.1` tokens.
    pub(super) fn push(&mut self, sequence: &[u32], prompt: usize, padding: (u32, usize)) {
        let (token, length) = padding;
        let padding = std::iter::repeat_n(token, length.saturating_sub(sequence.len()));
        self.sequences.push(sequence.iter().copied().chain(padding));
        self.prompts.push(prompt);
        self.rows.push(self.sequences.count());
    }

    /// Adds a row whose documents, each with the `end` that is its last token, are sequences of their own.
    pub(super) fn push_documents(&mut self, row: &[u32], end: u32) {
        for document in row.split_inclusive(|&token| token == end) {
            self.sequences.push(document.iter().copied());
            self.prompts.push(0);
        }
        self.rows.push(self.sequences.count());
    }

    /// Rows.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The sequences of some rows.
    fn of_rows(&self, rows: Range<usize>) -> Range<usize> {
        let before = |row: usize| row.checked_sub(1).map_or(0, |last| self.rows[last]);
        before(rows.start)..before(rows.end)
    }

    /// The tokens of all sequences.
    pub(super) fn tokens(&self) -> &[u32] {
        self.sequences.tokens()
    }

    /// Tokens of each sequence.
    pub(super) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.sequences.lengths()
    }

    /// Tokens of each sequence's response; what a baseline predicts never has the first token.
    fn answers(&self, objective: Objective) -> Vec<usize> {
        let given = |prompt: usize| match objective {
            Objective::Diffusion => prompt,
            Objective::Autoregressive => prompt.max(1),
        };
        self.lengths().zip(&self.prompts).map(|(n, &prompt)| n - given(prompt).min(n)).collect()
    }
}

/// The batch of one step: all sequences of its update. Everything random in it is addressed by the
/// seed and the step or the sequence's number in the run, so that it does not depend on how the
/// batch is divided.
#[derive(Debug)]
pub(super) struct StepBatch<'a> {
    recipe: &'a Recipe,
    mask: u32,
    shift: LogitShift,
    /// Number in the run of the first sequence, or of the first pair of complements.
    first: u64,
    /// Noise level t of each sequence, or pair, or of each of its blocks.
    levels: Vec<f64>,
    /// Tokens of a block with a level of its own, and where the levels of each sequence, or pair, begin.
    block: Option<(usize, Vec<usize>)>,
    sequences: Sequences,
    /// Tokens of each sequence's response.
    answers: Vec<usize>,
    /// Masked tokens of the whole batch, where the loss is their mean.
    masked: usize,
}

impl<'a> StepBatch<'a> {
    /// Noise for the `sequences` of `step`, from 0, for a model whose logits are shifted so. `mask`
    /// is not used by the autoregressive objective.
    pub(super) fn new(
        recipe: &'a Recipe,
        sequences: Sequences,
        mask: u32,
        shift: LogitShift,
        step: u64,
    ) -> Self {
        let (seed, low) = (recipe.train.seed, recipe.diffusion.low_discrepancy);
        let mut stream = Stream::new(seed, Purpose::NoiseLevel, step);
        let pairs = sequences.sequences.count() / recipe.sequence_copies();
        let own = recipe.block.as_ref().filter(|block| block.noise_level == NoiseLevel::Block);
        let block = own.map(|block| {
            let length = block.length_at(step);
            let lengths = sequences.lengths().step_by(recipe.sequence_copies());
            let mut begins = vec![0];
            begins.extend(lengths.scan(0, |sum, n| {
                *sum += n.div_ceil(length);
                Some(*sum)
            }));
            (length, begins)
        });
        let count = block.as_ref().map_or(pairs, |(_, begins)| begins[pairs]);
        let levels = forward::noise_levels(&mut stream, count, low);
        let answers = sequences.answers(recipe.train.objective);
        let first = match recipe.data.split_documents {
            false => step * pairs as u64,
            // As many as there may be: a token has a document of its own at most.
            true => step * (recipe.train.batch_size * recipe.data.sequence_length) as u64,
        };
        let batch =
            Self { recipe, mask, shift, first, levels, block, sequences, answers, masked: 0 };
        match &recipe.block {
            Some(block) if block.normalisation == Normalisation::Masked => {
                let all = batch.micro_batch(0..batch.sequences.rows());
                Self { masked: all.noised.positions.len(), ..batch }
            }
            _ => batch,
        }
    }

    /// The noise level t of the token of this index in a sequence, or pair.
    fn level(&self, pair: usize, index: usize) -> f64 {
        match &self.block {
            None => self.levels[pair],
            Some((length, begins)) => self.levels[begins[pair] + index / length],
        }
    }

    /// Sequences of the update.
    pub(super) fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// The rows `rows` of the batch.
    pub(super) fn micro_batch(&self, rows: Range<usize>) -> MicroBatch {
        let (range, copies) = (self.sequences.of_rows(rows), self.recipe.sequence_copies());
        let mut draws: Vec<Stream> = range
            .clone()
            .map(|sequence| self.first + (sequence / copies) as u64)
            .map(|address| Stream::new(self.recipe.train.seed, Purpose::Masking, address))
            .collect();
        let first = range.start;
        self.noised(range, &mut |sequence| draws[sequence - first].uniform())
    }

    /// The sequences `range`, with the uniform draws that `draw` gives for the tokens of a sequence
    /// in turn.
    fn noised(&self, range: Range<usize>, draw: &mut dyn FnMut(usize) -> f64) -> MicroBatch {
        let Self { recipe, sequences, .. } = self;
        let (first, part) = (range.start, sequences.sequences.part(range.clone()));
        let (tokens, starts, prompts) = (part.tokens(), part.starts(), &sequences.prompts[range]);
        let (eps, copies) = (recipe.diffusion.eps, recipe.sequence_copies());
        let block = recipe.block.as_ref();
        let mut noised = match recipe.train.objective {
            Objective::Diffusion => {
                let excluded = block.filter(|block| block.exclude_mask_logit).map(|_| self.mask);
                let mut weight = |sequence: usize, index: usize| {
                    let is_mask = Some(tokens[starts[sequence] + index]) == excluded;
                    let (sequence, u) = (first + sequence, draw(first + sequence));
                    let t = self.level(sequence / copies, index);
                    let p = match block {
                        None => forward::masking_probability(t, eps),
                        Some(block) => block.probability(t),
                    };
                    let weight = match sequence % copies {
                        0 => forward::weight_if_masked(u, p),
                        _ => forward::weight_in_complement(u, p, eps),
                    };
                    match block {
                        // What is a mask in the text is not predicted by a soft-max without one.
                        _ if is_mask => None,
                        Some(block) if block.weighting == Weighting::None => weight.map(|_| 1.0),
                        _ => weight,
                    }
                };
                let mut noised = forward::choose(tokens, starts, prompts, self.mask, &mut weight);
                noised.shift(self.shift, starts);
                noised
            }
            Objective::Autoregressive => loss::autoregressive_response(tokens, starts, prompts),
        };
        noised.sequences.iter_mut().for_each(|sequence| *sequence += first);
        noised.weights = self.weights(&noised);
        let pairs = block.map(|_| noised.pair(tokens, starts));
        let excludes = block.is_some_and(|block| block.exclude_mask_logit);
        MicroBatch { noised, pairs, excluded: excludes.then_some(self.mask), sequences: part }
    }

    /// Every part of the batch weighs as its share of the whole.
    fn weights(&self, noised: &Noised) -> Vec<f32> {
        let Recipe { sft, train, block, .. } = self.recipe;
        if let Some(block) = block {
            return loss::normalised(noised, block.normalisation, &self.answers, self.masked);
        }
        match (sft, train.objective) {
            (Some(_), _) => loss::sft_weights(noised, &self.answers),
            (None, Objective::Diffusion) => {
                loss::pretrain_weights(noised, self.sequences.tokens().len())
            }
            (None, Objective::Autoregressive) => {
                let predicted: usize = self.answers.iter().sum();
                vec![1.0 / predicted as f32; noised.positions.len()]
            }
        }
    }
}

/// The length of the sequences of `step`: now and then a batch is cut short, so that the model also
/// sees short sequences (Section 2.2 of the paper; per batch, as the reference code does it).
pub(super) fn sequence_length(recipe: &Recipe, step: u64) -> usize {
    let longest = recipe.data.sequence_length;
    let mut stream = Stream::new(recipe.train.seed, Purpose::Length, step);
    let mut length = longest;
    if stream.uniform() < recipe.data.random_length {
        length = 1 + stream.below(longest as u64) as usize;
    }
    match recipe.train.objective {
        Objective::Diffusion => length,
        // The first token of a sequence is not predicted, so that a sequence of one has no loss.
        Objective::Autoregressive => length.max(2).min(longest),
    }
}

#[cfg(test)]
mod tests;
