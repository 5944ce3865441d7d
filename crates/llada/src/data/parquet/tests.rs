use std::path::PathBuf;

use super::*;
use crate::data::{Separator, corpus::Corpus};

fn fixture(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/parquet");
    PathBuf::from(folder).join(format!("{name}.parquet"))
}

/// The texts of a fixture, or `! ` and what is wrong with the row.
fn texts(path: &Path) -> Result<Vec<String>> {
    let files = [path.to_path_buf()];
    let corpus = Corpus {
        inputs: &files,
        format: None,
        separator: Separator::default(),
        end_of_text: "",
        field: "text",
    };
    let mut found = Vec::new();
    corpus.visit(&files, &mut |document| {
        found.push(document.text.unwrap_or_else(|e| format!("! {e}")));
        Ok(())
    })?;
    Ok(found)
}

const NO_TEXT: &str = "! `text` is null or no text";

#[test]
fn every_codec_is_read() {
    let mut names = vec!["none", "snappy", "gzip", "brotli", "lz4"];
    if cfg!(feature = "zstd") {
        names.push("zstd");
    }
    for codec in names {
        let found = texts(&fixture(&format!("text_{codec}"))).unwrap();
        assert_eq!(found, ["first text", NO_TEXT, "third: größer"], "{codec}");
    }
}

#[cfg(feature = "zstd")]
#[test]
fn columns_that_nobody_reads_do_not_matter() {
    for name in ["text_pages_2", "text_large"] {
        assert_eq!(texts(&fixture(name)).unwrap(), ["first text", NO_TEXT, "third: größer"]);
    }
    assert_eq!(texts(&fixture("others")).unwrap(), ["a", "b"]);
    assert_eq!(texts(&fixture("text_bytes")).unwrap(), ["ok", NO_TEXT]);
    assert_eq!(texts(&fixture("text_number")).unwrap(), ["! `text` is not a string"; 2]);
    let error = all(&fixture("pairs"), 100).unwrap_err();
    assert!(error.to_string().contains("larger than 100 bytes"), "{error}");
    let error = texts(&fixture("pairs")).unwrap_err();
    assert!(
        error.to_string().contains("no column `text`; it has prompt, response, big"),
        "{error}"
    );
}

#[cfg(feature = "zstd")]
#[test]
fn values_of_every_kind_are_values_of_json() {
    let found = all(&fixture("others"), 1 << 20).unwrap();
    assert_eq!((found.len(), found[0].len()), (2, 17));
    let all = &found[0];
    assert!(
        found[1]
            .iter()
            .all(|(name, v)| v.is_null()
                || ["text", "half", "nan", "label"].contains(&name.as_str()))
    );
    assert_eq!(all["big"], u64::MAX);
    assert_eq!(all["nan"], Value::Null);
    assert_eq!(all["decimal"], "1.25");
    assert_eq!(all["lists"], serde_json::json!([[1], [null, 2]]));
    assert_eq!(all["map"], serde_json::json!({"k": 1}));
    assert_eq!(all["bytes"], Value::Null);
    assert!(all["date"].as_str().unwrap().starts_with("2024-02-29"));
}

#[test]
fn what_is_no_parquet_is_named_and_damage_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    for (content, name) in [
        (&b"<!DOCTYPE html><html>"[..], "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"", "Parquet"),
        (b"PAR1", "Parquet"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = texts(&path).unwrap_err();
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert!(error.hint().is_some());
    }
    // Whatever byte is damaged: an error or other rows, and no panic.
    let whole = std::fs::read(fixture("text_snappy")).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        std::fs::write(&path, &damaged).unwrap();
        let _ = texts(&path);
    }
}
