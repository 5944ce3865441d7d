//! What can go wrong between ranks.

/// Why ranks cannot work together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RankError {
    /// A rank has ended while others waited for it.
    #[error("another rank has ended")]
    Lost,
    /// Another rank could not go on, and says why.
    #[error("rank {rank} could not go on: {message}")]
    Elsewhere {
        /// The rank.
        rank: usize,
        /// Its reason.
        message: String,
    },
    /// The program that runs on the ranks could not go on.
    #[error("{0}")]
    Failed(String),
    /// Another rank was started otherwise.
    #[error("rank {rank} was started with another {what} than rank 0")]
    Differs {
        /// The rank.
        rank: usize,
        /// What differs.
        what: &'static str,
    },
    /// What a rank has sent cannot be read.
    #[error("rank {rank} has sent what is no {what}")]
    Malformed {
        /// The rank.
        rank: usize,
        /// What was expected.
        what: &'static str,
    },
    /// A launcher has started several ranks of a program that cannot talk to each other.
    #[error("{launcher} has started {world} ranks, but this build has no MPI")]
    NoMpi {
        /// The launcher.
        launcher: &'static str,
        /// Ranks.
        world: usize,
    },
    /// A launcher has started several ranks, and MPI does not know of them.
    #[error("{launcher} has started {world} ranks, but MPI knows of {found}")]
    OtherWorld {
        /// The launcher.
        launcher: &'static str,
        /// Ranks that it has started.
        world: usize,
        /// Ranks that MPI knows of.
        found: usize,
    },
    /// MPI could not be started.
    #[error("MPI could not be started: {0}")]
    Start(&'static str),
    /// A variable of the launcher is no number, or out of range.
    #[error("the launcher's `{variable}` is `{value}`, expected {expected}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// More bytes than MPI counts at once.
    #[error("{bytes} bytes are more than MPI counts at once")]
    TooLarge {
        /// Bytes.
        bytes: usize,
    },
    /// Fewer parts of a step than ranks.
    #[error("a step has {parts} {what}, fewer than the {world} ranks")]
    TooMany {
        /// Parts that a step has.
        parts: usize,
        /// What they are.
        what: &'static str,
        /// Ranks.
        world: usize,
    },
}

impl RankError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Lost | Self::Malformed { .. } => {
                "go on from the last checkpoint with `--resume`".into()
            }
            Self::Elsewhere { .. } | Self::Failed(_) | Self::TooLarge { .. } => return None,
            Self::Differs { .. } => {
                "start all ranks with one program, one command line and the same files".into()
            }
            Self::NoMpi { .. } => "build it with the cargo feature `mpi`, or start one process alone".into(),
            Self::OtherWorld { .. } => {
                "start it with the `mpirun` of the MPI that it was built with, or with `srun` by PMIx"
                    .into()
            }
            Self::Start(_) => "see whether `mpirun -n 2 hostname` works here".into(),
            Self::Variable { variable, .. } => {
                format!("take `{variable}` out of the environment, or start by the launcher")
            }
            Self::TooMany { what: "sequences", .. } => {
                "raise `train.batch_size`, or start fewer ranks".into()
            }
            Self::TooMany { .. } => "lower `train.micro_batch_size`, or start fewer ranks".into(),
        })
    }
}
