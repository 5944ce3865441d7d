//! What an engine runs: whatever asks a predictor, takes its answer, and asks again.

use crate::{
    Result,
    config::AttentionMask,
    diffusion::{Canvas, Query, ReadSpec, Reading, cache::CacheRequest},
};

/// Work that is done in passes of a predictor: a canvas, or answers that are scored.
pub trait Work {
    /// What is asked next, after `ahead` queries that are not answered yet; `None` where that depends on
    /// their answers, or where nothing more is asked: then the work is done.
    fn plan(&self, ahead: usize) -> Option<Query<'_>>;

    /// What is read at the position `wanted` of that query.
    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_>;

    /// Takes the answer to the first query that is not answered: a reading for each of its wanted
    /// positions, in their order.
    ///
    /// # Errors
    /// If the work cannot go on from there.
    fn commit(&mut self, readings: &[Reading]) -> Result<()>;

    /// Which tokens a token of its sequences attends to.
    fn attention(&self) -> AttentionMask;

    /// The keys and values that it gains from where they are cached between passes; none, as provided.
    /// A work that gains from any asks one query at a time, all of the same sequence.
    fn cache(&self) -> Option<CacheRequest> {
        None
    }

    /// Whether nothing more is asked.
    fn is_done(&self) -> bool {
        self.plan(0).is_none()
    }
}

impl Work for Canvas {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        // What is asked next depends on what is committed now.
        if ahead == 0 { self.plan() } else { None }
    }

    fn read_spec(&self, _ahead: usize, wanted: usize) -> ReadSpec<'_> {
        self.read_spec(wanted)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        Ok(self.commit(readings).map(|_step| ())?)
    }

    fn attention(&self) -> AttentionMask {
        self.attention()
    }

    fn cache(&self) -> Option<CacheRequest> {
        let (capacity, sampler) = (self.length(), self.sampler());
        let (cache_type, reuse) = (sampler.cache_type, sampler.cache.reuse());
        self.wants_caches().then_some(CacheRequest { capacity, cache_type, reuse })
    }
}

impl<W: Work + ?Sized> Work for &mut W {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        (**self).plan(ahead)
    }

    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_> {
        (**self).read_spec(ahead, wanted)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        (**self).commit(readings)
    }

    fn attention(&self) -> AttentionMask {
        (**self).attention()
    }

    fn cache(&self) -> Option<CacheRequest> {
        (**self).cache()
    }
}
