//! Fewer and smaller passes: transfer rules, caches, lengths that are found.

use serde_json::Value;

use crate::{MODEL, llada, outcome, run, storyteller, trained};

/// `llada run --json` on the tiny model.
fn sampled(flags: &str) -> (Value, String) {
    let common = "run -m MODEL -n 12 --seed 1 --json -v".replace("MODEL", MODEL);
    let args: Vec<&str> = common.split(' ').chain(flags.split_whitespace()).collect();
    let (code, stdout, stderr) = run(trained(), &[&args[..], &["the cat"]].concat());
    assert_eq!(code, 0, "{flags}: {stderr}");
    (serde_json::from_str(&stdout).unwrap(), stderr)
}

#[test]
fn what_was_chosen_is_recorded() {
    let (answer, stderr) = sampled(
        "--block-length 4 --cache dual --cache-window 1 --cache-type bf16 --transfer factor=2",
    );
    let sampler = &answer["summary"]["sampler"];
    assert_eq!(sampler["cache_type"], "bf16");
    assert_eq!(sampler["transfer"]["factor"], 2.0);
    assert_eq!(
        (&sampler["cache"]["dual"]["before"], &answer["summary"]["masks_left"]),
        (&1.into(), &0.into())
    );
    assert!(stderr.contains(r#""transfer":{"factor":2.0}"#), "{stderr}");
    let (plain, _) = sampled("");
    assert_eq!(plain["summary"]["sampler"]["cache"]["dual"]["every"], 8);
    let (exact, _) = sampled("--preset exact");
    assert_eq!(exact["summary"]["sampler"]["cache"], "none");
    assert_eq!(plain["summary"]["nfe"], 12);
    let (all, _) = sampled("--transfer threshold=0");
    assert_eq!(all["summary"]["nfe"], 1);
    let (alone, _) = sampled("--suffix-window 3 --block-length 4 --adaptive-blocks --revise 0.9");
    let sampler = &alone["summary"]["sampler"];
    assert_eq!(sampler["blocks"], "semi-autoregressive");
    assert!(!sampler["adaptive_blocks"]["delimiters"].as_array().unwrap().is_empty(), "{sampler}");
}

#[test]
fn every_rule_and_cache_gives_a_whole_answer() {
    for rule in ["schedule", "threshold", "factor", "entropy", "klass", "leap", "credit"] {
        for cache in ["none", "prefix", "dual --cache-refresh 2"] {
            let flags = format!("--block-length 4 --transfer {rule} --cache {cache}");
            let (answer, _) = sampled(&flags);
            assert_eq!(answer["summary"]["masks_left"], 0, "{flags}");
        }
    }
}

#[test]
fn a_trace_of_a_length_that_was_found_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let line = "run -n 32 --variable-length --transfer threshold=0.5 --seed 1 --trace t.jsonl -m";
    let args: Vec<&str> = line.split(' ').chain([storyteller(), "Once"]).collect();
    let (code, answer, stderr) = run(dir.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let trace = std::fs::read_to_string(dir.path().join("t.jsonl")).unwrap();
    assert!(trace.lines().next().unwrap().contains(r#""variable_length":{"initial":64"#));
    let (code, replayed, stderr) = run(dir.path(), &["replay", "t.jsonl"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(replayed.contains(answer.trim_end()), "{answer}\n{replayed}");
}

#[test]
fn holes_and_chats_take_the_flags_too() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--transfer", "leap", "--cache", "dual", "--json", "A {{hole:5}} sat"];
    let args = [&["infill", "-m", storyteller()], &flags[..]].concat();
    let (code, stdout, stderr) = run(dir.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(answer["summary"]["sampler"]["transfer"]["leap"]["anchor"], 0.9);

    let chat = |input: &str| {
        let args = ["chat", "-m", storyteller(), "-n", "8", "--transfer", "klass"];
        outcome(llada(dir.path(), &args).write_stdin(input.to_owned()).output().unwrap())
    };
    let (code, _, stderr) = chat("/set cache dual\n/set cache_refresh 3\n/show\nHi\n");
    assert_eq!(code, 0, "{stderr}");
    for line in ["transfer                klass=0.9", "cache_refresh           3"] {
        assert!(stderr.contains(line), "{stderr}");
    }
    let (_, _, stderr) = chat("/set transfer most\n/set cache none\n/set cache_window 2\n");
    assert!(
        stderr.contains("threshold=0.9") && stderr.contains("cache_window has no meaning"),
        "{stderr}"
    );
}

#[test]
fn what_has_no_meaning_is_refused_with_the_choices() {
    for (flags, message, hint) in [
        ("--transfer some", "unknown transfer rule", "entropy=0.1"),
        ("--transfer threshold=-1", "transfer threshold is -1", "--transfer threshold=X"),
        ("--cache triple", "unknown cache `triple`", "none, prefix, dual"),
        ("--cache none --cache-refresh 2", "without a cache", "--cache dual or prefix"),
        ("--cache dual --cache-type f16", "unknown cache type `f16`", "f32, bf16"),
        ("--blocks pure --suffix-window 4", "suffix_window cannot be combined", "--suffix-window"),
        (
            "--preset exact --transfer factor",
            "transfer cannot be combined with the exact mode",
            "--transfer",
        ),
        ("--remasking random --transfer leap", "remasking cannot be combined", "margin"),
        (
            "--blocks block-diffusion --block-length 4 --variable-length",
            "variable_length",
            "--variable-length",
        ),
    ] {
        let common = "run -m MODEL -n 16".replace("MODEL", MODEL);
        let args: Vec<&str> = common.split(' ').chain(flags.split(' ')).chain(["x"]).collect();
        let (code, stdout, stderr) = run(trained(), &args);
        assert_eq!((code, stdout.as_str()), (2, ""), "{flags}: {stderr}");
        assert!(stderr.contains(message) && stderr.contains(hint), "{flags}: {stderr}");
    }
}
