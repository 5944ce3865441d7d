//! What a run is validated on.

use super::Source;
use crate::{
    Result,
    data::{Mixture, Windows, conversations::Pair},
    diffusion::likelihood::Window,
    train::Recipe,
};

/// The windows of the validation split of each folder.
pub(super) fn windows<'a>(shards: &'a Mixture, recipe: &Recipe) -> Result<Vec<Windows<'a>>> {
    shards.held_out(recipe.data.sequence_length, recipe.train.seed)
}

impl Source {
    /// Sequences that can be validated on.
    pub(in crate::train) fn held_out(&self, recipe: &Recipe) -> Result<u64> {
        match self {
            Self::Shards { shards, .. } => {
                Ok(windows(shards, recipe)?.iter().map(Windows::count).sum())
            }
            Self::Conversations { conversations, .. } => {
                Ok(conversations.validation().len() as u64)
            }
            Self::Preferences { preferences, .. } => Ok(preferences.validation().len() as u64),
            Self::Prompts { prompts, .. } => Ok(prompts.held_out.len() as u64),
        }
    }

    /// Appends held-out row `n` to `out`, and gives the length of its prompt. A response has no
    /// padding, so that the sequence does not depend on others.
    fn read_held_out(&self, recipe: &Recipe, n: u64, out: &mut Vec<u32>) -> Result<usize> {
        match self {
            Self::Shards { shards, .. } => {
                let mut window = n;
                for windows in windows(shards, recipe)? {
                    if window < windows.count() {
                        windows.read(window, recipe.data.sequence_length, out)?;
                        break;
                    }
                    window -= windows.count();
                }
                Ok(0)
            }
            Self::Conversations { conversations, .. } => {
                let pair = conversations.held_out(n);
                out.extend_from_slice(pair.ids());
                Ok(pair.prompt_len())
            }
            Self::Preferences { preferences, .. } => {
                let [pair, _] = &preferences.validation()[n as usize];
                out.extend_from_slice(pair.ids());
                Ok(pair.prompt_len())
            }
            Self::Prompts { prompts, .. } => {
                let (_, prompt) = &prompts.held_out[n as usize];
                out.extend_from_slice(prompt);
                Ok(prompt.len())
            }
        }
    }

    /// Bytes of text for each token that is predicted, on average over what is held out.
    pub(in crate::train) fn bytes_per_token(&self) -> f64 {
        match self {
            Self::Shards { shards, .. } => shards.held_out_bytes_per_token(),
            Self::Conversations { conversations, .. } => {
                let pairs = || conversations.validation().iter().flatten();
                let bytes: usize = pairs().map(|pair| pair.answer_bytes()).sum();
                let tokens: usize = pairs().map(|pair| pair.answer_len()).sum();
                bytes as f64 / tokens.max(1) as f64
            }
            Self::Preferences { preferences, .. } => {
                let pairs = || preferences.validation().iter().map(|[pair, _]| pair);
                let bytes: usize = pairs().map(Pair::answer_bytes).sum();
                let tokens: usize = pairs().map(Pair::answer_len).sum();
                bytes as f64 / tokens.max(1) as f64
            }
            Self::Prompts { .. } => 0.0,
        }
    }

    /// The sequences of held-out row `n`: itself, or its documents.
    pub(in crate::train) fn held_out_sequences(
        &self,
        recipe: &Recipe,
        n: u64,
    ) -> Result<Vec<Window>> {
        let mut tokens = Vec::new();
        let given = self.read_held_out(recipe, n, &mut tokens)?;
        let Self::Shards { end: Some(end), .. } = self else {
            return Ok(vec![Window { number: n, length: tokens.len(), given }]);
        };
        let mut number = n * recipe.data.sequence_length as u64;
        let documents = tokens.split_inclusive(|token| token == end).map(|document| {
            let window = Window { number, length: document.len(), given };
            number += document.len() as u64;
            window
        });
        Ok(documents.collect())
    }

    /// Appends a sequence of [`Self::held_out_sequences`] to `out`.
    pub(in crate::train) fn read_window(
        &self,
        recipe: &Recipe,
        window: Window,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let Self::Shards { end: Some(_), .. } = self else {
            return self.read_held_out(recipe, window.number, out).map(|_| ());
        };
        let (length, begin) = (recipe.data.sequence_length as u64, out.len());
        self.read_held_out(recipe, window.number / length, out)?;
        let offset = (window.number % length) as usize;
        out.drain(begin..begin + offset);
        out.truncate(begin + window.length);
        Ok(())
    }
}
