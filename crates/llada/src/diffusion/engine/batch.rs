//! The queries of many canvases as one ragged batch.

use crate::{
    Result,
    config::{AttentionMask, LogitShift},
    diffusion::{
        Canvas, Query, Reading, SamplerError,
        predictor::{Predictor, Read, ReadResult},
    },
    model::{Batch, Feed, Kept, ModelError, Opened, SequenceId},
    recycle::recycled,
};

/// What a predictor keeps of one canvas between passes.
pub(super) struct Held {
    id: SequenceId,
    /// Of its unconditional sequence, with guidance.
    unconditional: Option<SequenceId>,
    /// The positions that are kept, in ascending order.
    positions: Vec<u32>,
    /// How many of the first positions were kept of another canvas.
    reused: usize,
}

impl Held {
    /// Has `predictor` keep what gains from it; `None` where nothing does, or it cannot.
    pub(super) fn open<P: Predictor + ?Sized>(
        predictor: &mut P,
        canvas: &Canvas,
    ) -> Result<Option<Self>> {
        // A canvas for another attention mask than the model's must be fed whole.
        if !canvas.wants_caches() || predictor.keeps() != Some(canvas.attention()) {
            return Ok(None);
        }
        // A sequence that outgrows the model is refused when it does, as without a cache.
        let capacity = canvas.length().min(predictor.longest());
        let (cache_type, is_guided) =
            (canvas.sampler().cache_type, canvas.sampler().cfg_scale > 0.0);
        let shift = row_shift(canvas.attention(), predictor.shift());
        // The two sequences of guidance are fed the same positions, and share less than one alone.
        let beginning = if is_guided { &[] } else { beginning(canvas, shift) };
        let Opened { id, held } = predictor.open(capacity, cache_type, beginning)?;
        let unconditional =
            is_guided.then(|| predictor.open(capacity, cache_type, &[])).transpose();
        match unconditional {
            Ok(unconditional) => Ok(Some(Self {
                id,
                unconditional: unconditional.map(|opened| opened.id),
                positions: (0..held as u32).collect(),
                reused: held,
            })),
            Err(error) => {
                predictor.close(id);
                Err(error)
            }
        }
    }

    /// How many of its first positions were kept of another canvas.
    pub(super) fn reused(&self) -> usize {
        self.reused
    }

    /// Has `predictor` forget it.
    pub(super) fn close<P: Predictor + ?Sized>(self, predictor: &mut P) {
        predictor.close(self.id);
        self.unconditional.into_iter().for_each(|id| predictor.close(id));
    }

    /// Holds what was kept for nothing, so that the next pass feeds all.
    pub(super) fn forget(&mut self) {
        self.positions.clear();
        self.reused = 0;
    }

    /// Leaves in `feed`, which has the positions that take part, those to feed, and gives how many are
    /// kept before them.
    fn feed(&mut self, query: &Query<'_>, feed: &mut Vec<u32>) -> usize {
        let first = feed.partition_point(|&p| (p as usize) < query.fresh.start);
        let end = feed.partition_point(|&p| (p as usize) < query.fresh.end).max(first);
        let (fresh, (before, rest)) =
            (&feed[first..end], self.positions.split_at(first.min(self.positions.len())));
        let is_held = *before == feed[..first];
        let shared = fresh.len().min(rest.len());
        // What follows the fresh positions must be what followed them before.
        let goes_on = rest[..shared] == fresh[..shared]
            && *rest.get(fresh.len()..).unwrap_or_default() == feed[end..];
        let is_partial = is_held && goes_on && fresh.len() < feed.len();
        self.positions.clone_from(feed);
        if is_partial {
            feed.truncate(end);
            feed.drain(..first);
            return first;
        }
        // All is fed: nothing is kept, or not yet, or no longer.
        0
    }
}

/// Which row of the logits a canvas asks for: of a causal one it is the row that predicts, of the others
/// what is predicted.
fn row_shift(attention: AttentionMask, shift: LogitShift) -> LogitShift {
    match attention {
        AttentionMask::Causal => LogitShift::Same,
        _ => shift,
    }
}

/// The tokens that need not be fed where they are held: those before all whose logits are wanted.
fn beginning(canvas: &Canvas, shift: LogitShift) -> &[u32] {
    let Some(Query { tokens, present: None, padding: 0, wanted, .. }) = canvas.plan() else {
        return &[];
    };
    let first = wanted.iter().map(|&wanted| shift.row(wanted)).min().unwrap_or(0);
    tokens.get(..first).unwrap_or_default()
}

/// The queries of open canvases as one batch, and what was read of it, in memory that is kept.
#[derive(Default)]
pub(super) struct Assembly {
    pub(super) tokens: Vec<u32>,
    starts: Vec<usize>,
    keep: Vec<bool>,
    positions: Vec<u32>,
    is_padded: bool,
    kept: Vec<Kept>,
    places: Vec<Place>,
    pub(super) parts: Vec<Part>,
    /// Tokens that were fed with other canvases before, at the beginning of new ones.
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

/// The share of one canvas in the batch.
#[derive(Clone, Copy)]
pub(super) struct Part {
    /// The number that the canvas was added with.
    pub(super) canvas: usize,
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
    /// Tokens of the batch, unless one canvas alone has more.
    pub(super) budget: usize,
}

impl Assembly {
    pub(super) fn clear(&mut self) {
        self.tokens.clear();
        self.starts.clear();
        self.starts.push(0);
        self.keep.clear();
        self.positions.clear();
        self.is_padded = false;
        self.kept.clear();
        self.places.clear();
        self.parts.clear();
        self.reused = 0;
    }

    /// Adds the next query of a canvas; `false` if the batch has no room for it.
    ///
    /// # Errors
    /// If no predictor of these limits can be fed the canvas. The batch is then as before.
    pub(super) fn add(
        &mut self,
        limits: &Limits,
        canvas: usize,
        state: &Canvas,
        held: Option<&mut Held>,
    ) -> Result<bool> {
        let Some(mut query) = state.plan() else { return Ok(true) };
        let (found, limit) = (query.tokens.len(), limits.longest);
        if found > limit {
            return Err(ModelError::TooLong { found, limit }.into());
        }
        let shift = row_shift(state.attention(), limits.shift);
        query.fresh.start = shift.row(query.fresh.start);
        if let Some(held) = &held {
            query.fresh.start = query.fresh.start.max(held.reused).min(query.fresh.end);
        }
        let mut feed = std::mem::take(&mut self.feed);
        let result = self.add_query(limits, canvas, &query, held, shift, &mut feed);
        self.feed = feed;
        result
    }

    fn add_query(
        &mut self,
        limits: &Limits,
        canvas: usize,
        query: &Query<'_>,
        held: Option<&mut Held>,
        shift: LogitShift,
        feed: &mut Vec<u32>,
    ) -> Result<bool> {
        feed.clear();
        match query.present.filter(|_| held.is_some()) {
            Some(present) => feed.extend_from_slice(present),
            None => feed.extend(0..query.tokens.len() as u32),
        }
        let is_guided = query.unconditional.is_some();
        let versions = 1 + usize::from(is_guided);
        let fresh = if held.is_some() { query.fresh.len().min(feed.len()) } else { feed.len() };
        let fed = versions * fresh;
        if !self.parts.is_empty() && self.tokens.len().saturating_add(fed) > limits.budget {
            return Ok(false);
        }
        let vocabulary = limits.vocabulary;
        let outside = |&&token: &&u32| token as usize >= vocabulary;
        let unconditional = query.unconditional.unwrap_or_default();
        if let Some(&token) = query.tokens.iter().chain(unconditional).find(outside) {
            return Err(ModelError::Token { token, vocabulary }.into());
        }
        let ids = held.as_ref().map(|held| (held.id, held.unconditional));
        let len = feed.len();
        let first = held.map_or(0, |held| held.feed(query, feed));
        // Who is fed the whole sequence is told which tokens take no part.
        let absent = query.present.filter(|present| feed.len() > present.len());
        let keep = |p: u32| {
            p as usize >= query.padding && absent.is_none_or(|a| a.binary_search(&p).is_ok())
        };
        let start = self.add_row(query.tokens, feed, &keep);
        self.kept.push(Kept { id: ids.map(|(id, _)| id), first, len });
        let unconditional = query.unconditional.map(|tokens| {
            self.kept.push(Kept { id: ids.and_then(|(_, id)| id), first, len });
            self.add_row(tokens, feed, &keep)
        });
        for &wanted in query.wanted {
            let row = shift.row(wanted);
            let place = feed.partition_point(|&fed| (fed as usize) < row);
            let unconditional = unconditional.map(|start| start + place);
            self.places.push(Place { wanted, row: start + place, unconditional });
        }
        self.parts.push(Part { canvas, wanted: query.wanted.len() });
        Ok(true)
    }

    /// Adds the positions `feed` of a sequence, and says where it begins.
    fn add_row(&mut self, row: &[u32], feed: &[u32], keep: &dyn Fn(u32) -> bool) -> usize {
        let start = self.tokens.len();
        self.tokens.extend(feed.iter().map(|&p| row[p as usize]));
        self.keep.extend(feed.iter().map(|&p| keep(p)));
        self.is_padded |= self.keep[start..].contains(&false);
        self.positions.extend_from_slice(feed);
        self.starts.push(self.tokens.len());
        start
    }

    /// One forward pass: reads what each canvas needs out of its logits. `canvas` gives those that were
    /// added, by their numbers.
    ///
    /// # Errors
    /// If the predictor cannot be fed the batch.
    pub(super) fn forward<'c, P: Predictor + ?Sized>(
        &mut self,
        predictor: &mut P,
        canvas: impl Fn(usize) -> &'c Canvas,
    ) -> Result<()> {
        let mut reads = recycled(std::mem::take(&mut self.reads));
        let mut places = self.places.iter();
        for part in &self.parts {
            let state = canvas(part.canvas);
            reads.extend(places.by_ref().take(part.wanted).map(|place| Read {
                spec: state.read_spec(place.wanted),
                row: place.row,
                unconditional: place.unconditional,
            }));
        }
        let keep = self.is_padded.then_some(self.keep.as_slice());
        let batch = Batch { tokens: &self.tokens, starts: &self.starts, keep };
        let feed = Feed { batch, positions: Some(&self.positions), kept: &self.kept };
        let result = predictor.forward(&feed, &reads, &mut self.results);
        let (found, positions) = (self.results.len(), reads.len());
        self.reads = recycled(reads);
        result?;
        match found == positions {
            true => Ok(()),
            false => Err(SamplerError::Readings { found, positions }.into()),
        }
    }

    /// Moves what was read for each canvas of the batch into `readings` and tells `visit`, or why one of
    /// its positions cannot be sampled from.
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
            visit(part.canvas, failure.map_or(Ok(readings.as_slice()), Err));
        }
    }
}
