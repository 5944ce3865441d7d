use std::{collections::BTreeSet, fs, path::PathBuf};

use ::safetensors::SafeTensors;
use serde_json::{Value, json};

use super::*;
use crate::Error;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");

/// A folder of the golden models, which `$LLADA_GOLDEN` may replace by others of the same layout; a
/// set need not have every family.
pub(crate) fn golden(model: &str) -> PathBuf {
    let other = std::env::var_os("LLADA_GOLDEN").map(PathBuf::from);
    let other = other.map(|root| root.join("models").join(model));
    other.filter(|folder| folder.exists()).unwrap_or_else(|| own(model))
}

/// A folder of the models that are here, for tests that know their sizes.
pub(crate) fn own(model: &str) -> PathBuf {
    PathBuf::from(FIXTURES).join("models").join(model)
}

/// A copy of a model that can be damaged.
fn copy(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(own(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// The tensors of model a, to be written again with changes.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Model a's folder after `change` of its tensors.
fn changed(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let dir = copy("a_mha_untied");
    let model = load(dir.path()).unwrap();
    let layout = Layout::new(&model.config);
    let specs = layout.specs().iter().zip(model.tensors.iter());
    let mut tensors: Tensors =
        specs.map(|(s, t)| (s.name.clone(), s.shape.clone(), t.to_f32())).collect();
    change(&mut tensors);
    write(&dir.path().join("model.safetensors"), &tensors);
    dir
}

fn write(path: &Path, tensors: &Tensors) {
    let sources: Vec<_> = tensors
        .iter()
        .map(|(name, shape, values)| safetensors::Source {
            name,
            shape: shape.clone(),
            parts: vec![llada_kernels::WeightView::F32(values)],
            dtype: DType::F32,
        })
        .collect();
    safetensors::write(path, &sources, &BTreeMap::new()).unwrap();
}

/// The error of loading `dir`, and its text.
fn refusal(dir: &Path) -> (CheckpointError, String) {
    match load(dir).unwrap_err() {
        Error::Checkpoint(error) => {
            assert!(error.hint().is_some());
            let text = error.to_string();
            (error, text)
        }
        other => panic!("{other}"),
    }
}

/// Edits the index of a copy of the sharded model.
fn with_index(edit: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = copy("c_a_bf16_sharded");
    let path = dir.path().join("model.safetensors.index.json");
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    edit(&mut index);
    fs::write(&path, index.to_string()).unwrap();
    dir
}

const WTE: &str = "model.transformer.wte.weight";

#[test]
fn the_golden_models_load_without_a_copy() {
    for name in ["a_mha_untied", "b_gqa_tied", "d_qkvbias_qknorm", "e_illada_llama_naming"] {
        let model = load(&golden(name)).unwrap();
        let content = fs::read(golden(name).join("model.safetensors")).unwrap();
        let official = SafeTensors::deserialize(&content).unwrap();
        let layout = Layout::new(&model.config);
        assert_eq!(layout.specs().len(), model.tensors.len());
        for (id, (spec, tensor)) in layout.specs().iter().zip(model.tensors.iter()).enumerate() {
            let view = official.tensor(&spec.name).unwrap();
            let bytes: Vec<u8> = tensor.to_f32().iter().flat_map(|x| x.to_le_bytes()).collect();
            assert_eq!((view.shape(), view.data()), (&spec.shape[..], &bytes[..]));
            assert!(model.tensors.is_mapped(id), "{name}: `{}`", spec.name);
        }
    }
}

#[test]
fn shards_of_bf16_are_read_as_they_are() {
    let whole = load(&golden("a_mha_untied")).unwrap();
    let sharded = load(&golden("c_a_bf16_sharded")).unwrap();
    assert_eq!(whole.config, sharded.config);
    for (a, c) in whole.tensors.iter().zip(sharded.tensors.iter()) {
        assert_eq!(c.dtype(), DType::Bf16);
        let rounded: Vec<f32> =
            a.to_f32().iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
        assert_eq!(c.to_f32(), rounded);
    }
}

#[test]
fn other_architectures_are_refused_before_their_weights_are_read() {
    let dir = copy("g_dream");
    let config = dir.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap().replace("DreamModel", "NightmareModel");
    fs::write(config, text).unwrap();
    fs::write(dir.path().join("model.safetensors"), "no weights").unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert_eq!(error, "unknown architecture `NightmareModel`");
}

/// A model of every family.
pub(crate) const FAMILIES: [&str; 7] = [
    "a_mha_untied",
    "e_illada_llama_naming",
    "f_llada_moe",
    "g_dream",
    "h_llada2_moe",
    "i_sdar",
    "j_fast_dllm_v2",
];

#[test]
fn what_is_saved_is_loaded_again() {
    for name in ["c_a_bf16_sharded", "d_qkvbias_qknorm"].into_iter().chain(FAMILIES) {
        let model = load(&golden(name)).unwrap();
        for dtype in [DType::F32, DType::Bf16, DType::F16] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("new").join("folder");
            save(&model, &dir, dtype).unwrap();
            let again = load(&dir).unwrap();
            assert_eq!(again.config, model.config);
            for (before, after) in model.tensors.iter().zip(again.tensors.iter()) {
                assert_eq!(after.dtype(), dtype);
                let round = |x: &f32| match dtype {
                    DType::F32 => *x,
                    DType::Bf16 => half::bf16::from_f32(*x).to_f32(),
                    DType::F16 => half::f16::from_f32(*x).to_f32(),
                    DType::Blocks(_) => unreachable!("not among them"),
                };
                let expected: Vec<f32> = before.to_f32().iter().map(round).collect();
                assert_eq!(after.to_f32(), expected);
            }
        }
    }
}

#[test]
fn the_saved_layout_is_what_the_python_code_loads() {
    let dir = tempfile::tempdir().unwrap();
    save(&load(&own("b_gqa_tied")).unwrap(), dir.path(), DType::Bf16).unwrap();
    let content = fs::read(dir.path().join("model.safetensors")).unwrap();
    let (_, header) = SafeTensors::read_metadata(&content).unwrap();
    assert_eq!(header.metadata().as_ref().unwrap()["format"], "pt");
    let original = fs::read(own("b_gqa_tied").join("model.safetensors")).unwrap();
    let names = |content: &[u8]| {
        let tensors = SafeTensors::deserialize(content).unwrap();
        tensors.names().iter().map(|n| n.to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&content), names(&original));
    let config: Value =
        serde_json::from_str(&fs::read_to_string(dir.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config["architectures"], json!(["LLaDAModelLM"]));
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(files.len(), 2);
}

#[test]
fn a_model_can_be_saved_over_the_files_it_is_mapped_from() {
    let dir = copy("a_mha_untied");
    let model = load(dir.path()).unwrap();
    let before: Vec<_> = model.tensors.iter().map(|tensor| tensor.to_f32()).collect();
    save(&model, dir.path(), DType::F32).unwrap();
    let mapped: Vec<_> = model.tensors.iter().map(|tensor| tensor.to_f32()).collect();
    let again: Vec<_> =
        load(dir.path()).unwrap().tensors.iter().map(|tensor| tensor.to_f32()).collect();
    assert!(before == mapped && before == again);
}

#[test]
fn a_diverged_model_does_not_replace_a_good_one() {
    let dir = copy("a_mha_untied");
    let mut model = load(dir.path()).unwrap();
    let good = fs::read(dir.path().join("model.safetensors")).unwrap();
    let mut values = model.tensors.get(1).to_f32();
    values[3] = f32::NAN;
    model.tensors.set(1, values);
    let error = save(&model, dir.path(), DType::F32).unwrap_err().to_string();
    assert!(error.contains("blocks.0.attn_norm.weight") && error.contains("element 3"), "{error}");
    assert_eq!(fs::read(dir.path().join("model.safetensors")).unwrap(), good);
}

#[test]
fn a_path_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let model = load(&own("d_qkvbias_qknorm")).unwrap();
    let error = save(&model, &file.join("model"), DType::F32).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.starts_with(&file)), "{error}");
}

#[test]
fn weights_in_another_form_are_named() {
    for (name, hint) in [
        ("pytorch_model-00001-of-00002.bin", "save_pretrained"),
        ("consolidated.00.pth", "save_pretrained"),
        ("model.pt", "save_pretrained"),
        ("model-00001-of-00002.safetensors", "index.json"),
        ("model.Q4_0.gguf", "give the GGUF file itself"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = golden("a_mha_untied").join("config.json");
        fs::copy(config, dir.path().join("config.json")).unwrap();
        fs::write(dir.path().join("training_args.bin"), "").unwrap();
        fs::write(dir.path().join(name), "").unwrap();
        let (error, text) = refusal(dir.path());
        assert!(text.contains(&format!("`{name}`")), "{text}");
        assert!(error.hint().unwrap().contains(hint), "{name}: {:?}", error.hint());
    }
}

#[test]
fn what_lies_in_the_place_of_weights_is_named() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    for (content, name) in [
        (&pointer[..], "Git LFS"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"PK\x03\x04 and more of it", "zip archive"),
        (b"\x80\x02}q\x00(X\x04\0\0\0", "pickle"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
    ] {
        let dir = copy("a_mha_untied");
        fs::write(dir.path().join("model.safetensors"), content).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert!(error.hint().is_some());
        // And in that of the configuration, and of a GGUF file.
        fs::write(dir.path().join("config.json"), content).unwrap();
        let error = load(dir.path()).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        if !content.starts_with(b"GGUF") {
            let path = dir.path().join("model.gguf");
            fs::write(&path, content).unwrap();
            let error = load(&path).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
    }
    let dir = copy("a_mha_untied");
    fs::write(dir.path().join("model.safetensors"), "").unwrap();
    assert!(refusal(dir.path()).1.contains("it is empty"));
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("is a directory"));
    fs::write(dir.path().join("config.json"), "").unwrap();
    assert!(load(dir.path()).unwrap_err().to_string().contains("it is empty"));
}

#[test]
fn folders_without_weights_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(load(dir.path()).unwrap_err(), Error::Io { .. }));
    fs::copy(own("a_mha_untied").join("config.json"), dir.path().join("config.json")).unwrap();
    assert!(matches!(refusal(dir.path()).0, CheckpointError::NoWeights { .. }));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(refusal(dir.path()).0.hint().unwrap().contains("pickled"));
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(matches!(load(dir.path()).unwrap_err(), Error::Io { .. }));
}

#[test]
fn wrong_tensors_are_refused_by_name_and_file() {
    let dir = changed(|t| t.retain(|(name, ..)| name != WTE));
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Missing { .. }) && text.contains(WTE), "{text}");
    let dir = changed(|t| t[0].1 = vec![64, 320]);
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Shape { .. }), "{text}");
    assert!(text.contains("[64, 320]") && text.contains("[320, 64]"), "{text}");
    let dir = changed(|t| t.push(("model.transformer.blocks.2.x".into(), vec![1], vec![0.0])));
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Unknown { .. }), "{text}");
    assert!(text.contains("blocks.2.x") && text.contains("model.safetensors"), "{text}");
}

#[test]
fn tensors_that_repeat_others_are_passed_over() {
    let name = "model.transformer.blocks.0.rotary_emb.inv_freq";
    let dir = changed(|t| t.push((name.into(), vec![1], vec![0.0])));
    assert!(load(dir.path()).is_ok());
    // The head of a tied model, stored all the same; NaN shows that it is not even looked at.
    let dir = copy("e_illada_llama_naming");
    let model = load(dir.path()).unwrap();
    let layout = Layout::new(&model.config);
    let specs = layout.specs().iter().zip(model.tensors.iter());
    let mut tensors: Tensors =
        specs.map(|(s, t)| (s.name.clone(), s.shape.clone(), t.to_f32())).collect();
    tensors.push(("lm_head.weight".into(), vec![1], vec![0.0]));
    write(&dir.path().join("model.safetensors"), &tensors);
    assert!(load(dir.path()).is_ok());
}

#[test]
fn a_file_that_was_cut_short_names_a_tensor() {
    let dir = copy("a_mha_untied");
    let path = dir.path().join("model.safetensors");
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() - 1]).unwrap();
    let (error, text) = refusal(dir.path());
    let CheckpointError::Entry { tensor, file, .. } = error else { panic!("{text}") };
    assert!(tensor.starts_with("model.") && file == path);
}

#[test]
fn an_index_cannot_reach_out_of_its_folder() {
    let outside = copy("c_a_bf16_sharded");
    let shard = outside.path().join("model-00001-of-00003.safetensors");
    let shard = shard.to_str().unwrap();
    for name in ["..", ".", "", "../x.safetensors", "a/b.safetensors", "a\\b", "./model", shard] {
        let dir = with_index(|index| index["weight_map"][WTE] = json!(name));
        let (error, text) = refusal(dir.path());
        assert!(matches!(error, CheckpointError::Shard { .. }), "{text}");
        assert!(text.contains(WTE) && text.contains("index.json"), "{text}");
    }
}

#[test]
fn an_index_that_is_wrong_is_refused() {
    let dir = with_index(|index| index["weight_map"][WTE] = json!("model-00009.safetensors"));
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Shard { .. }) && text.contains("is not there"));
    assert!(text.contains(WTE) && text.contains("model-00009"), "{text}");

    let first = "model-00001-of-00003.safetensors";
    let last = "model-00003-of-00003.safetensors";
    let dir = with_index(|index| {
        let swapped = if index["weight_map"][WTE] == first { last } else { first };
        index["weight_map"][WTE] = json!(swapped);
    });
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Missing { .. }) && text.contains(WTE), "{text}");

    let dir = with_index(|index| index["weight_map"] = json!(["a"]));
    assert!(matches!(refusal(dir.path()).0, CheckpointError::Index { .. }));
    let dir = with_index(|index| index["weight_map"] = json!({}));
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Missing { .. }), "{text}");
    let path = dir.path().join("model.safetensors.index.json");
    for content in [" ", "{", "[]", &"[".repeat(100_000)] {
        fs::write(&path, content).unwrap();
        assert!(matches!(refusal(dir.path()).0, CheckpointError::Index { .. }));
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let dir = copy("c_a_bf16_sharded");
    let shard = |n| dir.path().join(format!("model-0000{n}-of-00003.safetensors"));
    fs::copy(shard(1), shard(2)).unwrap();
    let (error, text) = refusal(dir.path());
    assert!(matches!(error, CheckpointError::Duplicate { .. }), "{text}");
    assert!(text.contains("model-00001") && text.contains("model-00002"), "{text}");
}

#[test]
fn the_config_s_ids_go_before_the_tokenizer_s() {
    let text = || [Ok("some text, some more text")];
    let kind = crate::tokenizer::Kind::Character { min_count: 0 };
    let tokenizer = crate::tokenizer::train(kind, text()).unwrap();
    let known = tokenizer.special_tokens();
    let config = load_config(&own("a_mha_untied")).unwrap();
    let merged = special_tokens(&config, Some(&tokenizer));
    assert_eq!((merged.mask, merged.eos, merged.pad), (Some(301), Some(305), Some(305)));
    assert!(merged.bos == known.bos && merged.eot == known.eot && known.eot.is_some());
    assert_eq!(special_tokens(&config, None).bos, None);
    let blank = load_config(&own("e_illada_llama_naming")).unwrap();
    assert_eq!(special_tokens(&blank, Some(&tokenizer)), known);
    assert_eq!(special_tokens(&blank, None), SpecialTokens::default());
}
