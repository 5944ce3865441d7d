//! Pairs of responses to one prompt, of which one is preferred.

use super::{Encoder, Files, Pair, Report, Row, both, crc32c, hash, row};
use crate::{Result, data::windows::shuffled};

/// A prompt with the response that is preferred, and with the other.
type Choice = [Pair; 2];

/// All preferences of a run, as token ids in memory.
#[derive(Debug)]
pub struct Preferences {
    train: Vec<Choice>,
    validation: Vec<Choice>,
    report: Report,
}

impl Preferences {
    /// Reads all files. Rows that cannot be used are counted, and the first named; it fails when no
    /// row is left. Rows of the same prompt are held out together.
    pub fn open(files: &Files<'_>, encoder: &Encoder<'_>) -> Result<Self> {
        let mut report = Report::default();
        let make = &mut |columns: &Row, report: &mut Report| {
            let both = row::preference(columns)?;
            let mut pairs = Vec::new();
            for messages in &both {
                let laid = encoder.dialogue(messages)?;
                if laid.long_turns > 0 {
                    return Err(format!("longer than `data.sequence_length`, {}", encoder.longest));
                }
                report.rewritten += u64::from(laid.rewritten);
                pairs.extend(laid.pairs.into_iter().next_back());
            }
            let asked = &both[0][..both[0].len() - 1];
            let choice = pairs.try_into().map_err(|_| "there is no response".to_owned())?;
            Ok((hash(asked), choice))
        };
        let [train, validation] = both(files, make, &mut report)?;
        Ok(Self { train, validation, report })
    }

    /// What was read.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Pairs to train on.
    pub fn train(&self) -> &[Choice] {
        &self.train
    }

    /// Pairs held out.
    pub fn validation(&self) -> &[Choice] {
        &self.validation
    }

    /// The pair that is number `n` of the run: each comes once in each epoch, in an order drawn for it.
    pub(crate) fn choice(&self, n: u64, seed: u64) -> &Choice {
        let count = self.train.len().max(1) as u64;
        &self.train[shuffled(n, count, seed) as usize]
    }

    /// CRC-32C of all sequences to train on, and of those to validate on.
    pub fn crc32c(&self) -> [u32; 2] {
        [&self.train, &self.validation].map(|choices| crc32c(choices.iter().flatten()))
    }
}
