//! The queries of many canvases as one batch, and what is kept of each row between passes.

use crate::{
    Result,
    diffusion::{Canvas, Query, SamplerError, generate::Predictor},
    model::{Batch, KvCache, Past, ReadLogits},
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
    // A canvas that appends tokens, on a model that is not causal, must be fed whole.
    let fits = |canvas: &Canvas| canvas.mask_token().is_none() == model.is_autoregressive();
    if !canvases.iter().any(Canvas::wants_caches) || !canvases.iter().all(fits) {
        return Ok(Vec::new());
    }
    // A row that outgrows the model is refused when it does, as without a cache.
    let limit = model.config.max_sequence_length;
    let kept = |canvas: &Canvas| {
        let cache = || KvCache::new(&model.config, canvas.length().min(limit));
        let unconditional = (canvas.sampler().cfg_scale > 0.0).then(cache).transpose()?;
        Ok(Some(Kept { cache: cache()?, unconditional, held: Vec::new() }))
    };
    canvases.iter().map(kept).collect()
}

impl Kept {
    /// Makes room for what the query wants fed, and gives the positions to feed and how many are held
    /// before them.
    fn feed(&mut self, query: &Query<'_>) -> (Vec<u32>, usize) {
        let present = present(query);
        let is_fresh = |&p: &u32| query.fresh.contains(&(p as usize));
        let first = present.partition_point(|&p| (p as usize) < query.fresh.start);
        let fresh: Vec<u32> = present[first..].iter().copied().take_while(is_fresh).collect();
        let (before, rest) = self.held.split_at(first.min(self.held.len()));
        let is_held = *before == present[..first];
        let shared = fresh.len().min(rest.len());
        // What follows the fresh positions must be what followed them before.
        let goes_on = rest[..shared] == fresh[..shared]
            && *rest.get(fresh.len()..).unwrap_or_default() == present[first + fresh.len()..];
        if is_held && goes_on && fresh.len() < present.len() {
            self.held = present;
            return (fresh, first);
        }
        // All is fed: nothing is kept, or not yet, or no longer.
        self.cache.clear();
        self.unconditional.iter_mut().for_each(KvCache::clear);
        self.held.clone_from(&present);
        (present, 0)
    }
}

/// The positions that take part.
fn present(query: &Query<'_>) -> Vec<u32> {
    match &query.present {
        Some(present) => present.clone(),
        None => (0..query.tokens.len() as u32).collect(),
    }
}

/// The queries of all open canvases as one batch.
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
    pub(super) places: Vec<Place>,
    pub(super) parts: Vec<Part>,
}

/// A position that is to be read.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) canvas: usize,
    /// The position in the row.
    pub(super) wanted: usize,
    /// Whether its logits are followed by those of the unconditional row.
    pub(super) guided: bool,
}

/// The share of one canvas in the batch.
pub(super) struct Part {
    pub(super) canvas: usize,
    /// Tokens of its row that are held before those that are fed.
    first: usize,
    /// Positions to be read.
    pub(super) wanted: usize,
}

impl Assembly {
    /// Gathers the next queries; `false` when every canvas is done. `memories` is empty, or has one
    /// for each canvas that is not done.
    pub(super) fn collect(&mut self, canvases: &[Canvas], memories: &mut [Option<Kept>]) -> bool {
        *self = Self { starts: vec![0], groups: vec![0], ..Self::default() };
        for (canvas, state) in canvases.iter().enumerate() {
            let memory = memories.get_mut(canvas);
            let Some(query) = state.plan() else {
                memory.map(Option::take);
                continue;
            };
            let all = || (0..query.tokens.len() as u32).collect();
            let (feed, first) = match memory {
                Some(Some(kept)) => kept.feed(&query),
                _ => (all(), 0),
            };
            // Who is fed the whole row is told which tokens take no part.
            let absent = query.present.as_ref().filter(|present| feed.len() > present.len());
            let keep = |p: u32| {
                p as usize >= query.padding && absent.is_none_or(|a| a.binary_search(&p).is_ok())
            };
            let start = self.add_row(query.tokens, &feed, &keep);
            let tokens = query.unconditional.as_ref();
            let unconditional = tokens.map(|tokens| self.add_row(tokens, &feed, &keep));
            for &wanted in &query.wanted {
                let place = feed.partition_point(|&fed| (fed as usize) < wanted);
                self.wanted.push(start + place);
                self.wanted.extend(unconditional.map(|start| start + place));
                self.groups.push(self.wanted.len());
                self.places.push(Place { canvas, wanted, guided: unconditional.is_some() });
            }
            self.parts.push(Part { canvas, first, wanted: query.wanted.len() });
        }
        !self.parts.is_empty()
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

    /// Has the logits of each place read, with what is kept if there is anything.
    pub(super) fn predict<P: Predictor + ?Sized>(
        &self,
        predictor: &mut P,
        memories: &mut [Option<Kept>],
        read: &ReadLogits<'_>,
    ) -> Result<()> {
        let keep = self.is_padded.then_some(self.keep.as_slice());
        let batch = Batch { tokens: &self.tokens, starts: &self.starts, keep };
        // The canvases without memory are done and have no part in the batch.
        let mut pasts = Vec::new();
        for (part, kept) in self.parts.iter().zip(memories.iter_mut().flatten()) {
            let first = part.first;
            pasts.push(Past { first, cache: &mut kept.cache });
            let unconditional = kept.unconditional.as_mut();
            pasts.extend(unconditional.map(|cache| Past { first, cache }));
        }
        if let Some(model) = predictor.caching() {
            let positions = Some(self.positions.as_slice());
            return model.read_logits(
                &batch,
                &mut pasts,
                positions,
                &self.wanted,
                &self.groups,
                read,
            );
        }
        let (vocabulary, positions) = (predictor.vocabulary(), self.wanted.len());
        let mut logits = Vec::new();
        predictor.logits(&batch, &self.wanted, &mut logits)?;
        let found = logits.len();
        if Some(found) != vocabulary.checked_mul(positions) {
            return Err(SamplerError::LogitCount { found, positions }.into());
        }
        for (number, group) in self.groups.windows(2).enumerate() {
            read(number, &mut logits[group[0] * vocabulary..group[1] * vocabulary]);
        }
        Ok(())
    }
}
