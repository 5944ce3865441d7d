//! Texts with holes.

use serde_json::Value;

use crate::{MODEL, llada, outcome, run, storyteller, trained};

#[test]
fn the_filled_text_alone_is_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["infill", "-m", storyteller(), "--seed", "7", "--temperature", "1"];
    let text = "The {{hole:3}} sat on the {{hole:1}}. \\{{x}";
    let (code, filled, stderr) = run(dir.path(), &[&args[..], &[text]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(filled.starts_with("The ") && filled.contains(" sat on the "), "{filled}");
    assert!(filled.ends_with(". {{x}\n"), "{filled}");
    assert!(stderr.contains("4 tokens in 4 NFE") && stderr.contains("seed 7"), "{stderr}");
    let piped = |args: &[&str]| {
        outcome(llada(dir.path(), args).write_stdin(format!("{text}\n")).output().unwrap()).1
    };
    assert_eq!(piped(&args), filled);
    assert_eq!(piped(&[&args[..], &["-", "--threads", "2"]].concat()), filled);
    let quiet = run(dir.path(), &[&args[..], &["-q", text]].concat());
    assert_eq!(quiet, (0, filled, String::new()));
}

#[test]
fn a_whole_text_is_filled_in_view_of_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let text = "The king {{hole:5}} and died.";
    let args = ["infill", "-m", storyteller(), "--json", text];
    let tokens = |more: &[&str]| {
        let (code, stdout, stderr) = run(dir.path(), &[&args[..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        let answer: Value = serde_json::from_str(&stdout).unwrap();
        assert!(answer["text"].as_str().unwrap().ends_with(" and died."), "{answer}");
        answer["fills"][0]["confidence"].as_f64().unwrap()
    };
    assert_ne!(tokens(&[]), tokens(&["--whole"]), "the end is part of the condition");
}

#[test]
fn free_lengths_are_chosen_up_to_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["infill", "-m", storyteller(), "--json", "--max-hole", "3", "--steps", "2"];
    let text = "Once {{hole}} a {{hole:2}}, there was a{{hole}}";
    let (code, stdout, stderr) = run(dir.path(), &[&args[..], &[text]].concat());
    assert_eq!(code, 0, "{stderr}");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    let fills = answer["fills"].as_array().unwrap();
    let lengths: Vec<u64> = fills.iter().map(|fill| fill["length"].as_u64().unwrap()).collect();
    assert!(lengths.len() == 3 && lengths[1] == 2, "{answer}");
    assert!(lengths.iter().all(|n| (1..=3).contains(n)), "{answer}");
    let said: Vec<&str> = fills.iter().map(|fill| fill["text"].as_str().unwrap()).collect();
    let expected = format!("Once {} a {}, there was a{}", said[0], said[1], said[2]);
    assert_eq!(answer["text"], expected);
    let confidence = fills[0]["confidence"].as_f64().unwrap();
    assert!(confidence > 0.0 && confidence <= 1.0);
    assert_eq!(fills[1]["tokens"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&answer["summary"]["nfe"], &answer["summary"]["template"]),
        (&2.into(), &text.into())
    );
    assert!(answer["summary"]["search_nfe"].as_u64().unwrap() > 0);
}

#[test]
fn rows_of_a_file_are_filled_as_alone() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["a {{hole:2}}\nb", "{{hole:1}} and {{hole:2}}"];
    let row = |text: &&str| serde_json::json!({ "text": text, "other": 1 }).to_string() + "\n";
    std::fs::write(dir.path().join("f.jsonl"), texts.iter().map(row).collect::<String>()).unwrap();
    let args = ["infill", "-m", storyteller(), "--json", "--block-length", "1"];
    let (code, stdout, stderr) = run(dir.path(), &[&args[..], &["--file", "f.jsonl"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let answers: Vec<Value> = stdout.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.len(), 2);
    for (answer, text) in answers.iter().zip(texts) {
        let (_, alone, _) = run(dir.path(), &[&args[..], &[text]].concat());
        let alone: Value = serde_json::from_str(&alone).unwrap();
        assert_eq!((&answer["text"], &answer["fills"]), (&alone["text"], &alone["fills"]));
    }
    std::fs::write(dir.path().join("f.jsonl"), "{\"text\": \"{{hole}}\"}\n{\"text\": 3}\n")
        .unwrap();
    let (code, stdout, stderr) = run(dir.path(), &[&args[..], &["--file", "f.jsonl"]].concat());
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("`f.jsonl`, line 2") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn a_recording_can_be_replayed() {
    let dir = trained();
    let args = ["infill", "-m", MODEL, "--trace", "holes.jsonl", "the {{hole:3}} sat"];
    let (code, filled, stderr) = run(dir, &args);
    assert_eq!(code, 0, "{stderr}");
    let (code, replayed, stderr) = run(dir, &["replay", "holes.jsonl"]);
    assert_eq!((code, replayed), (0, filled), "{stderr}");
}

#[test]
fn what_cannot_be_filled_is_explained() {
    let dir = trained();
    let causal = "causal";
    std::fs::create_dir_all(dir.join(causal)).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(dir.join(MODEL).join(name), dir.join(causal).join(name)).unwrap();
    }
    let config = dir.join(causal).join("config.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    json["objective"] = "autoregressive".into();
    std::fs::write(&config, json.to_string()).unwrap();

    let cases: [(&[&str], &str); 5] = [
        (&["no hole"], "the text has no hole"),
        (&["a\nb {{hole:0}}"], "line 2, column 3: a hole has at least 1 token"),
        (&["{{name}}"], "line 1, column 1: `{{name` is not a hole"),
        (&["a {{hole:40}}"], "have 42 tokens or more; the model reads 32"),
        (&["-m", causal, "a {{hole:1}}"], "an autoregressive model cannot fill holes"),
    ];
    for (args, message) in cases {
        let args = [&["infill"], args].concat();
        let output = llada(dir, &args).env("LLADA_MODEL", MODEL).output().unwrap();
        let (code, stdout, stderr) = outcome(output);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(message) && stderr.contains("hint: "), "{stderr}");
    }
    for wrong in [&["--steps", "0", "{{hole:1}}"], &["--file", "x.jsonl", "--watch"]] {
        let (code, _, stderr) = run(dir, &[&["infill"], &wrong[..]].concat());
        assert_eq!(code, 2, "{stderr}");
    }
}
