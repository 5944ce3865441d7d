//! The ranks that a launcher has started.

use std::sync::Arc;

use anyhow::Result;
use llada::ranks::{Alone, Collective, Launched, RankError};

use crate::{
    error,
    term::{Level, Term},
};

/// Does a work that all ranks share; the first of them alone tells of it. Where one fails, the others
/// end with it.
pub fn together(
    term: &Term,
    work: impl FnOnce(Arc<dyn Collective>, &Term) -> Result<()>,
) -> Result<()> {
    let Some(launched) = Launched::find().map_err(llada::Error::from)?.filter(Launched::is_many)
    else {
        return work(Arc::new(Alone), term);
    };
    let quiet = Term { level: Level::Quiet, ..*term };
    let term = if launched.rank == 0 { term } else { &quiet };
    many(&launched, |ranks| error::without_panics(|| work(ranks, term)))
}

/// The outcome of this rank, if all have succeeded; as of the library's [`agree`], with failures of the
/// program.
///
/// [`agree`]: Collective#method.agree
pub fn agree<T>(ranks: &dyn Collective, outcome: Result<T>) -> Result<T> {
    let told = outcome.as_ref().map(|_| ()).map_err(|e| RankError::Failed(e.to_string()).into());
    match ranks.agree(told) {
        Err(error) if is_elsewhere(&error) => Err(error.into()),
        _ => outcome,
    }
}

fn is_elsewhere(error: &llada::Error) -> bool {
    matches!(error, llada::Error::Rank(RankError::Elsewhere { .. }))
}

/// Whether the first rank to fail has told why, or nothing has failed.
#[cfg(feature = "mpi")]
fn is_told(error: &anyhow::Error) -> bool {
    error.is::<error::Interrupted>() || error.downcast_ref().is_some_and(is_elsewhere)
}

#[cfg(feature = "mpi")]
fn many(launched: &Launched, work: impl FnOnce(Arc<dyn Collective>) -> Result<()>) -> Result<()> {
    let ranks = match llada::ranks::Mpi::join(launched) {
        Ok(ranks) => Arc::new(ranks),
        Err(error) => return Err(once(launched, error)),
    };
    let outcome = work(ranks.clone());
    match outcome {
        Err(error) if !is_told(&error) => {
            // Others may wait for this rank.
            error::show(&error);
            ranks.abort(1)
        }
        outcome => outcome,
    }
}

#[cfg(not(feature = "mpi"))]
fn many(launched: &Launched, _work: impl FnOnce(Arc<dyn Collective>) -> Result<()>) -> Result<()> {
    let Launched { launcher, world, .. } = *launched;
    Err(once(launched, RankError::NoMpi { launcher, world }.into()))
}

/// A failure that all ranks have alike: the first tells of it.
fn once(launched: &Launched, error: llada::Error) -> anyhow::Error {
    let error = match launched.rank {
        0 => error,
        _ => RankError::Elsewhere { rank: 0, message: error.to_string() }.into(),
    };
    error.into()
}
