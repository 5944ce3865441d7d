//! Many works on one predictor, which share its forward passes: canvases, each with its own sampler,
//! length and progress, and answers that are scored. They come and go.
//!
//! What a work gets does not depend on who shares its passes, and neither does its failure: a canvas
//! whose logits are no numbers, or that outgrows the model, fails alone.

mod batch;
mod cached;
#[cfg(test)]
mod tests;
mod work;

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    Error, Result,
    diffusion::{Reading, predictor::Predictor},
};
use batch::{Assembly, Limits, tokens_fed};
use cached::Cached;

pub use super::cache::CacheRequest;
pub use work::Work;

/// Names a work of an engine, in the order of their admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkId(u64);

impl WorkId {
    /// How many works the engine had admitted before this one.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// What happened to a work. The last two take it out of the engine.
#[derive(Debug)]
pub enum Event<'a, W> {
    /// It is fed for the first time, without so many tokens at its beginning, whose keys and values were
    /// cached before.
    Begun(usize),
    /// It took a step. Of a canvas it is [`Canvas::last_step`](crate::diffusion::Canvas::last_step).
    Step(&'a W),
    /// It is done.
    Done(W),
    /// It cannot go on; it stands as after its last step.
    Failed(W, Error),
}

/// What one step of an engine did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Works that took part in the forward pass; 0 if there was none.
    pub works: usize,
    /// Tokens that were fed, those of guidance included.
    pub tokens_fed: usize,
    /// Tokens at the beginning of sequences that were fed for the first time, which others had been fed
    /// before and which were not fed again.
    pub tokens_reused: usize,
}

/// Works that share the forward passes of `predictor`, whose caches are theirs as long as they are in the
/// engine. `W` is what [works](Work), or a mutable reference to it.
pub struct Engine<'p, P: Predictor + ?Sized, W> {
    predictor: &'p mut P,
    /// In the order of their admission.
    slots: Vec<Slot<W>>,
    admitted: u64,
    /// The share that a work begins with: what those that are fed now have had.
    share: u64,
    /// A query of each work that may find room in the pass: the share that its work has with it, the
    /// index of the work, and how many of its queries are in the pass.
    queue: BinaryHeap<Reverse<(u64, usize, usize)>>,
    assembly: Assembly,
    readings: Vec<Reading>,
}

struct Slot<W> {
    id: WorkId,
    work: W,
    cached: Option<Cached>,
    /// Tokens that were fed for it, on top of what others had had when it came.
    share: u64,
    /// Tokens that it had cached when it began, until that is told.
    reused: Option<usize>,
    state: State,
}

/// How a work stands.
enum State {
    /// Nothing of it was fed yet.
    New,
    Open,
    Done,
    Failed(Error),
}

impl<'p, P: Predictor + ?Sized, W: Work> Engine<'p, P, W> {
    /// An engine without works.
    pub fn new(predictor: &'p mut P) -> Self {
        Self {
            predictor,
            slots: Vec::new(),
            admitted: 0,
            share: 0,
            queue: BinaryHeap::new(),
            assembly: Assembly::default(),
            readings: Vec::new(),
        }
    }

    /// Takes a work in; the next pass that has room for it feeds it. What is wrong with it is told as
    /// [`Event::Failed`] by then.
    pub fn admit(&mut self, work: W) -> WorkId {
        let id = WorkId(self.admitted);
        self.admitted += 1;
        let (share, state) = (self.share, State::New);
        self.slots.push(Slot { id, work, cached: None, share, reused: None, state });
        id
    }

    /// Gives a work back as it stands; `None` if it is not in the engine.
    pub fn cancel(&mut self, id: WorkId) -> Option<W> {
        let index = self.slots.binary_search_by_key(&id, |slot| slot.id).ok()?;
        Some(self.remove(index).work)
    }

    /// The works in the engine, in the order of their admission.
    pub fn works(&self) -> impl ExactSizeIterator<Item = (WorkId, &W)> {
        self.slots.iter().map(|slot| (slot.id, &slot.work))
    }

    /// Works in the engine.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no work is in the engine.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One forward pass over what the works ask and fits in `budget` tokens, at least one query; then a
    /// step of each. `on` is called for every event.
    ///
    /// Works share the tokens that are fed equally, whatever the length of their queries: first comes the
    /// query after which its work has had least, as in start-time fair queueing. So a short work that
    /// arrives beside long ones waits for the pass that runs, and no work waits for ever.
    ///
    /// # Errors
    /// If the predictor fails as a whole. The works are then as before, and may step again.
    pub fn step(
        &mut self,
        budget: usize,
        on: &mut dyn FnMut(WorkId, Event<'_, W>),
    ) -> Result<Pass> {
        self.gather(budget);
        let pass = Pass {
            works: self.assembly.works(),
            tokens_fed: self.assembly.tokens(),
            tokens_reused: self.assembly.reused,
        };
        if pass.works > 0 {
            let slots = &self.slots;
            let work = |index: usize| &slots[index].work;
            if let Err(error) = self.assembly.forward(&mut *self.predictor, work) {
                self.slots
                    .iter_mut()
                    .filter_map(|slot| slot.cached.as_mut())
                    .for_each(Cached::forget);
                return Err(error);
            }
            self.commit(on);
        }
        self.release(on);
        Ok(pass)
    }

    /// Assembles the next pass.
    fn gather(&mut self, budget: usize) {
        self.assembly.clear();
        let limits = Limits {
            shift: self.predictor.shift(),
            vocabulary: self.predictor.vocabulary(),
            longest: self.predictor.longest(),
            budget,
        };
        self.queue.clear();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            match slot.next(0) {
                Some(share) => self.queue.push(Reverse((share, index, 0))),
                None => slot.state = State::Done,
            }
        }
        while let Some(Reverse((_, index, ahead))) = self.queue.pop() {
            let (slot, assembly) = (&mut self.slots[index], &mut self.assembly);
            let fed = assembly.tokens();
            match slot.gather(&mut *self.predictor, &limits, (index, ahead), assembly) {
                Ok(true) => {
                    self.share = self.share.max(slot.share);
                    slot.share += (assembly.tokens() - fed) as u64;
                    let next = slot.next(ahead + 1);
                    self.queue.extend(next.map(|share| Reverse((share, index, ahead + 1))));
                }
                // A shorter one may have room.
                Ok(false) => {}
                Err(error) => slot.state = State::Failed(error),
            }
        }
    }

    /// A step of each work of the pass, for each query that was answered.
    fn commit(&mut self, on: &mut dyn FnMut(WorkId, Event<'_, W>)) {
        let slots = &mut self.slots;
        self.assembly.readings(&mut self.readings, |index, readings| {
            let Slot { id, work, state, reused, .. } = &mut slots[index];
            if matches!(state, State::Failed(_)) {
                return;
            }
            if let Some(reused) = reused.take() {
                on(*id, Event::Begun(reused));
            }
            match readings.map_err(Error::from).and_then(|readings| work.commit(readings)) {
                Ok(()) => on(*id, Event::Step(work)),
                Err(error) => return *state = State::Failed(error),
            }
            if work.is_done() {
                *state = State::Done;
            }
        });
    }

    /// Lets the works go that are done or have failed.
    fn release(&mut self, on: &mut dyn FnMut(WorkId, Event<'_, W>)) {
        let has_ended = |slot: &Slot<W>| matches!(slot.state, State::Done | State::Failed(_));
        while let Some(index) = self.slots.iter().position(has_ended) {
            let Slot { id, work, state, .. } = self.remove(index);
            match state {
                State::Failed(error) => on(id, Event::Failed(work, error)),
                _ => on(id, Event::Done(work)),
            }
        }
    }

    fn remove(&mut self, index: usize) -> Slot<W> {
        let mut slot = self.slots.remove(index);
        if let Some(cached) = slot.cached.take() {
            cached.close(&mut *self.predictor);
        }
        slot
    }
}

impl<W: Work> Slot<W> {
    /// The share that it will have had with its query after `ahead` others.
    fn next(&self, ahead: usize) -> Option<u64> {
        let query = self.work.plan(ahead)?;
        Some(self.share + tokens_fed(&query, self.cached.is_some()) as u64)
    }

    /// Adds one of its queries to the pass; `false` if there is no room for it.
    fn gather<P: Predictor + ?Sized>(
        &mut self,
        predictor: &mut P,
        limits: &Limits,
        (index, ahead): (usize, usize),
        assembly: &mut Assembly,
    ) -> Result<bool> {
        if let State::New = self.state {
            self.cached = Cached::open(predictor, &self.work)?;
            let reused = self.cached.as_ref().map_or(0, |cached| cached.reused);
            assembly.reused += reused;
            self.reused = Some(reused);
            self.state = State::Open;
        }
        let Some(query) = self.work.plan(ahead) else { return Ok(true) };
        assembly.add(limits, (index, ahead), query, self.work.attention(), self.cached.as_mut())
    }
}

impl<P: Predictor + ?Sized, W> Drop for Engine<'_, P, W> {
    /// Gives the memory of its works' caches back.
    fn drop(&mut self) {
        for cached in self.slots.drain(..).filter_map(|slot| slot.cached) {
            cached.close(&mut *self.predictor);
        }
    }
}

/// Runs works to their end, in an engine of their own and as many in a pass as there are, and gives them
/// back in their order.
///
/// # Errors
/// That of the first that fails.
pub fn run<P: Predictor + ?Sized, W: Work>(
    predictor: &mut P,
    works: impl IntoIterator<Item = W>,
) -> Result<Vec<W>> {
    let mut engine = Engine::new(predictor);
    works.into_iter().for_each(|work| _ = engine.admit(work));
    let (mut done, mut failure) = (Vec::with_capacity(engine.len()), None);
    while !engine.is_empty() && failure.is_none() {
        engine.step(usize::MAX, &mut |id, event| match event {
            Event::Begun(_) | Event::Step(_) => {}
            Event::Done(work) => done.push((id, work)),
            Event::Failed(_, error) => failure = failure.take().or(Some(error)),
        })?;
    }
    done.sort_by_key(|(id, _)| *id);
    failure.map_or(Ok(done.into_iter().map(|(_, work)| work).collect()), Err)
}
