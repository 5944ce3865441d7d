//! The keys and values of one work that the predictor caches between passes.

use super::{CacheRequest, Work, batch::row_shift};
use crate::{
    Result,
    config::LogitShift,
    diffusion::{Query, predictor::Predictor},
    model::{Opened, SequenceId},
};

/// The keys and values of one work that the predictor caches between passes.
pub(super) struct Cached {
    pub(super) id: SequenceId,
    /// Of its unconditional sequence, with guidance.
    pub(super) unconditional: Option<SequenceId>,
    /// The positions that are cached, in ascending order.
    positions: Vec<u32>,
    /// How many of the first positions were taken over from another work.
    pub(super) reused: usize,
}

impl Cached {
    /// Has `predictor` cache what gains from it; `None` where nothing does, or it cannot.
    pub(super) fn open<P: Predictor + ?Sized>(
        predictor: &mut P,
        work: &impl Work,
    ) -> Result<Option<Self>> {
        // A work for another attention mask than the model's must be fed whole.
        let has_cache = predictor.caches() == Some(work.attention());
        let Some(request) = work.cache().filter(|_| has_cache) else {
            return Ok(None);
        };
        let Some(query) = work.plan(0) else { return Ok(None) };
        // A sequence that outgrows the model is refused when it does, as without a cache.
        let capacity = request.capacity.min(predictor.longest());
        let request = CacheRequest { capacity, ..request };
        let is_guided = query.unconditional.is_some();
        let shift = row_shift(work.attention(), predictor.shift());
        // The two sequences of guidance are fed the same positions, and share less than one alone.
        let beginning = if is_guided { &[] } else { beginning(&query, shift) };
        let Opened { id, cached } = predictor.open(&request, beginning)?;
        let unconditional = is_guided.then(|| predictor.open(&request, &[])).transpose();
        match unconditional {
            Ok(unconditional) => Ok(Some(Self {
                id,
                unconditional: unconditional.map(|opened| opened.id),
                positions: (0..cached as u32).collect(),
                reused: cached,
            })),
            Err(error) => {
                predictor.close(id);
                Err(error)
            }
        }
    }

    /// Has `predictor` forget it.
    pub(super) fn close<P: Predictor + ?Sized>(self, predictor: &mut P) {
        predictor.close(self.id);
        self.unconditional.into_iter().for_each(|id| predictor.close(id));
    }

    /// Takes what was cached for nothing, so that the next pass feeds all.
    pub(super) fn forget(&mut self) {
        self.positions.clear();
        self.reused = 0;
    }

    /// Leaves in `feed`, which has the positions that take part, those to feed, and gives how many are
    /// cached before them.
    pub(super) fn feed(&mut self, query: &Query<'_>, feed: &mut Vec<u32>) -> usize {
        let first = feed.partition_point(|&p| (p as usize) < query.fresh.start);
        let end = feed.partition_point(|&p| (p as usize) < query.fresh.end).max(first);
        let (fresh, (before, rest)) =
            (&feed[first..end], self.positions.split_at(first.min(self.positions.len())));
        let is_cached = *before == feed[..first];
        let shared = fresh.len().min(rest.len());
        // What follows the fresh positions must be what followed them before.
        let goes_on = rest[..shared] == fresh[..shared]
            && *rest.get(fresh.len()..).unwrap_or_default() == feed[end..];
        let is_partial = is_cached && goes_on && fresh.len() < feed.len();
        self.positions.clone_from(feed);
        if is_partial {
            feed.truncate(end);
            feed.drain(..first);
            return first;
        }
        // All is fed: nothing is cached, or not yet, or no longer.
        0
    }
}

/// The tokens that need not be fed where they are cached: those before all whose logits are wanted.
fn beginning<'a>(query: &Query<'a>, shift: LogitShift) -> &'a [u32] {
    let &Query { tokens, present: None, padding: 0, wanted, .. } = query else {
        return &[];
    };
    let first = wanted.iter().map(|&wanted| shift.row(wanted)).min().unwrap_or(0);
    tokens.get(..first).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a pass that failed would keep an approximate beginning from ever being refreshed.
    #[test]
    fn what_is_forgotten_counts_as_never_taken_over() {
        let (id, positions) = (SequenceId(0), vec![0, 1, 2]);
        let mut cached = Cached { id, unconditional: None, positions, reused: 3 };
        cached.forget();
        // The next pass feeds all, and a later one what the sampler wants refreshed, from the start.
        for end in [6, 4] {
            let query = Query {
                tokens: &[7; 6],
                fresh: cached.reused..end,
                present: None,
                padding: 0,
                unseen: 6,
                unconditional: None,
                wanted: &[5],
            };
            let mut feed: Vec<u32> = (0..6).collect();
            assert_eq!(cached.feed(&query, &mut feed), 0);
            assert_eq!((feed[0], feed.len()), (0, end));
        }
    }
}
