//! What is told of the models of each family.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    golden::{self, Golden},
    run,
};

/// What a model attends to and what is recommended for it, by its family.
fn told(family: &str) -> [&'static str; 2] {
    match family {
        "llada" | "illada" | "llada-moe" => ["bidirectional", "transfer threshold=0.9, cache dual"],
        "dream" => ["bidirectional", "remasking entropy, transfer threshold=0.9, cache dual"],
        "llada2" => ["blocks of 32 tokens", "transfer threshold=0.95 (the card of LLaDA2.0"],
        "sdar" => ["blocks of 4 tokens", "block_length 4, transfer threshold=0.85 (the defaults"],
        "fast-dllm-v2" => ["blocks of 8 tokens", "sub_block_length 8, transfer threshold=0.9"],
        other => panic!("{other} is a family of which this test knows nothing"),
    }
}

#[test]
fn every_family_is_told_with_its_recommended_settings() {
    let folder = tempfile::tempdir().unwrap();
    for golden in golden::of_families() {
        let family = golden.family;
        let [attention, settings] = told(family);
        let path = golden.own_folder().into_os_string().into_string().unwrap();
        let file = format!("{}.gguf", golden.name);
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
fn with_mask(folder: &Path, golden: &Golden) -> String {
    let to = folder.join(golden.name);
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(golden.own_folder()).unwrap().map(Result::unwrap) {
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
    for golden in golden::of_families() {
        let model = golden.name;
        let path = with_mask(folder.path(), &golden);
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
