//! Ranks that are processes of an MPI.

use std::fmt;

use mpi::{
    Count, Threading,
    datatype::{Partition, PartitionMut},
    environment::Universe,
    topology::{Communicator, SimpleCommunicator},
    traits::CommunicatorCollectives,
};

use super::{Collective, Launched, RankError};
use crate::Result;

/// This process as a rank. MPI ends with it.
pub struct Mpi {
    rank: usize,
    world: usize,
    _universe: Universe,
}

impl Mpi {
    /// Joins the ranks that a launcher has started; once in a process.
    ///
    /// # Errors
    /// When MPI has been started before, or knows of other ranks than `launched`.
    pub fn join(launched: &Launched) -> Result<Self> {
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or(RankError::Start("it has been started before"))?;
        let world = universe.world();
        let (rank, found) = (world.rank() as usize, world.size() as usize);
        if found != launched.world {
            let Launched { launcher, world, .. } = *launched;
            return Err(RankError::OtherWorld { launcher, world, found }.into());
        }
        Ok(Self { rank, world: found, _universe: universe })
    }

    /// Ends all ranks at once, this one too, whose exit code is `code`.
    pub fn abort(&self, code: u8) -> ! {
        SimpleCommunicator::world().abort(i32::from(code))
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("world", &self.world).finish()
    }
}

/// Sizes as MPI counts them, and where each part begins.
fn counts(sizes: &[usize]) -> Result<(Vec<Count>, Vec<Count>)> {
    let mut start = 0usize;
    let mut starts = Vec::with_capacity(sizes.len());
    for size in sizes {
        starts.push(start);
        start += size;
    }
    let count = |n: usize| Count::try_from(n).map_err(|_| RankError::TooLarge { bytes: n });
    let all =
        |sizes: &[usize]| sizes.iter().map(|&n| count(n)).collect::<std::result::Result<_, _>>();
    Ok((all(sizes)?, all(&starts)?))
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.world
    }

    fn exchange(
        &self,
        sent: &[u8],
        received: &mut [u8],
        sizes: (&[usize], &[usize]),
    ) -> Result<()> {
        let (to, to_starts) = counts(sizes.0)?;
        let (from, from_starts) = counts(sizes.1)?;
        let sent = Partition::new(sent, to, to_starts);
        let mut received = PartitionMut::new(received, from, from_starts);
        SimpleCommunicator::world().all_to_all_varcount_into(&sent, &mut received);
        Ok(())
    }

    fn gather(&self, own: &[u8], received: &mut [u8], sizes: &[usize]) -> Result<()> {
        let (counts, starts) = counts(sizes)?;
        let mut received = PartitionMut::new(received, counts, starts);
        SimpleCommunicator::world().all_gather_varcount_into(own, &mut received);
        Ok(())
    }
}
