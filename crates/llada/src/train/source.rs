//! Where the sequences of a run come from: windows of token shards, or conversations.

mod held_out;

use std::path::{Path, PathBuf};

use llada_kernels::Cpu;

use super::{
    Recipe, TrainError,
    batch::{Sequences, StepBatch, sequence_length},
    recipe::{OneOrMany, Padding, Preference, Sft, SftTemplate},
    state::Fingerprint,
};
use crate::{
    Result,
    chat::Template,
    checkpoint::Checkpoint,
    config::{LogitShift, Objective, SpecialTokens},
    data::{
        Conversations, DataError, Mixture, Place, Preferences, Shards, Windows,
        conversations::{Encoder, Files, Pair, Report},
    },
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// The data of a run.
#[derive(Debug)]
pub(super) enum Source {
    /// Pre-training.
    Shards {
        shards: Box<Mixture>,
        /// The last token of a document, where documents are sequences of their own.
        end: Option<u32>,
    },
    /// Fine-tuning.
    Conversations {
        conversations: Conversations,
        /// What pads short responses and ends all of them.
        eos: u32,
        tokenizer_crc32c: u32,
    },
    /// Preference optimisation. As sequences, the responses that are preferred.
    Preferences { preferences: Preferences, tokenizer_crc32c: u32 },
    /// Reinforcement learning. As sequences, prompts without a response.
    Prompts { prompts: Prompts, tokenizer_crc32c: u32 },
}

/// Prompts of which a policy writes the completions, each with its number.
#[derive(Debug, Clone, Default)]
pub(super) struct Prompts {
    pub(super) train: Vec<(usize, Vec<u32>)>,
    pub(super) held_out: Vec<(usize, Vec<u32>)>,
    pub(super) report: Report,
}

impl Prompts {
    fn tokens(&self) -> u64 {
        self.train.iter().map(|(_, prompt)| prompt.len() as u64).sum()
    }

    /// CRC-32C of all prompts to train on, and of those held out.
    fn crc32c(&self) -> Vec<u32> {
        let of = |prompts: &[(usize, Vec<u32>)]| {
            prompts.iter().fold(0, |crc, (_, prompt)| {
                let numbers = [prompt.len() as u32].into_iter().chain(prompt.iter().copied());
                let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
                crc32c::crc32c_append(crc, &bytes)
            })
        };
        vec![of(&self.train), of(&self.held_out)]
    }
}

/// A model's folder, as far as it makes text into tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) files: &'a TokenizerFiles,
    pub(super) special: &'a SpecialTokens,
}

impl Reader<'_> {
    pub(super) fn template(&self, asked: SftTemplate) -> Result<Option<Template>> {
        match asked {
            SftTemplate::Chat => self.checkpoint.template().map(Some),
            SftTemplate::Plain => Ok(None),
        }
    }

    fn encoder<'a>(
        &'a self,
        recipe: &Recipe,
        template: Option<&'a Template>,
    ) -> Result<Encoder<'a>> {
        let eos = self.special.eos.ok_or(DataError::NoEos)?;
        let (tokenizer, eot, longest) =
            (self.tokenizer, self.special.eot, recipe.data.sequence_length);
        Ok(Encoder { tokenizer, template, eos, eot, longest })
    }
}

/// The files of `data`.
fn files(recipe: &Recipe, held_out: f64) -> Files<'_> {
    Files {
        train: recipe.data.path.as_slice(),
        validation: recipe.data.validation.as_ref().map(OneOrMany::as_slice),
        held_out,
    }
}

impl Source {
    /// Opens the shards of `data.path`, every byte of them checked.
    pub(super) fn shards(recipe: &Recipe, cpu: &Cpu) -> Result<Self> {
        let paths = recipe.data.path.as_slice();
        if let Some(path) = paths.iter().find(|path| path.is_file()) {
            return Err(DataError::NotShards { path: path.clone() }.into());
        }
        let weights = recipe.data.weights.as_ref().map(OneOrMany::as_slice);
        let mixture = Mixture::open(paths, weights, cpu)?;
        Ok(Self::Shards { shards: Box::new(mixture), end: None })
    }

    /// Has each document be a sequence of its own where the recipe asks for it: `eos` ends one.
    pub(super) fn split_documents(&mut self, recipe: &Recipe, eos: Option<u32>) -> Result<()> {
        if let Self::Shards { end, .. } = self
            && recipe.data.split_documents
        {
            *end = Some(eos.ok_or(DataError::NoEos)?);
        }
        Ok(())
    }

    /// Reads the conversations of `data.path` as the model of `reader` does.
    pub(super) fn conversations(recipe: &Recipe, sft: &Sft, reader: Reader<'_>) -> Result<Self> {
        let template = reader.template(sft.template)?;
        let encoder = reader.encoder(recipe, template.as_ref())?;
        let conversations = Conversations::open(&files(recipe, sft.held_out), &encoder)?;
        let tokenizer_crc32c = reader.files.crc32c();
        Ok(Self::Conversations { conversations, eos: encoder.eos, tokenizer_crc32c })
    }

    /// Reads the pairs of `data.path` as the model of `reader` does.
    pub(super) fn preferences(
        recipe: &Recipe,
        settings: &Preference,
        reader: Reader<'_>,
    ) -> Result<Self> {
        let template = reader.template(settings.template)?;
        let encoder = reader.encoder(recipe, template.as_ref())?;
        let preferences = Preferences::open(&files(recipe, settings.held_out), &encoder)?;
        let tokenizer_crc32c = reader.files.crc32c();
        Ok(Self::Preferences { preferences, tokenizer_crc32c })
    }

    /// What was read, where rows were.
    pub(super) fn report(&self) -> Option<&Report> {
        match self {
            Self::Shards { .. } => None,
            Self::Conversations { conversations, .. } => Some(conversations.report()),
            Self::Preferences { preferences, .. } => Some(preferences.report()),
            Self::Prompts { prompts, .. } => Some(&prompts.report),
        }
    }

    /// What tells this data from other.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Shards { shards, .. } => {
                Fingerprint::of(shards.folders().iter().map(Shards::meta))
            }
            Self::Conversations { conversations, tokenizer_crc32c, .. } => Fingerprint {
                tokenizer_crc32c: *tokenizer_crc32c,
                tokens: tokens(conversations),
                shards_crc32c: conversations.crc32c().to_vec(),
                base_crc32c: None,
            },
            Self::Preferences { preferences, tokenizer_crc32c } => Fingerprint {
                tokenizer_crc32c: *tokenizer_crc32c,
                tokens: preferred(preferences).map(|pair| pair.ids().len() as u64).sum(),
                shards_crc32c: preferences.crc32c().to_vec(),
                base_crc32c: None,
            },
            Self::Prompts { prompts, tokenizer_crc32c } => Fingerprint {
                tokenizer_crc32c: *tokenizer_crc32c,
                tokens: prompts.tokens(),
                shards_crc32c: prompts.crc32c(),
                base_crc32c: None,
            },
        }
    }

    /// Where it is, for messages.
    pub(super) fn path(&self, recipe: &Recipe) -> PathBuf {
        recipe.data.first().map_or_else(PathBuf::new, Path::to_path_buf)
    }

    /// Sequences of one pass over the data.
    pub(super) fn sequences_per_epoch(&self, recipe: &Recipe) -> u64 {
        match self {
            Self::Shards { shards, .. } => {
                shards.tokens() / recipe.data.sequence_length.max(1) as u64
            }
            Self::Conversations { conversations, .. } => {
                (conversations.train().len() * recipe.sequence_copies()) as u64
            }
            Self::Preferences { preferences, .. } => preferences.train().len() as u64,
            Self::Prompts { prompts, .. } => {
                let settings = recipe.reward.as_ref();
                let each = settings.map_or(1, |r| r.completions as u64 * r.iterations);
                prompts.train.len() as u64 * each
            }
        }
    }

    /// Checks that there are sequences to train on, and to validate on where that is asked for.
    pub(super) fn check(&self, recipe: &Recipe) -> Result<()> {
        let validates = recipe.eval.every > 0;
        match self {
            Self::Shards { shards, .. } => {
                training_windows(shards, recipe)?;
                if validates {
                    held_out::windows(shards, recipe)?;
                }
            }
            Self::Conversations { conversations, .. } => {
                if validates && conversations.validation().is_empty() {
                    return Err(DataError::NoHeldOut.into());
                }
            }
            Self::Preferences { preferences, .. } => {
                if validates && preferences.validation().is_empty() {
                    return Err(DataError::NoHeldOut.into());
                }
            }
            Self::Prompts { prompts, .. } => {
                if validates && prompts.held_out.is_empty() {
                    return Err(DataError::NoHeldOut.into());
                }
            }
        }
        Ok(())
    }

    /// Tokens of a sequence, on average and before padding.
    pub(super) fn sequence_length(&self, recipe: &Recipe) -> usize {
        match self {
            Self::Shards { .. } => recipe.data.sequence_length,
            Self::Conversations { conversations, .. } => {
                let pairs = conversations.train().iter().map(Vec::len).sum::<usize>();
                (tokens(conversations) / pairs.max(1) as u64) as usize
            }
            Self::Preferences { preferences, .. } => {
                let lengths = preferred(preferences).map(|pair| pair.ids().len());
                lengths.sum::<usize>() / preferences.train().len().max(1)
            }
            Self::Prompts { prompts, .. } => {
                let completion = recipe.reward.as_ref().map_or(0, |reward| reward.gen_length);
                prompts.tokens() as usize / prompts.train.len().max(1) + completion
            }
        }
    }

    /// The largest id of all sequences.
    pub(super) fn largest(&self) -> Option<u32> {
        match self {
            Self::Shards { shards, .. } => shards.largest(),
            Self::Conversations { conversations, .. } => {
                let dialogues = conversations.train().iter().chain(conversations.validation());
                dialogues.flatten().flat_map(Pair::ids).copied().max()
            }
            Self::Preferences { preferences, .. } => {
                let choices = preferences.train().iter().chain(preferences.validation());
                choices.flatten().flat_map(Pair::ids).copied().max()
            }
            Self::Prompts { prompts, .. } => {
                let all = prompts.train.iter().chain(&prompts.held_out);
                all.flat_map(|(_, prompt)| prompt).copied().max()
            }
        }
    }

    /// The sequences of `step`, from 0.
    pub(super) fn step_batch<'a>(
        &self,
        recipe: &'a Recipe,
        mask: u32,
        shift: LogitShift,
        step: u64,
    ) -> Result<StepBatch<'a>> {
        let sequences = match self {
            Self::Shards { shards, end } => window_sequences(shards, *end, recipe, step)?,
            Self::Conversations { conversations, eos, .. } => {
                conversation_sequences(conversations, recipe, *eos, step)
            }
            Self::Preferences { preferences, .. } => {
                let mut sequences = Sequences::default();
                for n in numbers(recipe, step) {
                    let [pair, _] = preferences.choice(n, recipe.train.seed);
                    sequences.push(pair.ids(), pair.prompt_len(), (0, 0));
                }
                sequences
            }
            Self::Prompts { prompts, .. } => {
                let mut sequences = Sequences::default();
                for n in numbers(recipe, step) {
                    let (_, prompt) = &prompts.train[(n % prompts.train.len() as u64) as usize];
                    sequences.push(prompt, prompt.len(), (0, 0));
                }
                sequences
            }
        };
        Ok(StepBatch::new(recipe, sequences, mask, shift, step))
    }

    /// What a sample goes on from: the start of a document, or a prompt that is not trained on.
    pub(super) fn sample_prompt(&self, special: &SpecialTokens) -> Vec<u32> {
        match self {
            Self::Shards { end: None, .. } => special.eos.into_iter().collect(),
            // Nothing is before a document that is a sequence of its own.
            Self::Shards { end: Some(_), .. } => Vec::new(),
            Self::Conversations { conversations, .. } => {
                let dialogues = conversations.validation().iter().chain(conversations.train());
                let pair = dialogues.flatten().next();
                pair.map_or(Vec::new(), |pair| pair.ids()[..pair.prompt_len()].to_vec())
            }
            Self::Preferences { preferences, .. } => {
                let choice = preferences.validation().iter().chain(preferences.train()).next();
                choice.map_or(Vec::new(), |[pair, _]| pair.ids()[..pair.prompt_len()].to_vec())
            }
            Self::Prompts { prompts, .. } => {
                let prompt = prompts.held_out.iter().chain(&prompts.train).next();
                prompt.map_or(Vec::new(), |(_, prompt)| prompt.clone())
            }
        }
    }
}

fn tokens(conversations: &Conversations) -> u64 {
    conversations.train().iter().flatten().map(|pair| pair.ids().len() as u64).sum()
}

/// The responses that are preferred.
fn preferred(preferences: &Preferences) -> impl Iterator<Item = &Pair> {
    preferences.train().iter().map(|[pair, _]| pair)
}

/// The numbers in the run of the sequences of `step`.
fn numbers(recipe: &Recipe, step: u64) -> std::ops::Range<u64> {
    let count = recipe.train.batch_size as u64;
    step * count..(step + 1) * count
}

/// The windows of each folder.
fn training_windows<'a>(shards: &'a Mixture, recipe: &Recipe) -> Result<Vec<Windows<'a>>> {
    let Recipe { data, train, .. } = recipe;
    let folders = shards.folders().iter().map(|folder| {
        let windows = Windows::new(folder.train(), data.sequence_length, train.seed)?;
        Ok(match data.unique_tokens {
            0 => windows,
            tokens => windows.first(tokens),
        })
    });
    folders.collect()
}

fn window_sequences(
    shards: &Mixture,
    end: Option<u32>,
    recipe: &Recipe,
    step: u64,
) -> Result<Sequences> {
    let Recipe { train, .. } = recipe;
    let windows = training_windows(shards, recipe)?;
    let (first, length) = (step * train.batch_size as u64, sequence_length(recipe, step));
    let mut sequences = Sequences::default();
    let mut sequence = Vec::with_capacity(length);
    for Place { folder, number } in
        shards.places(first..first + train.batch_size as u64, train.seed)
    {
        sequence.clear();
        let windows = &windows[folder];
        windows.read(windows.window(number), length, &mut sequence)?;
        match end {
            None => sequences.push(&sequence, 0, (0, 0)),
            Some(end) => sequences.push_documents(&sequence, end),
        }
    }
    Ok(sequences)
}

/// The pairs of `step`, each as often as the recipe wants copies, padded as it says.
fn conversation_sequences(
    conversations: &Conversations,
    recipe: &Recipe,
    eos: u32,
    step: u64,
) -> Sequences {
    let (seed, copies) = (recipe.train.seed, recipe.sequence_copies());
    let count = (recipe.train.batch_size / copies) as u64;
    let pairs: Vec<_> =
        (step * count..(step + 1) * count).map(|n| conversations.pair(n, seed)).collect();
    let longest = pairs.iter().map(|pair| pair.ids().len()).max().unwrap_or(0);
    let most = recipe.data.sequence_length;
    let block = recipe.block.as_ref().map_or(1, |block| block.length_at(step));
    let length = |length: usize| match recipe.padding() {
        Padding::Batch => longest,
        Padding::Block => length.next_multiple_of(block).min(most.max(length)),
        Padding::None => 0,
    };
    let mut sequences = Sequences::default();
    for pair in pairs {
        for _ in 0..copies {
            let padding = (eos, length(pair.ids().len()));
            sequences.push(pair.ids(), pair.prompt_len(), padding);
        }
    }
    sequences
}

impl Recipe {
    /// How often a sequence stands in its batch: twice with complementary masks.
    pub(super) fn sequence_copies(&self) -> usize {
        1 + usize::from(self.sft.as_ref().is_some_and(|sft| sft.complementary_masks))
    }

    /// What follows a short response.
    pub(super) fn padding(&self) -> Padding {
        let chosen = self.sft.as_ref().and_then(|sft| sft.padding);
        chosen.unwrap_or(match (self.train.objective, &self.block) {
            (Objective::Diffusion, None) => Padding::Batch,
            (Objective::Diffusion, Some(_)) => Padding::Block,
            (Objective::Autoregressive, _) => Padding::None,
        })
    }

    /// Puts the steps that the epochs come to in their place.
    pub(super) fn resolve_epochs(&mut self, source: &Source) -> Result<()> {
        let Some((key, epochs)) = self.epochs().filter(|(_, epochs)| *epochs > 0.0) else {
            return Ok(());
        };
        self.forget_epochs();
        let sequences = epochs * source.sequences_per_epoch(self) as f64;
        let steps = (sequences / self.train.batch_size as f64).ceil();
        if !(1.0..1e15).contains(&steps) {
            let (key, found) = (key.into(), epochs.to_string());
            let expected = "a number of epochs that can be trained".into();
            return Err(TrainError::Value { key, found, expected }.into());
        }
        self.train.steps = steps as u64;
        Ok(())
    }
}
