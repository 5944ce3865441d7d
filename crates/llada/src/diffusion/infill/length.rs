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

use std::ops::{ControlFlow, Range};

use super::{Frame, InfillError};
use crate::{
    Error, Result,
    config::{AttentionMask, SpecialTokens},
    diffusion::{
        Canvas, Query, ReadSpec, Reading, Sampler, SamplerError, generate, likelihood::Sequence,
        predictor::Predictor,
    },
    engine::{self, Work},
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
    let &Search { frame, attention, limit, max_hole, .. } = search;
    super::check_attention(attention)?;
    let given = frame.lengths();
    // The shortest that may be, until more is known.
    let shortest = |(hole, length): (usize, &Option<usize>)| {
        let fitting = || (1..=max_hole.max(1)).find(|&length| frame.fits(hole, length));
        length.or_else(fitting).ok_or(Error::from(SamplerError::NoFitLength { longest: max_hole }))
    };
    let lengths = given.iter().enumerate().map(shortest).collect::<Result<Vec<_>>>()?;
    let tokens = frame.given() + lengths.iter().sum::<usize>();
    let Some(mut room) = limit.checked_sub(tokens) else {
        return Err(InfillError::TooLong { tokens, limit }.into());
    };
    let mut found = Lengths { lengths, nfe: 0, sequence_forwards: 0 };
    for hole in (0..given.len()).filter(|&hole| given[hole].is_none()) {
        let shortest = found.lengths[hole];
        let longest = max_hole.clamp(shortest, shortest + room);
        let tried: Vec<usize> = (shortest..=longest).filter(|&n| frame.fits(hole, n)).collect();
        let Some(scores) = scores(predictor, search, hole, &tried, &mut found, stop)? else {
            return Ok(None);
        };
        // Of equals the shortest.
        let best = (0..tried.len()).rev().max_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        found.lengths[hole] = best.map_or(shortest, |best| tried[best]);
        room -= found.lengths[hole] - shortest;
    }
    Ok(Some(found))
}

/// The score of each of the lengths that `hole` may have.
fn scores<P: Predictor + ?Sized>(
    predictor: &mut P,
    search: &Search<'_>,
    hole: usize,
    tried: &[usize],
    found: &mut Lengths,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Option<Vec<f64>>> {
    let &Search { frame, sampler, special, attention, .. } = search;
    // What is revised would count twice.
    let sampler = &Sampler { revise: None, ..sampler.clone() };
    let (mut canvases, mut places) = (Vec::new(), Vec::new());
    for &length in tried {
        let mut lengths = found.lengths.clone();
        lengths[hole] = length;
        canvases.push(Canvas::infill(frame, &lengths, sampler, special, attention)?);
        places.push(frame.places(&lengths));
    }
    let mut scores = vec![0.0; tried.len()];
    let summary = generate::run(predictor, &mut canvases, &mut |i, step| {
        let place = &places[i][hole];
        let inside = step.committed.iter().filter(|commit| place.contains(&commit.position));
        let sum: f64 = inside.map(|commit| log(f64::from(commit.confidence))).sum();
        scores[i] += sum / place.len() as f64;
        if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    found.nfe += summary.nfe;
    found.sequence_forwards += summary.sequence_forwards;
    if summary.interrupted {
        return Ok(None);
    }
    let mask = special.mask.ok_or(SamplerError::NoMask)?;
    let borders = canvases.iter().zip(&places).map(|(canvas, places)| {
        let start = places[hole].end;
        let end = places.get(hole + 1).map_or(canvas.tokens().len(), |next| next.start);
        Border::new(canvas.tokens(), start..end.min(start + BORDER), mask, attention)
    });
    let borders: Vec<Border> = borders.collect();
    if borders.iter().any(|border| !border.sequence.positions.is_empty()) {
        found.nfe += 1;
        found.sequence_forwards += borders.len();
        for (score, border) in scores.iter_mut().zip(engine::run(predictor, borders)?) {
            *score += border.score.unwrap_or(0.0);
        }
    }
    Ok(Some(scores))
}

/// The tokens of a range, masked together: work of an engine.
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
