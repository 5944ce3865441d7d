//! What a launcher says of the ranks that it has started.

use super::RankError;

/// The rank that this process is, by the environment that its launcher gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// The launcher.
    pub launcher: &'static str,
    /// The number of this rank, from 0.
    pub rank: usize,
    /// Ranks.
    pub world: usize,
    /// Ranks on this machine, where the launcher says so.
    pub on_machine: Option<usize>,
}

/// A launcher with its variables: rank, world, and ranks on a machine. Those of Slurm are those of a
/// step, since a batch script, which is one process, has the others too.
const LAUNCHERS: [(&str, &str, &str, &str); 4] = [
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"),
    ("torchrun", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
];

impl Launched {
    /// What the environment of this process says; `None` where no launcher has started it.
    ///
    /// # Errors
    /// When a launcher's variable is no number, or the rank is not one of the world.
    pub fn find() -> Result<Option<Self>, RankError> {
        Self::read(&|name| std::env::var(name).ok())
    }

    fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, RankError> {
        for (launcher, rank, world, on_machine) in LAUNCHERS {
            let (Some(rank_text), Some(world_text)) = (variable(rank), variable(world)) else {
                continue;
            };
            let number = |variable, value: &str| match value.trim().parse() {
                Ok(number) => Ok(number),
                Err(_) => {
                    let value = value.to_owned();
                    Err(RankError::Variable { variable, value, expected: "a number" })
                }
            };
            let found = Self {
                launcher,
                rank: number(rank, &rank_text)?,
                world: number(world, &world_text)?,
                on_machine: variable(on_machine).and_then(|text| text.trim().parse().ok()),
            };
            if found.rank >= found.world {
                let expected = "below the number of ranks";
                return Err(RankError::Variable { variable: rank, value: rank_text, expected });
            }
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Whether there are other ranks.
    pub fn is_many(&self) -> bool {
        self.world > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Launched>, RankError> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        Launched::read(&|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn each_launcher_says_which_rank_it_is() {
        for (launcher, rank, world, on_machine) in LAUNCHERS {
            let found = read(&[(rank, "2"), (world, "8"), (on_machine, "4")]).unwrap().unwrap();
            let expected = Launched { launcher, rank: 2, world: 8, on_machine: Some(4) };
            assert!(found == expected && found.is_many());
            assert!(!read(&[(rank, "0"), (world, "1")]).unwrap().unwrap().is_many());
            assert_eq!(read(&[(rank, "2")]).unwrap(), None);
        }
        assert_eq!(read(&[]).unwrap(), None);
        // A batch script of Slurm is one process, whatever its job has been given.
        assert_eq!(read(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")]).unwrap(), None);
    }

    #[test]
    fn what_is_no_rank_is_named() {
        let error = read(&[("RANK", "one"), ("WORLD_SIZE", "2")]).unwrap_err();
        assert!(error.to_string().contains("`RANK` is `one`"), "{error}");
        let error = read(&[("PMI_RANK", "4"), ("PMI_SIZE", "4")]).unwrap_err();
        assert!(error.to_string().contains("below the number of ranks"), "{error}");
        assert!(error.hint().unwrap().contains("PMI_RANK"));
    }
}
