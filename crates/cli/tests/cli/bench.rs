//! `llada bench`.

use serde_json::Value;

use crate::{MODEL, run, trained};

const QUESTIONS: &str = "{\"prompt\": \"the cat\"}\n{\"prompt\": \"1\", \"response\": \"2\"}\n";

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
    let (code, table, stderr) = quality("--keep threshold=0 --gate --limit 1 --mc-num 16");
    let lost = table.lines().any(|line| line.contains("as asked") && line.contains("yes"));
    assert_eq!(code == 1, lost, "{table}{stderr}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let (code, _, stderr) = quality("--keep klass --preset exact");
    assert!(code == 2 && stderr.contains("keep"), "{stderr}");
    let dir = trained();
    let (code, _, stderr) = run(dir, &["bench", "quality", "-m", MODEL]);
    assert!(code == 1 && stderr.contains("--questions"), "{stderr}");
    std::fs::write(dir.join("bad.jsonl"), "{}").unwrap();
    let (code, _, stderr) =
        run(dir, &["bench", "quality", "-m", MODEL, "--questions", "bad.jsonl"]);
    assert!(code == 1 && stderr.contains("line 1"), "{stderr}");
}
