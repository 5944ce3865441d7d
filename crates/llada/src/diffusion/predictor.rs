//! Whatever predicts masked tokens, asked by data: what is fed, what is read of which logits, and the
//! names of the sequences whose keys and values it caches.

use super::{Reading, SamplerError, cache::CacheRequest, reverse::ReadSpec};
use crate::{
    Result,
    config::{AttentionMask, LogitShift},
    model::{Batch, Feed, MaskPredictor, ModelError, Opened, Output, SequenceId, Wanted},
};

/// One reading, and where its logits are in a [`Feed`].
#[derive(Clone, Copy)]
pub struct Read<'a> {
    /// What is read.
    pub spec: ReadSpec<'a>,
    /// Index of the token whose logits are read.
    pub row: usize,
    /// That of the same token in the sequence without its prompt, for guidance (Eq. 16).
    pub unconditional: Option<usize>,
}

/// What was read of one position, or why its logits cannot be sampled from.
pub type ReadResult = std::result::Result<Reading, SamplerError>;

/// Whatever predicts masked tokens.
pub trait Predictor {
    /// Tokens that there are logits of.
    fn vocabulary(&self) -> usize;

    /// Which position a row of its logits predicts; its own, as provided.
    fn shift(&self) -> LogitShift {
        LogitShift::Same
    }

    /// The longest sequence that it can be fed, in tokens.
    fn longest(&self) -> usize {
        usize::MAX
    }

    /// The attention mask of the sequences whose keys and values it can cache; `None`, as provided, for
    /// one that wants every sequence whole.
    fn caches(&self) -> Option<AttentionMask> {
        None
    }

    /// Caches the keys and values of a sequence from now on. It may have those of some of its `beginning`
    /// already, as the request says.
    ///
    /// # Errors
    /// If it cannot.
    fn open(&mut self, _request: &CacheRequest, _beginning: &[u32]) -> Result<Opened> {
        Err(ModelError::Sequence.into())
    }

    /// Forgets a sequence.
    fn close(&mut self, _id: SequenceId) {}

    /// One forward pass over `feed`. `out` gets one entry for each of `reads`, in their order: logits
    /// that cannot be sampled from are the error of their own position only.
    ///
    /// # Errors
    /// If the feed cannot be predicted.
    fn forward(
        &mut self,
        feed: &Feed<'_>,
        reads: &[Read<'_>],
        out: &mut Vec<ReadResult>,
    ) -> Result<()>;
}

/// A predictor that caches nothing and gives all logits that it is asked for at once.
pub trait Logits {
    /// Logits [wanted, vocabulary] at the positions `wanted` (indices into the batch's tokens, in any
    /// order).
    ///
    /// # Errors
    /// If the batch cannot be predicted.
    fn logits(&mut self, batch: &Batch<'_>, wanted: &[usize], logits: &mut Vec<f32>) -> Result<()>;

    /// Columns of the logits.
    fn vocabulary(&self) -> usize;

    /// Which position a row of its logits predicts; its own, as provided.
    fn shift(&self) -> LogitShift {
        LogitShift::Same
    }
}

impl<L: Logits + ?Sized> Predictor for L {
    fn vocabulary(&self) -> usize {
        Logits::vocabulary(self)
    }

    fn shift(&self) -> LogitShift {
        Logits::shift(self)
    }

    fn forward(
        &mut self,
        feed: &Feed<'_>,
        reads: &[Read<'_>],
        out: &mut Vec<ReadResult>,
    ) -> Result<()> {
        let mut wanted = Vec::with_capacity(reads.len());
        for read in reads {
            wanted.push(read.row);
            wanted.extend(read.unconditional);
        }
        let (vocabulary, positions) = (Predictor::vocabulary(self), wanted.len());
        let mut logits = Vec::new();
        self.logits(&feed.batch, &wanted, &mut logits)?;
        let found = logits.len();
        if Some(found) != vocabulary.checked_mul(positions) {
            return Err(SamplerError::LogitCount { found, positions }.into());
        }
        let mut rest = logits.as_mut_slice();
        out.clear();
        for read in reads {
            let versions = 1 + usize::from(read.unconditional.is_some());
            let (own, after) = rest.split_at_mut(versions * vocabulary);
            out.push(read.of(own));
            rest = after;
        }
        Ok(())
    }
}

impl Predictor for MaskPredictor {
    fn vocabulary(&self) -> usize {
        self.model().config.embedding_size
    }

    fn shift(&self) -> LogitShift {
        self.model().config.shift
    }

    fn longest(&self) -> usize {
        self.model().config.max_sequence_length
    }

    fn caches(&self) -> Option<AttentionMask> {
        Some(self.model().config.attention)
    }

    fn open(&mut self, request: &CacheRequest, beginning: &[u32]) -> Result<Opened> {
        let CacheRequest { capacity, cache_type, reuse } = *request;
        Self::open(self, capacity, cache_type.storage(), reuse, beginning)
    }

    fn close(&mut self, id: SequenceId) {
        Self::close(self, id);
    }

    fn forward(
        &mut self,
        feed: &Feed<'_>,
        reads: &[Read<'_>],
        out: &mut Vec<ReadResult>,
    ) -> Result<()> {
        let positions = reads.len();
        out.clear();
        out.resize_with(positions, || Err(SamplerError::Readings { found: 0, positions }));
        let wanted = reads.iter().map(|read| match read.spec.fused_loss() {
            Some(target) => Wanted::Loss { row: read.row, target },
            None => Wanted::Logits(read.row, read.unconditional),
        });
        let read = |number: usize, output: Output<'_>| match output {
            Output::Logits(logits) => reads[number].of(logits),
            Output::Loss(nll) => Ok(reads[number].spec.with_loss(nll)),
        };
        self.read(feed, wanted, &read, out)
    }
}

impl Read<'_> {
    /// Reads the logits of the position; with guidance those of the unconditional sequence follow.
    fn of(&self, logits: &mut [f32]) -> ReadResult {
        let is_guided = self.unconditional.is_some();
        let (own, other) = logits.split_at_mut(logits.len() / (1 + usize::from(is_guided)));
        self.spec.read(own, is_guided.then_some(&*other))
    }
}
