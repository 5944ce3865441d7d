//! How long the holes are that were given no length.
//!
//! Every length up to a limit is tried, as a sequence of one batch: the holes are filled as they
//! will be, and the fill of the hole in question is scored by
//!
//! mean ln p(token when it was committed) + mean ln p(token after the hole, given the fill).
//!
//! The first term ranks lengths as Mask-Predict does (arXiv 1904.09324); a mean, since a sum would
//! always prefer the shortest. The second is over the first four tokens that follow, masked
//! together: a fill that breaks off, or runs into what follows, leaves them unlikely, however sure
//! the model was of it. Where nothing follows, the first term decides alone.
//!
//! Several holes are decided from left to right, those to the right standing at one token: not the
//! best joint choice, whose price grows with the power of the holes. A search for n lengths costs
//! about n²/2 sequence forwards with one token for each step. The model must know what a good fill
//! is for this to mean much; lengths that small models choose lean to the short side.

use std::{collections::VecDeque, ops::Range};

use super::{Frame, InfillError};
use crate::{
    Result,
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Canvas, Query, ReadSpec, Reading, Sampler, SamplerError, likelihood::Sequence,
        predictor::Predictor,
    },
    engine::{CacheRequest, Engine, Event, Work},
};

/// Tokens after a hole that a fill is judged by.
const BORDER: usize = 4;

/// What a search is about.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// The text.
    pub frame: &'a Frame,
    /// How the holes will be filled.
    pub sampler: &'a Sampler,
    /// Special tokens of the model.
    pub special: &'a SpecialTokens,
    /// Which tokens the model's attend to.
    pub attention: AttentionMask,
    /// Longest hole to try, in tokens.
    pub max_hole: usize,
    /// The model's longest sequence, in tokens.
    pub limit: usize,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lengths {
    /// The length of each hole, those that were given included.
    pub lengths: Vec<usize>,
    /// Batched forward passes that the search took; 0 if every length was given.
    pub nfe: usize,
    /// Forward passes summed over the sequences that were tried.
    pub sequence_forwards: usize,
}

/// Chooses a length for each hole that has none. `None` if `stop` said so, which is asked after
/// every step of a sequence.
///
/// # Errors
/// If the sequence is too long for the model, the settings do not fit the model or each other, or the
/// model fails.
pub fn search<P: Predictor + ?Sized>(
    predictor: &mut P,
    search: &Search<'_>,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Option<Lengths>> {
    let mut choosing = Choosing::new(*search)?;
    while let Some(trials) = choosing.trials()? {
        let Some(trials) = run(predictor, trials, stop)? else { return Ok(None) };
        choosing.choose(&trials);
    }
    Ok(Some(choosing.found))
}

/// Runs trials to their end; `None` if `stop` says so.
fn run<P: Predictor + ?Sized>(
    predictor: &mut P,
    trials: Vec<Trial>,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<Trial>>> {
    let mut engine = Engine::new(predictor);
    let (mut done, mut failure, mut stops) = (Vec::with_capacity(trials.len()), None, false);
    trials.into_iter().for_each(|trial| _ = engine.admit(trial));
    while !engine.is_empty() && failure.is_none() && !stops {
        engine.step(usize::MAX, &mut |id, event| match event {
            Event::Begun(_) => {}
            Event::Step(_) => stops |= stop(),
            Event::Done(trial) => done.push((id, trial)),
            Event::Failed(_, error) => failure = failure.take().or(Some(error)),
        })?;
    }
    done.sort_by_key(|(id, _)| *id);
    match failure {
        Some(error) => Err(error),
        None if stops => Ok(None),
        None => Ok(Some(done.into_iter().map(|(_, trial)| trial).collect())),
    }
}

/// A search on its way: [`Choosing::trials`] says what to run, and [`Choosing::choose`] takes what came of it.
#[derive(Debug)]
pub struct Choosing<'a> {
    search: Search<'a>,
    found: Lengths,
    /// Tokens that the model could still take.
    room: usize,
    /// The holes that have no length yet.
    open: VecDeque<usize>,
    /// The lengths that are tried of the first of them.
    tried: Vec<usize>,
}

impl<'a> Choosing<'a> {
    /// Begins with the shortest lengths that may be.
    ///
    /// # Errors
    /// If the sequence is too long for the model, or no length satisfies the frame's constraint.
    pub fn new(search: Search<'a>) -> Result<Self> {
        let Search { frame, attention, limit, max_hole, .. } = search;
        super::check_attention(attention)?;
        let given = frame.lengths();
        let shortest = |(hole, length): (usize, &Option<usize>)| {
            let fitting = || (1..=max_hole.max(1)).find(|&length| frame.fits(hole, length));
            length.or_else(fitting).ok_or(SamplerError::NoFitLength { longest: max_hole }.into())
        };
        let lengths = given.iter().enumerate().map(shortest).collect::<Result<Vec<_>>>()?;
        let tokens = frame.given() + lengths.iter().sum::<usize>();
        let Some(room) = limit.checked_sub(tokens) else {
            return Err(InfillError::TooLong { tokens, limit }.into());
        };
        let open = (0..given.len()).filter(|&hole| given[hole].is_none()).collect();
        let found = Lengths { lengths, nfe: 0, sequence_forwards: 0 };
        Ok(Self { search, found, room, open, tried: Vec::new() })
    }

    /// A trial of each length that the next hole may have; `None` once every hole has one.
    ///
    /// # Errors
    /// If the settings do not fit the model or the text.
    pub fn trials(&mut self) -> Result<Option<Vec<Trial>>> {
        let Some(&hole) = self.open.front() else { return Ok(None) };
        let Self { search, found, room, tried, .. } = self;
        let shortest = found.lengths[hole];
        let longest = search.max_hole.clamp(shortest, shortest + *room);
        *tried = (shortest..=longest).filter(|&n| search.frame.fits(hole, n)).collect();
        let trial = |&length: &usize| {
            let mut lengths = found.lengths.clone();
            lengths[hole] = length;
            Trial::new(search, &lengths, hole)
        };
        tried.iter().map(trial).collect::<Result<_>>().map(Some)
    }

    /// Gives the hole the length of the best of its trials, which are done and in their order; of equals the
    /// shortest.
    pub fn choose(&mut self, trials: &[Trial]) {
        let Some(hole) = self.open.pop_front() else { return };
        let scored = self.tried.iter().zip(trials).rev();
        let best = scored.max_by(|(_, a), (_, b)| a.score.total_cmp(&b.score));
        let shortest = self.found.lengths[hole];
        let chosen = best.map_or(shortest, |(&length, _)| length);
        self.found.lengths[hole] = chosen;
        self.room -= chosen - shortest;
        self.found.nfe += trials.iter().map(|trial| trial.forwards).max().unwrap_or(0);
        self.found.sequence_forwards += trials.iter().map(|trial| trial.forwards).sum::<usize>();
    }

    /// The lengths as they stand.
    pub fn lengths(&self) -> &Lengths {
        &self.found
    }
}

/// One length of one hole that is tried, as work of an [`Engine`]: the holes are filled, and then what follows
/// is judged.
#[derive(Debug)]
pub struct Trial {
    canvas: Canvas,
    /// Where the hole is.
    place: Range<usize>,
    /// Where its border ends.
    end: usize,
    mask: u32,
    /// What follows the hole, once it is filled.
    border: Option<Border>,
    /// Forward passes so far.
    forwards: usize,
    score: f64,
}

impl Trial {
    fn new(search: &Search<'_>, lengths: &[usize], hole: usize) -> Result<Self> {
        let &Search { frame, sampler, special, attention, .. } = search;
        // What is revised would count twice.
        let sampler = &Sampler { revise: None, ..sampler.clone() };
        let canvas = Canvas::infill(frame, lengths, sampler, special, attention)?;
        let places = frame.places(lengths);
        let next = places.get(hole + 1).map_or(canvas.tokens().len(), |next| next.start);
        let place = places[hole].clone();
        let mask = special.mask.ok_or(SamplerError::NoMask)?;
        let (end, border) = (next.min(place.end + BORDER), None);
        let mut trial = Self { canvas, place, end, mask, border, forwards: 0, score: 0.0 };
        trial.look();
        Ok(trial)
    }

    /// Turns to the border once the holes are filled.
    fn look(&mut self) {
        if self.canvas.is_done() && self.border.is_none() {
            let (tokens, range) = (self.canvas.tokens(), self.place.end..self.end);
            self.border = Some(Border::new(tokens, range, self.mask, self.canvas.attention()));
        }
    }
}

impl Work for Trial {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        match &self.border {
            Some(border) => border.plan(ahead),
            None => Work::plan(&self.canvas, ahead),
        }
    }

    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_> {
        match &self.border {
            Some(border) => border.read_spec(ahead, wanted),
            None => Work::read_spec(&self.canvas, ahead, wanted),
        }
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        self.forwards += 1;
        if let Some(border) = &mut self.border {
            border.commit(readings)?;
            self.score += border.score.unwrap_or(0.0);
            return Ok(());
        }
        let (place, step) = (&self.place, self.canvas.commit(readings)?);
        let inside = step.committed.iter().filter(|commit| place.contains(&commit.position));
        let sum: f64 = inside.map(|commit| log(f64::from(commit.confidence))).sum();
        self.score += sum / place.len() as f64;
        self.look();
        Ok(())
    }

    fn attention(&self) -> AttentionMask {
        self.canvas.attention()
    }

    fn cache(&self) -> Option<CacheRequest> {
        // Of the two sequences of guidance the border has one.
        let is_guided = self.canvas.sampler().cfg_scale > 0.0;
        Work::cache(&self.canvas).filter(|_| !is_guided)
    }
}

/// The tokens of a range, masked together.
#[derive(Debug)]
struct Border {
    sequence: Sequence,
    /// Mean ln p of the tokens, once that is known.
    score: Option<f64>,
}

impl Border {
    fn new(tokens: &[u32], range: Range<usize>, mask: u32, attention: AttentionMask) -> Self {
        let masked: Vec<usize> = range.collect();
        Self { sequence: Sequence::masked(&[], tokens, &masked, mask, attention, 0.0), score: None }
    }
}

impl Work for Border {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        let is_asked = !self.sequence.positions.is_empty() && self.score.is_none();
        (ahead == 0 && is_asked).then(|| self.sequence.query())
    }

    fn read_spec(&self, _ahead: usize, wanted: usize) -> ReadSpec<'_> {
        ReadSpec::probe(wanted, self.sequence.target(wanted), 0.0)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        let least = f64::MIN_POSITIVE.ln();
        let sum: f64 = readings.iter().map(|said| said.log_probability().max(least)).sum();
        self.score = Some(sum / readings.len() as f64);
        Ok(())
    }

    fn attention(&self) -> AttentionMask {
        self.sequence.attention
    }
}

/// The logarithm; of 0 that of the smallest number, so that means stay comparable.
fn log(probability: f64) -> f64 {
    probability.max(f64::MIN_POSITIVE).ln()
}
