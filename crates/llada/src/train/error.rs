//! What can go wrong with a run.

use std::path::PathBuf;

use super::{Change, Stage};

/// Why training cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe is not TOML, or a choice in it is not known.
    #[error("recipe: {0}")]
    Recipe(String),
    /// A key that recipes do not have.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that looks most like it.
        suggestion: Option<String>,
        /// The keys that could stand there.
        known: String,
    },
    /// A value of the wrong type or out of range.
    #[error("`{key}` is `{found}`, expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// An override without `=`.
    #[error("`{0}` is not of the form `section.key=value`")]
    Override(String),
    /// A token that the objective needs.
    #[error("the tokenizer has no mask token")]
    NoMask,
    /// The model to start from does not fit the data or the recipe.
    #[error("`{path}` does not fit: {reason}")]
    InitFrom {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// Fine-tuning without a model.
    #[error("there is no model to fine-tune: `model.init_from` is not set")]
    NoModel,
    /// New adapters on top of others.
    #[error("`{path}` holds adapters, on which no others can be trained")]
    Adapted {
        /// The folder.
        path: PathBuf,
    },
    /// The run folder has checkpoints already.
    #[error("`{path}` holds a run with checkpoints")]
    Exists {
        /// The run folder.
        path: PathBuf,
    },
    /// The run folder has a file that is not of a run.
    #[error("`{path}` is not of a run, and a run would replace it")]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// A run is not resumed with other settings than those that led to its checkpoint.
    #[error("the run in `{path}` has other settings: {}", listed(changes))]
    OtherSettings {
        /// The run folder.
        path: PathBuf,
        /// What may not change.
        changes: Vec<Change>,
    },
    /// The settings of a run cannot be read.
    #[error("the settings of the run, `{path}`, are damaged: {reason}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Pre-training does not become fine-tuning, nor the other way round.
    #[error("`{path}` is a checkpoint of {}", stage.name())]
    OtherStage {
        /// The checkpoint.
        path: PathBuf,
        /// What it is of.
        stage: Stage,
    },
    /// Reinforcement learning without anything to say what completions are worth.
    #[error("there is nothing to judge completions")]
    NoReward,
    /// Reinforcement learning without a prompt.
    #[error("no prompt can be trained on{}", if first.is_empty() { String::new() } else { format!(", first {first}") })]
    NoPrompts {
        /// Why the first one is left out.
        first: String,
    },
    /// A completion in which a mask is left.
    #[error("a completion of step {step} has the mask for a token, which has no probability")]
    MaskedCompletion {
        /// The step, from 0.
        step: u64,
    },
    /// Another process trains in this folder.
    #[error("another process is training in `{path}`")]
    Locked {
        /// The run folder.
        path: PathBuf,
    },
    /// There is nothing to resume from.
    #[error("`{path}` has no checkpoint{}", step.map(|s| format!(" of step {s}")).unwrap_or_default())]
    NoCheckpoint {
        /// The run folder.
        path: PathBuf,
        /// The step that was asked for.
        step: Option<u64>,
    },
    /// A file of a checkpoint is not as it was written.
    #[error("checkpoint file `{path}` is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// The checkpoint before this one.
        previous: Option<u64>,
    },
    /// The data is not that of the checkpoint.
    #[error("the data in `{path}` is not what this run was trained on: {reason}")]
    OtherData {
        /// The folder of the data.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The recipe describes another model than the checkpoint holds.
    #[error("`{key}` is `{found}`, but this run was started with `{expected}`")]
    OtherModel {
        /// The key.
        key: &'static str,
        /// Its value in the recipe.
        found: String,
        /// Its value in the checkpoint.
        expected: String,
    },
    /// A model that attends by blocks, and a recipe without.
    #[error("the model attends by blocks, and the recipe has no `[block]`")]
    ByBlocks,
    /// Adapters of a model that does not attend by the blocks of the recipe.
    #[error(
        "adapters have no attention of their own: `block.length` is {found}, and their model \
         attends {}",
        blocks.map_or("to all tokens".into(), |n| format!("by blocks of {n}"))
    )]
    AdaptedBlocks {
        /// The recipe's.
        found: usize,
        /// The model's.
        blocks: Option<usize>,
    },
    /// Too many steps in a row were not finite.
    #[error(
        "stopped at step {step}: the loss or its gradient was not finite {times} times in a row"
    )]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// How often in a row.
        times: u32,
        /// The last checkpoint written before.
        last: Option<PathBuf>,
    },
}

impl TrainError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownKey { suggestion: Some(near), .. } => format!("did you mean `{near}`?"),
            Self::UnknownKey { known, .. } => format!("the keys there are {known}"),
            Self::Override(_) => "write for example `optim.lr=3e-4`".into(),
            Self::NoMask => "train a tokenizer with `<|mdm_mask|>`, or use \
                             `train.objective=autoregressive`"
                .into(),
            Self::InitFrom { .. } => {
                "prepare the data with the tokenizer of that checkpoint, and keep to its length"
                    .into()
            }
            Self::NoModel => {
                "set it to the folder of a checkpoint, such as `models/storyteller`".into()
            }
            Self::Adapted { .. } => {
                "merge them first with `llada merge`, or resume their own run".into()
            }
            Self::Exists { path } => format!(
                "go on with `--resume --out {}` alone, or choose another run folder",
                path.display()
            ),
            Self::InTheWay { .. } => "choose another run folder, or move it away".into(),
            Self::OtherSettings { path, changes } => format!(
                "go on as it was with `--resume --out {run}` alone (its `config.toml` removed, if that \
                 was edited), or start a branch in a new folder: `--branch-from {run} --out NEW {}`",
                changes
                    .iter()
                    .map(|c| format!("{}={} ", c.key, c.asked))
                    .collect::<String>()
                    .trim(),
                run = path.display(),
            ),
            Self::Settings { .. } => {
                "mend it, or remove it: the run then goes on with the settings \
                                      that led to its checkpoint"
                    .into()
            }
            Self::OtherStage { .. } => {
                "start anew from its weights: `model.init_from` names the checkpoint".into()
            }
            Self::NoReward => "start the run with a reward function".into(),
            Self::NoPrompts { .. } => {
                "lower `reward.gen_length` or `reward.held_out`, or raise `data.sequence_length`"
                    .into()
            }
            Self::MaskedCompletion { .. } => {
                "lower `reward.temperature`, and check that the model was trained with this mask"
                    .into()
            }
            Self::Locked { .. } => "wait for it, stop it, or choose another run folder".into(),
            Self::NoCheckpoint { .. } => {
                "look into its `checkpoints` folder, or start without `--resume`".into()
            }
            Self::Damaged { previous: Some(step), .. } => {
                format!("resume from the checkpoint before it: `--resume step-{step}`")
            }
            Self::Damaged { previous: None, .. } => {
                "there is no checkpoint before it; start the run again".into()
            }
            Self::OtherData { .. } => {
                "give the same `data.path`, or start a new run with `model.init_from`".into()
            }
            Self::OtherModel { key, expected, .. } => {
                format!("resume with `{key}={expected}`, or start a new run in another folder")
            }
            Self::Diverged { last: Some(path), .. } => format!(
                "lower `optim.lr` and resume; the last good checkpoint is `{}`",
                path.display()
            ),
            Self::Diverged { last: None, .. } => "lower `optim.lr` and start again".into(),
            Self::ByBlocks => "add `block.length=N`, the tokens of its blocks".into(),
            Self::AdaptedBlocks { found, .. } => format!(
                "train all weights (`lora.rank=0`), or set `block_size` to {found} in the `config.json` \
                 of the model"
            ),
            Self::Recipe(_) | Self::Value { .. } => return None,
        })
    }
}

fn listed(changes: &[Change]) -> String {
    let one = |c: &Change| format!("`{}` is {}, not {}", c.key, c.run, c.asked);
    changes.iter().map(one).collect::<Vec<_>>().join("; ")
}
