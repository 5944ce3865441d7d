//! The golden models, in one list for the tests of all crates, each of which includes this file. What they
//! are, and what else is golden, says `fixtures/README.md`.
#![allow(dead_code, unreachable_pub)]

use std::path::PathBuf;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");

/// A golden model: a folder of random weights, and the logits that the official code gives for them.
#[derive(Debug, Clone, Copy)]
pub struct Golden {
    /// Its folder in `models`, and its file in `logits`.
    pub name: &'static str,
    /// Its family, as commands name it.
    pub family: &'static str,
    /// The architecture of its GGUF file.
    pub architecture: &'static str,
    /// Files of its weights.
    pub shards: usize,
    /// The tensor of its file of logits that was computed with bidirectional attention.
    pub logits: &'static str,
}

impl Golden {
    const fn new(
        name: &'static str,
        family: &'static str,
        architecture: &'static str,
        logits: &'static str,
    ) -> Self {
        Self { name, family, architecture, shards: 1, logits }
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        model(self.name)
    }

    /// Its folder in the set that is here.
    pub fn own_folder(&self) -> PathBuf {
        own_model(self.name)
    }

    /// Whether the set has its logits.
    pub fn has_logits(&self) -> bool {
        has(&self.logits_file())
    }

    /// Its file of logits, below the folder of a set.
    pub fn logits_file(&self) -> String {
        format!("logits/{}.safetensors", self.name)
    }
}

/// All of them.
pub const MODELS: [Golden; 10] = [
    Golden::new("a_mha_untied", "llada", "llada", "logits_nomask"),
    Golden::new("b_gqa_tied", "llada", "llada", "logits_nomask"),
    Golden {
        shards: 3,
        ..Golden::new("c_a_bf16_sharded", "llada", "llada", "logits_f32_compute_of_bf16_weights")
    },
    Golden::new("d_qkvbias_qknorm", "llada", "llada-extended", "logits_nomask"),
    Golden::new("e_illada_llama_naming", "illada", "llada", "logits_nomask"),
    Golden::new("f_llada_moe", "llada-moe", "llada-moe", "logits_nomask"),
    Golden::new("g_dream", "dream", "dream", "logits_nomask_unshifted"),
    Golden::new("h_llada2_moe", "llada2", "llada-extended", "logits_full_bidirectional"),
    Golden::new("i_sdar", "sdar", "llada-extended", "logits_full_bidirectional"),
    Golden::new("j_fast_dllm_v2", "fast-dllm-v2", "llada-extended", "logits_full_bidirectional"),
];

/// The first of each family.
pub fn of_families() -> impl Iterator<Item = Golden> {
    let is_first = |i: usize| MODELS[..i].iter().all(|before| before.family != MODELS[i].family);
    (0..MODELS.len()).filter(move |&i| is_first(i)).map(|i| MODELS[i])
}

/// Those whose weights are in one file of `f32`, of LLaDA itself: with all of its options.
pub fn of_llada() -> impl Iterator<Item = Golden> {
    MODELS.into_iter().filter(|golden| golden.family == "llada" && golden.shards == 1)
}

/// A golden file, below `$LLADA_GOLDEN` or `tests/fixtures`. Of another set only the layout is known:
/// no number of a model or a case, and not which of the optional tensors it has.
pub fn fixture(path: &str) -> PathBuf {
    let root = std::env::var_os("LLADA_GOLDEN").unwrap_or_else(|| FIXTURES.into());
    PathBuf::from(root).join(path)
}

/// A file of the set that is here, for tests that know its sizes.
pub fn own(path: &str) -> PathBuf {
    PathBuf::from(FIXTURES).join(path)
}

/// The folder of a golden model; that of the set that is here where another lacks it.
pub fn model(name: &str) -> PathBuf {
    let other = fixture("models");
    assert!(other.is_dir(), "no golden set is in {}", fixture("").display());
    Some(other.join(name)).filter(|folder| folder.exists()).unwrap_or_else(|| own_model(name))
}

/// Whether there is such a golden file: another set need not have every family.
pub fn has(path: &str) -> bool {
    is_own_set() || fixture(path).exists()
}

/// That of the set that is here.
pub fn own_model(name: &str) -> PathBuf {
    own("models").join(name)
}

/// Whether the golden files are those that are here, of which a test knows how many there are.
pub fn is_own_set() -> bool {
    std::env::var_os("LLADA_GOLDEN").is_none()
}
