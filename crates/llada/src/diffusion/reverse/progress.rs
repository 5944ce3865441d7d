//! From step to step and from block to block.

use std::ops::Range;

use super::{Canvas, Revision, adaptive};
use crate::diffusion::{
    Cache, FastDllm, Reference, Step, TransferRule, transfer::Memory, transfer::Schedule,
};

impl Canvas {
    /// Writes what is committed and masked again in this `step`, puts masks in after the position
    /// `doubtful`, and goes to the next step that commits something.
    pub(super) fn advance(&mut self, step: &mut Step, doubtful: Option<usize>) {
        let was_full = self.is_full();
        let filled = self.count_filled(step);
        for commit in &step.committed {
            self.memory.forget(commit.position);
            match self.tokens.get_mut(commit.position) {
                Some(token) => *token = commit.token,
                None => self.tokens.push(commit.token),
            }
        }
        if let (Some(_), Some(mask)) = (self.sampler.edit, self.mask) {
            step.remasked.iter().for_each(|&position| self.tokens[position] = mask);
        }
        self.revise(&step.committed, &step.remasked);
        self.committed = self.committed + filled - step.remasked.len();
        self.rounds += usize::from(was_full && !self.waits);
        self.stale = self.block_start();
        self.nfe += 1;
        self.step += 1;
        self.end.has_moved = false;
        let stays = self.waits || self.leads;
        let is_finished = !stays && self.block_is_finished(step, was_full);
        let open = self.tokens.iter().position(|&token| Some(token) == self.mask);
        let edited = self.sampler.edit.map(|_| self.start);
        let firm = self.revision.first().or(edited).filter(|_| !is_finished);
        step.stable = open.into_iter().chain(firm).min().unwrap_or(self.tokens.len());
        (step.nfe, step.block) = (self.nfe, self.block);
        let at_once = self.sampler.follows(Reference::Diffusers);
        let stops = |&end: &usize| self.sampler.stop_at_eos && (at_once || end <= step.stable);
        let end = self.text_end(step).filter(stops);
        if let (None, Some(position)) = (end, doubtful) {
            step.inserted.extend(self.insert_after(position));
        }
        match end {
            Some(end) => {
                // That code leaves what follows as it is.
                self.tokens.truncate(if at_once { usize::MAX } else { end });
                self.stop();
            }
            None if self.leads => self.follow(),
            None if is_finished => self.close_block(),
            None => {}
        }
    }

    /// Opens the next block that has something to fill, beginning where the last one ended.
    pub(super) fn open_block(&mut self) {
        self.step = 0;
        self.memory = Memory::default();
        self.revision = Revision::default();
        self.rounds = 0;
        while let Some(end) = self.next_end() {
            let start = self.span.end;
            (self.start, self.horizon) = (start, end);
            let Some(mask) = self.mask else {
                self.span = start..end;
                self.schedule = Schedule { masks: 1, steps: 1 };
                return;
            };
            if self.needs_lead(start) {
                self.leads = true;
                self.span = start..start;
                return;
            }
            if self.sampler.blocks.grows() {
                self.tokens.resize(end, mask);
            }
            // A mask that the prompt brought along, or a hole before the block.
            let first = self.tokens[..end].iter().position(|&token| token == mask);
            let is_literal = self.sampler.is_literal() && !self.sampler.follows_dream();
            let literal = is_literal && self.holes.is_none();
            let first = if literal { start } else { first.unwrap_or(end) };
            let masks = self.tokens[first..end].iter().filter(|&&token| token == mask).count();
            self.span = first..end;
            let steps = match self.is_variable() {
                true => self.sampler.steps_for(masks),
                false => self.steps_per_block(),
            };
            // The published samplers share a whole block, whatever the prompt has of it.
            let whole = self.aligned().filter(|_| self.sampler.exact);
            self.schedule = Schedule { masks: whole.unwrap_or(masks), steps };
            if masks > 0 {
                return;
            }
            self.block += 1;
        }
        self.finish();
    }

    /// Where the block after the current one ends; `None` if that was the last.
    fn next_end(&self) -> Option<usize> {
        if let Some(holes) = &self.holes {
            return holes.block_ends.get(self.block).copied();
        }
        let goal = if self.is_variable() { self.tokens.len() } else { self.length() };
        let block = match self.sampler.adaptive_blocks {
            Some(_) => adaptive::REACH * self.sampler.block(),
            None => self.sampler.block(),
        };
        let start = self.span.end;
        let end = match self.aligned() {
            Some(block) => (start / block + 1) * block,
            None => start + block,
        };
        (start < goal).then(|| goal.min(end))
    }

    /// Whether the open block has no mask left.
    fn is_full(&self) -> bool {
        self.mask.is_some_and(|mask| !self.tokens[self.span.clone()].contains(&mask))
    }

    /// Whether the open block takes no more steps.
    fn block_is_finished(&self, last: &Step, was_full: bool) -> bool {
        if self.mask.is_none() {
            return true;
        }
        if self.sampler.follows(Reference::Diffusers) {
            return self.diffusers_leaves(was_full, last.changes());
        }
        let is_full = self.is_full();
        if let Some(edit) = self.sampler.edit {
            // What no pass changes any more stays as it is.
            return !last.changes() || (is_full && self.rounds >= edit.rounds);
        }
        let Schedule { masks, steps } = self.schedule;
        match self.sampler.fast_dllm {
            None if self.sampler.follows(Reference::FastDllmV2) => is_full || !last.changes(),
            // Masks of the prompt are open but not counted in the schedule.
            None if self.sampler.exact && self.sampler.reference.tempers() => {
                is_full || self.step >= steps
            }
            None if self.sampler.exact => self.schedule.tokens(self.step) == 0,
            None => is_full,
            Some(version) => {
                let cache = self.sampler.cache;
                let most = match (version, cache, self.sampler.transfer) {
                    (FastDllm::V1, Cache::Dual(_), _) | (_, _, TransferRule::Schedule) => steps,
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

    pub(super) fn close_block(&mut self) {
        let goes_on = self.sampler.exact && self.sampler.reference.edits();
        let looks = self.sampler.blocks.grows() && !goes_on;
        if looks && self.tokens[self.start..].iter().any(|&token| self.ends(token)) {
            return self.stop();
        }
        self.block += 1;
        self.open_block();
    }

    fn stop(&mut self) {
        self.stopped_at_eos = true;
        self.finish();
    }

    /// Ends the run, without what a last whole block has beyond the response's length.
    pub(super) fn finish(&mut self) {
        if self.aligned().is_some() {
            self.tokens.truncate(self.goal());
        }
        self.done = true;
    }

    /// Where the text ends: after the first EOS or EoT of the response, if no mask is before it.
    fn text_end(&self, step: &Step) -> Option<usize> {
        let response = self.prompt.tokens.len();
        if self.exact_end_in_prompt(step) {
            return Some(response);
        }
        if self.diffusers_overlooks_end(step) {
            return None;
        }
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
            Some(_) if self.end.is_open || self.end.has_moved => 0..len,
            Some(_) if self.aligned().is_some() => self.fresh_of_block(),
            Some(_) => self.sampler.cache.fresh(self.step, self.span.clone(), len),
        }
    }

    /// Works out what the next step needs.
    pub(super) fn prepare(&mut self) {
        let mut plan = std::mem::take(&mut self.plan);
        plan.wanted.clear();
        plan.present.clear();
        if !self.done {
            self.ask(&mut plan.wanted);
            if let (Some(window), Some(mask)) = (self.sampler.suffix_window, self.mask) {
                plan.present.extend(window.present(&self.tokens, mask, self.horizon));
            }
        }
        if let Some(mask) = self.mask.filter(|_| self.sampler.cfg_scale > 0.0) {
            plan.unconditional.clone_from(&self.tokens);
            for (token, &given) in plan.unconditional.iter_mut().zip(&self.prompt.tokens) {
                // A mask that the prompt brought along is not part of the condition.
                if given != mask {
                    *token = mask;
                }
            }
        }
        self.plan = plan;
    }

    /// Adds to `wanted` the positions whose logits a step needs: the masks before the end of the block,
    /// of those that are fed, and what may be revised or tells of the end of the text. The masks are
    /// usually those of the block; in the prompt or an earlier block one may be left, as in the
    /// reference.
    fn ask(&self, wanted: &mut Vec<usize>) {
        let Some(mask) = self.mask else { return wanted.push(self.tokens.len() - self.lag()) };
        if self.leads {
            return wanted.push(self.tokens.len());
        }
        if self.end.is_open {
            return wanted.extend(self.tail().filter(|&i| self.tokens[i] == mask));
        }
        let fed = self.fresh();
        let from = if self.aligned().is_some() { self.block_start() } else { fed.start };
        let in_block = (from..self.part().end)
            .filter(|&i| self.tokens[i] == mask || self.revision.may_revise(i) || self.may_edit(i));
        let after = self.tail().filter(|&i| i >= self.span.end && self.tokens[i] == mask);
        wanted.extend(in_block.chain(after.filter(|i| fed.contains(i))));
    }

    /// How far a position is from the one whose logits predict it: those of a causal model predict the
    /// token after.
    pub(super) fn lag(&self) -> usize {
        usize::from(self.mask.is_none())
    }

    /// Whether `position` can be committed now.
    pub(super) fn is_candidate(&self, position: usize) -> bool {
        position < self.part().end && self.tokens.get(position).copied() == self.mask
            || self.mask.is_none()
            || self.leads
    }

    /// Index of the current step in the whole schedule.
    pub(super) fn step_index(&self) -> usize {
        match self.sampler.is_irregular() {
            true => self.nfe,
            false => self.block * self.steps_per_block() + self.step,
        }
    }

    /// Whether `token` ends the text.
    pub(super) fn ends(&self, token: u32) -> bool {
        Some(token) == self.special.eos || Some(token) == self.special.eot
    }
}
