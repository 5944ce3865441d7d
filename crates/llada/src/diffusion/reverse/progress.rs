//! From step to step and from block to block.

use std::ops::Range;

use super::Canvas;
use crate::diffusion::{Cache, Commit, FastDllm, Keep, Step, transfer::Schedule};

impl Canvas {
    /// Writes the committed tokens and goes to the next step that commits something.
    pub(super) fn advance(&mut self, step: usize, committed: Vec<Commit>) -> Step {
        for commit in &committed {
            self.memory.forget(commit.position);
            match self.tokens.get_mut(commit.position) {
                Some(token) => *token = commit.token,
                None => self.tokens.push(commit.token),
            }
        }
        self.committed += committed.len();
        self.nfe += 1;
        let open = self.tokens.iter().position(|&token| Some(token) == self.mask);
        let event = Step {
            nfe: self.nfe,
            step,
            block: self.block,
            committed,
            remasked: Vec::new(),
            stable: open.unwrap_or(self.tokens.len()),
        };
        self.step += 1;
        match self.text_end().filter(|_| self.sampler.stop_at_eos) {
            Some(end) => {
                self.tokens.truncate(end);
                self.stop();
            }
            None if self.block_is_finished() => self.close_block(),
            None => {}
        }
        event
    }

    /// Opens the next block that has something to fill, beginning where the last one ended.
    pub(super) fn open_block(&mut self) {
        self.step = 0;
        while let Some(end) = self.next_end() {
            let start = self.span.end;
            let Some(mask) = self.mask else {
                self.span = start..end;
                self.schedule = Schedule { masks: 1, steps: 1 };
                return;
            };
            if self.sampler.blocks.grows() {
                self.tokens.resize(end, mask);
            }
            // A mask that the prompt brought along, or a hole before the block.
            let first = self.tokens[..end].iter().position(|&token| token == mask);
            let literal = self.sampler.is_literal() && self.holes.is_none();
            let first = if literal { start } else { first.unwrap_or(end).min(end) };
            let masks = self.tokens[first..end].iter().filter(|&&token| token == mask).count();
            self.span = first..end;
            self.schedule = Schedule { masks, steps: self.steps_per_block() };
            if masks > 0 {
                return;
            }
            self.block += 1;
        }
        self.done = true;
    }

    /// Where the block after the current one ends; `None` if that was the last.
    fn next_end(&self) -> Option<usize> {
        if let Some(holes) = &self.holes {
            return holes.block_ends.get(self.block).copied();
        }
        let (start, goal) = (self.span.end, self.length());
        (start < goal).then(|| goal.min(start + self.sampler.block()))
    }

    /// Whether the open block takes no more steps.
    fn block_is_finished(&self) -> bool {
        let Some(mask) = self.mask else { return true };
        let is_full = !self.tokens[self.span.clone()].contains(&mask);
        let Schedule { masks, steps } = self.schedule;
        match self.sampler.fast_dllm {
            // Masks of the prompt are open but not counted in the schedule.
            None if self.sampler.exact => self.schedule.tokens(self.step) == 0,
            None => is_full,
            Some(version) => {
                let cache = self.sampler.cache;
                let most = match (version, cache, self.sampler.keep) {
                    (FastDllm::V1, Cache::Dual(_), _) | (_, _, Keep::Schedule) => steps,
                    _ => masks,
                };
                let least = match version {
                    FastDllm::V0 if cache != Cache::None => 2,
                    _ => 1,
                };
                self.step >= least && (is_full || self.step >= most)
            }
        }
    }

    fn close_block(&mut self) {
        if self.sampler.blocks.grows() {
            let start = self.span.end - self.sampler.block();
            if self.tokens[start..].iter().any(|&token| self.ends(token)) {
                return self.stop();
            }
        }
        self.block += 1;
        self.open_block();
    }

    fn stop(&mut self) {
        self.stopped_at_eos = true;
        self.done = true;
    }

    /// Where the text ends: after the first EOS or EoT of the response, if no mask is before it.
    fn text_end(&self) -> Option<usize> {
        let response = self.prompt.tokens.len();
        let end = response + self.response().iter().position(|&token| self.ends(token))?;
        let filled = self.tokens[..end].iter().all(|&token| Some(token) != self.mask);
        filled.then_some(end + 1)
    }

    /// The positions that the next pass must feed.
    pub(super) fn fresh(&self) -> Range<usize> {
        let len = self.tokens.len();
        match self.mask {
            // Of a causal model, a step changes nothing but the token that it appends.
            None => {
                if self.nfe > 0 {
                    len - 1..len
                } else {
                    0..len
                }
            }
            Some(_) => self.sampler.cache.fresh(self.step, self.span.clone(), len),
        }
    }

    /// The positions that take part in the next pass; `None` if all do.
    pub(super) fn present(&self) -> Option<Vec<u32>> {
        let (window, mask) = (self.sampler.suffix_window?, self.mask?);
        let present = window.present(&self.tokens, mask, self.span.end);
        (present.len() < self.tokens.len()).then_some(present)
    }

    /// Positions that can be committed now: the masks before the end of the block, of those that are
    /// fed. Usually those of the block; in the prompt or an earlier block a mask may be left, as in
    /// the reference.
    pub(super) fn open_positions(&self) -> Vec<usize> {
        match self.mask {
            None => vec![self.tokens.len()],
            Some(mask) => {
                let fed = self.fresh().start..self.span.end;
                fed.filter(|&i| self.tokens[i] == mask).collect()
            }
        }
    }

    /// Index of the current step in the whole schedule.
    pub(super) fn step_index(&self) -> usize {
        self.block * self.steps_per_block() + self.step
    }

    /// Whether `token` ends the text.
    pub(super) fn ends(&self, token: u32) -> bool {
        Some(token) == self.special.eos || Some(token) == self.special.eot
    }
}
