//! The queries of many canvases as one batch, and what is kept of each row between passes.

use std::sync::OnceLock;

use crate::{
    Result,
    config::{AttentionMask, LogitShift},
    diffusion::{Canvas, Query, Reading, SamplerError, generate::Predictor},
    model::{Batch, KvCache, Past},
    recycle::recycled,
};

/// What is kept of one canvas between passes.
pub(super) struct Kept {
    cache: KvCache,
    /// Of its unconditional row, with guidance.
    unconditional: Option<KvCache>,
    /// The positions that the caches hold, in ascending order.
    held: Vec<u32>,
}

/// Something to keep rows in for each canvas, if any gains from that and the predictor can; else
/// nothing.
pub(super) fn memories<P: Predictor + ?Sized>(
    predictor: &mut P,
    canvases: &[Canvas],
) -> Result<Vec<Option<Kept>>> {
    let Some(model) = predictor.caching().map(|predictor| predictor.model()) else {
        return Ok(Vec::new());
    };
    // A canvas for another attention mask than the model's must be fed whole.
    let fits = |canvas: &Canvas| canvas.attention() == model.config.attention;
    if !canvases.iter().any(Canvas::wants_caches) || !canvases.iter().all(fits) {
        return Ok(Vec::new());
    }
    // A row that outgrows the model is refused when it does, as without a cache.
    let limit = model.config.max_sequence_length;
    let kept = |canvas: &Canvas| {
        let (length, sampler) = (canvas.length().min(limit), canvas.sampler());
        let storage = sampler.cache_type.storage();
        let cache = || KvCache::with_storage(&model.config, length, storage);
        let unconditional = (sampler.cfg_scale > 0.0).then(cache).transpose()?;
        Ok(Some(Kept { cache: cache()?, unconditional, held: Vec::new() }))
    };
    canvases.iter().map(kept).collect()
}

impl Kept {
    /// Makes room for what the query wants fed. Leaves in `feed`, which holds the positions that take part,
    /// those to feed, and gives how many are held before them.
    fn feed(&mut self, query: &Query<'_>, feed: &mut Vec<u32>) -> usize {
        let first = feed.partition_point(|&p| (p as usize) < query.fresh.start);
        let end = feed.partition_point(|&p| (p as usize) < query.fresh.end).max(first);
        let (fresh, (before, rest)) =
            (&feed[first..end], self.held.split_at(first.min(self.held.len())));
        let is_held = *before == feed[..first];
        let shared = fresh.len().min(rest.len());
        // What follows the fresh positions must be what followed them before.
        let goes_on = rest[..shared] == fresh[..shared]
            && *rest.get(fresh.len()..).unwrap_or_default() == feed[end..];
        let is_partial = is_held && goes_on && fresh.len() < feed.len();
        self.held.clone_from(feed);
        if is_partial {
            feed.truncate(end);
            feed.drain(..first);
            return first;
        }
        // All is fed: nothing is kept, or not yet, or no longer.
        self.cache.clear();
        self.unconditional.iter_mut().for_each(KvCache::clear);
        0
    }
}

/// What was read of a place, once it was.
type Slot = OnceLock<std::result::Result<Reading, SamplerError>>;

/// The queries of all open canvases as one batch, and what was read of it, in memory that is kept.
#[derive(Default)]
pub(super) struct Assembly {
    pub(super) tokens: Vec<u32>,
    starts: Vec<usize>,
    keep: Vec<bool>,
    positions: Vec<u32>,
    is_padded: bool,
    wanted: Vec<usize>,
    /// Where the group of each place begins among those wanted, and their number.
    groups: Vec<usize>,
    places: Vec<Place>,
    parts: Vec<Part>,
    /// The positions of one row that are fed.
    feed: Vec<u32>,
    pasts: Vec<Past<'static>>,
    /// Of a predictor that keeps nothing.
    logits: Vec<f32>,
    slots: Vec<Slot>,
    readings: Vec<Reading>,
}

/// A position that is to be read.
#[derive(Clone, Copy)]
struct Place {
    canvas: usize,
    /// The position in the row.
    wanted: usize,
    /// Whether its logits are followed by those of the unconditional row.
    guided: bool,
}

/// The share of one canvas in the batch.
struct Part {
    canvas: usize,
    /// Tokens of its row that are held before those that are fed.
    first: usize,
    /// Positions to be read.
    wanted: usize,
}

impl Assembly {
    /// Gathers the next queries; `false` when every canvas is done. `memories` is empty, or has one
    /// for each canvas that is not done.
    pub(super) fn collect(
        &mut self,
        shift: LogitShift,
        canvases: &[Canvas],
        memories: &mut [Option<Kept>],
    ) -> bool {
        self.clear();
        let mut feed = std::mem::take(&mut self.feed);
        for (canvas, state) in canvases.iter().enumerate() {
            let memory = memories.get_mut(canvas);
            // A causal canvas asks for the row that predicts, the others for what is predicted.
            let shift = match state.attention() {
                AttentionMask::Causal => LogitShift::Same,
                _ => shift,
            };
            let Some(mut query) = state.plan() else {
                memory.map(Option::take);
                continue;
            };
            query.fresh.start = shift.row(query.fresh.start);
            let kept = memory.and_then(Option::as_mut);
            feed.clear();
            match query.present.filter(|_| kept.is_some()) {
                Some(present) => feed.extend_from_slice(present),
                None => feed.extend(0..query.tokens.len() as u32),
            }
            let first = kept.map_or(0, |kept| kept.feed(&query, &mut feed));
            // Who is fed the whole row is told which tokens take no part.
            let absent = query.present.filter(|present| feed.len() > present.len());
            let keep = |p: u32| {
                p as usize >= query.padding && absent.is_none_or(|a| a.binary_search(&p).is_ok())
            };
            let start = self.add_row(query.tokens, &feed, &keep);
            let unconditional =
                query.unconditional.map(|tokens| self.add_row(tokens, &feed, &keep));
            for &wanted in query.wanted {
                let row = shift.row(wanted);
                let place = feed.partition_point(|&fed| (fed as usize) < row);
                self.wanted.push(start + place);
                self.wanted.extend(unconditional.map(|start| start + place));
                self.groups.push(self.wanted.len());
                self.places.push(Place { canvas, wanted, guided: unconditional.is_some() });
            }
            self.parts.push(Part { canvas, first, wanted: query.wanted.len() });
        }
        self.feed = feed;
        !self.parts.is_empty()
    }

    fn clear(&mut self) {
        self.tokens.clear();
        self.starts.clear();
        self.starts.push(0);
        self.keep.clear();
        self.positions.clear();
        self.is_padded = false;
        self.wanted.clear();
        self.groups.clear();
        self.groups.push(0);
        self.places.clear();
        self.parts.clear();
    }

    /// Adds the positions `feed` of a row, and says where it begins.
    fn add_row(&mut self, row: &[u32], feed: &[u32], keep: &dyn Fn(u32) -> bool) -> usize {
        let start = self.tokens.len();
        self.tokens.extend(feed.iter().map(|&p| row[p as usize]));
        self.keep.extend(feed.iter().map(|&p| keep(p)));
        self.is_padded |= self.keep[start..].contains(&false);
        self.positions.extend_from_slice(feed);
        self.starts.push(self.tokens.len());
        start
    }

    /// One forward pass: reads what each canvas needs out of its logits.
    pub(super) fn read<P: Predictor + ?Sized>(
        &mut self,
        predictor: &mut P,
        canvases: &[Canvas],
        memories: &mut [Option<Kept>],
    ) -> Result<()> {
        self.slots.clear();
        self.slots.resize_with(self.places.len(), Slot::new);
        let (places, slots) = (&self.places, &self.slots);
        let read = |group: usize, logits: &mut [f32]| {
            let Place { canvas, wanted, guided } = places[group];
            let (conditional, unconditional) =
                logits.split_at_mut(logits.len() / if guided { 2 } else { 1 });
            let unconditional = guided.then_some(&*unconditional);
            // Each group comes once.
            let _ = slots[group].set(canvases[canvas].read(wanted, conditional, unconditional));
        };
        let keep = self.is_padded.then_some(self.keep.as_slice());
        let batch = Batch { tokens: &self.tokens, starts: &self.starts, keep };
        let (wanted, groups) = (&self.wanted, &self.groups);
        match predictor.caching() {
            Some(model) => {
                let mut pasts = recycled(std::mem::take(&mut self.pasts));
                // The canvases without memory are done and have no part in the batch.
                for (part, kept) in self.parts.iter().zip(memories.iter_mut().flatten()) {
                    let first = part.first;
                    pasts.push(Past { first, cache: &mut kept.cache });
                    let unconditional = kept.unconditional.as_mut();
                    pasts.extend(unconditional.map(|cache| Past { first, cache }));
                }
                let positions = Some(self.positions.as_slice());
                model.read_logits(&batch, &mut pasts, positions, wanted, groups, &read)?;
                self.pasts = recycled(pasts);
            }
            None => {
                let (vocabulary, positions) = (predictor.vocabulary(), wanted.len());
                predictor.logits(&batch, wanted, &mut self.logits)?;
                let found = self.logits.len();
                if Some(found) != vocabulary.checked_mul(positions) {
                    return Err(SamplerError::LogitCount { found, positions }.into());
                }
                for (number, group) in groups.windows(2).enumerate() {
                    read(number, &mut self.logits[group[0] * vocabulary..group[1] * vocabulary]);
                }
            }
        }
        self.readings.clear();
        let positions = self.slots.len();
        for slot in &mut self.slots {
            let found = self.readings.len();
            let missing = SamplerError::Readings { found, positions };
            self.readings.push(slot.take().ok_or(missing)??);
        }
        Ok(())
    }

    /// The canvases of the batch, and what was read for each.
    pub(super) fn readings(&self) -> impl Iterator<Item = (usize, &[Reading])> {
        self.parts.iter().scan(self.readings.as_slice(), |rest, part| {
            let (own, after) = rest.split_at(part.wanted);
            *rest = after;
            Some((part.canvas, own))
        })
    }
}
