//! Where a run stands: all that a checkpoint holds besides weights and optimiser.

use std::path::{Path, PathBuf};

use super::{TrainError, metrics::smooth};
use crate::{Result, data::Meta, files};

/// Gradient norms that the running median looks at.
const MEMORY: usize = 64;
/// Norms that it needs before it judges.
const ENOUGH: usize = 16;
/// The state of a run has 10 kB.
const MAX_STATE: u64 = 64 << 20;

/// `state.json` of a checkpoint.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub(super) step: u64,
    /// Updates made: the steps that were not skipped.
    pub(super) updates: u64,
    /// Steps skipped.
    pub(super) skipped: u64,
    /// Steps skipped in a row because they were not finite.
    pub(super) not_finite: u32,
    /// Tokens trained on.
    pub(super) tokens: u64,
    /// Smoothed loss.
    loss_ema: Option<Exact>,
    /// The last norms, oldest first.
    grad_norms: Vec<Exact>,
    /// The data that the run is trained on.
    data: Fingerprint,
    /// The recipe that led here, as TOML.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recipe: Option<String>,
    /// What was due at this step and not done.
    #[serde(default, skip_serializing_if = "Pending::is_empty")]
    pub(super) pending: Pending,
    /// The validation loss of this step, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    validation: Option<Exact>,
    /// Where the run branched from another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<Origin>,
    /// The other files of the checkpoint.
    pub(super) files: Vec<FileMark>,
}

/// What a stop left for the resumed run to do before its next step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Pending {
    pub(super) validation: bool,
    pub(super) sample: bool,
    #[serde(default)]
    pub(super) tasks: bool,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A checkpoint of another run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Origin {
    pub(super) path: PathBuf,
    pub(super) step: u64,
}

/// What tells the data of one run from that of another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Fingerprint {
    pub(super) tokenizer_crc32c: u32,
    pub(super) tokens: u64,
    pub(super) shards_crc32c: Vec<u32>,
    /// The frozen weights: those under adapters, or of a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base_crc32c: Option<u32>,
}

/// Name, length and checksum of a file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct FileMark {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc32c: u32,
}

/// A number written as text, because JSON readers need not give back every bit of a number.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Exact(pub(super) f64);

impl From<Exact> for String {
    fn from(x: Exact) -> Self {
        x.0.to_string()
    }
}

impl TryFrom<String> for Exact {
    type Error = std::num::ParseFloatError;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl State {
    /// The start of a run on this data.
    pub(super) fn new(data: Fingerprint) -> Self {
        Self {
            step: 0,
            updates: 0,
            skipped: 0,
            not_finite: 0,
            tokens: 0,
            loss_ema: None,
            grad_norms: Vec::new(),
            data,
            recipe: None,
            pending: Pending::default(),
            validation: None,
            origin: None,
            files: Vec::new(),
        }
    }

    /// The validation loss of this step; `None` where it was not measured.
    pub(super) fn validation(&self) -> Option<f64> {
        self.validation.map(|x| x.0)
    }

    /// Notes the validation loss of this step, or that there is none.
    pub(super) fn set_validation(&mut self, loss: Option<f64>) {
        self.validation = loss.filter(|loss| loss.is_finite()).map(Exact);
    }

    /// The loss, smoothed; NaN before the first.
    pub(super) fn loss_ema(&self) -> f64 {
        self.loss_ema.map_or(f64::NAN, |x| x.0)
    }

    /// Adds a loss to the smoothed one.
    pub(super) fn add_loss(&mut self, loss: f64) {
        if loss.is_finite() {
            self.loss_ema = Some(Exact(smooth(self.loss_ema.map(|x| x.0), loss)));
        }
    }

    /// Whether `norm` is above `factor` times the running median, to which it is then added.
    pub(super) fn is_spike(&mut self, norm: f64, factor: f64) -> bool {
        let mut sorted: Vec<f64> = self.grad_norms.iter().map(|x| x.0).collect();
        sorted.sort_by(f64::total_cmp);
        let spike =
            factor > 0.0 && sorted.len() >= ENOUGH && norm > factor * sorted[sorted.len() / 2];
        if self.grad_norms.len() == MEMORY {
            self.grad_norms.remove(0);
        }
        self.grad_norms.push(Exact(norm));
        spike
    }

    /// The start of another run from here, on data that may be other but in the same tokens.
    pub(super) fn branch(self, from: &Path, path: &Path, now: Fingerprint) -> Result<Self> {
        match self.data.other_tokens(&now) {
            Some(reason) => Err(other_data(path, reason.into())),
            None => Ok(Self {
                data: now,
                pending: Pending::default(),
                origin: Some(Origin { path: from.to_path_buf(), step: self.step }),
                ..self
            }),
        }
    }

    /// Fails when the run is not of this data, which is at `path`.
    pub(super) fn check_data(&self, path: &Path, now: &Fingerprint) -> Result<()> {
        let reason = if let Some(reason) = self.data.other_tokens(now) {
            reason.to_owned()
        } else if self.data.tokens != now.tokens {
            format!("{} training tokens, it was {}", now.tokens, self.data.tokens)
        } else if self.data != *now {
            "as many tokens, but others".to_owned()
        } else {
            return Ok(());
        };
        Err(other_data(path, reason))
    }

    /// Reads `state.json`.
    pub(super) fn read(path: &Path, previous: Option<u64>) -> Result<Self> {
        let damaged = |reason: String| {
            let path = path.to_path_buf();
            TrainError::Damaged { path, reason, previous }
        };
        let bytes = files::read_bytes(path, MAX_STATE).map_err(|e| damaged(e.to_string()))?;
        let sealed: Sealed = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if sealed.state.crc32c() != sealed.crc32c {
            return Err(damaged("its checksum differs".into()).into());
        }
        Ok(sealed.state)
    }

    /// Writes `state.json`.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let sealed = Sealed { crc32c: self.crc32c(), state: self.clone() };
        let text = serde_json::to_string_pretty(&sealed).unwrap_or_default();
        files::replace_with(path, text.as_bytes())
    }

    /// What tells it from another.
    pub(super) fn digest(&self) -> [u8; 4] {
        self.crc32c().to_ne_bytes()
    }

    fn crc32c(&self) -> u32 {
        crc32c::crc32c(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// A state with the checksum of its compact JSON.
#[derive(serde::Serialize, serde::Deserialize)]
struct Sealed {
    crc32c: u32,
    state: State,
}

fn other_data(path: &Path, reason: String) -> crate::Error {
    TrainError::OtherData { path: path.to_path_buf(), reason }.into()
}

impl Fingerprint {
    /// Why weights trained on this data cannot go on with `other`, if so.
    fn other_tokens(&self, other: &Self) -> Option<&'static str> {
        if self.tokenizer_crc32c != other.tokenizer_crc32c {
            return Some("another tokenizer");
        }
        (self.base_crc32c != other.base_crc32c)
            .then_some("other weights under the adapters, or of the reference")
    }

    /// That of folders of shards of one tokenizer.
    pub(super) fn of<'a>(folders: impl Iterator<Item = &'a Meta> + Clone) -> Self {
        let shards = folders.clone().flat_map(|meta| &meta.train.shards);
        Self {
            tokenizer_crc32c: folders.clone().next().map_or(0, Meta::tokenizer_crc32c),
            tokens: folders.map(|meta| meta.train.tokens).sum(),
            shards_crc32c: shards.map(|s| s.crc32c).collect(),
            base_crc32c: None,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::{IdType, PrepareOptions, SplitMeta, TokenizerMeta};

    pub(in crate::train) fn fingerprint() -> Fingerprint {
        Fingerprint::of([meta()].iter())
    }

    fn meta() -> Meta {
        Meta {
            version: 1,
            dtype: IdType::U16,
            vocab_size: 10,
            tokenizer: vec![TokenizerMeta { file: "tokenizer.json".into(), crc32c: 1 }],
            options: PrepareOptions::default(),
            inputs: Vec::new(),
            documents: None,
            duplicates: 0,
            rejected: 0,
            first_rejected: Vec::new(),
            tail_held_out: false,
            train: SplitMeta::default(),
            validation: SplitMeta::default(),
        }
    }

    #[test]
    fn a_state_comes_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut state = State::new(fingerprint());
        for i in 1..100 {
            state.add_loss(1.0 / f64::from(i) + 1e-17);
            state.is_spike(f64::from(i).sqrt() * 0.1, 0.0);
        }
        state.recipe = Some("[train]\nsteps = 3\n".into());
        state.pending.sample = true;
        state.write(&path).unwrap();
        assert_eq!(State::read(&path, None).unwrap(), state);
        let text = std::fs::read_to_string(&path).unwrap();
        for bad in ["{", &text.replace("\"step\": 0", "\"step\": 1")] {
            std::fs::write(&path, bad).unwrap();
            let error = State::read(&path, Some(5)).unwrap_err();
            assert!(error.hint().unwrap().contains("step-5"), "{error}");
        }
    }

    #[test]
    fn a_spike_is_skipped_and_a_lasting_change_accepted() {
        let mut state = State::new(fingerprint());
        for _ in 0..20 {
            assert!(!state.is_spike(1.0, 4.0));
        }
        assert!(state.is_spike(5.0, 4.0));
        let skipped = (0..64).filter(|_| state.is_spike(5.0, 4.0)).count();
        assert!((15..40).contains(&skipped), "{skipped}");
        assert!(!state.is_spike(5.0, 4.0));
        assert!(!State::new(fingerprint()).is_spike(1e9, 4.0));
    }

    #[test]
    fn other_data_is_refused() {
        let state = State::new(fingerprint());
        let refuse = |change: &dyn Fn(&mut Fingerprint)| {
            let mut other = fingerprint();
            change(&mut other);
            state.check_data(Path::new("d"), &other).unwrap_err().to_string()
        };
        assert!(state.check_data(Path::new("d"), &fingerprint()).is_ok());
        assert!(refuse(&|f| f.tokens = 7).contains("7 training"));
        assert!(refuse(&|f| f.shards_crc32c.push(1)).contains("but others"));
        assert!(refuse(&|f| f.base_crc32c = Some(1)).contains("adapters"));
        assert!(refuse(&|f| f.tokenizer_crc32c = 9).contains("tokenizer"));

        let branch = |change: &dyn Fn(&mut Fingerprint)| {
            let mut other = fingerprint();
            change(&mut other);
            state.clone().branch(Path::new("a/step-1"), Path::new("d"), other)
        };
        assert_eq!(branch(&|f| f.tokens = 7).unwrap().data.tokens, 7);
        assert!(branch(&|f| f.base_crc32c = Some(1)).is_err());
        assert!(branch(&|f| f.tokenizer_crc32c = 9).is_err());
    }
}
