//! Many canvases on one predictor: they come and go, each with its own sampler, length and progress,
//! and share the forward passes.
//!
//! What a canvas gets does not depend on who shares its passes, and neither does its failure: a canvas
//! whose logits are no numbers, or that outgrows the model, fails alone.

mod batch;
#[cfg(test)]
mod tests;

use std::borrow::BorrowMut;

use crate::{
    Error, Result,
    diffusion::{Canvas, Reading, Step, predictor::Predictor},
};
use batch::{Assembly, Held, Limits};

/// Names a canvas of an engine, in the order of their admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(u64);

impl RowId {
    /// How many canvases the engine had admitted before this one.
    pub fn number(self) -> usize {
        self.0 as usize
    }
}

/// What happened to a canvas. The last two take it out of the engine.
#[derive(Debug)]
pub enum Event<'a, C> {
    /// It took a step.
    Step(&'a Step),
    /// It is done.
    Done(C),
    /// It cannot go on; it stands as after its last step.
    Failed(C, Error),
}

/// What one step of an engine did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Canvases that took part in the forward pass; 0 if there was none.
    pub rows: usize,
    /// Tokens that were fed, those of guidance included.
    pub tokens_fed: usize,
    /// Tokens at the beginning of canvases that were fed for the first time, which others had been fed
    /// before and which were not fed again.
    pub tokens_reused: usize,
}

/// Canvases that share the forward passes of `predictor`, whose caches are theirs as long as they are
/// in the engine. `C` is a [`Canvas`], or a mutable reference to one.
pub struct Engine<'p, P: Predictor + ?Sized, C> {
    predictor: &'p mut P,
    /// In the order of their admission.
    rows: Vec<Row<C>>,
    admitted: u64,
    /// Which canvas the next pass begins with: the first that the last one had no room for.
    next: RowId,
    assembly: Assembly,
    readings: Vec<Reading>,
}

struct Row<C> {
    id: RowId,
    canvas: C,
    held: Option<Held>,
    state: State,
}

/// How a canvas stands.
enum State {
    /// Nothing of it was fed yet.
    New,
    Open,
    Done,
    Failed(Error),
}

impl<'p, P: Predictor + ?Sized, C: BorrowMut<Canvas>> Engine<'p, P, C> {
    /// An engine without canvases.
    pub fn new(predictor: &'p mut P) -> Self {
        Self {
            predictor,
            rows: Vec::new(),
            admitted: 0,
            next: RowId(0),
            assembly: Assembly::default(),
            readings: Vec::new(),
        }
    }

    /// Takes a canvas in; the next pass that has room for it feeds it. What is wrong with it is told as
    /// [`Event::Failed`] by then.
    pub fn admit(&mut self, canvas: C) -> RowId {
        let id = RowId(self.admitted);
        self.admitted += 1;
        self.rows.push(Row { id, canvas, held: None, state: State::New });
        id
    }

    /// Gives a canvas back as it stands; `None` if it is not in the engine.
    pub fn cancel(&mut self, id: RowId) -> Option<C> {
        let index = self.rows.binary_search_by_key(&id, |row| row.id).ok()?;
        Some(self.remove(index).canvas)
    }

    /// Canvases in the engine.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no canvas is in the engine.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// One forward pass over the canvases that fit in `budget` tokens, at least one of them, beginning
    /// where the last pass ended; then a step of each. `on` is called for every event.
    ///
    /// # Errors
    /// If the predictor fails as a whole. The canvases are then as before, and may step again.
    pub fn step(&mut self, budget: usize, on: &mut dyn FnMut(RowId, Event<'_, C>)) -> Result<Pass> {
        self.gather(budget);
        let pass = Pass {
            rows: self.assembly.parts.len(),
            tokens_fed: self.assembly.tokens.len(),
            tokens_reused: self.assembly.reused,
        };
        if pass.rows > 0 {
            let rows = &self.rows;
            let canvas = |index: usize| rows[index].canvas.borrow();
            if let Err(error) = self.assembly.forward(&mut *self.predictor, canvas) {
                self.rows.iter_mut().filter_map(|row| row.held.as_mut()).for_each(Held::forget);
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
        let (count, first) = (self.rows.len(), self.rows.partition_point(|row| row.id < self.next));
        self.next = RowId(0);
        for index in (first..count).chain(0..first) {
            let row = &mut self.rows[index];
            match row.gather(&mut *self.predictor, &limits, index, &mut self.assembly) {
                Ok(true) => {}
                Ok(false) => {
                    self.next = row.id;
                    break;
                }
                Err(error) => row.state = State::Failed(error),
            }
        }
    }

    /// A step of each canvas of the pass.
    fn commit(&mut self, on: &mut dyn FnMut(RowId, Event<'_, C>)) {
        let rows = &mut self.rows;
        self.assembly.readings(&mut self.readings, |index, readings| {
            let Row { id, canvas, state, .. } = &mut rows[index];
            let canvas: &mut Canvas = canvas.borrow_mut();
            match readings.and_then(|readings| canvas.commit(readings)) {
                Ok(step) => on(*id, Event::Step(step)),
                Err(error) => *state = State::Failed(error.into()),
            }
            if canvas.is_done() {
                *state = State::Done;
            }
        });
    }

    /// Lets the canvases go that are done or have failed.
    fn release(&mut self, on: &mut dyn FnMut(RowId, Event<'_, C>)) {
        let has_ended = |row: &Row<C>| matches!(row.state, State::Done | State::Failed(_));
        while let Some(index) = self.rows.iter().position(has_ended) {
            let Row { id, canvas, state, .. } = self.remove(index);
            match state {
                State::Failed(error) => on(id, Event::Failed(canvas, error)),
                _ => on(id, Event::Done(canvas)),
            }
        }
    }

    fn remove(&mut self, index: usize) -> Row<C> {
        let mut row = self.rows.remove(index);
        if let Some(held) = row.held.take() {
            held.close(&mut *self.predictor);
        }
        row
    }
}

impl<C: BorrowMut<Canvas>> Row<C> {
    /// Adds what it asks for to the pass; `false` if there is no room for it.
    fn gather<P: Predictor + ?Sized>(
        &mut self,
        predictor: &mut P,
        limits: &Limits,
        index: usize,
        assembly: &mut Assembly,
    ) -> Result<bool> {
        let canvas: &Canvas = self.canvas.borrow();
        if canvas.is_done() {
            self.state = State::Done;
            return Ok(true);
        }
        if let State::New = self.state {
            self.held = Held::open(predictor, canvas)?;
            assembly.reused += self.held.as_ref().map_or(0, Held::reused);
            self.state = State::Open;
        }
        assembly.add(limits, index, canvas, self.held.as_mut())
    }
}

impl<P: Predictor + ?Sized, C> Drop for Engine<'_, P, C> {
    /// Gives the memory of its canvases' caches back.
    fn drop(&mut self) {
        for held in self.rows.drain(..).filter_map(|row| row.held) {
            held.close(&mut *self.predictor);
        }
    }
}
