//! Random draws: a sequence has its own, wherever it stands.

use serde_json::Value;

use crate::{MODEL, run, storyteller, trained};

fn objects(args: &[&str]) -> Vec<Value> {
    let (code, stdout, stderr) = run(trained(), args);
    assert_eq!(code, 0, "{args:?}: {stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn with<'a>(common: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [common, more].concat()
}

const RUN: [&str; 8] = ["run", "-m", MODEL, "-n", "8", "--json", "--temperature", "1"];

#[test]
fn a_line_of_prompts_is_what_the_prompt_alone_is() {
    let prompts = ["the cat", "sat", "the", "sat"];
    std::fs::write(trained().join("lines.txt"), prompts.join("\n")).unwrap();
    for layout in [&[][..], &["--blocks", "pure", "--remasking", "random"]] {
        let common = with(&with(&RUN, layout), &["--seed", "5"]);
        let together = objects(&with(&common, &["--prompts", "lines.txt"]));
        assert_eq!(together.len(), prompts.len());
        for (line, prompt) in together.iter().zip(prompts) {
            let alone = &objects(&with(&common, &[prompt]))[0];
            assert_eq!(line["tokens"], alone["tokens"], "{prompt}");
            assert_eq!((&line["summary"]["seed"], &line["text"]), (&5.into(), &alone["text"]));
        }
        assert_eq!(together[1]["tokens"], together[3]["tokens"]);
        let other = objects(&with(&with(&RUN, layout), &["--seed", "6", "the cat"]));
        assert_ne!(together[0]["tokens"], other[0]["tokens"], "the draws count");
    }
}

#[test]
fn prompts_may_have_seeds_of_their_own() {
    let rows = r#"{"prompt": "the cat", "seed": 7}
{"prompt": "the cat", "seed": 8}

{"prompt": "the cat"}
"#;
    std::fs::write(trained().join("seeds.jsonl"), rows).unwrap();
    let together = objects(&with(&RUN, &["--seed", "5", "--prompts", "seeds.jsonl"]));
    let seeds: Vec<&Value> = together.iter().map(|row| &row["summary"]["seed"]).collect();
    assert_eq!(seeds, [7, 8, 5]);
    for row in &together {
        let seed = row["summary"]["seed"].to_string();
        let alone = &objects(&with(&RUN, &["--seed", &seed, "the cat"]))[0];
        assert_eq!(row["tokens"], alone["tokens"], "{seed}");
    }
    assert_ne!(together[0]["tokens"], together[1]["tokens"]);
}

#[test]
fn a_row_of_holes_is_what_the_text_alone_is() {
    let common = ["infill", "-m", storyteller(), "--json", "--temperature", "1", "--max-hole", "2"];
    let texts = ["The {{hole:3}} sat.", "A {{hole}} and {{hole:2}}.", "The {{hole:3}} sat."];
    let row = |text: &&str| format!("{{\"text\": \"{text}\"}}");
    let rows: Vec<String> = texts.iter().map(row).collect();
    let own = r#"{"text": "The {{hole:3}} sat.", "seed": 9}"#;
    std::fs::write(trained().join("rows.jsonl"), format!("{}\n{own}\n", rows.join("\n"))).unwrap();
    let together = objects(&with(&common, &["--seed", "3", "--file", "rows.jsonl"]));
    for (row, (text, seed)) in
        together.iter().zip(texts.map(|t| (t, "3")).into_iter().chain([(texts[0], "9")]))
    {
        let alone = &objects(&with(&common, &["--seed", seed, text]))[0];
        assert_eq!(row["text"], alone["text"], "{text}");
        assert_eq!(row["summary"]["seed"].to_string(), seed);
    }
    assert_ne!(together[0]["text"], together[3]["text"]);
}

#[test]
fn a_scored_row_is_what_the_prompt_alone_is() {
    let common = ["score", "-m", MODEL, "--json", "--mc-num", "8", "--seed", "2"];
    let rows = r#"{"prompt": "the", "answers": [" cat sat", " 12 slept"]}
{"prompt": "the cat", "answer": " sat & slept"}
"#;
    std::fs::write(trained().join("score.jsonl"), rows).unwrap();
    let together = objects(&with(&common, &["--file", "score.jsonl"]));
    let alone = objects(&with(&common, &["the cat", " sat & slept"]));
    assert_eq!(together[1]["answers"], alone[0]["answers"]);
    // And an answer is what it is without the others.
    let second = &objects(&with(&common, &["the", " 12 slept"]))[0]["answers"][0];
    assert_eq!(&together[0]["answers"][1], second);
}
