//! Low-rank adapters: their gradients, and the files of PEFT.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::golden::own_model;
use llada::{
    checkpoint::{self, Checkpoint, safetensors},
    diffusion::{forward::Noised, loss},
    model::{Adapter, Arena, Batch, Gradients, Layout, MaskPredictor, Model, Targets},
    rng::{Purpose, Stream},
};
use llada_kernels::{Cpu, DType, WeightView};
use serde_json::{Value, json};

fn cpu() -> Cpu {
    Cpu::new(2).unwrap()
}

/// Numbers around 0, the same for the same seed.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::Init, 0);
    (0..n).map(|_| (stream.normal() * 0.1) as f32).collect()
}

/// A response of two sequences to be predicted, as a noisy batch.
fn batch() -> (Noised, Vec<usize>) {
    let tokens: Vec<u32> = (0..11).map(|i| (i * 37 + 3) % 150).collect();
    let mut noised = loss::autoregressive_response(&tokens, &[0, 4, 11], &[1, 2]);
    noised.weights = loss::sft_weights(&noised, &[3, 5]);
    (noised, vec![0, 4, 11])
}

fn loss_and_gradients(model: &Model) -> (f64, Gradients) {
    let (noised, starts) = batch();
    let mut predictor = MaskPredictor::new(model.clone(), cpu()).unwrap();
    let (mut gradients, mut nll) = (Gradients::zeros(model), Vec::new());
    let batch = Batch { tokens: &noised.tokens, starts: &starts, attention_mask: None };
    let (positions, tokens) = (&noised.positions[..], &noised.targets[..]);
    let targets = Targets { positions, tokens, weights: &noised.weights, ..Targets::default() };
    predictor.nll_and_gradient(batch, &targets, false, &mut nll, &mut gradients).unwrap();
    (loss::value(&noised.weights, &nll), gradients)
}

/// The logits of the model in `dir` at some positions.
fn logits(model: Model) -> Vec<f32> {
    let (noised, starts) = batch();
    let batch = Batch { tokens: &noised.tokens, starts: &starts, attention_mask: None };
    let mut logits = Vec::new();
    let mut predictor = MaskPredictor::new(model, cpu()).unwrap();
    predictor.logits(batch, &noised.positions, &mut logits).unwrap();
    logits
}

#[test]
fn fresh_adapters_change_nothing_and_are_as_peft_makes_them() {
    for name in ["a_mha_untied", "e_illada_llama_naming"] {
        let model = checkpoint::load(&own_model(name)).unwrap();
        let layout = Layout::new(&model.config);
        let adapter = Adapter::init(&layout, 4, 16.0, &[], 7).unwrap();
        assert_eq!(adapter.matrices.len(), 7 * model.config.n_layers);
        for (matrix, a, b) in adapter.iter() {
            let inputs = layout.specs()[matrix.tensor].shape[1];
            let bound = 1.0 / (inputs as f32).sqrt();
            assert!(a.iter().all(|x| x.abs() <= bound));
            assert!(a.iter().any(|x| x.abs() > 0.9 * bound));
            assert!(b.iter().all(|x| *x == 0.0));
        }
        let mut merged = model.clone();
        adapter.merge(&cpu(), &model.tensors, &mut merged).unwrap();
        assert_eq!(logits(merged), logits(model));
        assert_eq!(adapter, Adapter::init(&layout, 4, 16.0, &[], 7).unwrap());
        let some = ["q_proj".to_owned(), "v_proj".to_owned()];
        assert_eq!(Adapter::init(&layout, 4, 16.0, &some, 7).unwrap().targets(&layout), some);
    }
}

#[test]
fn their_gradients_are_the_slopes_of_the_loss() {
    let model = checkpoint::load(&own_model("d_qkvbias_qknorm")).unwrap().into_trainable();
    let layout = Layout::new(&model.config);
    let mut adapter = Adapter::init(&layout, 3, 6.0, &[], 1).unwrap();
    for i in 0..adapter.matrices.len() {
        let b = &mut adapter.factors[2 * i + 1];
        b.copy_from_slice(&numbers(b.len(), i as u64));
    }
    let value = |adapter: &Adapter| {
        let mut merged = model.clone();
        adapter.merge(&cpu(), &model.tensors, &mut merged).unwrap();
        loss_and_gradients(&merged)
    };
    let (_, full) = value(&adapter);
    let mut gradients = Arena::like(&adapter.factors);
    adapter.gradients(&cpu(), &layout, &full, &mut gradients).unwrap();
    assert_eq!(gradients.len(), 2 * adapter.matrices.len());
    for (i, gradient) in gradients.iter().enumerate() {
        // Along the gradient itself the slope is its squared norm.
        let norm2: f64 = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();
        assert!(norm2 > 1e-8, "{i}");
        let h = 1e-3 / norm2.sqrt();
        let at = |sign: f64| {
            let mut moved = adapter.clone();
            for (v, &g) in moved.factors[i].iter_mut().zip(gradient) {
                *v += (sign * h * f64::from(g)) as f32;
            }
            value(&moved).0
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * h);
        assert!((slope - norm2).abs() / norm2 < 0.03, "{i}: slope {slope}, gradient {norm2}");
    }
}

/// A folder as PEFT writes it: rank 2, alpha 8, on two matrices of block 1.
fn peft(
    dir: &Path,
    base: &str,
    change: impl FnOnce(&mut Value),
) -> [(String, Vec<f32>, Vec<f32>); 2] {
    let (d, f) = (64, 160);
    let module = |m: &str| format!("model.transformer.blocks.1.{m}");
    let made = [("q_proj", d, d, 1), ("ff_out", f, d, 2)].map(|(name, inputs, outputs, seed)| {
        (module(name), numbers(2 * inputs, seed), numbers(outputs * 2, 10 + seed))
    });
    let mut named = Vec::new();
    for (module, a, b) in &made {
        named.push((format!("base_model.model.{module}.lora_A.weight"), [2, a.len() / 2], a));
        named.push((format!("base_model.model.{module}.lora_B.weight"), [b.len() / 2, 2], b));
    }
    let sources: Vec<_> = named
        .iter()
        .map(|(name, shape, values)| safetensors::Source {
            name,
            shape: shape.to_vec(),
            parts: vec![WeightView::F32(values)],
            dtype: DType::F32,
        })
        .collect();
    fs::create_dir_all(dir).unwrap();
    safetensors::write(&dir.join("adapter_model.safetensors"), &sources, &BTreeMap::new()).unwrap();
    let mut config = json!({
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": base, "bias": "none",
        "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
        "lora_alpha": 8, "lora_dropout": 0.05, "modules_to_save": null, "peft_type": "LORA",
        "r": 2, "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "ff_out"],
        "task_type": null, "use_dora": false, "use_rslora": false
    });
    change(&mut config);
    fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
    made
}

#[test]
fn adapters_of_peft_are_added_to_their_base() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("adapter");
    let path = own_model("a_mha_untied").canonicalize().unwrap();
    let made = peft(&dir, path.to_str().unwrap(), |_| {});
    let merged = checkpoint::load(&dir).unwrap();
    let mut expected = checkpoint::load(&path).unwrap().into_trainable();
    let layout = Layout::new(&expected.config);
    for (module, a, b) in &made {
        let name = format!("{module}.weight");
        let id = layout.specs().iter().position(|spec| spec.name == name).unwrap();
        let [outputs, inputs] = layout.specs()[id].shape[..] else { panic!("a matrix") };
        let mut w = expected.tensors.get(id).to_f32();
        for (o, row) in w.chunks_exact_mut(inputs).enumerate() {
            for (i, w) in row.iter_mut().enumerate() {
                // alpha / r is 4.
                *w += 4.0 * (b[o * 2] * a[i] + b[o * 2 + 1] * a[inputs + i]);
            }
        }
        assert_eq!(outputs * 2, b.len());
        expected.tensors.set(id, w);
    }
    let (found, wanted) = (logits(merged), logits(expected));
    assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-4));
    let before = logits(checkpoint::load(&path).unwrap());
    assert!(found.iter().zip(&before).any(|(a, b)| (a - b).abs() > 1e-2));
    assert_eq!(checkpoint::load_config(&dir).unwrap(), checkpoint::load_config(&path).unwrap());

    // A path from the adapters' folder, and one given by hand.
    for entry in fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        fs::create_dir_all(folder.path().join("base")).unwrap();
        fs::copy(&file, folder.path().join("base").join(file.file_name().unwrap())).unwrap();
    }
    peft(&dir, "../base", |_| {});
    assert_eq!(logits(checkpoint::load(&dir).unwrap()), found);
    peft(&dir, "GSAI-ML/LLaDA-8B-Base", |_| {});
    let error = checkpoint::load(&dir).unwrap_err();
    assert!(error.to_string().contains("`GSAI-ML/LLaDA-8B-Base`"), "{error}");
    assert!(error.hint().unwrap().contains("--base"));
    let base = Checkpoint::open(&path).unwrap();
    let merged = Checkpoint::open(&dir).unwrap().merge(&base).unwrap();
    assert_eq!(logits(merged.model), found);
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = own_model("e_illada_llama_naming").canonicalize().unwrap();
    let model = checkpoint::load(&path).unwrap();
    let layout = Layout::new(&model.config);
    let targets = ["q_proj".to_owned(), "down_proj".to_owned()];
    let mut adapter = Adapter::init(&layout, 3, 1.5, &targets, 5).unwrap();
    let b = &mut adapter.factors[3];
    b.copy_from_slice(&numbers(b.len(), 1));
    checkpoint::save_adapter(&adapter, &layout, &path, folder.path()).unwrap();
    assert!(checkpoint::is_adapter(folder.path()));
    assert_eq!(adapter_in(folder.path(), &layout), adapter);
    let mut merged = model.clone();
    adapter.merge(&cpu(), &model.tensors, &mut merged).unwrap();
    assert_eq!(logits(checkpoint::load(folder.path()).unwrap()), logits(merged));
    let config = fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["target_modules"][0], "model.layers.0.self_attn.q_proj");
    let file = safetensors::File::open(&folder.path().join("adapter_model.safetensors")).unwrap();
    let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    assert_eq!(file.entries()[name].shape, [3, model.config.d_model]);
}

fn adapter_in(dir: &Path, layout: &Layout) -> Adapter {
    Checkpoint::open(dir).unwrap().adapter(layout).unwrap()
}

/// The largest number that is added to a matrix of the base.
fn change(dir: &Path, name: &str) -> f32 {
    let adapted = Checkpoint::open(dir).unwrap();
    let merged = adapted.load().unwrap();
    let base = adapted.base().unwrap().unwrap().load().unwrap();
    let layout = Layout::new(&base.config);
    let at = layout.specs().iter().position(|spec| spec.name.ends_with(name)).unwrap();
    let pairs = merged.tensors.get(at).to_f32().into_iter().zip(base.tensors.get(at).to_f32());
    pairs.map(|(merged, base)| (merged - base).abs()).fold(0.0, f32::max)
}

#[test]
fn the_configuration_says_how_much_and_where_as_in_peft() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, path) = (folder.path(), own_model("a_mha_untied").canonicalize().unwrap());
    let changes = |change_config: &dyn Fn(&mut Value)| {
        peft(dir, path.to_str().unwrap(), |config| change_config(config));
        ["1.q_proj.weight", "1.ff_out.weight"].map(|name| change(dir, name))
    };
    let plain = changes(&|_| {});
    assert!(plain.iter().all(|change| *change > 1e-3), "{plain:?}");
    // alpha 8 and rank 2: 8/2 is 4, 8/√2 is √2 times as much.
    let factor = |found: [f32; 2]| [found[0] / plain[0], found[1] / plain[1]];
    let near = |a: [f32; 2], b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    let stable = factor(changes(&|c| c["use_rslora"] = json!(true)));
    assert!(near(stable, [2.0_f32.sqrt(); 2]), "{stable:?}");
    let by_pattern = factor(changes(&|c| {
        c["alpha_pattern"] = json!({r".*\.1\.q_proj": 4, "ff_.*": 24});
        c["r"] = json!(5);
        c["rank_pattern"] = json!({r"blocks\.1\..*": 2});
    }));
    assert!(near(by_pattern, [0.5, 3.0]), "{by_pattern:?}");
    for (key, value) in [
        ("target_modules", json!(".*q_proj")),
        ("target_modules", json!(["q_proj"])),
        ("exclude_modules", json!(["ff_out"])),
        ("exclude_modules", json!(".*ff_out")),
    ] {
        let found = factor(changes(&|c| c[key] = value.clone()));
        assert!(near(found, [1.0, 0.0]), "{key} {value}: {found:?}");
        let adapted = Checkpoint::open(dir).unwrap();
        let left_out = adapted.merge(adapted.base().unwrap().unwrap()).unwrap().left_out;
        assert_eq!(left_out.len(), 2, "{left_out:?}");
        assert!(left_out[0].contains("ff_out.lora_"), "{left_out:?}");
    }
}

#[test]
fn ranks_and_alphas_of_their_own_are_written_as_patterns() {
    let folder = tempfile::tempdir().unwrap();
    let path = own_model("a_mha_untied").canonicalize().unwrap();
    let layout = Layout::new(&checkpoint::load_config(&path).unwrap());
    let mut adapter = Adapter::init(&layout, 3, 1.5, &["q_proj".to_owned()], 5).unwrap();
    let other = Adapter::init(&layout, 2, 4.0, &["ff_out".to_owned()], 6).unwrap();
    // One of either in each block.
    let (mut matrices, mut factors) = (Vec::new(), Arena::default());
    let pairs = adapter.iter().zip(other.iter()).flat_map(|(q, out)| [q, out]);
    for (matrix, a, b) in pairs {
        matrices.push(matrix.clone());
        for factor in [a, b] {
            factors.push(factor.iter().copied());
        }
    }
    (adapter.matrices, adapter.factors) = (matrices, factors);
    adapter.rank_stabilized = true;
    checkpoint::save_adapter(&adapter, &layout, &path, folder.path()).unwrap();
    assert_eq!(adapter_in(folder.path(), &layout), adapter);
}

#[test]
fn pickled_adapters_are_named() {
    let folder = tempfile::tempdir().unwrap();
    peft(
        folder.path(),
        own_model("a_mha_untied").canonicalize().unwrap().to_str().unwrap(),
        |_| {},
    );
    let weights = folder.path().join("adapter_model.safetensors");
    fs::rename(&weights, folder.path().join("adapter_model.bin")).unwrap();
    let error = checkpoint::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("adapter_model.bin"), "{error}");
    assert!(error.hint().unwrap().contains("save_pretrained"));
    fs::write(&weights, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let error = checkpoint::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("Git LFS"), "{error}");
}

#[test]
fn what_is_more_than_plain_lora_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = own_model("a_mha_untied").canonicalize().unwrap();
    let path = path.to_str().unwrap();
    for (key, value) in [
        ("use_dora", json!(true)),
        ("alora_invocation_tokens", json!([65, 66])),
        ("modules_to_save", json!(["wte"])),
        ("bias", json!("all")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("lora_ga")),
        ("target_modules", json!(["q_proj", "wte"])),
        ("target_modules", json!(["nothing"])),
        ("target_modules", json!(["k_proj"])),
        ("peft_type", json!("ADALORA")),
        ("r", json!(0)),
        ("lora_alpha", json!("eight")),
    ] {
        peft(folder.path(), path, |config| config[key] = value.clone());
        let error = checkpoint::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
        assert!(error.hint().unwrap().contains("LoRA"));
    }
    peft(folder.path(), path, |config| config["r"] = json!(3));
    assert!(checkpoint::load(folder.path()).unwrap_err().to_string().contains("lora_A"));
    fs::write(folder.path().join("adapter_config.json"), "[").unwrap();
    assert!(checkpoint::load(folder.path()).is_err());

    // Of another model: a tensor that adapts nothing.
    let other = own_model("e_illada_llama_naming").canonicalize().unwrap();
    peft(folder.path(), other.to_str().unwrap(), |_| {});
    let error = checkpoint::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("adapts no matrix"), "{error}");
}
