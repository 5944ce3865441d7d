//! Whole fine-tuning runs of a tiny model: resuming, adapters, both objectives, bad data.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use llada::{
    Error, Result, checkpoint,
    model::{MaskPredictor, Model},
    tokenizer::{self, Kind, Tokenizer},
    train::{Event, Hooks, Outcome, Recipe, Start, StepMetrics, TrainError, Trainer},
};
use llada_kernels::{Cpu, DType};

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    /// A fresh model with its tokenizer in `base`, and dialogues in `chat.jsonl`.
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        let alphabet = "abcdefghijklmnopqrstuvwxyz 0123456789?.\n".to_owned();
        let tokenizer = tokenizer::train(Kind::Character { min_count: 0 }, [Ok(alphabet)]).unwrap();
        bench.base("base", &tokenizer, "diffusion");
        let mut rows = String::new();
        for i in 0..24 {
            let (q, a) = (format!("say {i}"), if i % 2 == 0 { "even" } else { "odd it is" });
            rows += &match i % 3 {
                0 => format!(
                    "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{q}\"}},\
                     {{\"role\":\"assistant\",\"content\":\"{a}\"}},\
                     {{\"role\":\"user\",\"content\":\"why?\"}},\
                     {{\"role\":\"assistant\",\"content\":\"no idea\"}}]}}\n"
                ),
                _ => format!("{{\"prompt\":\"{q}\",\"response\":\"{a}\"}}\n"),
            };
        }
        fs::write(bench.path("chat.jsonl"), rows).unwrap();
        bench
    }

    fn base(&self, name: &str, tokenizer: &Tokenizer, objective: &str) {
        let sizes = "[model]\nd_model = 16\nn_layers = 2\nn_heads = 2\nmlp_hidden_size = 32\n\
                     max_sequence_length = 64\n";
        let objective = format!("train.objective={objective}");
        let recipe = Recipe::parse(sizes, &[objective]).unwrap();
        let config =
            recipe.model_config(tokenizer.vocab_size(), tokenizer.special_tokens()).unwrap();
        let model = Model::init(config, 3).unwrap();
        checkpoint::save(&model, &self.path(name), DType::F32).unwrap();
        tokenizer.save_dir(&self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn recipe(&self, overrides: &[&str]) -> Recipe {
        let text = format!(
            "[model]\ninit_from = '{}'\n[data]\npath = '{}'\nsequence_length = 64\n\
             [sft]\nheld_out = 0.2\n[optim]\nlr = 1e-2\nwarmup_steps = 3\n\
             [train]\nsteps = 8\nbatch_size = 4\nmicro_batch_size = 3\ncheckpoint_every = 3\n\
             [eval]\nevery = 4\nsequences = 4\ndraws = 3\n[log]\nevery = 1\n",
            self.path("base").display(),
            self.path("chat.jsonl").display(),
        );
        // Epochs and steps exclude each other.
        let epochs = overrides.iter().any(|o| o.starts_with("sft.epochs"));
        let text = if epochs { text.replace("[train]\nsteps = 8\n", "[train]\n") } else { text };
        Recipe::parse(&text, overrides).unwrap()
    }

    fn trainer(
        &self,
        run: &str,
        overrides: &[&str],
        start: Start,
        threads: usize,
    ) -> Result<Trainer> {
        let cpu = Cpu::new(threads).unwrap();
        Trainer::new(self.recipe(overrides), &self.path(run), start, cpu)
    }

    fn files(&self, run: &str, step: u64, names: &[&str]) -> Vec<Vec<u8>> {
        let dir = self.path(run).join(format!("checkpoints/step-{step}"));
        names.iter().map(|name| fs::read(dir.join(name)).unwrap()).collect()
    }
}

/// Runs to the end, or until a step has been done `stop_after` times.
fn run(trainer: &mut Trainer, stop_after: usize) -> (Result<Outcome>, Vec<StepMetrics>) {
    let stop = AtomicBool::new(false);
    let mut steps = Vec::new();
    let mut event = |event: &Event<'_>| {
        if let Event::Step(metrics) = event {
            steps.push((*metrics).clone());
            stop.store(steps.len() >= stop_after, Ordering::Relaxed);
        }
    };
    let mut hooks =
        Hooks { clock: &|| 1e9, stop: &stop, event: &mut event, sample: None, evaluate: None };
    let outcome = trainer.run(&mut hooks);
    (outcome, steps)
}

fn weights(trainer: &Trainer) -> Vec<Vec<f32>> {
    trainer.predictor().model().tensors.iter().map(|t| t.to_f32()).collect()
}

fn logits(dir: &Path) -> Vec<f32> {
    let model = checkpoint::load(dir).unwrap();
    let mut predictor = MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap();
    let tokens: Vec<u32> = (0..12).map(|i| i * 3 % 40).collect();
    let batch = llada::model::Batch { tokens: &tokens, starts: &[0, 12], attention_mask: None };
    let mut logits = Vec::new();
    predictor.logits(batch, &[0, 5, 11], &mut logits).unwrap();
    logits
}

/// One run that was stopped after step 4 of 8, killed, and resumed, against one that was not.
fn assert_resumes(overrides: &[&str], names: &[&str]) {
    let bench = Bench::new();
    let mut whole = bench.trainer("whole", overrides, Start::Fresh, 1).unwrap();
    let (outcome, steps) = run(&mut whole, usize::MAX);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert_eq!(steps.len(), 8);
    let mut killed = bench.trainer("killed", overrides, Start::Fresh, 3).unwrap();
    run(&mut killed, 5).0.unwrap();
    drop(killed);
    fs::remove_dir_all(bench.path("killed/checkpoints/step-5")).unwrap();
    let mut resumed = bench.trainer("killed", overrides, Start::Resume, 2).unwrap();
    assert_eq!(resumed.step(), 3);
    run(&mut resumed, usize::MAX).0.unwrap();
    assert!(bench.files("whole", 8, names) == bench.files("killed", 8, names), "bits differ");
    assert_eq!(weights(&whole), weights(&resumed));
    let metrics = |run| fs::read_to_string(bench.path(run).join("metrics.jsonl")).unwrap();
    assert_eq!(metrics("whole"), metrics("killed"));
    assert!(bench.path("whole/report.html").is_file());

    // A checkpoint is a model by itself, with its tokenizer.
    let last = bench.path("whole/checkpoints/step-8");
    Tokenizer::from_dir(&last).unwrap();
    let mut live = Vec::new();
    let tokens: Vec<u32> = (0..12).map(|i| i * 3 % 40).collect();
    let batch = llada::model::Batch { tokens: &tokens, starts: &[0, 12], attention_mask: None };
    let model = whole.predictor().model().clone();
    let mut predictor = MaskPredictor::new(model, Cpu::new(1).unwrap()).unwrap();
    predictor.logits(batch, &[0, 5, 11], &mut live).unwrap();
    assert_eq!(live, logits(&last));
}

#[test]
fn a_killed_and_resumed_run_ends_with_the_same_bits() {
    assert_resumes(&[], &["model.safetensors", "optimizer.safetensors"]);
}

#[test]
fn so_does_one_of_adapters_with_complementary_masks() {
    let names = ["adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"];
    assert_resumes(&["lora.rank=2", "sft.complementary_masks=true"], &names);
}

#[test]
fn so_does_one_of_block_diffusion() {
    let names = ["model.safetensors", "optimizer.safetensors", "config.json"];
    assert_resumes(&["block.length=2,4", "block.from_step=0,4"], &names);
}

#[test]
fn adapters_keep_to_the_blocks_of_their_model() {
    let bench = Bench::new();
    let overrides = ["lora.rank=2", "block.length=4"];
    let error = bench.trainer("run", &overrides, Start::Fresh, 1).unwrap_err();
    assert!(error.hint().unwrap().contains("`block_size` to 4"), "{error}");
    let config = bench.path("base/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replacen('{', "{ \"block_size\": 4,", 1)).unwrap();
    let mut trainer = bench.trainer("run", &overrides, Start::Fresh, 1).unwrap();
    run(&mut trainer, usize::MAX).0.unwrap();
    let adapted = checkpoint::load_config(&bench.path("run/checkpoints/step-8")).unwrap();
    assert_eq!(adapted.attention.block_length(), Some(4));
}

#[test]
fn both_objectives_paddings_and_templates_learn() {
    for overrides in [
        &[][..],
        &["train.objective=autoregressive"],
        &["sft.padding=none", "diffusion.low_discrepancy=true"],
        &["sft.template=plain", "sft.complementary_masks=true"],
        &["block.length=4", "sft.complementary_masks=true"],
        &["block.length=8", "block.preset=llada2", "block.cap_weight=2"],
        &["lora.rank=4", "lora.alpha=8", "optim.weight_decay=0", "optim.lr=3e-2"],
    ] {
        let bench = Bench::new();
        let all = [&["train.steps=50", "train.micro_batch_size=0", "eval.every=50"], overrides];
        let mut trainer = bench.trainer("run", &all.concat(), Start::Fresh, 2).unwrap();
        let before = trainer.measure().unwrap();
        assert_eq!(trainer.measure().unwrap(), before, "the noise is fixed");
        run(&mut trainer, usize::MAX).0.unwrap();
        let after = trainer.measure().unwrap();
        // Adapters of random weights, under a random head, can do less.
        let least = if overrides.iter().any(|o| o.starts_with("lora")) { 0.95 } else { 0.8 };
        assert!(after.nll < least * before.nll, "{overrides:?}: {} -> {}", before.nll, after.nll);
        assert!(after.bits_per_byte > 0.0);
    }
}

#[test]
fn micro_batches_change_the_weights_by_rounding_only() {
    let bench = Bench::new();
    let after_four = |run_name: &str, size: &str| {
        let overrides = [size, "eval.every=0"];
        let mut trainer = bench.trainer(run_name, &overrides, Start::Fresh, 1).unwrap();
        run(&mut trainer, 4).0.unwrap();
        weights(&trainer).concat()
    };
    let (one, all) =
        (after_four("a", "train.micro_batch_size=1"), after_four("b", "train.micro_batch_size=0"));
    let off = one.iter().zip(&all).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 2e-4, "{off}");
}

#[test]
fn sequences_of_a_batch_are_padded_only_when_asked() {
    let bench = Bench::new();
    let tokens = |name: &str, overrides: &[&str]| {
        let mut trainer = bench.trainer(name, overrides, Start::Fresh, 1).unwrap();
        run(&mut trainer, 4).1.iter().map(|s| (s.tokens, s.length as u64)).collect::<Vec<_>>()
    };
    let padded = tokens("a", &[]);
    assert!(padded.iter().all(|(tokens, longest)| *tokens == 4 * longest));
    let blocks = tokens("c", &["block.length=8"]);
    assert!(blocks.iter().all(|(tokens, longest)| tokens % 8 == 0 && longest % 8 == 0));
    let ragged = tokens("b", &["sft.padding=none"]);
    assert!(ragged.iter().zip(&padded).any(|(a, b)| a.0 < b.0));
    assert!(ragged.iter().zip(&padded).all(|(a, b)| a.1 == b.1));
}

#[test]
fn epochs_decide_the_steps() {
    let bench = Bench::new();
    let trainer = bench
        .trainer("a", &["sft.epochs=3", "sft.held_out=0", "eval.every=0"], Start::Fresh, 1)
        .unwrap();
    assert_eq!(trainer.recipe().train.steps, 24 * 3 / 4);
    let twice = ["sft.epochs=3", "sft.held_out=0", "eval.every=0", "sft.complementary_masks=true"];
    let trainer = bench.trainer("b", &twice, Start::Fresh, 1).unwrap();
    assert_eq!(trainer.recipe().train.steps, 36);
    let none: [&str; 0] = [];
    assert_eq!(Recipe::parse(&trainer.recipe().to_toml(), &none).unwrap(), *trainer.recipe());
}

#[test]
fn a_run_is_not_resumed_on_other_conversations_or_adapters() {
    let bench = Bench::new();
    run(
        &mut bench
            .trainer("run", &["lora.rank=2", "sft.held_out=0", "eval.every=0"], Start::Fresh, 1)
            .unwrap(),
        3,
    )
    .0
    .unwrap();
    for (other, key) in [
        ("lora.rank=0", "lora.rank"),
        ("lora.rank=3", "lora.rank"),
        ("lora.alpha=1", "lora.alpha"),
        ("lora.targets=q_proj,v_proj", "lora.targets"),
    ] {
        let error = bench
            .trainer(
                "run",
                &["lora.rank=2", "sft.held_out=0", "eval.every=0", other],
                Start::Resume,
                1,
            )
            .unwrap_err();
        let Error::Train(TrainError::OtherSettings { changes, .. }) = &error else {
            panic!("{error}")
        };
        assert_eq!(changes[0].key, key);
    }
    let refuse = || {
        let error = bench
            .trainer("run", &["lora.rank=2", "sft.held_out=0", "eval.every=0"], Start::Resume, 1)
            .unwrap_err();
        assert!(matches!(error, Error::Train(TrainError::OtherData { .. })), "{error}");
        error.to_string()
    };
    let rows = fs::read_to_string(bench.path("chat.jsonl")).unwrap();
    fs::write(bench.path("chat.jsonl"), rows.replace("even", "neve")).unwrap();
    assert!(refuse().contains("as many tokens"));
    fs::write(bench.path("chat.jsonl"), rows.replace("even", "straight")).unwrap();
    assert!(refuse().contains("training tokens, it was"));
    fs::write(bench.path("chat.jsonl"), rows).unwrap();
    let tokenizer = Tokenizer::from_dir(&bench.path("base")).unwrap();
    let mut model = checkpoint::load(&bench.path("base")).unwrap().into_trainable();
    let [k, v] = [2, 3].map(|id| model.tensors.get(id).to_f32());
    model.tensors.set(2, v);
    model.tensors.set(3, k);
    checkpoint::save(&model, &bench.path("base"), DType::F32).unwrap();
    tokenizer.save_dir(&bench.path("base")).unwrap();
    assert!(refuse().contains("under the adapters"));
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let bench = Bench::new();
    fs::write(bench.path("bad.jsonl"), "{}\n").unwrap();
    let bad = format!("data.path={}", bench.path("bad.jsonl").display());
    let base = format!("data.path={}", bench.path("base").display());
    for (overrides, expected) in [
        (&[&bad[..]][..], "rejected, first"),
        (&[&base[..]], "no usable conversation"),
        (&["data.path=nowhere.jsonl"], "nowhere.jsonl"),
        (&["data.sequence_length=65"], "at most the 64"),
        (&["sft.held_out=0"], "no conversation is held out"),
        (&["lora.rank=2", "lora.targets=q_porj"], "no matrix `q_porj`"),
        (&["lora.rank=17"], "whose rank is at most 16"),
        (&["lora.rank=2", "train.objective=autoregressive"], "train.objective"),
        (&["model.init_from=nowhere"], "nowhere"),
    ] {
        let error = bench.trainer("runs/new", overrides, Start::Fresh, 1).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!bench.path("runs").exists(), "{overrides:?}");
    }
    assert!(bench.trainer("runs/new", &[], Start::Resume, 1).is_err());
    assert!(!bench.path("runs").exists());
    // What was there stays.
    fs::create_dir_all(bench.path("runs/new")).unwrap();
    fs::write(bench.path("runs/new/notes.txt"), "mine").unwrap();
    bench.trainer("runs/new", &[&bad], Start::Fresh, 1).unwrap_err();
    assert!(bench.path("runs/new/notes.txt").is_file());
}

#[test]
fn checkpoints_keep_their_tokenizer_when_the_first_is_gone() {
    let bench = Bench::new();
    let few = ["train.keep_last=1", "train.checkpoint_every=1", "eval.every=0"];
    run(&mut bench.trainer("run", &few, Start::Fresh, 1).unwrap(), 2).0.unwrap();
    fs::remove_dir_all(bench.path("base")).unwrap();
    run(&mut bench.trainer("run", &few, Start::Resume, 1).unwrap(), 4).0.unwrap();
    assert_eq!(fs::read_dir(bench.path("run/checkpoints")).unwrap().count(), 1);
    Tokenizer::from_dir(&bench.path("run/checkpoints/step-6")).unwrap();
    // Neither does another rhythm of validation make other data of it.
    let other = ["train.keep_last=1", "eval.every=2"];
    assert!(bench.trainer("run", &other, Start::Resume, 1).is_ok());
}

#[test]
fn no_model_and_no_shards_are_explained() {
    let bench = Bench::new();
    let mut recipe = bench.recipe(&[]);
    recipe.model.init_from = None;
    let new = |recipe| Trainer::new(recipe, &bench.path("x"), Start::Fresh, Cpu::new(1).unwrap());
    let error = new(recipe).unwrap_err();
    assert!(error.to_string().contains("`model.init_from`") && error.hint().is_some(), "{error}");
    let mut recipe = bench.recipe(&[]);
    recipe.sft = None;
    let error = new(recipe).unwrap_err();
    assert!(error.hint().unwrap().contains("llada sft"), "{error}");
}

#[test]
fn the_recipes_that_come_along_are_valid() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let none: [&str; 0] = [];
    for name in ["sft", "lora"] {
        let text = fs::read_to_string(configs.join(format!("{name}.toml"))).unwrap();
        let recipe = Recipe::parse(&text, &none).unwrap();
        assert!(recipe.sft.is_some());
        assert_eq!(recipe.lora.rank > 0, name == "lora");
    }
}
