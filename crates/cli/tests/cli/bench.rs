//! `llada bench`, on a tiny model. What it measures is not judged here, only that it is said.

use serde_json::Value;

use crate::{MODEL, golden::own_model, run, trained};

const QUESTIONS: &str = "{\"prompt\": \"the cat\"}\n{\"prompt\": \"1\", \"response\": \"2\"}\n";

#[test]
fn a_model_is_measured() {
    let args = ["bench", "-m", MODEL, "--lengths", "8,4", "--wanted", "5", "--rounds", "2"];
    let (code, table, stderr) = run(trained(), &args);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for part in ["1 thread, ", "step-4 in f32: ", "pass of 8 tokens, 5 logits", "of peak"] {
        assert!(table.contains(part), "`{part}` is missing in\n{table}");
    }
    let (code, json, stderr) = run(trained(), &["bench", "-m", MODEL, "--json", "--rounds", "1"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    // Of the usual lengths, one fits.
    assert_eq!(report["models"][0]["forward"].as_array().unwrap().len(), 1);
    let (code, json, stderr) = run(trained(), &[&args[..], &["--json"]].concat());
    assert_eq!((code, stderr.as_str()), (0, ""));
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["threads"], 1);
    let model = &report["models"][0];
    assert_eq!((&model["format"], &model["random"]), (&"f32".into(), &false.into()));
    assert!(model["generation"].is_null());
    let passes = model["forward"].as_array().unwrap();
    let sizes = passes.iter().map(|pass| (pass["tokens"].as_u64(), pass["wanted"].as_u64()));
    assert_eq!(sizes.collect::<Vec<_>>(), [(Some(8), Some(5)), (Some(4), Some(4))]);
    for pass in passes {
        assert_eq!(pass["seconds"].as_array().unwrap().len(), 2);
        for key in ["median_seconds", "tokens_per_second", "operations_per_second"] {
            assert!(pass[key].as_f64().unwrap() > 0.0, "{key}: {pass}");
        }
    }
}

#[test]
fn a_generation_is_measured_as_the_flags_say() {
    let line = "bench speed -m MODEL --lengths 4 --rounds 2 --json --generate --prompt 8 -n 8 \
                --steps 4 --block-length 4 --cache dual --seed 5";
    let args: Vec<&str> =
        line.split_whitespace().map(|word| if word == "MODEL" { MODEL } else { word }).collect();
    let (code, json, stderr) = run(trained(), &args);
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&json).unwrap();
    let generation = &report["models"][0]["generation"];
    assert_eq!(generation["forwards"], 4);
    // Two passes over 16 tokens, and two over the block of 4.
    assert_eq!(generation["tokens_fed"], 2 * 16 + 2 * 4);
    assert_eq!(
        (&generation["canvas_tokens"], &generation["prompt_tokens"]),
        (&8.into(), &8.into())
    );
    assert_eq!(generation["tokens_per_forward"], 2.0);
    assert_eq!(generation["sampler"]["seed"], 5);
    assert!(generation["useful_tokens"].as_u64().unwrap() <= 8);
    assert_eq!(generation["seconds"].as_array().unwrap().len(), 2);
}

#[test]
fn what_a_model_holds_of_a_prompt_is_measured() {
    let model = own_model("i_sdar");
    let model = model.to_str().unwrap();
    let line = "bench --lengths 4 --rounds 2 --generate --prompt 21 -n 8";
    let args: Vec<&str> = line.split_whitespace().chain(["-m", model]).collect();
    let (code, text, stderr) = run(trained(), &args);
    assert_eq!(code, 0, "{stderr}");
    // Of blocks of 4 tokens, the prompt has five.
    assert!(text.contains("; once more, 20 tokens not fed again: "), "{text}");
    let (_, json, _) = run(trained(), &[&args[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    let again = &report["models"][0]["generation"]["again"];
    assert_eq!(again["tokens_reused"], 20);
    assert_eq!(again["seconds"].as_array().unwrap().len(), 2);
}

#[test]
fn impossible_measurements_are_explained() {
    let dir = trained();
    for (line, code, message) in [
        ("-m MODEL --lengths 33", 2, "a sequence of 33 tokens does not fit the model"),
        ("-m MODEL --steps 4", 2, "nothing is to be generated"),
        ("-m MODEL --cache dual", 2, "nothing is to be generated"),
        ("-m MODEL --prompt 4", 2, "--generate"),
        ("-m MODEL --lengths 4 --generate --prompt 30 -n 8", 1, "do not fit a sequence of 32"),
        ("-m MODEL --shape 1b", 2, "cannot be used with"),
        ("-m MODEL --lengths 0", 2, "--lengths"),
        ("-m MODEL --rounds 0", 2, "--rounds"),
        ("-m nowhere", 1, "there is no folder `nowhere`"),
        ("--shape 2b", 2, "2b"),
        ("--format q5_0", 2, "q5_0"),
        ("--save x.gguf", 2, "several are to be measured"),
        ("--save x --format q8_0", 2, "does not end in `.gguf`"),
        ("--lengths 5000", 2, "whose longest is 4096"),
        ("--generate --adaptive-blocks", 2, "there is no tokenizer"),
        ("--save recipe.toml --format q8_0", 2, "does not end in `.gguf`"),
    ] {
        let mut args = vec!["bench"];
        args.extend(line.split(' ').map(|word| if word == "MODEL" { MODEL } else { word }));
        let (found, stdout, stderr) = run(dir, &args);
        assert_eq!((found, stdout.as_str()), (code, ""), "{line}: {stderr}");
        assert!(stderr.contains(message) && stderr.contains("hint: "), "{line}: {stderr}");
    }
}

/// `llada bench quality` on the tiny model.
fn quality(flags: &str) -> (i32, String, String) {
    let dir = trained();
    std::fs::write(dir.join("questions.jsonl"), QUESTIONS).unwrap();
    let common = "bench quality --questions questions.jsonl --mc-num 2 -n 8 -m".split(' ');
    let args: Vec<&str> = common.chain([MODEL]).chain(flags.split_whitespace()).collect();
    run(dir, &args)
}

#[test]
fn presets_stand_beside_the_reference() {
    let (code, stdout, stderr) = quality("--json");
    assert_eq!(code, 0, "{stderr}");
    let rows: Vec<Value> = stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let settings: Vec<&str> = rows.iter().map(|row| row["setting"].as_str().unwrap()).collect();
    assert_eq!(settings, ["exact", "balanced", "fast"]);
    assert_eq!((&rows[0]["against_exact"], &rows[0]["nfe"]), (&Value::Null, &16.into()));
    for row in &rows[1..] {
        assert!(row["nfe"].as_u64().unwrap() <= 16, "{row}");
        assert!(row["against_exact"]["agreement"].as_f64().unwrap() <= 1.0, "{row}");
        assert!(row["log_likelihood_per_token"]["value"].as_f64().unwrap() < 0.0, "{row}");
        assert_eq!(row["questions"], 2);
    }
}

#[test]
fn a_setting_is_compared_and_gated() {
    let (code, table, stderr) = quality("--preset exact --gate --limit 1");
    assert_eq!(code, 0, "{stderr}");
    let asked = table.lines().find(|line| line.contains("as asked")).unwrap();
    assert!(asked.contains("100.0 %") && asked.contains("no"), "{table}");
    // Everything at once is no text: one question is measured without an error, so any loss counts.
    let (code, table, stderr) = quality("--transfer threshold=0 --gate --limit 1 --mc-num 16");
    let lost = table.lines().any(|line| line.contains("as asked") && line.contains("yes"));
    assert_eq!(code == 1, lost, "{table}{stderr}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (code, _, stderr) = quality("--transfer klass --preset exact");
    assert!(code == 2 && stderr.contains("transfer"), "{stderr}");
    let dir = trained();
    let (code, _, stderr) = run(dir, &["bench", "quality", "-m", MODEL]);
    assert!(code == 1 && stderr.contains("--questions"), "{stderr}");
    std::fs::write(dir.join("bad.jsonl"), "{}").unwrap();
    let (code, _, stderr) =
        run(dir, &["bench", "quality", "-m", MODEL, "--questions", "bad.jsonl"]);
    assert!(code == 1 && stderr.contains("line 1"), "{stderr}");
}
