//! The memory of a run, known before it is taken: a size that cannot work is named in the recipe
//! rather than by the system.

use std::fs;

use super::{Recipe, TrainError};
use crate::{Result, checkpoint::Checkpoint, config::ModelConfig};

/// Where the system does not say how much memory there is: more than any machine has.
const UNKNOWN: f64 = (1u64 << 46) as f64;

/// Fails when a run takes more memory than the machine has. Counted is what surely comes together:
/// weights, gradients, optimiser, the sequences of an update, and the activations of a micro-batch of
/// `length` tokens a sequence, on each of so many ranks.
pub(super) fn check(
    recipe: &Recipe,
    config: &ModelConfig,
    length: usize,
    ranks: usize,
) -> Result<()> {
    Plan::new(recipe, config, length, ranks).check(available().unwrap_or(UNKNOWN))
}

/// What surely comes together in the memory of each rank of a run, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Memory {
    /// Weights that are trained, and their average; frozen ones stay in their file.
    pub weights: f64,
    /// Gradients, with the sums of a tree.
    pub gradients: f64,
    /// The rank's share of the optimiser.
    pub optimizer: f64,
    /// What a micro-batch of whole sequences saves and computes with.
    pub activations: f64,
    /// The sequences of an update.
    pub sequences: f64,
}

impl Memory {
    /// That of a run of `recipe` on so many ranks, for the tokenizer of its data or the model that it
    /// starts from.
    ///
    /// # Errors
    /// When neither is there, or the sizes cannot be.
    pub fn of(recipe: &Recipe, ranks: usize) -> Result<Self> {
        let from = recipe.model.init_from.as_deref().or(recipe.data.first());
        let opened = Checkpoint::open(from.unwrap_or("".as_ref()))?;
        let config = match &recipe.model.init_from {
            Some(_) => opened.config()?.clone(),
            None => {
                let tokenizer = opened.tokenizer()?;
                recipe.model_config(tokenizer.vocab_size(), tokenizer.special_tokens())?
            }
        };
        Ok(Self::of_model(recipe, &config, recipe.data.sequence_length, ranks))
    }

    /// That of a run whose model and mean length of a sequence are known.
    pub(super) fn of_model(
        recipe: &Recipe,
        config: &ModelConfig,
        length: usize,
        ranks: usize,
    ) -> Self {
        Plan::new(recipe, config, length, ranks).memory()
    }

    /// All of it.
    pub fn total(&self) -> f64 {
        let Self { weights, gradients, optimizer, activations, sequences } = self;
        weights + gradients + optimizer + activations + sequences
    }
}

/// The sizes that memory depends on.
#[derive(Debug, Clone)]
struct Plan {
    d_model: f64,
    /// Width of the keys for each unit of `d_model`.
    kv: f64,
    /// Width of the feed-forward network; 0 is 8/3 of `d_model`.
    mlp: f64,
    /// The width of all experts together, and of those of a token.
    experts: (f64, f64),
    layers: f64,
    heads: f64,
    /// Rows of the embedding and of the head together.
    embeddings: f64,
    length: f64,
    /// Copies of a sequence that a pass is fed: a clean one too in block diffusion.
    copies: f64,
    batch: f64,
    /// 0 takes the whole batch.
    micro: f64,
    /// Whether all weights are trained.
    trains_all: bool,
    /// Whether their average is kept.
    averages: bool,
    /// Ranks that share the batch and the optimiser.
    ranks: f64,
    /// Whether micro-batches are summed by a tree.
    is_tree: bool,
    recompute: bool,
    /// The folder that gives the sizes of the model.
    init_from: Option<String>,
}

/// A size that a recipe sets: its key, its value by default, and where it is in a plan.
type Size = (&'static str, f64, fn(&mut Plan) -> &mut f64);

impl Plan {
    fn new(recipe: &Recipe, config: &ModelConfig, length: usize, ranks: usize) -> Self {
        let d_model = config.d_model as f64;
        let heads = if config.weight_tying { 1.0 } else { 2.0 };
        Self {
            d_model,
            kv: config.kv_dim() as f64 / d_model,
            mlp: match (&recipe.model.init_from, recipe.model.mlp_hidden_size) {
                (None, None) if config.experts.is_none() => 0.0,
                _ => config.mlp_hidden_size as f64,
            },
            experts: config
                .experts
                .as_ref()
                .map_or((0.0, 0.0), |e| (e.width() as f64, e.active_width() as f64)),
            layers: config.n_layers as f64,
            heads: config.n_heads as f64,
            embeddings: heads * config.embedding_size as f64,
            length: length as f64,
            copies: if recipe.block.is_some() { 2.0 } else { 1.0 },
            batch: recipe.train.batch_size as f64,
            micro: recipe.train.micro_batch_size as f64,
            trains_all: recipe.lora.rank == 0,
            averages: recipe.optim.ema > 0.0,
            ranks: ranks as f64,
            is_tree: recipe.train.tree_reduction,
            recompute: recipe.train.recompute,
            init_from: recipe.model.init_from.as_ref().map(|path| path.display().to_string()),
        }
    }

    /// Bytes of a rank.
    fn bytes(&self) -> f64 {
        self.memory().total()
    }

    fn memory(&self) -> Memory {
        let Self { d_model: d, layers, .. } = self;
        let (all, active) = self.experts;
        let dense = if self.mlp == 0.0 && all == 0.0 { d * 8.0 / 3.0 } else { self.mlp };
        let mlp = dense.max(active);
        let kv = self.kv * d;
        let block = 2.0 * d * d + 2.0 * d * kv + 3.0 * d * dense.max(all);
        let parameters = layers * block + self.embeddings * d;
        let trained = if self.trains_all { parameters } else { 0.0 };
        // The tokens of all sequences, and for each of them where it ends, its prompt, noise and
        // answer.
        let sequences = self.batch * (4.0 * self.length + 40.0);
        let share = (self.batch / self.ranks).ceil();
        let micro = if self.micro == 0.0 { share } else { self.micro.min(share) };
        // A node of each level that a rank's leaves come to.
        let sums = match self.is_tree {
            true => (share / micro.max(1.0)).max(1.0).log2().floor() + 1.0,
            false => 0.0,
        };
        let micro = micro * self.copies;
        let saved = 4.0 * d + 2.0 * kv + 2.0 * mlp + self.heads;
        let saved = if self.recompute { layers * d + saved } else { layers * saved };
        let scratch = 6.0 * d + 2.0 * kv + 4.0 * mlp;
        Memory {
            weights: 4.0 * trained * if self.averages { 2.0 } else { 1.0 },
            gradients: 4.0 * parameters + 4.0 * trained * sums,
            optimizer: 8.0 * trained / self.ranks,
            activations: 4.0 * micro * self.length * (saved + scratch),
            sequences,
        }
    }

    fn check(&self, available: f64) -> Result<()> {
        let needed = self.bytes();
        if needed <= available {
            return Ok(());
        }
        let why = format!("it would take {}, this machine has {}", size(needed), size(available));
        let set = |(_, default, place): &Size| *place(&mut self.clone()) / default;
        let mut sizes = self.sizes();
        // What is farthest from its default is to blame.
        sizes.sort_by(|a, b| set(b).total_cmp(&set(a)));
        let fitting = sizes.iter().find_map(|size| Some((size, self.fitting(size, available)?)));
        let (key, found, expected) = match (fitting, &self.init_from) {
            (Some(((key, _, place), fits)), _) => {
                let micro = *key == "train.batch_size" && self.micro == 0.0;
                let by_sequence = Self { micro: 1.0, ..self.clone() };
                let or = match micro && by_sequence.bytes() <= available {
                    true => format!(", or `train.micro_batch_size` at most {fits}"),
                    false => String::new(),
                };
                (*key, place(&mut self.clone()).to_string(), format!("at most {fits}{or}: {why}"))
            }
            (None, Some(path)) => {
                let model = format!("a smaller model, or adapters of it (`lora.rank`): {why}");
                ("model.init_from", path.clone(), model)
            }
            (None, None) => {
                let (key, _, place) = sizes[0];
                (key, place(&mut self.clone()).to_string(), format!("far less: {why}"))
            }
        };
        Err(TrainError::Value { key: key.into(), found, expected }.into())
    }

    /// The sizes that can be changed; those of a model are given by its folder.
    fn sizes(&self) -> Vec<Size> {
        let mut sizes: Vec<Size> = vec![
            ("data.sequence_length", 256.0, |plan| &mut plan.length),
            ("train.batch_size", 16.0, |plan| &mut plan.batch),
        ];
        if self.micro > 0.0 {
            // Sequences that are in memory together are to blame before those that are not.
            sizes.push(("train.micro_batch_size", 1.0, |plan| &mut plan.micro));
        }
        if self.init_from.is_none() {
            sizes.push(("model.d_model", 256.0, |plan| &mut plan.d_model));
            sizes.push(("model.n_layers", 6.0, |plan| &mut plan.layers));
        }
        if self.init_from.is_none() && self.mlp > 0.0 {
            sizes.push(("model.mlp_hidden_size", 688.0, |plan| &mut plan.mlp));
        }
        sizes
    }

    /// The largest value of a size with which all fits.
    fn fitting(&self, (_, _, place): &Size, available: f64) -> Option<u64> {
        let fits = |n: u64| {
            let mut plan = self.clone();
            *place(&mut plan) = n as f64;
            plan.bytes() <= available
        };
        let (mut low, mut high) = (1, *place(&mut self.clone()) as u64);
        if !fits(low) {
            return None;
        }
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if fits(middle) { low = middle } else { high = middle }
        }
        Some(low)
    }
}

/// Bytes in words.
fn size(bytes: f64) -> String {
    let units = ["bytes", "KB", "MB", "GB", "TB", "PB"];
    let power = ((bytes.max(1.0).log10() / 3.0) as usize).min(units.len() - 1);
    format!("{:.1} {}", bytes / 1000f64.powi(power as i32), units[power])
}

/// The memory of this machine, swap with it, or what this process may have of it.
fn available() -> Option<f64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    };
    let all = 1024.0 * (kilobytes("MemTotal:")? + kilobytes("SwapTotal:").unwrap_or(0.0));
    let limits = ["memory.max", "memory/memory.limit_in_bytes"].into_iter().filter_map(|name| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse::<f64>().ok()
    });
    Some(limits.fold(all, f64::min))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SpecialTokens;

    const MACHINE: f64 = 16e9;

    fn refuse(overrides: &[&str]) -> String {
        let recipe = Recipe::parse("", overrides).unwrap();
        let config = recipe.model_config(8000, SpecialTokens::default()).unwrap();
        let length = recipe.data.sequence_length;
        let error = Plan::new(&recipe, &config, length, 1).check(MACHINE).unwrap_err();
        error.to_string()
    }

    #[test]
    fn the_size_that_is_out_of_range_is_named_with_what_would_fit() {
        for (overrides, expected) in [
            (&["train.batch_size=4000000"][..], "`train.batch_size` is `4000000`"),
            (
                &["train.batch_size=50000", "train.micro_batch_size=40000"],
                "`train.micro_batch_size` is `40000`",
            ),
            (&["data.sequence_length=16000000"], "`data.sequence_length` is `16000000`"),
            (&["model.d_model=1000000"], "`model.d_model` is `1000000`, expected at most "),
            (&["model.n_layers=4096"], "`model.n_layers` is `4096`, expected at most "),
            (&["model.mlp_hidden_size=9000000"], "`model.mlp_hidden_size` is `9000000`"),
            (&["model.d_model=1000000", "model.n_layers=4096"], "expected "),
        ] {
            let message = refuse(overrides);
            assert!(message.starts_with(expected) || message.contains(expected), "{message}");
            assert!(message.contains("this machine has 16.0 GB"), "{message}");
        }
        assert!(refuse(&["train.batch_size=5000"]).contains("or `train.micro_batch_size` at most"));
    }

    #[test]
    fn what_is_said_to_fit_does() {
        let message = refuse(&["train.batch_size=5000"]);
        let fits = message.split("at most ").nth(1).unwrap().split(',').next().unwrap();
        let check = |n: u64| {
            let recipe = Recipe::parse("", &[format!("train.batch_size={n}")]).unwrap();
            let config = recipe.model_config(8000, SpecialTokens::default()).unwrap();
            Plan::new(&recipe, &config, 256, 1).check(MACHINE)
        };
        let fits: u64 = fits.parse().unwrap();
        assert!(check(fits).is_ok() && check(fits + 1).is_err(), "{message}");
    }

    #[test]
    fn a_model_of_a_folder_is_to_blame_as_a_whole() {
        let mut recipe = Recipe::default();
        let mut config = recipe.model_config(126_464, SpecialTokens::default()).unwrap();
        recipe.model.init_from = Some("LLaDA-8B".into());
        (config.d_model, config.n_layers, config.mlp_hidden_size) = (4096, 32, 12288);
        let refused = |recipe: &Recipe| Plan::new(recipe, &config, 256, 1).check(40e9).err();
        let message = refused(&recipe).unwrap().to_string();
        assert!(message.starts_with("`model.init_from` is `LLaDA-8B`"), "{message}");
        (recipe.lora.rank, recipe.train.micro_batch_size) = (8, 1);
        assert!(refused(&recipe).is_none());
    }

    #[test]
    fn ranks_share_the_optimiser_and_the_batch() {
        let recipe = Recipe::default();
        let config = recipe.model_config(8000, SpecialTokens::default()).unwrap();
        let on = |ranks| Plan::new(&recipe, &config, 256, ranks).memory();
        let (one, four) = (on(1), on(4));
        assert_eq!((four.weights, four.gradients), (one.weights, one.gradients));
        assert_eq!((4.0 * four.optimizer, one.optimizer), (one.optimizer, 2.0 * one.weights));
        assert_eq!(4.0 * four.activations, one.activations);
        let tree = &["train.tree_reduction=true", "train.micro_batch_size=2"];
        let recipe = Recipe::parse("", tree).unwrap();
        let tree = Plan::new(&recipe, &config, 256, 1).memory();
        assert_eq!(tree.gradients, 5.0 * one.gradients, "four levels above the leaves");
        assert!(Memory::of(&recipe, 2).is_err(), "there is no data");
    }

    #[test]
    fn this_machine_can_train_the_default() {
        let recipe = Recipe::default();
        let config = recipe.model_config(8000, SpecialTokens::default()).unwrap();
        check(&recipe, &config, 256, 1).unwrap();
        assert_eq!(
            (size(0.0), size(1.5e6), size(2e18)),
            ("0.0 bytes".into(), "1.5 MB".into(), "2000.0 PB".into())
        );
    }
}
