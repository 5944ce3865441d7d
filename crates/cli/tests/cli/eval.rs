//! `llada eval`: tasks, their data, runs that are broken off.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{MODEL, run, storyteller, trained};

/// A folder with two tasks of our own and their rows.
fn tasks() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let row =
        |i: usize| format!("{{\"q\":\"the cat {i}\",\"a\":[\"sat\",\"a mat\"],\"n\":{}}}\n", i % 2);
    fs::write(dir.join("rows.jsonl"), (0..6).map(row).collect::<String>()).unwrap();
    fs::write(dir.join("cats.toml"), CATS).unwrap();
    fs::write(dir.join("code.toml"), CODE).unwrap();
    folder
}

const CATS: &str = r#"
name = "cats"
version = 3
about = "cats"
kind = "choice"
prompt = "{{ q }}"
[data]
files = ["rows.jsonl"]
[choice]
choices = "a"
answer = "n"
metrics = ["acc", "acc_norm"]
[likelihood]
mc_num = 8
"#;

const CODE: &str = r#"
name = "code"
version = 1
about = "code"
kind = "generate"
prompt = "{{ q }}"
[data]
files = ["rows.jsonl"]
[generate.sampling]
gen_length = 4
[code]
program = "x = {{ n }}  # {{ response | replace('\n', ' ') }}\nassert x == 1"
timeout = 20.0
memory_mb = 512
"#;

fn eval(dir: &Path, line: &str) -> (i32, String, String) {
    let model = trained().join(MODEL);
    let mut args: Vec<&str> = line.split(' ').collect();
    if args[1] == "run" {
        args.extend(["--model", model.to_str().unwrap()]);
    }
    run(dir, &args)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn tasks_are_listed_and_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = eval(dir.path(), "eval ls");
    assert_eq!((code, stderr.as_str()), (0, ""));
    for name in [
        "mmlu",
        "arc_challenge",
        "piqa",
        "lambada",
        "gsm8k",
        "bbh",
        "mbpp",
        "humaneval",
        "sudoku",
        "countdown",
        "wikitext",
        "tale_questions",
        "tale_words",
    ] {
        assert!(stdout.lines().any(|line| line.starts_with(name)), "{name}: {stdout}");
    }
    let (code, stdout, _) = eval(dir.path(), "eval ls gsm8k");
    assert_eq!(code, 0);
    assert!(stdout.contains("name = \"gsm8k\"") && stdout.contains("[[extract]]"), "{stdout}");
    let (code, stdout, stderr) = eval(dir.path(), "eval ls gsm9k");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("no task `gsm9k`") && stderr.contains("hint: "), "{stderr}");
}

#[test]
fn validation_shows_the_first_prompt_and_names_bad_rows() {
    let folder = tasks();
    let dir = folder.path();
    let (code, stdout, stderr) = eval(dir, "eval validate cats.toml code.toml");
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains("--- prompt ---\nthe cat 0\n--- expected ---\n* sat\n"), "{stdout}");

    let mut rows = fs::read_to_string(dir.join("rows.jsonl")).unwrap();
    rows.push_str("{\"q\":\"x\"}\n[\n");
    fs::write(dir.join("rows.jsonl"), rows).unwrap();
    let (code, stdout, stderr) = eval(dir, "eval validate cats.toml");
    assert_eq!(code, 1);
    assert!(stdout.contains("bad rows") && stderr.contains("2 rows cannot be used"), "{stderr}");
    assert!(
        stderr.contains("rows.jsonl:7: ") && stderr.contains("rows.jsonl:8: not JSON"),
        "{stderr}"
    );

    let (code, _, stderr) = eval(dir, "eval validate mmlu");
    assert_eq!(code, 1);
    assert!(stderr.contains("the data of task `mmlu` was not found"), "{stderr}");
    assert!(stderr.contains("hint: name its place with `--data DIR`"), "{stderr}");
}

#[test]
fn a_run_that_was_broken_off_goes_on_to_the_same_results() {
    let folder = tasks();
    let dir = folder.path();
    let line = "eval run cats.toml --data . --out out --json";
    let (code, first, stderr) = eval(dir, line);
    assert_eq!(code, 0, "{stderr}");
    let results = |json: &str| serde_json::from_str::<Value>(json).unwrap()["results"].clone();
    let cats = &results(&first)["cats"];
    assert!(cats["acc,none"].is_f64() && cats["acc_norm_stderr,none"].is_f64(), "{cats}");
    let file = dir.join("out/samples_cats.jsonl");
    let rows = lines(&file);
    assert_eq!(rows.len(), 6);
    let mut files = fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().path());
    let written = files.find(|f| f.extension().is_some_and(|e| e == "json")).unwrap();
    assert!(written.file_name().unwrap().to_string_lossy().starts_with("results_"));
    let written = fs::read_to_string(written).unwrap();
    assert_eq!(results(&written), results(&first));

    // The end of a run that was killed within its third row.
    fs::write(&file, format!("{}\n{}\n{}", rows[0], rows[1], &rows[2][..30])).unwrap();
    let (code, again, stderr) = eval(dir, line);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("1 line of `out/samples_cats.jsonl` cannot be read"), "{stderr}");
    assert_eq!(results(&again), results(&first));
    assert_eq!(lines(&file)[3..], rows[2..]);

    // At once again, without taking the results of the run before.
    let (code, again, stderr) = eval(dir, line);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(results(&again), results(&first));
    let files = fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().file_name());
    let count = files.filter(|name| name.to_string_lossy().starts_with("results_")).count();
    assert_eq!(count, 3);

    // Rows of different settings do not come into one file.
    let kept = lines(&file);
    let (code, stdout, stderr) = eval(dir, &format!("{line} --seed 5"));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("error: the rows of `cats` that are kept are not of this"), "{stderr}");
    assert!(stderr.contains("hint: name another folder with `--out`"), "{stderr}");
    assert_eq!(lines(&file), kept);
    let (code, table, _) = eval(dir, "eval run cats.toml --limit 2 --scoring confidence");
    assert_eq!(code, 0);
    assert!(table.starts_with("task") && table.contains("\ncats  3 "), "{table}");
}

#[test]
fn one_task_that_fails_does_not_take_the_others_along() {
    let folder = tasks();
    let dir = folder.path();
    // Its data is missing.
    fs::write(dir.join("gone.toml"), CATS.replace("cats", "gone").replace("rows", "none")).unwrap();
    // No row of it fits the model.
    let long = format!("prompt = \"{}", "the cat ".repeat(40));
    let long = CATS.replace("cats", "long").replace("prompt = \"", &long);
    fs::write(dir.join("long.toml"), long).unwrap();
    let line = "eval run gone.toml long.toml cats.toml --out out";
    let (code, stdout, stderr) = eval(dir, line);
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.contains("\ncats  3 "), "{stdout}");
    assert!(stdout.contains("\ngone  failed: the data of task `gone` was not found"), "{stdout}");
    assert!(stdout.contains("\nlong  failed: no row of the task `long` fits"), "{stdout}");
    assert!(stderr.contains("error: 2 of 3 tasks failed: gone, long\n  hint: "), "{stderr}");
    let results = || {
        let files = fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().path());
        let path = files.filter(|f| f.extension().is_some_and(|e| e == "json")).max().unwrap();
        let json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::remove_file(path).unwrap();
        json
    };
    let first = results();
    assert!(first["errors"]["gone"].as_str().unwrap().contains("was not found"), "{first}");
    assert!(first["errors"]["long"].is_string() && first["results"]["cats"].is_object());

    // Mended, the same command does what is missing.
    fs::copy(dir.join("rows.jsonl"), dir.join("none.jsonl")).unwrap();
    let rows = lines(&dir.join("out/samples_cats.jsonl"));
    let (code, _, stderr) = eval(dir, &line.replace("long.toml ", ""));
    assert_eq!(code, 0, "{stderr}");
    let second = results();
    assert!(second["errors"].is_null() && second["results"]["gone"].is_object(), "{second}");
    assert_eq!(second["results"]["cats"], first["results"]["cats"]);
    assert_eq!(lines(&dir.join("out/samples_cats.jsonl")), rows, "nothing was done twice");

    // A name that is none is found before anything runs.
    let (code, stdout, stderr) = eval(dir, "eval run cats.toml nothing --out other");
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("there is no task `nothing`"), "{stderr}");
    assert!(!dir.join("other").exists());
    let (code, stdout, stderr) = eval(dir, "eval validate cats.toml long.toml mmlu");
    assert_eq!(code, 1);
    assert!(stdout.contains("cats (version 3") && stderr.contains("1 of 3 tasks"), "{stderr}");
}

#[test]
#[allow(clippy::print_stderr)]
fn code_is_run_only_where_it_is_allowed() {
    let folder = tasks();
    let dir = folder.path();
    let (code, stdout, stderr) = eval(dir, "eval run code.toml");
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("was not allowed") && stderr.contains("--allow-code"), "{stderr}");
    let (code, stdout, stderr) = eval(dir, "eval run code.toml --allow-code --json --batch-size 2");
    if code == 1 && (stderr.contains("python3") || stderr.contains("unshare")) {
        eprintln!("SKIPPED: {stderr}");
        return;
    }
    assert_eq!(code, 0, "{stderr}");
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(json["results"]["code"]["pass@1,none"], 0.5, "{stdout}");
}

#[test]
fn flags_that_no_task_would_notice_are_refused() {
    let folder = tasks();
    let dir = folder.path();
    for flags in [
        "--gen-length 8",
        "--batch-size 2",
        "--allow-code",
        "--allow-network",
        "--data mmlu=nowhere",
        "--limit 0",
        "--mc-num 0",
        "--cfg-scale -1",
        "cats.toml",
    ] {
        let (code, stdout, stderr) = eval(dir, &format!("eval run cats.toml {flags}"));
        assert_eq!((code, stdout.as_str()), (2, ""), "{flags}: {stderr}");
        assert_eq!(stderr.matches("  hint: ").count(), 1, "{flags}: {stderr}");
    }
    let flags = "--mc-num 4 --mc-batch-size 3";
    let (code, stdout, stderr) = eval(dir, &format!("eval run cats.toml {flags}"));
    assert_eq!((code, stdout.as_str()), (1, ""), "{flags}: {stderr}");
    assert_eq!(stderr.matches("  hint: ").count(), 1, "{flags}: {stderr}");
}

#[test]
fn a_quantised_model_is_evaluated() {
    let folder = tasks();
    let dir = folder.path();
    let quantize = ["quantize", storyteller(), "-o", "q8.gguf", "--format", "q8_0"];
    let (code, _, stderr) = run(dir, &quantize);
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = run(dir, &["eval", "run", "cats.toml", "-m", "q8.gguf"]);
    assert!(code == 0 && stdout.contains("acc_norm"), "{stdout}{stderr}");
}

#[test]
fn a_task_that_ships_with_its_rows_needs_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (line, metric) in [
        ("eval run tale_words -m storyteller --limit 4 --json", "acc,none"),
        ("eval run tale-questions --chat --limit 2 -n 8 --json", "exact_match,exact"),
    ] {
        let (code, stdout, stderr) = run(dir, &line.split(' ').collect::<Vec<_>>());
        assert_eq!(code, 0, "{line}: {stderr}");
        let json: Value = serde_json::from_str(&stdout).unwrap();
        let results = json["results"].as_object().unwrap();
        assert!(results.values().next().unwrap()[metric].is_f64(), "{stdout}");
    }
    let (code, stdout, stderr) = run(dir, &["eval", "validate", "tale_words", "tale_questions"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.matches("in the task file").count(), 2, "{stdout}");
    // Data that nobody would look at is refused.
    for data in [".", "tale_words=."] {
        let (code, _, stderr) = run(dir, &["eval", "validate", "tale_words", "--data", data]);
        assert!(code == 2 && stderr.contains("has its rows in itself"), "{stderr}");
    }
}

#[test]
fn the_samples_of_shards_are_those_of_all_rows() {
    let folder = tasks();
    let dir = folder.path();
    let (code, _, stderr) = eval(dir, "eval run cats.toml --out whole");
    assert_eq!(code, 0, "{stderr}");
    let whole = fs::read(dir.join("whole/samples_cats.jsonl")).unwrap();
    let mut together = Vec::new();
    for shard in 1..=4 {
        let (code, _, stderr) =
            eval(dir, &format!("eval run cats.toml --out part-{shard} --shard {shard}/4"));
        assert_eq!(code, 0, "{stderr}");
        together.extend(fs::read(dir.join(format!("part-{shard}/samples_cats.jsonl"))).unwrap());
    }
    assert!(together == whole);
    // Where all rows are done, the results are all that is left to do.
    fs::create_dir(dir.join("merged")).unwrap();
    fs::write(dir.join("merged/samples_cats.jsonl"), &together).unwrap();
    let merged = eval(dir, "eval run cats.toml --out merged");
    assert_eq!((merged.0, merged.1), (0, eval(dir, "eval run cats.toml --out whole").1));
    assert!(fs::read(dir.join("merged/samples_cats.jsonl")).unwrap() == whole);
}
