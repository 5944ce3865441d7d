//! The queries of many works as one ragged batch.

use super::{Cached, Work};
use crate::{
    Result,
    config::{AttentionMask, LogitShift},
    diffusion::{
        Query, Reading, SamplerError,
        predictor::{Predictor, Read, ReadResult},
    },
    model::{CachedSequence, Feed, ModelError, Ragged},
    recycle::recycled,
};

/// Which row of the logits a work asks for: a causal one names the row that predicts, the others the
/// position that is predicted.
pub(super) fn row_shift(attention: AttentionMask, shift: LogitShift) -> LogitShift {
    match attention {
        AttentionMask::Causal => LogitShift::Same,
        _ => shift,
    }
}

/// Tokens that a query feeds, those of guidance included, where keys and values of others are cached or not.
pub(super) fn tokens_fed(query: &Query<'_>, is_cached: bool) -> usize {
    let versions = 1 + usize::from(query.unconditional.is_some());
    let present = query.present.filter(|_| is_cached).unwrap_or(query.tokens).len();
    versions * if is_cached { query.fresh.len().min(present) } else { present }
}

/// The queries of works as one batch, and what was read of it; its memory is reused.
#[derive(Default)]
pub(super) struct Assembly {
    batch: Ragged,
    positions: Vec<u32>,
    cached: Vec<CachedSequence>,
    places: Vec<Place>,
    parts: Vec<Part>,
    /// Tokens that were fed with other works before, at the beginning of new ones.
    pub(super) reused: usize,
    /// The positions of one sequence that are fed.
    feed: Vec<u32>,
    reads: Vec<Read<'static>>,
    results: Vec<ReadResult>,
}

/// Where a position that is to be read lies in the batch.
#[derive(Clone, Copy)]
struct Place {
    /// The position in its sequence.
    wanted: usize,
    row: usize,
    unconditional: Option<usize>,
}

/// The share of one query in the batch.
#[derive(Clone, Copy)]
struct Part {
    /// The number that its work was added with.
    work: usize,
    /// Which query of the work it is, after so many others.
    ahead: usize,
    /// Positions to be read.
    wanted: usize,
}

/// What a batch can take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) shift: LogitShift,
    pub(super) vocabulary: usize,
    /// Tokens of a sequence.
    pub(super) longest: usize,
    /// Tokens of the batch, unless one query alone has more.
    pub(super) budget: usize,
}

impl Assembly {
    pub(super) fn clear(&mut self) {
        self.batch.clear();
        self.positions.clear();
        self.cached.clear();
        self.places.clear();
        self.parts.clear();
        self.reused = 0;
    }

    /// Tokens that are fed.
    pub(super) fn tokens(&self) -> usize {
        self.batch.tokens().len()
    }

    /// Works that have a part.
    pub(super) fn works(&self) -> usize {
        self.parts.iter().filter(|part| part.ahead == 0).count()
    }

    /// Adds a query of the work with that number, after so many others of it; `false` if there is no room
    /// for it.
    ///
    /// # Errors
    /// If no predictor of these limits can be fed it. The batch is then as before it.
    pub(super) fn add(
        &mut self,
        limits: &Limits,
        (work, ahead): (usize, usize),
        mut query: Query<'_>,
        attention: AttentionMask,
        cached: Option<&mut Cached>,
    ) -> Result<bool> {
        let (found, limit) = (query.tokens.len(), limits.longest);
        if found > limit {
            return Err(ModelError::TooLong { found, limit }.into());
        }
        let shift = row_shift(attention, limits.shift);
        if query.wanted.last().is_some_and(|&wanted| shift.row(wanted) >= found) {
            return Err(SamplerError::Unshifted.into());
        }
        query.fresh.start = shift.row(query.fresh.start);
        if let Some(cached) = &cached {
            query.fresh.start = query.fresh.start.max(cached.reused).min(query.fresh.end);
        }
        let fed = tokens_fed(&query, cached.is_some());
        if !self.parts.is_empty() && self.tokens().saturating_add(fed) > limits.budget {
            return Ok(false);
        }
        let mut feed = std::mem::take(&mut self.feed);
        let added = self.add_query(limits, &query, cached, shift, &mut feed);
        self.feed = feed;
        added?;
        self.parts.push(Part { work, ahead, wanted: query.wanted.len() });
        Ok(true)
    }

    fn add_query(
        &mut self,
        limits: &Limits,
        query: &Query<'_>,
        cached: Option<&mut Cached>,
        shift: LogitShift,
        feed: &mut Vec<u32>,
    ) -> Result<()> {
        feed.clear();
        match query.present.filter(|_| cached.is_some()) {
            Some(present) => feed.extend_from_slice(present),
            None => feed.extend(0..query.tokens.len() as u32),
        }
        let vocabulary = limits.vocabulary;
        let outside = |&&token: &&u32| token as usize >= vocabulary;
        let unconditional = query.unconditional.unwrap_or_default();
        if let Some(&token) = query.tokens.iter().chain(unconditional).find(outside) {
            return Err(ModelError::Token { token, vocabulary }.into());
        }
        let ids = cached.as_ref().map(|cached| (cached.id, cached.unconditional));
        let len = feed.len();
        let first = cached.map_or(0, |cached| cached.feed(query, feed));
        // Where the whole sequence is fed, tokens that take no part are masked out of attention.
        let absent = query.present.filter(|present| feed.len() > present.len());
        let attended = |p: u32| {
            (query.padding..query.unseen).contains(&(p as usize))
                && absent.is_none_or(|a| a.binary_search(&p).is_ok())
        };
        let start = self.add_sequence(query.tokens, feed, &attended);
        self.cached.push(CachedSequence { id: ids.map(|(id, _)| id), first, len });
        let unconditional = query.unconditional.map(|tokens| {
            self.cached.push(CachedSequence { id: ids.and_then(|(_, id)| id), first, len });
            self.add_sequence(tokens, feed, &attended)
        });
        for &wanted in query.wanted {
            let row = shift.row(wanted);
            let place = feed.partition_point(|&fed| (fed as usize) < row);
            let unconditional = unconditional.map(|start| start + place);
            self.places.push(Place { wanted, row: start + place, unconditional });
        }
        Ok(())
    }

    /// Adds the positions `feed` of a sequence, and says where it begins.
    fn add_sequence(
        &mut self,
        tokens: &[u32],
        feed: &[u32],
        attended: &dyn Fn(u32) -> bool,
    ) -> usize {
        let start = self.batch.push(feed.iter().map(|&p| tokens[p as usize]));
        let hidden = feed.iter().enumerate().filter(|(_, p)| !attended(**p));
        hidden.for_each(|(i, _)| self.batch.hide(start + i));
        self.positions.extend_from_slice(feed);
        start
    }

    /// One forward pass: reads what each work needs out of its logits. `work` gives those that were
    /// added, by their numbers.
    ///
    /// # Errors
    /// If the predictor cannot be fed the batch.
    pub(super) fn forward<'w, P: Predictor + ?Sized, W: Work + 'w>(
        &mut self,
        predictor: &mut P,
        work: impl Fn(usize) -> &'w W,
    ) -> Result<()> {
        let mut reads = recycled(std::mem::take(&mut self.reads));
        let mut places = self.places.iter();
        for part in &self.parts {
            let work = work(part.work);
            reads.extend(places.by_ref().take(part.wanted).map(|place| Read {
                spec: work.read_spec(part.ahead, place.wanted),
                row: place.row,
                unconditional: place.unconditional,
            }));
        }
        let positions = Some(self.positions.as_slice());
        let (batch, cached) = (self.batch.as_batch(), self.cached.as_slice());
        let feed = Feed { batch, positions, cached, paired: false };
        let result = predictor.forward(&feed, &reads, &mut self.results);
        let (found, positions) = (self.results.len(), reads.len());
        self.reads = recycled(reads);
        result?;
        match found == positions {
            true => Ok(()),
            false => Err(SamplerError::Readings { found, positions }.into()),
        }
    }

    /// Moves what was read for each query of the batch into `readings` and tells `visit` the number of
    /// its work, or why one of its positions cannot be sampled from.
    pub(super) fn readings(
        &mut self,
        readings: &mut Vec<Reading>,
        mut visit: impl FnMut(usize, std::result::Result<&[Reading], SamplerError>),
    ) {
        let mut results = self.results.drain(..);
        for part in &self.parts {
            readings.clear();
            let mut failure = None;
            for result in results.by_ref().take(part.wanted) {
                match result {
                    Ok(reading) => readings.push(reading),
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            visit(part.work, failure.map_or(Ok(readings.as_slice()), Err));
        }
    }
}
