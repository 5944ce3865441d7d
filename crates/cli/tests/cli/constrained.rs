//! Answers that must have a form.

use std::fs;

use serde_json::Value;

use crate::{llada, outcome, run, storyteller, tuned};

const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 9},
    "age": {"type": "integer", "minimum": 3, "maximum": 12}}, "required": ["name", "age"]}"#;

#[test]
fn answers_have_the_form_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("child.json"), SCHEMA).unwrap();
    let base = ["run", storyteller(), "Once there was", "--seed", "3", "--temperature", "1"];
    let answer = |more: &[&str]| {
        let (code, stdout, stderr) = run(dir.path(), &[&base[..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        stdout.trim_end_matches('\n').to_owned()
    };
    let text = answer(&["--choices", "yes,no,perhaps", "--gen-length", "8"]);
    assert!(["yes", "no", "perhaps"].contains(&text.as_str()), "{text}");
    let text = answer(&["--regex", "[a-c]{3,5}!", "--gen-length", "16"]);
    assert!(text.ends_with('!') && (4..=6).contains(&text.len()), "{text}");
    let text = answer(&["--json-schema", "child.json", "--gen-length", "48"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!((3..=12).contains(&value["age"].as_i64().unwrap()) && value["name"].is_string());
    let text = answer(&["--json-object", "--gen-length", "32"]);
    assert!(serde_json::from_str::<Value>(&text).unwrap().is_object(), "{text}");
    let piped =
        llada(dir.path(), &[&base[..], &["--json-schema", "-", "--gen-length", "48"]].concat())
            .write_stdin(SCHEMA)
            .output();
    assert_eq!(
        outcome(piped.unwrap()).1.trim_end(),
        answer(&["--json-schema", "child.json", "--gen-length", "48"])
    );
}

#[test]
fn holes_and_conversations_too() {
    let dir = tempfile::tempdir().unwrap();
    let args =
        ["infill", storyteller(), "The {{hole}} saw a {{hole}}.", "--choices", "big dog,cat"];
    let (code, text, stderr) = run(dir.path(), &[&args[..], &["--max-hole", "5"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let text = text.replace("big dog", "cat");
    assert_eq!(text, "The cat saw a cat.\n");
    let args = ["chat", tuned(), "--choices", "Yes.,No.", "--gen-length", "16"];
    let output = llada(dir.path(), &args).write_stdin("Is it good?\nReally?\n").output().unwrap();
    let (code, answers, stderr) = outcome(output);
    assert_eq!(code, 0, "{stderr}");
    assert!(answers.lines().all(|line| ["Yes.", "No."].contains(&line)), "{answers}");
    assert_eq!(answers.lines().count(), 2);
}

#[test]
fn what_cannot_be_held_to_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("odd.json"), r#"{"properties": {"a": {"multipleOf": 2}}}"#).unwrap();
    fs::write(dir.path().join("none.json"), "{").unwrap();
    for (more, parts) in [
        (
            &["--json-schema", "odd.json"][..],
            &["`multipleOf` at `#/properties/a`", "leave `multipleOf` out"][..],
        ),
        (&["--json-schema", "none.json"], &["cannot read `none.json`", "one JSON schema"]),
        (&["--json-schema", "no.json"], &["no.json", "check the spelling"]),
        (&["--regex", "(?=a)b"], &["`(?=a)b` cannot be used", "without look-around"]),
        (
            &["--regex", "[a-z]{90}", "--gen-length", "8"],
            &["the shortest answer", "use --gen-length"],
        ),
        (&["--regex", "a", "--choices", "b"], &["cannot be used with"]),
        (
            &["--choices", "a", "--edit", "0.9", "--blocks", "block-diffusion"],
            &["edit cannot be combined with a constraint", "leave out --edit"],
        ),
    ] {
        let args = [&["run", storyteller(), "Once"], more].concat();
        let (code, stdout, stderr) = run(dir.path(), &args);
        assert!(code != 0 && stdout.is_empty(), "{more:?} {stdout}");
        assert!(parts.iter().all(|part| stderr.contains(part)), "{more:?}: {stderr}");
    }
}

#[test]
fn tasks_constrain_their_responses() {
    let dir = tempfile::tempdir().unwrap();
    let task = |constraint: &str| {
        format!(
            "name = \"t\"\nversion = 1\nabout = \"a\"\nkind = \"generate\"\nprompt = \"{{{{ q }}}}\"\n\
             target = \"yes\"\n[data]\nrows = [{{ q = \"Is it?\" }}, {{ q = \"Was it?\" }}]\n[generate]\n\
             {constraint}\n[generate.sampling]\ngen_length = 8\n"
        )
    };
    fs::write(dir.path().join("held.toml"), task("constraint = { choices = [\"yes\"] }")).unwrap();
    fs::write(dir.path().join("free.toml"), task("")).unwrap();
    let score = |args: &[&str]| {
        let args = [&["eval", "run", "-m", storyteller(), "--json"], args].concat();
        let (code, stdout, stderr) = run(dir.path(), &args);
        assert_eq!(code, 0, "{stderr}");
        let results: Value = serde_json::from_str(&stdout).unwrap();
        results["results"]["t"]["exact_match,none"].as_f64().unwrap()
    };
    assert_eq!(score(&["./held.toml"]), 1.0);
    assert_eq!(score(&["./free.toml"]), 0.0);
    assert_eq!(score(&["./free.toml", "--choices", "yes"]), 1.0);
    assert_eq!(score(&["./held.toml", "--choices", "no"]), 0.0);
}
