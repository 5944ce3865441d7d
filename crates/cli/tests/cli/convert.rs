//! `llada convert` and `llada quantize`, with the model that ships.

use serde_json::Value;

use crate::{MODEL, run, storyteller, trained};

/// Runs a line in `dir`; what it wrote to stderr.
fn done(dir: &std::path::Path, args: &[&str]) -> String {
    let (code, stdout, stderr) = run(dir, args);
    assert_eq!((code, stdout.as_str()), (0, ""), "{args:?}: {stderr}");
    stderr
}

/// Bytes after the header of a safetensors file.
fn weights(file: &[u8]) -> usize {
    file.len() - 8 - u64::from_le_bytes(file[..8].try_into().unwrap()) as usize
}

#[test]
fn a_model_goes_into_a_file_and_back_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let wrote = done(dir, &["convert", storyteller(), "-o", "s.gguf"]);
    assert!(wrote.contains("wrote s.gguf: weights of 11.6 MiB as 11."), "{wrote}");
    done(dir, &["convert", "s.gguf", "-o", "back"]);
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"] {
        let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
        let original = read(std::path::Path::new(storyteller()).join(file));
        let back = read(dir.join("back").join(file));
        match file {
            // Written by our program in another order of tensors, or with other spaces.
            "model.safetensors" => assert_eq!(weights(&original), weights(&back)),
            "config.json" => {
                let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
                assert_eq!(json(&original), json(&back));
            }
            _ => assert_eq!(original, back, "{file}"),
        }
    }
    let answer = |model: &str| {
        let args = ["run", "-m", model, "-n", "16", "--seed", "3", "-q", "Once upon a time"];
        let (code, stdout, stderr) = run(dir, &args);
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    let expected = answer(storyteller());
    assert_eq!(answer("s.gguf"), expected);
    assert_eq!(answer("back"), expected);
}

#[test]
fn a_quantised_model_is_small_and_speaks() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let wrote = done(dir, &["quantize", storyteller(), "-o", "q4.gguf", "--format", "q4_k"]);
    assert!(wrote.contains("36 matrices of width 192 in Q8_0: Q4_K needs whole blocks"), "{wrote}");
    assert!(wrote.contains("wrote q4.gguf: weights of 11.6 MiB as "), "{wrote}");
    done(dir, &["quantize", storyteller(), "-o", "q8.gguf", "--format", "q8_0"]);
    let size = |name: &str| std::fs::metadata(dir.join(name)).unwrap().len();
    assert!(size("q4.gguf") < size("q8.gguf") && size("q8.gguf") < 4 << 20);
    let (code, stdout, stderr) =
        run(dir, &["run", "-m", "q4.gguf", "-n", "8", "--seed", "1", "Once upon a time"]);
    assert!(code == 0 && !stdout.trim().is_empty(), "{stderr}");

    let (code, stdout, _) = run(dir, &["show", "q4.gguf", "--json"]);
    let facts: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(code, 0);
    assert_eq!(facts["groups"]["embedding"][0]["format"], "Q8_0");
    assert_eq!(facts["groups"]["norms and biases"][0]["format"], "f32");
    assert_eq!(facts["files"][0]["name"], "q4.gguf");
    assert_eq!(facts["storage"]["Q4_K"], 6);
    let (_, shown, _) = run(dir, &["show", "q4.gguf"]);
    assert!(shown.contains("feed-forward Q4_K") && shown.contains("<|mdm_mask|>"), "{shown}");

    // Back in a folder it is of floats; whoever quantises it once more is told.
    done(dir, &["convert", "q4.gguf", "-o", "wide"]);
    assert!(dir.join("wide/tokenizer.json").is_file());
    let again = done(dir, &["quantize", "q4.gguf", "-o", "again.gguf", "--format", "q4_0"]);
    assert!(again.contains("quantised already"), "{again}");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    std::fs::write(dir.join("m.gguf"), "before").unwrap();
    std::fs::create_dir(dir.join("full")).unwrap();
    std::fs::write(dir.join("full/file"), "before").unwrap();
    for out in ["m.gguf", "full"] {
        let (code, stdout, stderr) = run(dir, &["convert", storyteller(), "-o", out]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("is there already") && stderr.contains("--force"), "{stderr}");
    }
    let quantize = ["quantize", storyteller(), "-o", "m.gguf", "--format", "q8_0"];
    assert_eq!(run(dir, &quantize).0, 1);
    assert_eq!(std::fs::read(dir.join("m.gguf")).unwrap(), b"before");
    done(dir, &[&quantize[..], &["--force"]].concat());
    // A file may be replaced by what is read from it.
    done(dir, &["convert", "m.gguf", "-o", "m.gguf", "--dtype", "f16", "--force"]);
    assert_eq!(run(dir, &["show", "m.gguf"]).0, 0);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 2);
}

#[test]
fn impossible_wishes_are_explained() {
    let dir = trained();
    for (args, code, message) in [
        (&["quantize", MODEL, "-o", "x", "--format", "q8_0"][..], 2, "does not end in `.gguf`"),
        (&["quantize", MODEL, "-o", "x.gguf", "--format", "f16"], 2, "takes a quantised format"),
        (&["convert", "recipe.toml", "-o", "x.gguf"], 1, "does not end in `.gguf`"),
        (&["convert", "nowhere.gguf", "-o", "x.gguf"], 1, "there is no file `nowhere.gguf`"),
    ] {
        let (found, stdout, stderr) = run(dir, args);
        assert_eq!((found, stdout.as_str()), (code, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(message) && stderr.contains("hint: "), "{stderr}");
    }
    let tied = ["quantize", storyteller(), "-o", "x.gguf", "--format", "q8_0", "--head", "f16"];
    let (code, _, stderr) = run(dir, &tied);
    assert!(code == 2 && stderr.contains("tied to the embedding"), "{stderr}");
    // A tokenizer of characters has no place in other programs; here it is kept.
    let (code, _, stderr) = run(dir, &["convert", MODEL, "-o", "char.gguf", "--force"]);
    assert!(code == 0 && stderr.contains("no byte-level BPE"), "{stderr}");
    let text = "the cat \u{2014} 日本";
    let ids = |t: &str| run(dir, &["tokenizer", "encode", "-t", t, text]);
    assert_eq!(ids("char.gguf"), ids("tok"));
}

#[test]
fn a_folder_of_other_files_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let other = path("mine");
    std::fs::create_dir_all(other.join("model-00001-of-00001.safetensors")).unwrap();
    for name in ["generation_config.json", "chat_template.jinja", "meta.json", "tokenizer.json"] {
        std::fs::write(other.join(name), "mine").unwrap();
    }
    std::fs::write(path("t.txt"), "the cat sat. ".repeat(50)).unwrap();
    let train = ["tokenizer", "train", "t.txt", "--kind", "char", "--out"];
    assert_eq!(run(dir.path(), &[&train[..], &["tok"]].concat()).0, 0);
    for args in [
        &["convert", storyteller(), "-o", "mine", "--force"][..],
        &["data", "prepare", "t.txt", "--tokenizer", "tok", "--out", "mine", "--overwrite"],
        &[&train[..], &["mine", "--overwrite"]].concat(),
    ] {
        let (code, _, stderr) = run(dir.path(), args);
        assert!(code == 1 && stderr.contains("would be lost"), "{args:?}: {stderr}");
    }
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 5);
    assert_eq!(std::fs::read_to_string(other.join("meta.json")).unwrap(), "mine");
    // A folder in a model's folder is the user's, whatever its name; so is a copy of weights.
    for _ in 0..2 {
        let (code, _, stderr) = run(dir.path(), &["convert", storyteller(), "-o", "m", "--force"]);
        assert_eq!(code, 0, "{stderr}");
        std::fs::write(path("m/model-backup.safetensors"), "mine").unwrap();
    }
    assert_eq!(std::fs::read_to_string(path("m/model-backup.safetensors")).unwrap(), "mine");
    std::fs::create_dir(path("m/special_tokens_map.json")).unwrap();
    std::fs::write(path("m/special_tokens_map.json/f"), "mine").unwrap();
    let (_, _, stderr) = run(dir.path(), &["convert", storyteller(), "-o", "m", "--force"]);
    let kept = std::fs::read_to_string(path("m/special_tokens_map.json/f"));
    assert_eq!(kept.unwrap(), "mine", "{stderr}");
}
