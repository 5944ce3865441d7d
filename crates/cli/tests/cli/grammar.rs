//! What people type: models as first arguments, `-`, names in any case, other programs' habits,
//! numbers out of their range.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{MODEL, llada, outcome, run, storyteller, trained};

/// Runs a line whose words have no spaces, in the folder of [`trained`].
fn line(text: &str) -> (i32, String, String) {
    let text = text.replace("MODEL", MODEL);
    run(trained(), &text.split_whitespace().collect::<Vec<_>>())
}

fn with_stdin(text: &str, stdin: &str) -> (i32, String, String) {
    let text = text.replace("MODEL", MODEL);
    let args: Vec<&str> = text.split_whitespace().collect();
    outcome(llada(trained(), &args).write_stdin(stdin.to_owned()).output().unwrap())
}

#[test]
fn a_model_can_be_the_first_argument() {
    for text in [
        "run MODEL the -n 4",
        "show MODEL",
        "infill MODEL the{{hole:2}}",
        "score MODEL the cat sat",
        "score MODEL --perplexity text.txt --sequences 2",
    ] {
        let (code, stdout, stderr) = line(text);
        assert!(code == 0 && !stdout.is_empty(), "{text}: {stderr}");
    }
    let named = line("run MODEL the -n 4 --seed 1").1;
    assert_eq!(named, line("run -m MODEL the -n 4 --seed 1").1);
    let (code, _, stderr) = with_stdin("run MODEL -n 4 --seed 1", "the\n");
    assert_eq!(code, 0, "{stderr}");
    let piped = with_stdin("chat MODEL -n 2", "/show\n");
    assert!(piped.0 == 0 && piped.2.contains("gen_length              2"), "{piped:?}");
    for (text, hint) in [
        ("run the cat -n 4", "put a text of several words in quotes"),
        ("run the cat sat", "put a text of several words in quotes"),
        ("run -m MODEL the cat", "put a text of several words in quotes"),
        ("infill the cat", "put a text of several words in quotes"),
        ("score the", "one answer or several"),
        ("run -p the cat -m MODEL", "quotes"),
    ] {
        let (code, stdout, stderr) = line(text);
        assert_eq!((code, stdout.as_str()), (2, ""), "{text}: {stderr}");
        assert!(stderr.contains(hint), "{text}: {stderr}");
    }
}

#[test]
fn a_dash_is_standard_input_and_output() {
    let dir = trained();
    let (code, stdout, stderr) = with_stdin("run MODEL -n 4 --prompts -", "the\nsat\n");
    assert_eq!((code, stdout.lines().count()), (0, 2), "{stderr}");
    assert!(stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{stdout}");
    let rows = "{\"prompt\": \"the\", \"answer\": \" cat\"}\n";
    let (code, _, stderr) = with_stdin("score MODEL --file - --mc-num 2", rows);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = with_stdin("infill MODEL --file -", "{\"text\": \"a{{hole:1}}\"}");
    assert!(code == 0 && stdout.starts_with('{'), "{stdout} {stderr}");
    let (code, _, stderr) =
        with_stdin("score MODEL --perplexity - --sequences 1", "the cat sat on it");
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = with_stdin("tokenizer train - --kind CHAR --out tok2", "abc abc");
    assert_eq!(code, 0, "{stderr}");
    let text = "the cat sat.<|endoftext|>".repeat(30);
    let (code, _, stderr) = with_stdin("data prepare - --tokenizer tok --out data2", &text);
    assert!(code == 0 && stderr.contains("wrote data2"), "{stderr}");
    let (code, ids, _) = with_stdin("tokenizer encode - --tokenizer tok", "the");
    assert_eq!((code, ids.split_whitespace().count()), (0, 3));

    let (code, _, stderr) = line("run MODEL the -n 4 --trace dash.jsonl");
    assert_eq!(code, 0, "{stderr}");
    let trace = std::fs::read_to_string(dir.join("dash.jsonl")).unwrap();
    let (code, svg, stderr) = with_stdin("replay - --export SVG -o -", &trace);
    assert!(code == 0 && svg.starts_with("<svg"), "{stderr}");
    for (file, begin) in [("a.svg", "<svg"), ("a.HTML", "<!")] {
        let (code, _, stderr) = line(&format!("replay dash.jsonl -o {file}"));
        assert_eq!(code, 0, "{stderr}");
        assert!(std::fs::read_to_string(dir.join(file)).unwrap().starts_with(begin), "{file}");
    }
    for out in ["a.png", "-"] {
        let (code, _, stderr) = line(&format!("replay dash.jsonl -o {out}"));
        assert!(code == 2 && stderr.contains("`.svg` or `.html`"), "{stderr}");
    }
    let (code, stdout, stderr) = line("run MODEL the -n 4 --trace -");
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains("hint: name a file"), "{stderr}");
    for text in [
        "convert MODEL -o -",
        "quantize MODEL --format q8_0 -o -",
        "merge MODEL -o -",
        "data prepare text.txt --tokenizer tok --out -",
        "tokenizer train text.txt --out -",
        "train recipe.toml --out -",
        "eval run tale_words --out -",
    ] {
        let (code, _, stderr) = line(text);
        assert_eq!(code, 2, "{text}: {stderr}");
        assert!(stderr.contains("is no stream") && stderr.contains("hint: name a"), "{stderr}");
        assert!(!dir.join("-").exists(), "{text}");
    }
}

#[test]
fn variables_that_are_empty_are_unset() {
    let mut command = llada(trained(), &["run", "-n", "4", "-q", "Once"]);
    for key in ["LLADA_MODEL", "LLADA_THREADS", "NO_COLOR", "RUST_BACKTRACE", "LLADA_NO_HISTORY"] {
        command.env(key, "");
    }
    let (code, _, stderr) = outcome(command.output().unwrap());
    assert_eq!((code, stderr.as_str()), (0, ""));
    let args = ["chat", "-m", MODEL, "-n", "2"];
    let output = llada(trained(), &args).env("LLADA_MODEL", "").write_stdin("/show\n").output();
    let (code, _, stderr) = outcome(output.unwrap());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn numbers_out_of_their_range_are_refused_wherever_they_are_given() {
    for (flags, message) in [
        ("--transfer threshold=2", "transfer threshold is 2, which is not a number from 0 to 1"),
        ("--transfer factor=0", "transfer factor is 0, which is not a number above 0"),
        ("--transfer klass=0.9,steps=0", "klass steps is 0"),
        ("--transfer leap,neighbour=7", "leap neighbour is 7"),
        ("--revise 2", "revise is 2, which is not a number from 0 to 1"),
        ("--revise -0.5", "revise is -0.5"),
        ("--temperature -1", "temperature is -1, which is not a number from 0 to 100"),
        ("--temperature NaN", "temperature is NaN"),
        ("--temperature inf", "temperature is inf"),
        ("--temperature 1e300", "temperature is 1e300"),
        ("--cfg-scale -1", "cfg_scale is -1"),
        ("--cfg-scale nan", "cfg_scale is nan"),
        ("--steps 0", "steps is 0, which is not a whole number from 1 to 16777216"),
        ("--steps -3", "steps is -3"),
        ("--steps 1.5", "steps is 1.5"),
        ("-n 0", "gen_length is 0"),
        ("-n -1", "gen_length is -1"),
        ("--block-length 0", "block_length is 0"),
        ("--cache-window 99999999", "cache_window is 99999999"),
        ("--suffix-window -1", "suffix_window is -1"),
        ("--seed 1.5", "seed is 1.5, which is not a whole number of 64 bits"),
        ("--watch --delay 99999999", "99999999"),
    ] {
        let (code, stdout, stderr) = line(&format!("run -m MODEL {flags} the"));
        assert_eq!((code, stdout.as_str()), (2, ""), "{flags}: {stderr}");
        assert!(stderr.contains(message), "{flags}: {stderr}");
        assert_eq!(stderr.matches("  hint: ").count(), 1, "{flags}: {stderr}");
    }
    for text in [
        "infill -m MODEL --temperature -1 a{{hole:1}}",
        "infill -m MODEL --revise 2 a{{hole:1}}",
        "score -m MODEL --cfg-scale -1 a b",
        "eval run gsm8k --temperature nan",
        "eval run gsm8k --cfg-scale -2",
        "bench --generate --temperature -1",
        "show MODEL -n 0",
        "data prepare text.txt --tokenizer tok --out d --validation 2",
        "data prepare text.txt --tokenizer tok --out d --validation NaN",
        "replay x.jsonl --delay 18446744073709551615",
    ] {
        let (code, stdout, stderr) = line(text);
        assert_eq!((code, stdout.as_str()), (2, ""), "{text}: {stderr}");
    }
    // The remedy names the flag that was given.
    for (text, flag) in [
        ("show MODEL --length 0", "--length"),
        ("eval run tale_words --mc-batch-size 0", "--mc-batch-size"),
    ] {
        let stderr = line(text).2;
        assert!(stderr.contains(&format!("\n  hint: give {flag} a whole")), "{text}: {stderr}");
    }
    let (_, _, stderr) = with_stdin(
        "chat -m MODEL -n 2",
        "/set temperature -1\n/set transfer factor=0\n/set revise 2\n/set steps 0\n/set gen_length 0\n",
    );
    for hint in
        ["`/set temperature` with a number", "`/set transfer` with factor=X", "`/set revise` with"]
    {
        assert!(stderr.contains(hint), "{hint} is missing in\n{stderr}");
    }
    assert!(stderr.contains("5 of the lines failed"), "{stderr}");
}

#[test]
fn habits_of_other_programs_work_or_are_explained() {
    let dir = trained();
    let (code, answer, stderr) = line("run -m MODEL -p the -n 4 -t 1 --temp 0 -s 1");
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(answer, line("run -m MODEL the -n 4 --temperature 0 --seed 1").1);
    for (flags, hint) in [
        ("-ngl 99 -p x", "computed on the processor"),
        ("--n-gpu-layers 99 x", "computed on the processor"),
        ("-c 4096 x", "`--gen-length`"),
        ("--ctx-size 4096 x", "`--gen-length`"),
        ("--min-p 0.1 x", "`--top-p`"),
        ("--typical=0.9 x", "`--top-p`"),
        ("--repeat-penalty 1.1 x", "`--temperature`"),
        ("-f prompt.txt", "`--prompts FILE`"),
        ("-i", "`llada chat`"),
        ("-fa x", "leave it out"),
        ("--diffusion-eps 0.1 x", "`--remasking`"),
        ("--threshold 0.9 x", "`--transfer threshold=0.9`"),
        ("--keep threshold=0.9 x", "`--transfer threshold=0.9`"),
    ] {
        let (code, stdout, stderr) = line(&format!("run -m MODEL {flags}"));
        assert_eq!((code, stdout.as_str()), (2, ""), "{flags}: {stderr}");
        assert!(stderr.contains(hint), "{flags}: {stderr}");
        assert_eq!(stderr.matches("  hint: ").count(), 1, "{flags}: {stderr}");
    }
    // What is drawn from is nothing where nothing is drawn.
    for flags in ["--top-k 40 -t 1 x", "--top-p 0.9 --temp 0 x"] {
        let (code, stdout, stderr) = line(&format!("run -m MODEL {flags}"));
        assert_eq!((code, stdout.as_str()), (2, ""), "{flags}: {stderr}");
        assert!(stderr.contains("temperature 0"), "{flags}: {stderr}");
    }
    for text in [
        "run -m MODEL the -n 4 --temp 0.7 --top-k 4 --top-p 0.9 -s 1",
        "run -m MODEL the --max-tokens 4",
        "run -m MODEL the --max-new-tokens 4",
        "tokenizer train text.txt --kind char --out tok3",
        "tokenizer train text.txt --kind char --out tok3 --force",
        "data prepare text.txt --tokenizer tok3 --out data3",
        "data prepare text.txt --tokenizer tok3 --out data3 --force",
    ] {
        let (code, _, stderr) = line(text);
        assert_eq!(code, 0, "{text}: {stderr}");
    }
    for (text, suggestion) in [
        ("trian x", "train"),
        ("run --temprature 1 x", "--temperature"),
        ("quantise x", "quantize"),
    ] {
        let (code, _, stderr) = line(text);
        assert!(code == 2 && stderr.contains(suggestion), "{text}: {stderr}");
    }
    let (code, _, stderr) = line("run -m MODEL --PRESET x");
    assert!(code == 2 && stderr.contains("--preset"), "{stderr}");
    let (code, _, stderr) = line("run -m MODEL --preset FAST --blocks PURE -n 4 the");
    assert_eq!(code, 0, "{stderr}");
    for format in ["Q8_0", "q4_k_m"] {
        let out = format!("{format}.gguf");
        let args = ["quantize", storyteller(), "-o", &out, "--format", format];
        let (code, _, stderr) = run(dir, &args);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stderr.contains("name of a mixture"), format == "q4_k_m", "{stderr}");
    }
}

#[test]
fn help_has_the_common_flags_and_help_all_has_the_rest() {
    let (code, short, _) = line("run --help");
    assert!(code == 0 && short.contains("--temperature") && short.contains("--help-all"));
    assert!(!short.contains("--cache-refresh"), "{short}");
    let (code, whole, _) = line("run --help-all");
    assert!(code == 0 && whole.contains("--cache-refresh") && whole.contains("--temperature"));
    for text in
        ["--help", "run --help", "chat -h", "infill -h", "score -h", "eval run -h", "bench -h"]
    {
        let (code, help, _) = line(text);
        let lines = help.lines().count();
        assert!(code == 0 && lines <= 40, "`{text}` has {lines} lines");
    }
}

/// The Rust files below a folder.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut found = Vec::new();
    for path in entries {
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false if path.extension().is_some_and(|ending| ending == "rs") => found.push(path),
            false => {}
        }
    }
    found
}

/// The flags that a text names: `--gen-length`.
fn flags(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let named = text.match_indices("--").filter(|(at, _)| {
        let before = text[..*at].chars().next_back();
        before.is_none_or(|c| c == ' ' || c == '`' || c == '"' || c == '(')
    });
    let name = |(at, _): (usize, &str)| -> String {
        text[at..].chars().take_while(|&c| is_part(c)).collect()
    };
    named
        .map(name)
        .map(|name| name.trim_end_matches('-').to_owned())
        .filter(|n| n.len() > 3)
        .collect()
}

#[test]
fn messages_name_flags_that_there_are() {
    let mut known = BTreeSet::new();
    let mut verbs = vec![String::new()];
    for verb in ["run", "chat", "infill", "score", "train", "sft", "merge", "convert", "quantize"] {
        verbs.push(verb.to_owned());
    }
    for verb in ["eval run", "eval ls", "eval validate", "data prepare", "tokenizer train"] {
        verbs.push(verb.to_owned());
    }
    for verb in ["tokenizer encode", "replay", "show", "bench", "bench quality", "doctor"] {
        verbs.push(verb.to_owned());
    }
    let (_, help, _) = line("--help");
    for verb in ["pull", "list", "rm", "serve"] {
        if help.contains(&format!("\n  {verb} ")) {
            verbs.push(verb.to_owned());
        }
    }
    for verb in &verbs {
        known.extend(flags(&line(&format!("{verb} --help-all")).1));
    }
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = ["llada/src", "cli/src"].map(|dir| sources(&crates.join(dir))).concat();
    let mut wrong = Vec::new();
    // What sandboxes are started with are flags of other programs too.
    let is_own = |file: &&PathBuf| {
        !file.ends_with("habits.rs") && !file.to_string_lossy().contains("sandbox")
    };
    for file in files.iter().filter(is_own) {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let is_message = |line: &&str| {
            let is_of_llama_cpp = line.contains("`llama-");
            line.contains('"') && !line.trim_start().starts_with("//") && !is_of_llama_cpp
        };
        for text in code.lines().filter(is_message) {
            for flag in flags(text).difference(&known) {
                wrong.push(format!("{}: {flag}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
