//! Several folders of shards as one corpus, of which each has its share of the sequences.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use llada_kernels::Cpu;

use super::{DataError, Shards, Split, Windows, windows::Permutation};
use crate::{
    Result,
    rng::{Purpose, Stream},
};

/// Sequences after which every folder has had exactly its share.
const ROUND: u64 = 4096;

/// Folders of shards of one tokenizer. Which folder a sequence of a run is from, and which of that
/// folder's sequences it is, is a pure function of the seed and its number in the run.
#[derive(Debug)]
pub struct Mixture {
    folders: Vec<Shards>,
    /// Each folder's share of the sequences; as its tokens, where nothing else was asked for.
    weights: Option<Vec<f64>>,
}

/// A sequence of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The number of its folder.
    pub folder: usize,
    /// Which of the sequences of the run that are from this folder it is, from 0.
    pub number: u64,
}

impl Mixture {
    /// Opens the folders and checks every byte of them. `weights`, one for each folder, are their
    /// shares of the sequences, in any unit; without, a folder has as many as its tokens make.
    ///
    /// # Errors
    /// When a folder cannot be opened or is damaged, the folders are not of one tokenizer, or the
    /// weights are not one positive number for each folder.
    pub fn open(folders: &[PathBuf], weights: Option<&[f64]>, cpu: &Cpu) -> Result<Self> {
        let invalid = |found: String, expected| {
            Err(DataError::Option { key: "data.weights", found, expected }.into())
        };
        if let Some(weights) = weights {
            if weights.len() != folders.len() {
                let found = format!("{} weights for {} folders", weights.len(), folders.len());
                return invalid(found, "one weight for each folder of `data.path`");
            }
            if let Some(weight) = weights.iter().find(|w| !(**w > 0.0 && w.is_finite())) {
                return invalid(weight.to_string(), "weights above 0");
            }
        }
        let folders: Vec<Shards> =
            folders.iter().map(|dir| Shards::open(dir, cpu)).collect::<Result<_>>()?;
        let Some(first) = folders.first() else {
            return Err(DataError::NotShards { path: PathBuf::new() }.into());
        };
        let tokenizer = first.meta().tokenizer_crc32c();
        if let Some(other) = folders.iter().find(|f| f.meta().tokenizer_crc32c() != tokenizer) {
            let (path, first) = (other.dir().to_path_buf(), first.dir().to_path_buf());
            return Err(DataError::OtherTokenizer { path, first }.into());
        }
        Ok(Self { folders, weights: weights.map(<[f64]>::to_vec) })
    }

    /// The folder whose tokenizer is that of all.
    pub fn dir(&self) -> &Path {
        // There is one at least, or it would not have been opened.
        self.folders.first().map_or(Path::new(""), Shards::dir)
    }

    /// The folders, in the order in which they were named.
    pub fn folders(&self) -> &[Shards] {
        &self.folders
    }

    /// The largest id.
    pub fn largest(&self) -> Option<u32> {
        self.folders.iter().filter_map(Shards::largest).max()
    }

    /// Tokens of the training splits.
    pub fn tokens(&self) -> u64 {
        self.folders.iter().map(|folder| folder.train().tokens()).sum()
    }

    /// Bytes of text for each held-out token, on average.
    pub fn held_out_bytes_per_token(&self) -> f64 {
        let held_out = || self.folders.iter().map(Shards::validation);
        let bytes: f64 = held_out().map(|s| s.bytes_per_token() * s.tokens() as f64).sum();
        bytes / held_out().map(Split::tokens).sum::<u64>().max(1) as f64
    }

    /// The windows of `length` tokens of each folder's held-out split; of those that have one at
    /// least.
    ///
    /// # Errors
    /// When none has.
    pub fn held_out(&self, length: usize, seed: u64) -> Result<Vec<Windows<'_>>> {
        let each = self.folders.iter().map(|f| Windows::new(f.validation(), length, seed));
        let (mut windows, mut error) = (Vec::new(), None);
        for found in each {
            match found {
                Ok(found) => windows.push(found),
                Err(cause) => error = error.or(Some(cause)),
            }
        }
        match error {
            Some(error) if windows.is_empty() => Err(error),
            _ => Ok(windows),
        }
    }

    /// Where each of the run's sequences `sequences` is from. In every 4096 of them each folder has its
    /// share, in an order drawn for them, and at least one.
    pub fn places(&self, sequences: Range<u64>, seed: u64) -> Vec<Place> {
        if self.folders.len() == 1 {
            return sequences.map(|number| Place { folder: 0, number }).collect();
        }
        places(&shares(&self.weights(), ROUND), sequences, seed)
    }

    fn weights(&self) -> Vec<f64> {
        match &self.weights {
            Some(weights) => weights.clone(),
            None => self.folders.iter().map(|f| f.train().tokens() as f64).collect(),
        }
    }
}

/// Where the sequences are from, when each folder has so many of every [`ROUND`].
fn places(shares: &[u64], sequences: Range<u64>, seed: u64) -> Vec<Place> {
    let mut places = Vec::new();
    for round in sequences.start / ROUND..sequences.end.div_ceil(ROUND) {
        let order = Permutation::new(ROUND, Stream::new(seed, Purpose::Mixture, round));
        let mut numbers: Vec<u64> = shares.iter().map(|share| share * round).collect();
        for at in 0..ROUND {
            let folder = holder(shares, order.at(at));
            if sequences.contains(&(round * ROUND + at)) {
                places.push(Place { folder, number: numbers[folder] });
            }
            numbers[folder] += 1;
        }
    }
    places
}

/// `total` shared out as the weights are, by largest remainders, so that everyone has one at least.
fn shares(weights: &[f64], total: u64) -> Vec<u64> {
    let sum: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / sum * total as f64).collect();
    let mut shares: Vec<u64> = exact.iter().map(|exact| (*exact as u64).max(1)).collect();
    let wanting = |shares: &[u64], i: usize| exact[i] - shares[i] as f64;
    while shares.iter().sum::<u64>() != total {
        let short = shares.iter().sum::<u64>() < total;
        let all = 0..shares.len();
        let by_want = |&a: &usize, &b: &usize| wanting(&shares, a).total_cmp(&wanting(&shares, b));
        let chosen = match short {
            true => all.max_by(by_want),
            false => all.filter(|&i| shares[i] > 1).min_by(by_want),
        };
        match (chosen, short) {
            (Some(i), true) => shares[i] += 1,
            (Some(i), false) => shares[i] -= 1,
            (None, _) => break,
        }
    }
    shares
}

/// Whose share has the item, when the shares lie one after the other.
fn holder(shares: &[u64], item: u64) -> usize {
    let mut end = 0;
    let holds = |share: &u64| {
        end += share;
        item < end
    };
    shares.iter().position(holds).unwrap_or(shares.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn everyone_has_a_share_and_the_shares_are_the_whole(
            weights in prop::collection::vec(1e-6f64..1e6, 1..20),
        ) {
            let shares = shares(&weights, ROUND);
            prop_assert_eq!(shares.iter().sum::<u64>(), ROUND);
            let sum: f64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!(*share >= 1);
                let exact = weight / sum * ROUND as f64;
                prop_assert!((*share as f64) < exact.max(1.0) + 1.0);
            }
            let held: Vec<usize> = (0..ROUND).map(|item| holder(&shares, item)).collect();
            for (i, share) in shares.iter().enumerate() {
                prop_assert_eq!(held.iter().filter(|h| **h == i).count() as u64, *share);
            }
        }

        #[test]
        fn every_folder_gives_its_sequences_in_turn_however_the_run_is_cut(
            weights in prop::collection::vec(1f64..100.0, 2..5),
            seed: u64,
            cuts in prop::collection::vec(1u64..2 * ROUND, 1..6),
        ) {
            let shares = shares(&weights, ROUND);
            let (mut pieces, mut start) = (Vec::new(), 0);
            for cut in cuts {
                pieces.extend(places(&shares, start..start + cut, seed));
                start += cut;
            }
            prop_assert_eq!(&pieces, &places(&shares, 0..start, seed));
            let mut next = vec![0; shares.len()];
            for (n, place) in pieces.iter().enumerate() {
                prop_assert_eq!(place.number, next[place.folder]);
                next[place.folder] += 1;
                if (n as u64 + 1).is_multiple_of(ROUND) {
                    let rounds = (n as u64 + 1) / ROUND;
                    let exact: Vec<u64> = shares.iter().map(|share| share * rounds).collect();
                    prop_assert_eq!(&next, &exact);
                }
            }
        }
    }
}
