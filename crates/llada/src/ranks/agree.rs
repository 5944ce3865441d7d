//! What ranks decide together.

use serde::{Serialize, de::DeserializeOwned};

use super::{Collective, RankError};
use crate::{Error, Result};

impl dyn Collective + '_ {
    /// Whether this rank speaks for all: it alone writes what is there once.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether it is so on any rank.
    pub fn any(&self, here: bool) -> Result<bool> {
        if self.world() == 1 {
            return Ok(here);
        }
        Ok(self.gather_bytes(&[u8::from(here)])?.iter().any(|there| *there == [1]))
    }

    /// The outcome of this rank, if all have succeeded. Where some have not, the first of them gets its
    /// own error, and the others one that [says so](RankError::Elsewhere).
    pub fn agree<T>(&self, outcome: Result<T>) -> Result<T> {
        if self.world() == 1 {
            return outcome;
        }
        let message = outcome.as_ref().err().map_or(String::new(), Error::to_string);
        let failed = outcome.is_err();
        let own = [&[u8::from(failed)], message.as_bytes()].concat();
        let all = match self.gather_bytes(&own) {
            Ok(all) => all,
            // The own error is why the others are lost.
            Err(lost) => return outcome.and(Err(lost)),
        };
        match all.iter().position(|told| told.first() == Some(&1)) {
            Some(rank) if rank != self.rank() => {
                let message = String::from_utf8_lossy(&all[rank][1..]).into_owned();
                Err(RankError::Elsewhere { rank, message }.into())
            }
            _ => outcome,
        }
    }

    /// What the first rank finds, given to all.
    pub fn first<T: Serialize + DeserializeOwned>(
        &self,
        find: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        if self.world() == 1 {
            return find();
        }
        let found = self.agree(if self.is_first() { find().map(Some) } else { Ok(None) })?;
        let mut bytes = found.as_ref().map(serde_json::to_vec).transpose().unwrap_or_default();
        let mut bytes = bytes.take().unwrap_or_default();
        self.broadcast(0, &mut bytes)?;
        match found {
            Some(found) => Ok(found),
            None => read(0, &bytes),
        }
    }

    /// What every rank has for `own`, in their order.
    pub fn gather_all<T: Serialize + DeserializeOwned>(&self, own: &T) -> Result<Vec<T>> {
        let all = self.gather_bytes(&serde_json::to_vec(own).unwrap_or_default())?;
        all.iter().enumerate().map(|(rank, bytes)| read(rank, bytes)).collect()
    }

    /// Checks that all ranks have the same for `own`.
    pub fn same(&self, what: &'static str, own: &[u8]) -> Result<()> {
        let sum = crc32c::crc32c(own).to_ne_bytes();
        let all = self.gather_bytes(&sum)?;
        match all.iter().position(|other| *other != all[0]) {
            Some(rank) => self.agree(Err(RankError::Differs { rank, what }.into())),
            None => Ok(()),
        }
    }
}

fn read<T: DeserializeOwned>(rank: usize, bytes: &[u8]) -> Result<T> {
    let malformed = |_| RankError::Malformed { rank, what: "message of this program" };
    Ok(serde_json::from_slice(bytes).map_err(malformed)?)
}
