//! Input without end: an error in reasonable time and memory.
#![cfg(unix)]

use crate::{outcome, run, storyteller, trained};

#[test]
fn sources_without_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = trained().join("tok");
    let tokenizer = tokenizer.to_str().unwrap();
    for args in [
        &["run", "--json", "--prompts", "/dev/zero"][..],
        &["infill", "--json", "--file", "/dev/zero"],
        &["score", "--file", "/dev/zero"],
        &["train", "/dev/zero"],
        &["replay", "/dev/zero"],
        &["bench", "quality", "-m", storyteller(), "--questions", "/dev/zero"],
        &["tokenizer", "train", "/dev/zero", "--out", "tok"],
        &[
            "data",
            "prepare",
            "/dev/zero",
            "--format",
            "text",
            "--tokenizer",
            tokenizer,
            "--out",
            "d",
        ],
    ] {
        let (code, stdout, stderr) = run(dir.path(), args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}: {stderr}");
        let is_bound = ["more than", "longer than", "not a regular file"]
            .iter()
            .any(|what| stderr.contains(what));
        assert!(is_bound, "{args:?}: {stderr}");
    }
    for verb in ["run", "infill"] {
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("llada"));
        let output = child.args([verb, "-"]).stdin(zeros).output().unwrap();
        let (code, _, stderr) = outcome(output);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("from stdin") && stderr.contains("more than"), "{stderr}");
    }
}
