//! Scores of answers and of text.

use serde_json::Value;

use crate::{MODEL, llada, outcome, run, trained};

fn score(args: &[&str]) -> (i32, String, String) {
    run(trained(), &[&["score", "--model", MODEL], args].concat())
}

fn objects(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn answers_are_ranked() {
    let (code, stdout, stderr) = score(&["--greedy", "the cat", " 3 sat", " qqqqq"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("lower bound") && stderr.contains("mc-num 128"), "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    assert!(lines[0].contains("log-likelihood") && lines[0].contains("greedy"), "{stdout}");
    assert!(lines[1].contains(" ± ") && lines[1].contains("no"), "{stdout}");

    let (_, json, _) = score(&["--json", "--greedy", "the cat", " 3 sat", " qqqqq"]);
    let [row] = &objects(&json)[..] else { panic!("{json}") };
    let answers = row["answers"].as_array().unwrap();
    let value = |i: usize| answers[i]["log_likelihood"].as_f64().unwrap();
    assert_eq!(row["best"], usize::from(value(1) > value(0)));
    assert_eq!((&answers[0]["tokens"], &answers[0]["greedy"]), (&6.into(), &false.into()));
    assert_eq!((&row["is_bound"], &row["settings"]["batch_size"]), (&true.into(), &16.into()));
}

#[test]
fn the_seed_decides_and_the_threads_do_not() {
    let args = ["--json", "--mc-num", "8", "", "the cat"];
    let one = score(&args);
    assert_eq!(one.0, 0, "{}", one.2);
    assert_eq!(score(&[&args[..], &["--threads", "3"]].concat()).1, one.1);
    assert_ne!(score(&[&["--seed", "1"], &args[..]].concat()).1, one.1);
    let stdin = ["score", "-m", MODEL, "--json", "--mc-num", "8", "-", "the cat"];
    let piped = outcome(llada(trained(), &stdin).write_stdin("").output().unwrap());
    assert_eq!(piped.1, one.1);
}

#[test]
fn a_file_is_scored_and_its_bad_rows_are_named() {
    let dir = trained();
    let rows = r#"{"prompt": "the cat", "answers": [" sat", " 1"]}
{"prompt": "the cat"}

{"prompt": "the", "answer": ""}
{"prompt": "the", "answer": " cat"}
"#;
    std::fs::write(dir.join("pairs.jsonl"), rows).unwrap();
    let (code, stdout, stderr) = score(&["--file", "pairs.jsonl", "--json", "--mc-num", "8"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("line 2: there is neither"), "{stderr}");
    assert!(stderr.contains("line 4: the answer is empty"), "{stderr}");
    assert!(stderr.contains("2 of 4 rows could not be scored"), "{stderr}");
    let found = objects(&stdout);
    assert_eq!(found.len(), 2, "{stdout}");
    assert_eq!((&found[0]["line"], &found[1]["line"]), (&1.into(), &5.into()));
    let (_, alone, _) = score(&["--json", "--mc-num", "8", "the cat", " sat", " 1"]);
    assert_eq!(objects(&alone)[0]["answers"], found[0]["answers"]);

    std::fs::write(dir.join("good.jsonl"), r#"{"prompt": "the", "answer": " cat"}"#).unwrap();
    let (code, stdout, _) = score(&["--file", "good.jsonl", "--mc-num", "8"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("line 1: \"the\"\n"), "{stdout}");
}

#[test]
fn a_chat_prompt_is_wrapped() {
    let score = |flags: &[&str]| {
        let (code, stdout, stderr) =
            score(&[flags, &["--json", "--mc-num", "4", "cat", "sat"]].concat());
        assert_eq!(code, 0, "{stderr}");
        objects(&stdout)[0]["answers"][0].clone()
    };
    let (plain, chat) = (score(&[]), score(&["--chat"]));
    assert_ne!(plain["log_likelihood"], chat["log_likelihood"]);
    assert_eq!((&plain["tokens"], &chat["tokens"]), (&3.into(), &3.into()));
}

#[test]
fn an_autoregressive_model_is_scored_exactly() {
    let dir = trained();
    let train = ["train", "recipe.toml", "--out", "causal", "-q", "train.objective=autoregressive"];
    let (code, _, stderr) = run(dir, &train);
    assert_eq!(code, 0, "{stderr}");
    let score = |args: &[&str]| {
        run(dir, &[&["score", "--model", "causal/checkpoints/step-4"], args].concat())
    };
    let (code, stdout, stderr) = score(&["", "the cat"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("log p, exact") && !stdout.contains("±"), "{stdout}{stderr}");
    let (_, json, _) = score(&["--json", "", "the cat"]);
    let row = &objects(&json)[0];
    assert_eq!((&row["is_bound"], &row["settings"]), (&false.into(), &Value::Null));
    let answer = &row["answers"][0];
    assert_eq!((&answer["standard_error"], &answer["samples"]), (&0.0.into(), &1.into()));

    let (_, stdout, _) = score(&["--perplexity", "text.txt"]);
    assert!(stdout.contains("nats/token") && !stdout.contains("bound"), "{stdout}");
    let (code, _, stderr) = score(&["--cfg-scale", "1", "the", " cat"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("hint: use --cfg-scale 0"), "{stderr}");
}

#[test]
fn text_has_a_perplexity() {
    let args = ["--perplexity", "text.txt"];
    let (code, stdout, stderr) = score(&args);
    assert_eq!(code, 0, "{stderr}");
    for part in
        ["nats/token", " ± ", "perplexity", "bits/byte", "sequences of up to 32", "40 documents"]
    {
        assert!(stdout.contains(part), "{part} is missing in\n{stdout}");
    }
    assert_eq!(stdout.matches("(upper bound)").count(), 3, "{stdout}");
    assert!(stderr.contains("seed 0"), "{stderr}");
    let (_, json, _) =
        score(&["--json", "--sequences", "5", "--length", "16", "--perplexity", "text.txt"]);
    let found = &objects(&json)[0];
    assert_eq!((&found["sequences"], &found["tokens"]), (&5.into(), &80.into()));
    let (nats, perplexity) = (&found["nats_per_token"], &found["perplexity"]);
    assert!((nats.as_f64().unwrap().exp() / perplexity.as_f64().unwrap() - 1.0).abs() < 1e-9);

    std::fs::write(trained().join("broken.txt"), b"cat<|endoftext|>\xff").unwrap();
    let (code, stdout, stderr) = score(&["--perplexity", "broken.txt"]);
    assert_eq!(code, 1);
    assert!(stdout.contains("in 1 documents") && stderr.contains("not UTF-8"), "{stderr}");
}

#[test]
fn what_cannot_be_scored_is_explained() {
    let cases: [(&[&str], i32, &str); 10] = [
        (&[], 2, "nothing to score"),
        (&["the cat"], 2, "no answer to score"),
        (&["the", ""], 1, "the answer is empty"),
        (&["the", "cat sat the cat sat the cat sat on it"], 1, "the model takes 32"),
        (
            &["--mc-num", "10", "--batch-size", "4", "a", "b"],
            1,
            "--batch-size 2, or use --mc-num 12",
        ),
        (&["--mc-num", "0", "a", "b"], 1, "mc_num is 0"),
        (&["--cfg-scale", "-1", "a", "b"], 2, "cfg_scale is -1"),
        (&["--perplexity", "text.txt", "--greedy"], 2, "cannot be used with"),
        (&["--perplexity", "text.txt", "--length", "64"], 1, "--length 1 to 32"),
        (&["--perplexity", "none.txt"], 1, "none.txt"),
    ];
    for (args, expected, message) in cases {
        let (code, stdout, stderr) = score(args);
        assert_eq!((code, stdout.as_str()), (expected, ""), "{args:?}: {stderr}");
        assert!(stderr.contains(message), "{args:?}: {stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_with_130() {
    use std::io::{BufRead, BufReader};
    let rows = "{\"prompt\": \"the\", \"answer\": \" cat sat & slept\"}\n".repeat(30_000);
    std::fs::write(trained().join("many.jsonl"), rows).unwrap();
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("llada"))
        .args(["score", "-m", MODEL, "--file", "many.jsonl", "--json"])
        .current_dir(trained())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    // What was scored until then is whole.
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.len() < 29_999);
    for line in rest.iter().chain([&first]) {
        assert!(serde_json::from_str::<Value>(line).unwrap()["best"].is_u64(), "{line}");
    }
}
