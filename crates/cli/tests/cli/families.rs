//! What is told of the models of each family.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::run;

/// A model, what it is, and what is recommended for it.
const FAMILIES: [(&str, &str, &str, &str); 7] = [
    ("a_mha_untied", "llada", "bidirectional", "transfer threshold=0.9, cache dual"),
    ("e_illada_llama_naming", "illada", "bidirectional", "transfer threshold=0.9, cache dual"),
    ("f_llada_moe", "llada-moe", "bidirectional", "transfer threshold=0.9, cache dual"),
    ("g_dream", "dream", "bidirectional", "remasking entropy, transfer threshold=0.9, cache dual"),
    (
        "h_llada2_moe",
        "llada2",
        "blocks of 32 tokens",
        "transfer threshold=0.95 (the card of LLaDA2.0",
    ),
    (
        "i_sdar",
        "sdar",
        "blocks of 4 tokens",
        "block_length 4, transfer threshold=0.85 (the defaults",
    ),
    (
        "j_fast_dllm_v2",
        "fast-dllm-v2",
        "blocks of 8 tokens",
        "sub_block_length 8, transfer threshold=0.9",
    ),
];

#[test]
fn every_family_is_told_with_its_recommended_settings() {
    let folder = tempfile::tempdir().unwrap();
    for (model, family, attention, settings) in FAMILIES {
        let path = format!("{}/../../tests/fixtures/models/{model}", env!("CARGO_MANIFEST_DIR"));
        let file = format!("{model}.gguf");
        let (code, _, stderr) = run(folder.path(), &["convert", &path, "-o", &file]);
        assert_eq!(code, 0, "{stderr}");
        for model in [path.as_str(), &file] {
            let (code, shown, stderr) = run(folder.path(), &["show", model]);
            assert_eq!(code, 0, "{stderr}");
            for said in [family, attention, settings, "arXiv", "preset balanced"] {
                assert!(shown.contains(said), "{model}: no `{said}` in {shown}");
            }
        }
        let (_, shown, _) = run(folder.path(), &["show", &file, "--json"]);
        let facts: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(facts["family"], json!(family));
        assert_eq!(facts["recommended"]["preset"], json!("balanced"));
    }
}

/// A copy of a model in `folder` whose configuration names its mask token.
fn with_mask(folder: &Path, model: &str) -> String {
    let from = format!("{}/../../tests/fixtures/models/{model}", env!("CARGO_MANIFEST_DIR"));
    let to = folder.join(model);
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let text = fs::read_to_string(to.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    if let Some(mask) = config.get("_fixture_mask_token_id").cloned() {
        config["mask_token_id"] = mask;
    }
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    to.to_str().unwrap().to_owned()
}

#[test]
fn every_family_generates() {
    let folder = tempfile::tempdir().unwrap();
    for (model, ..) in FAMILIES {
        let path = with_mask(folder.path(), model);
        for preset in ["exact", "balanced", "fast"] {
            let line = ["bench", "-m", &path, "--generate", "--rounds", "1", "--lengths", "8"];
            let more = ["--wanted", "4", "--prompt", "8", "--preset", preset, "-n", "16", "--json"];
            let (code, stdout, stderr) = run(folder.path(), &[&line[..], &more].concat());
            assert_eq!(code, 0, "{model} {preset}: {stderr}");
            let report: Value = serde_json::from_str(&stdout).unwrap();
            let generation = &report["models"][0]["generation"];
            assert_eq!(generation["sampler"]["exact"] == true, preset == "exact", "{stdout}");
            assert!(generation["seconds"][0].as_f64().is_some(), "{stdout}");
        }
    }
}
