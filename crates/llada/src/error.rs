//! Everything that can go wrong in the library, one enum: each variant says what, where, and
//! [`Error::hint`] how to mend it.

use std::{io::ErrorKind, path::PathBuf};

use crate::{
    chat::ChatError,
    checkpoint::CheckpointError,
    config::ConfigError,
    constraint::ConstraintError,
    content::TO_UTF8,
    data::DataError,
    diffusion::{
        SamplerError, infill::InfillError, likelihood::LikelihoodError, trace::TraceError,
    },
    eval::EvalError,
    files::OutputError,
    hub::HubError,
    model::ModelError,
    ranks::RankError,
    tokenizer::TokenizerError,
    train::TrainError,
};

/// The result of a library call.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the library. Displayed as one line; [`Error::hint`] gives the remedy when there is
/// one, and `source` the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `config.json` asks for something that is wrong or not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A batch or a set of weights does not fit the model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A tokenizer cannot be read, trained or applied.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A chat template cannot be read or applied.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A sampler's settings contradict each other or the model.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// What an answer must be cannot be held to.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// An answer or a text cannot be scored.
    #[error(transparent)]
    Likelihood(#[from] LikelihoodError),
    /// A text with holes cannot be read or filled.
    #[error(transparent)]
    Infill(#[from] InfillError),
    /// A trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// Text or token shards cannot be read or written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Ranks cannot work together.
    #[error(transparent)]
    Rank(#[from] RankError),
    /// Training cannot start or go on.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A task cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A model of the hub cannot be named or found.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// An operation of the numeric core refused its arguments.
    #[error(transparent)]
    Kernel(#[from] llada_kernels::KernelError),
    /// An output is not to be had.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file that holds something else than what is read from it.
    #[error("cannot read `{path}`: it is {found}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file could not be read or written.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was tried: `read`, `write`, …
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// What the user can do about it, as one sentence, when there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Config(e) => e.hint(),
            Self::Checkpoint(e) => e.hint(),
            Self::Model(e) => e.hint(),
            Self::Tokenizer(e) => e.hint(),
            Self::Chat(e) => e.hint(),
            Self::Sampler(e) => e.hint(),
            Self::Constraint(e) => e.hint(),
            Self::Likelihood(e) => e.hint(),
            Self::Infill(e) => e.hint(),
            Self::Trace(e) => e.hint(),
            Self::Data(e) => e.hint(),
            Self::Rank(e) => e.hint(),
            Self::Train(e) => e.hint(),
            Self::Eval(e) => e.hint(),
            Self::Hub(e) => e.hint(),
            Self::Output(e) => e.hint(),
            Self::Kernel(_) => None,
            Self::Content { hint, .. } => Some((*hint).to_owned()),
            // A folder without it was never prepared, or is not the one that was.
            Self::Io { path, source, .. }
                if path.ends_with("meta.json") && source.kind() == ErrorKind::NotFound =>
            {
                Some(
                    "give a folder of shards as `data.path`, or make one with `llada data prepare`"
                        .into(),
                )
            }
            Self::Io { action: "write", source, .. }
                if source.kind() == ErrorKind::FileTooLarge =>
            {
                Some("files may not be so large here: raise the limit (`ulimit -f`)".into())
            }
            Self::Io { source, .. } => io_hint(source).map(Into::into),
        }
    }

    /// The path of the file that could not be written, in an error of writing one.
    pub(crate) fn written(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Io { path, .. }
            | Self::Output(OutputError::Exists { path } | OutputError::Fixed { path })
            | Self::Tokenizer(TokenizerError::File { file: path, .. })
            | Self::Checkpoint(
                CheckpointError::Gguf { file: path, .. }
                | CheckpointError::Entry { file: path, .. }
                | CheckpointError::DType { file: path, .. }
                | CheckpointError::NonFinite { file: path, .. },
            ) => Some(path),
            _ => None,
        }
    }
}

/// What the user can do about an error of the system.
pub fn io_hint(error: &std::io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::NotFound => "check the spelling of the path, and that its folder exists",
        ErrorKind::NotADirectory => "a part of that path is a file: choose another folder",
        ErrorKind::IsADirectory => "give a file, not a folder",
        ErrorKind::PermissionDenied => "check the permissions of that path",
        ErrorKind::ReadOnlyFilesystem => "that disk cannot be written: choose another folder",
        ErrorKind::StorageFull => "free some space on that disk, or write elsewhere",
        ErrorKind::FileTooLarge => "check that it is the right file, or split it",
        ErrorKind::InvalidData => TO_UTF8,
        _ => return None,
    })
}

/// Turns an I/O error into [`Error::Io`] with the path and what was tried.
pub(crate) fn io(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
