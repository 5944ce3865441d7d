use std::path::PathBuf;

use llada_kernels::{BlockFormat, DType, WeightView};

use super::{
    write::{Entry as Key, Setting, Source},
    *,
};
use crate::{
    Error,
    chat::{Message, Template},
    checkpoint::{load as load_folder, save as save_folder},
    config::{
        AttentionMask,
        family::{Parameter, Part},
    },
    golden::{self, Golden, own_model},
    tokenizer::Tokenizer,
};

fn cpu() -> Cpu {
    Cpu::new(2).unwrap()
}

fn storyteller() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/storyteller").into()
}

/// A folder as a file, with matrices as the folder has them.
fn converted(folder: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let model = load_folder(folder).unwrap();
    let formats = Formats::all(model.tensors.get(0).dtype());
    save(&model, &TokenizerFiles::read(folder).unwrap(), &path, &formats, &cpu()).unwrap();
    (dir, path)
}

/// The metadata and tensors of a folder, to be written with changes.
fn changed(
    folder: &Path,
    change: impl FnOnce(&mut Vec<Key>, &mut Vec<Source<'_>>),
) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed.gguf");
    let model = load_folder(folder).unwrap();
    let (config, layout) = (&model.config, Layout::new(&model.config));
    let files = TokenizerFiles::read(folder).unwrap();
    let special =
        crate::checkpoint::special_tokens(config, files.tokenizer(Path::new("")).unwrap().as_ref());
    let mut keys = metadata::keys(config, DType::F32);
    keys.extend(vocabulary::keys(&files, &special, config.embedding_size).0);
    let mut sources: Vec<_> = names(config, &layout)
        .into_iter()
        .zip(layout.specs())
        .zip(model.tensors.iter())
        .map(|((name, spec), tensor)| {
            let (shape, parts) = (spec.shape.clone(), vec![tensor]);
            Source { name, shape, parts, dtype: DType::F32 }
        })
        .collect();
    change(&mut keys, &mut sources);
    write::write(&cpu(), &path, &keys, &sources, &mut |_, _| ()).unwrap();
    (dir, path)
}

/// Sets a key, or takes it away.
fn set(keys: &mut Vec<Key>, key: &str, value: Option<Setting>) {
    keys.retain(|(found, _)| found != key);
    keys.extend(value.map(|value| (key.to_owned(), value)));
}

fn same_numbers(a: &Model, b: &Model) {
    assert_eq!(a.config, b.config);
    assert_eq!(a.tensors.len(), b.tensors.len());
    for (a, b) in a.tensors.iter().zip(b.tensors.iter()) {
        let bits = |t: WeightView<'_>| t.to_f32().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(a), bits(b));
    }
}

#[test]
fn a_folder_survives_the_way_there_and_back() {
    for folder in
        golden::MODELS.map(|golden| golden.own_folder()).into_iter().chain([storyteller()])
    {
        let model = load_folder(&folder).unwrap();
        let dtype = model.tensors.get(0).dtype();
        let (dir, path) = converted(&folder);
        let file = load_folder(&path).unwrap();
        same_numbers(&model, &file);
        assert_eq!(file.config, load_folder(&path).unwrap().config);
        for (id, spec) in Layout::new(&file.config).specs().iter().enumerate() {
            let tensor = file.tensors.get(id);
            let is_router = matches!(spec.parameter, Parameter::Block(_, Part::Router));
            let expected = if spec.shape.len() == 1 || is_router { DType::F32 } else { dtype };
            assert_eq!(tensor.dtype(), expected, "{}", spec.name);
            assert!(file.tensors.is_mapped(id), "{}", spec.name);
        }
        let back = dir.path().join("back");
        save_folder(&file, &back, dtype).unwrap();
        let files = TokenizerFiles::read(&path).unwrap();
        files.write(&back).unwrap();
        same_numbers(&model, &load_folder(&back).unwrap());
        assert_eq!(files, TokenizerFiles::read(&folder).unwrap());
    }
}

#[test]
fn the_tokenizer_travels_with_the_model() {
    let (_dir, path) = converted(&storyteller());
    let (there, here) = (Tokenizer::from_dir(&path), Tokenizer::from_dir(&storyteller()));
    let (there, here) = (there.unwrap(), here.unwrap());
    let text = "Once <|eot_id|> upon\n a time, 日本 it's 1234 o'clock…";
    assert_eq!(there.encode(text).unwrap(), here.encode(text).unwrap());
    assert_eq!(there.special_tokens(), here.special_tokens());
    let messages = [Message::new("user", "Hello")];
    let chat = |path: &Path, tokenizer| {
        Template::from_dir(path).unwrap().encode(tokenizer, &messages, true).unwrap()
    };
    assert_eq!(chat(&path, &there), chat(&storyteller(), &here));
    let (_dir, path) = converted(&own_model("a_mha_untied"));
    let missing = Tokenizer::from_dir(&path).unwrap_err();
    assert!(missing.to_string().contains("has no `tokenizer.json`"), "{missing}");
}

#[test]
fn the_keys_that_other_programs_write_suffice() {
    let ours = ["tokenizer.huggingface.json", "llada.file."];
    let (_dir, path) = changed(&storyteller(), |keys, _| {
        keys.retain(|(key, _)| ours.iter().all(|start| !key.starts_with(start)));
    });
    let (model, file) = (load_folder(&storyteller()).unwrap(), load_folder(&path).unwrap());
    same_numbers(&model, &file);
    let (built, here) = (Tokenizer::from_dir(&path), Tokenizer::from_dir(&storyteller()));
    let (built, here) = (built.unwrap(), here.unwrap());
    for text in ["Once <|eot_id|> upon\n a time", "", " \n\n\t  日本 it's 1234 o'clock…  THE END"]
    {
        assert_eq!(built.encode(text).unwrap(), here.encode(text).unwrap(), "{text}");
        assert_eq!(built.encode_plain(text).unwrap(), here.encode_plain(text).unwrap(), "{text}");
        let ids = here.encode(text).unwrap();
        assert_eq!(built.decode(&ids, true).unwrap(), here.decode(&ids, true).unwrap());
    }
    assert_eq!(built.special_tokens(), here.special_tokens());
    assert_eq!(built.vocab_size(), here.vocab_size());
    let template = |path: &Path| TokenizerFiles::read(path).unwrap().chat_template();
    assert_eq!(template(&path), template(&storyteller()));
}

#[test]
fn rows_without_a_token_are_unused() {
    // Of 2048 rows every one has a token; as a model with more it has some without.
    let files = TokenizerFiles::read(&storyteller()).unwrap();
    let (keys, missed) = vocabulary::keys(&files, &Default::default(), 2050);
    assert_eq!(missed, None);
    let of = |name: &str| &keys.iter().find(|(key, _)| key == name).unwrap().1;
    let Setting::Texts(tokens) = of("tokenizer.ggml.tokens") else { panic!() };
    let Setting::Signed(kinds) = of("tokenizer.ggml.token_type") else { panic!() };
    assert_eq!((tokens.len(), kinds.len()), (2050, 2050));
    assert_eq!((tokens[2049].as_str(), kinds[2049]), ("[PAD2049]", 5));
    assert_eq!((tokens[2044].as_str(), kinds[2044]), ("<|mdm_mask|>", 3));
    assert_eq!(kinds[100], 1);
    assert_eq!(of("tokenizer.ggml.pre"), &Setting::Text("smaug-bpe".into()));
}

#[test]
fn what_llama_cpp_would_compute_otherwise_has_another_architecture() {
    for Golden { name: model, architecture: expected, .. } in golden::MODELS {
        let (_dir, path) = converted(&own_model(model));
        let file = File::open(&path).unwrap();
        let value = file.value("general.architecture").and_then(Value::text);
        assert_eq!(value, Some(expected), "{model}");
        assert!(file.keys().any(|key| key == format!("{expected}.block_count")));
    }
    let mut config = load_folder(&own_model("a_mha_untied")).unwrap().config;
    config = config.with_objective(crate::config::Objective::Autoregressive);
    assert_eq!(metadata::architecture(&config), "llada-extended");
}

#[test]
fn blocks_of_any_family_survive() {
    for Golden { name, .. } in golden::MODELS {
        let mut model = load_folder(&own_model(name)).unwrap();
        model.config.attention = AttentionMask::BlockCausal { block_length: 6 };
        let folder = tempfile::tempdir().unwrap();
        save_folder(&model, folder.path(), DType::F32).unwrap();
        assert_eq!(load_folder(folder.path()).unwrap().config, model.config, "{name}");
        let (_dir, path) = converted(folder.path());
        let file = File::open(&path).unwrap();
        let value = file.value("general.architecture").and_then(Value::text);
        assert_eq!(value, Some("llada-extended"), "{name}");
        assert_eq!(config(&file).unwrap(), model.config, "{name}");
    }
}

#[test]
fn damaged_metadata_is_named() {
    let number = |n| Some(Setting::Number(n));
    let text = |s: &str| Some(Setting::Text(s.into()));
    let config = "llada.file.config.json";
    // What to set with the configuration of the folder beside it, and what the error says.
    for (key, value, expected) in [
        ("general.architecture", text("llama"), "of the architecture `llama`"),
        ("general.architecture", None, "`general.architecture` in"),
        ("general.architecture", number(1), "is missing"),
        ("llada.block_count", number(3), "`llada.block_count` in"),
        ("llada.rope.freq_base", Some(Setting::Float(2.0)), "is not that of"),
        ("llada.rope.scaling.type", text("linear"), "is not `none`"),
        ("llada.rope.scaling.factor", Some(Setting::Float(4.0)), "is not computed here"),
        ("llada.attention.key_length", number(8), "is not 16"),
        ("general.type", text("adapter"), "is no model"),
        ("llada.attention.causal", Some(Setting::Bool(true)), "is not that of"),
        ("split.count", number(2), "shards are not read"),
        (config, text("{}"), "unknown architecture"),
        (config, number(1), "is no text"),
    ] {
        let (_dir, path) = changed(&own_model("a_mha_untied"), |keys, _| set(keys, key, value));
        let error = load_folder(&path).unwrap_err();
        assert!(error.to_string().contains(expected), "{key}: {error}");
        assert!(error.hint().is_some(), "{key}");
    }
    // And without it.
    for (key, value, expected) in [
        ("llada.embedding_length", None, "`llada.embedding_length` in"),
        ("llada.embedding_length", text("64"), "is no size"),
        ("llada.block_count", number(1), "is not part of the model"),
        ("llada.block_count", number(3), "tensor `blk.2."),
        ("llada.attention.head_count", number(3), "expected a multiple"),
        ("llada.attention.layer_norm_rms_epsilon", None, "is missing"),
        ("llada.rope.freq_base", number(1), "is no number"),
        ("llada.rope.dimension_count", number(8), "is not 16"),
        ("llada.rope.scaling.type", text("yarn"), "is not `none`"),
        ("llada.rope.scaling.factor", Some(Setting::Float(4.0)), "is not computed here"),
        ("llada.rope.scaling.original_context_length", number(64), "is not 256"),
        ("llada.rope.scaling.attn_factor", Some(Setting::Float(1.5)), "is not computed here"),
        ("llada.rope.scaling.yarn_log_multiplier", Some(Setting::Float(0.1)), "is not computed"),
        ("llada.rope.scale_linear", Some(Setting::Float(2.0)), "is not computed here"),
        ("llada.rope.dimension_sections", Some(Setting::Signed(vec![8, 8])), "is not computed"),
        ("llada.attention.sliding_window", number(64), "is not computed here"),
        ("llada.attention.clamp_kqv", Some(Setting::Float(8.0)), "is not computed here"),
        ("llada.attention.max_alibi_bias", Some(Setting::Float(8.0)), "is not computed here"),
        ("llada.attn_logit_softcapping", Some(Setting::Float(50.0)), "is not computed here"),
        ("llada.logit_scale", Some(Setting::Float(0.06)), "is not computed here"),
        ("llada.expert_count", number(8), "is not computed here"),
        ("llada.use_parallel_residual", Some(Setting::Bool(true)), "is not computed here"),
        ("llada.attention.causal", Some(Setting::Bool(true)), "is not false"),
        ("diffusion.shift_logits", Some(Setting::Bool(true)), "is not false"),
        ("tokenizer.ggml.mask_token_id", text("?"), "is no token id"),
        ("tokenizer.ggml.mask_token_id", number(5000), "mask_token_id"),
    ] {
        let (_dir, path) = changed(&own_model("a_mha_untied"), |keys, _| {
            set(keys, config, None);
            set(keys, key, value);
        });
        let error = load_folder(&path).unwrap_err();
        assert!(error.to_string().contains(expected), "{key}: {error}");
        assert!(error.hint().is_some(), "{key}");
    }
}

#[test]
fn keys_that_ask_for_nothing_are_passed_over() {
    for (key, value) in [
        ("llada.rope.scaling.type", Setting::Text("none".into())),
        ("llada.rope.scaling.factor", Setting::Float(1.0)),
        ("llada.rope.scaling.finetuned", Setting::Bool(true)),
        ("llada.rope.scaling.original_context_length", Setting::Number(256)),
        ("llada.attention.layer_norm_epsilon", Setting::Float(1e-6)),
        ("llada.expert_count", Setting::Number(0)),
        ("general.name", Setting::Text("a model".into())),
    ] {
        for is_own in [true, false] {
            let (_dir, path) = changed(&own_model("a_mha_untied"), |keys, _| {
                if !is_own {
                    set(keys, "llada.file.config.json", None);
                }
                set(keys, key, Some(value.clone()));
            });
            load_folder(&path).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
    }
}

#[test]
fn a_tokenizer_that_is_not_known_is_named() {
    let texts = |list: &[&str]| Setting::Texts(list.iter().map(|&s| s.to_owned()).collect());
    for (key, value, expected) in [
        ("tokenizer.ggml.model", Setting::Text("llama".into()), "only byte-level BPE"),
        ("tokenizer.ggml.pre", Setting::Text("viking".into()), "is `viking`"),
        ("tokenizer.ggml.tokens", Setting::Number(1), "is missing"),
        ("tokenizer.ggml.tokens", Setting::Signed(vec![1]), "is no list of texts"),
        ("tokenizer.ggml.tokens", texts(&["a", "b"]), "2048 kinds for 2 tokens"),
        ("tokenizer.ggml.tokens", texts(&["a"; 2048]), "has a token twice"),
        ("tokenizer.ggml.merges", texts(&["a"]), "the merge null"),
    ] {
        let (_dir, path) = changed(&storyteller(), |keys, _| {
            set(keys, "tokenizer.huggingface.json", None);
            set(keys, key, Some(value));
        });
        let error = Tokenizer::from_dir(&path).unwrap_err();
        assert!(error.to_string().contains(expected), "{key}: {error}");
        assert!(load_folder(&path).is_ok());
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let a = own_model("a_mha_untied");
    let error = |change: &dyn Fn(&mut Vec<Source<'_>>)| {
        let (_dir, path) = changed(&a, |_, tensors| change(tensors));
        load_folder(&path).unwrap_err()
    };
    let missing = error(&|t| drop(t.remove(3)));
    assert!(matches!(missing, Error::Checkpoint(CheckpointError::Missing { .. })), "{missing}");
    let unknown = error(&|t| t[3].name.name = "blk.9.attn_q.weight".into());
    assert!(matches!(unknown, Error::Checkpoint(CheckpointError::Unknown { .. })), "{unknown}");
    let shape = error(&|t| {
        (t[0].shape, t[0].parts) = (vec![1, 1], vec![WeightView::F32(&[1.0])]);
    });
    assert!(shape.to_string().contains("has shape [1, 1]"), "{shape}");
}

#[test]
fn a_weight_that_is_not_finite_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let mut model = load_folder(&own_model("a_mha_untied")).unwrap().into_trainable();
    let values = &mut model.tensors.flatten()[0];
    values[70] = 1e6;
    let none = TokenizerFiles::default();
    let write = |dtype| save(&model, &none, &path, &Formats::all(dtype), &cpu());
    let error = write(DType::F16).unwrap_err();
    assert!(
        matches!(&error, Error::Checkpoint(CheckpointError::NonFinite { index: 70, .. })),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    write(DType::Bf16).unwrap();
    assert_eq!(load_folder(&path).unwrap().tensors.get(0).dtype(), DType::Bf16);
}

#[test]
fn quantised_tensors_come_back_as_they_were_written() {
    let dir = tempfile::tempdir().unwrap();
    let (path, again) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
    let model = load_folder(&storyteller()).unwrap();
    let files = TokenizerFiles::read(&storyteller()).unwrap();
    for format in BlockFormat::ALL {
        let formats = Formats { blocks: DType::Blocks(format), ..Formats::all(DType::F16) };
        let one = Cpu::new(1).unwrap();
        assert_eq!(save(&model, &files, &path, &formats, &one).unwrap(), None);
        let quantised = load_folder(&path).unwrap();
        let layout = Layout::new(&model.config);
        let dtypes: Vec<_> = quantised.tensors.iter().map(|tensor| tensor.dtype()).collect();
        assert_eq!(dtypes, formats.of_each(&layout));
        // The rows of q in their order, to within a step of the coarsest format.
        let q = layout.blocks[0].qkv[0];
        let (a, b) = (model.tensors.get(q).to_f32(), quantised.tensors.get(q).to_f32());
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let error = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / norm(&mut a.iter().copied());
        assert!(error < 0.15, "{format}: {error}");
        // Written once more it is the same file, on any number of threads.
        save(&model, &files, &again, &formats, &cpu()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
        save(&quantised, &files, &again, &formats, &cpu()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&again).unwrap());
    }
}

#[test]
fn scales_that_are_not_finite_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.gguf");
    let model = load_folder(&storyteller()).unwrap();
    let formats = Formats::all(DType::Blocks(BlockFormat::Q8_0));
    save(&model, &TokenizerFiles::default(), &path, &formats, &cpu()).unwrap();
    let start = File::open(&path).unwrap().tensors()["token_embd.weight"].bytes.start;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[start + 34..][..2].copy_from_slice(&0x7e00u16.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let error = load_folder(&path).unwrap_err();
    assert!(
        matches!(&error, Error::Checkpoint(CheckpointError::NonFinite { index: 32, .. })),
        "{error}"
    );
}

#[test]
fn a_type_that_is_not_read_is_named() {
    let (dir, path) = converted(&own_model("a_mha_untied"));
    let mut bytes = std::fs::read(&path).unwrap();
    // The type of a tensor follows its name, its number of dimensions and those.
    let name = b"token_embd.weight";
    let at = bytes.windows(name.len()).position(|found| found == name).unwrap();
    bytes[at + name.len() + 4 + 16] = 26;
    let path = dir.path().join("other.gguf");
    std::fs::write(&path, bytes).unwrap();
    let error = load_folder(&path).unwrap_err();
    assert!(error.to_string().contains("is stored as `I32`, which is not read"), "{error}");
    assert!(error.hint().unwrap().contains("Q4_K"));
}
