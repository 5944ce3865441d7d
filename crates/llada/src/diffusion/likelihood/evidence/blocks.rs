//! The bound of a model that attends by blocks: a pass has a noisy and a clean copy of each sequence, so that
//! all blocks are scored at once, each after clean ones.

use super::{Evidence, Window, subset, tokens_of};
use crate::{
    Result,
    diffusion::forward::Noised,
    model::{Batch, Feed, MaskPredictor, Targets},
    rng::{Purpose, Stream},
};

/// The golden ratio, by multiples of which the levels of a version's blocks differ.
const GOLDEN: f64 = 0.618_033_988_749_894_9;

/// The masked tokens of one block.
struct Block {
    sequence: usize,
    masks: usize,
    /// Its tokens that are predicted.
    length: usize,
    /// Those of its masked tokens that have a loss: all but what is the mask in the text too.
    scored: usize,
}

impl Evidence {
    /// [`Evidence::advance`] where blocks have `block` tokens.
    pub(super) fn advance_blocks(
        &mut self,
        predictor: &mut MaskPredictor,
        read: &mut dyn FnMut(Window, &mut Vec<u32>) -> Result<()>,
        mask: u32,
        block: usize,
    ) -> Result<bool> {
        let (mut clean, mut starts) = (Vec::new(), vec![0]);
        let (mut noised, mut blocks) = (Noised::default(), Vec::new());
        let mut version = self.done;
        while version < self.versions() {
            let window = self.windows[version / self.settings.draws];
            let fed = 2 * (clean.len() + window.length);
            if version > self.done && fed > self.settings.tokens_per_forward {
                break;
            }
            let tokens = tokens_of(window, read)?;
            self.mask_blocks(version, &tokens, mask, block, &mut noised, &mut blocks);
            clean.extend(tokens);
            starts.push(clean.len());
            version += 1;
        }
        if version == self.done {
            return Ok(false);
        }
        noised.shift(self.shift, &starts);
        let starts = noised.pair(&clean, &starts);
        let batch = Batch { tokens: &noised.tokens, starts: &starts, attention_mask: None };
        let (positions, tokens) = (&noised.positions, &noised.targets);
        // No sampler predicts a mask.
        let targets = Targets { positions, tokens, excluded: Some(mask), ..Targets::default() };
        let mut nll = Vec::new();
        predictor.nll(Feed::pairs(batch), &targets, &mut nll)?;
        let mut rest = nll.as_slice();
        for Block { sequence, masks, length, scored } in blocks {
            let (own, after) = rest.split_at(scored);
            rest = after;
            let loss = own.iter().map(|&nll| f64::from(nll)).sum();
            self.add_masked(sequence, loss, masks, length);
        }
        self.done = version;
        Ok(self.done < self.versions())
    }

    /// Adds the noisy sequence of `version`, some of whose `tokens` are masked in every block.
    fn mask_blocks(
        &self,
        version: usize,
        tokens: &[u32],
        mask: u32,
        block: usize,
        noised: &mut Noised,
        blocks: &mut Vec<Block>,
    ) {
        let (sequence, draw) = (version / self.settings.draws, version % self.settings.draws);
        let window = self.windows[sequence];
        let address = (window.number << 16) | draw as u64;
        let mut stream = Stream::new(self.settings.seed, Purpose::Validation, address);
        let start = noised.tokens.len();
        noised.tokens.extend_from_slice(tokens);
        for (number, first) in (0..tokens.len()).step_by(block).enumerate() {
            let end = first.saturating_add(block).min(tokens.len());
            let begin = first.max(window.given);
            if begin >= end {
                continue;
            }
            let length = end - begin;
            let level = (self.levels[version] + number as f64 * GOLDEN).fract();
            let masks = (1 + (level * length as f64) as usize).min(length);
            let before = noised.targets.len();
            for i in subset(&mut stream, length, masks) {
                if tokens[begin + i] == mask {
                    continue;
                }
                noised.positions.push(start + begin + i);
                noised.targets.push(tokens[begin + i]);
                noised.tokens[start + begin + i] = mask;
            }
            let scored = noised.targets.len() - before;
            blocks.push(Block { sequence, masks, length, scored });
        }
    }
}
