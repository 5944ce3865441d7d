//! What is read of a pass: logits, a tile of positions at a time, and losses.

use std::ops::Range;

use llada_kernels::cross_entropy;

use super::{Feed, MaskPredictor, Save, head};
use crate::{Result, recycle::recycled};

/// What is to be read at a token of a pass.
#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    /// Its row of the logits, or two rows one after the other.
    Logits(usize, Option<usize>),
    /// −log p of a token, without a buffer of its logits.
    Loss { row: usize, target: u32 },
}

/// What is read there.
pub(crate) enum Output<'a> {
    Logits(&'a mut [f32]),
    Loss(f32),
}

/// Positions whose logits are in memory at once: 64, or as many as fill 8 MiB.
pub(crate) fn tile_rows(vocabulary: usize) -> usize {
    (1 << 21) / vocabulary.clamp(1, 1 << 15)
}

impl MaskPredictor {
    /// Hands what is `wanted` of one pass over `feed` to `read` with its number, logits on all threads,
    /// and writes what it gives to `out`, one for each. No buffer of all positions × vocabulary exists.
    ///
    /// # Errors
    /// Those of [`MaskPredictor::logits`].
    pub(crate) fn read<T: Send>(
        &mut self,
        feed: &Feed<'_>,
        wanted: impl Iterator<Item = Wanted> + Clone,
        read: &(dyn Fn(usize, Output<'_>) -> T + Sync),
        out: &mut [T],
    ) -> Result<()> {
        let mut rows = std::mem::take(&mut self.memory.wanted);
        let mut groups = std::mem::take(&mut self.memory.groups);
        rows.clear();
        groups.clear();
        groups.push(0);
        for wanted in wanted.clone() {
            if let Wanted::Logits(row, other) = wanted {
                rows.push(row);
                rows.extend(other);
                groups.push(rows.len());
            }
        }
        let first_loss = rows.len();
        self.memory.targets.clear();
        for wanted in wanted.clone() {
            if let Wanted::Loss { row, target } = wanted {
                rows.push(row);
                self.memory.targets.push(target);
            }
        }
        let result = self.hidden(feed, &rows, Save::Nothing).and_then(|()| {
            let is_loss = |wanted| matches!(wanted, Wanted::Loss { .. });
            let logits = wanted.clone().zip(&mut *out).enumerate();
            let logits = logits.filter(|(_, (wanted, _))| !is_loss(*wanted));
            self.read_groups(&groups, read, logits.map(|(i, (_, out))| (i, out)))?;
            let losses = wanted.zip(&mut *out).enumerate();
            let losses = losses.filter(|(_, (wanted, _))| is_loss(*wanted));
            self.read_losses(first_loss, read, losses.map(|(i, (_, out))| (i, out)))
        });
        (self.memory.wanted, self.memory.groups) = (rows, groups);
        result
    }

    /// Reads the losses of the wanted positions from number `first` on that [`hidden`](Self::hidden) left.
    fn read_losses<'o, T: 'o>(
        &mut self,
        first: usize,
        read: &(dyn Fn(usize, Output<'_>) -> T + Sync),
        out: impl Iterator<Item = (usize, &'o mut T)>,
    ) -> Result<()> {
        let Self { model, layout, cpu, memory: m, .. } = self;
        if m.targets.is_empty() {
            return Ok(());
        }
        m.nll.resize(m.targets.len(), 0.0);
        let hidden = &m.hidden[first * model.config.d_model..];
        cross_entropy::forward(cpu, hidden, &head(model, layout, None), &m.targets, &mut m.nll)?;
        for ((number, out), &nll) in out.zip(&m.nll) {
            *out = read(number, Output::Loss(nll));
        }
        Ok(())
    }

    /// Reads the logits of the wanted positions that [`hidden`](Self::hidden) left, those of
    /// `groups[g]..groups[g + 1]` together.
    fn read_groups<'o, T: Send + 'o>(
        &mut self,
        groups: &[usize],
        read: &(dyn Fn(usize, Output<'_>) -> T + Sync),
        mut out: impl Iterator<Item = (usize, &'o mut T)>,
    ) -> Result<()> {
        let vocab = self.model.config.embedding_size;
        let mut logits = std::mem::take(&mut self.memory.logits);
        for tile in tiles(groups, tile_rows(vocab)) {
            let bounds = &groups[tile.start..=tile.end];
            self.project(bounds[0]..bounds[tile.len()], &mut logits)?;
            let mut rest = logits.as_mut_slice();
            let mut parts = recycled(std::mem::take(&mut self.memory.parts));
            for (group, (number, own)) in bounds.windows(2).zip(&mut out) {
                let (part, after) = rest.split_at_mut((group[1] - group[0]) * vocab);
                parts.push((number, part, own));
                rest = after;
            }
            self.cpu.chunks(&mut parts, 1, |_, part| {
                for (number, logits, out) in part {
                    **out = read(*number, Output::Logits(logits));
                }
            });
            self.memory.parts = recycled(parts);
        }
        self.memory.logits = logits;
        Ok(())
    }
}

/// Cuts `groups`, given by where they begin and the last ends, into runs of at most `most` positions; a
/// group with more is a run of its own.
pub(super) fn tiles(groups: &[usize], most: usize) -> impl Iterator<Item = Range<usize>> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let start = *groups.get(first)?;
        let fits = |&&end: &&usize| end - start <= most;
        let ends = groups.get(first + 1..).filter(|ends| !ends.is_empty())?;
        let count = ends.iter().take_while(fits).count().max(1);
        first += count;
        Some(first - count..first)
    })
}
