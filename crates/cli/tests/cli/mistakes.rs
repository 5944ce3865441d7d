//! Mistakes of people who are new: each is answered by what they meant.

use std::fs;

use crate::{MODEL, llada, outcome, run, storyteller, trained};

/// Arguments, and what the message and its hint say.
type Case<'a> = (&'a [&'a str], &'a [&'a str]);

fn check(dir: &std::path::Path, cases: &[Case<'_>]) {
    for (args, parts) in cases {
        let (code, stdout, stderr) = run(dir, args);
        assert!(code != 0 && stdout.is_empty(), "{args:?}: {stdout}{stderr}");
        for part in *parts {
            assert!(stderr.contains(part), "{args:?}: `{part}` is missing in\n{stderr}");
        }
    }
}

#[test]
fn a_model_that_is_not_there_is_told_from_a_text() {
    let dir = trained();
    check(
        dir,
        &[
            (&["run", "run/checkpoints/step-9", "the"], &["no model `run/ch", "there is `run/"]),
            (&["infill", "step-9", "a {{hole:1}}"], &["there is no model `step-9`"]),
            (&["run", "the", "cat"], &["put a text of several words in quotes"]),
            (&["run", "-m", "run/checkpoints/step-9", "the"], &["`run/checkpoints/step-4`"]),
            (
                &["chat", "Hello there"],
                &["`Hello there` is no model", "`llada run MODEL \"TEXT\"`"],
            ),
            (&["chat", "-hf", MODEL, "-p", "Hi"], &["no `-p` here", "`llada run MODEL \"TEXT\"`"]),
        ],
    );
}

#[test]
fn two_models_are_never_one() {
    let dir = trained();
    let two = "two models were given";
    check(
        dir,
        &[
            (&["score", MODEL, "-m", storyteller(), "the", " cat"], &[two, "without `--model`"]),
            (&["score", "-m", storyteller(), MODEL, "--perplexity", "text.txt"], &[two]),
            (&["eval", "run", MODEL, "hellaswag", "-m", storyteller()], &[two]),
            (&["show", MODEL, "-m", storyteller()], &[two]),
        ],
    );
    // What the environment names yields to what is typed.
    let mut command = llada(dir, &["score", MODEL, "the", " cat"]);
    let (code, _, stderr) = outcome(command.env("LLADA_MODEL", "nowhere").output().unwrap());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_recipe_is_read_from_stdin_and_its_data_is_not() {
    let dir = trained();
    let recipe = fs::read_to_string(dir.join("recipe.toml")).unwrap();
    let given =
        |args: &[&str]| outcome(llada(dir, args).write_stdin(recipe.as_str()).output().unwrap());
    let (code, printed, stderr) = given(&["train", "-", "--print-config", "train.steps=7"]);
    assert!(code == 0 && printed.contains("steps = 7\n"), "{printed}{stderr}");
    assert!(printed.contains("d_model = 32\n"), "{printed}");
    let (code, _, stderr) = given(&["train", "-"]);
    assert!(code == 2 && stderr.contains("`--out DIR`"), "{stderr}");
    let (code, _, stderr) = given(&["train", "-", "--out", "piped", "train.steps=2"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(dir.join("piped/checkpoints/step-2").is_dir());
    let key = "`data.path` is `-`";
    check(dir, &[(&["train", "recipe.toml", "data.path=-"], &["cannot use `data.path=-`", key])]);
}

#[test]
fn what_is_to_blame_in_a_recipe_is_named() {
    let dir = trained();
    fs::write(dir.join("mine.toml"), "[train]\nsteps = \"many\"\n").unwrap();
    fs::write(dir.join("rows.jsonl"), "{\"text\": \"a\"}\n").unwrap();
    fs::write(dir.join("notes"), "Some text\nand more of it.\n").unwrap();
    let verbs = ["`llada data prepare TEXT", "`llada sft RECIPE.toml data.path="];
    let missing = "`model.init_from` is `org/base`, and there is no such model";
    check(
        dir,
        &[
            (
                &["train", "recipe.toml", "train.keep_last=1", "train.steps=x"],
                &["use `train.steps=x`"],
            ),
            (&["train", "recipe.toml", "train.objective=gan"], &["use `train.objective=gan`"]),
            (&["train", "mine.toml", "train.keep_last=1"], &["cannot use `mine.toml`"]),
            (&["train", "text.txt"], &["`text.txt` is no recipe", verbs[0], verbs[1]]),
            (&["sft", "rows.jsonl"], &["`rows.jsonl` is no recipe", verbs[1]]),
            (&["train", "notes"], &["`notes` is no recipe", verbs[0]]),
            (&["sft", "recipe.toml", "model.init_from=org/base"], &[missing]),
            (&["sft", "recipe.toml", "model.init_from=run/step-4"], &["is `run/step-4`", "`run/"]),
        ],
    );
}

#[test]
fn documents_and_other_encodings_are_to_be_converted() {
    let dir = trained();
    let docx = [b"PK\x03\x04", &[0; 26][..], b"[Content_Types].xml"].concat();
    fs::write(dir.join("report.docx"), docx).unwrap();
    fs::write(dir.join("report.pdf"), "%PDF-1.7 and more").unwrap();
    fs::write(dir.join("latin.txt"), b"caf\xe9\n").unwrap();
    let prepare = |file| ["data", "prepare", file, "--tokenizer", "tok", "--out", "docs"];
    check(
        dir,
        &[
            (&prepare("report.docx"), &["document of an office program", "`pandoc FILE"]),
            (&prepare("report.pdf"), &["PDF document", "`pdftotext FILE.pdf`"]),
            (&["score", "--perplexity", "latin.txt"], &["`iconv -f ENCODING -t utf-8 FILE`"]),
        ],
    );
}

#[test]
fn what_is_no_number_is_said_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    check(
        dir.path(),
        &[
            (&["run", "--temperature", "abc", "x"], &["hint: give --temperature a number from 0"]),
            (&["run", "--threads", "abc", "x"], &["it is not a whole number"]),
            (&["bench", "speed", "--threads", ""], &["'--threads <N>'"]),
        ],
    );
}
