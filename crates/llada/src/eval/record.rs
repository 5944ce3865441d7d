//! What is recorded of every row, so that a run can be broken off and taken up again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metric::Value;

/// The result of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Stands for all that the result depends on: model, settings, prompt, answers, row.
    pub key: String,
    /// The task.
    pub task: String,
    /// Group of the row's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Number of the row in the task.
    pub doc_id: usize,
    /// Where the row stands.
    pub place: String,
    /// Scores by `metric,filter`.
    pub metrics: BTreeMap<String, Value>,
    /// What the model said, and how it was judged.
    pub detail: serde_json::Value,
}

/// FNV-1a of 128 bits, which tells keys and models apart; it is no cryptographic hash.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fnv(u128);

impl Fnv {
    pub(super) fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    pub(super) fn add(mut self, bytes: &[u8]) -> Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
        self
    }

    pub(super) fn hex(self) -> String {
        format!("{:032x}", self.0)
    }
}

/// The records of a file, by key. Lines that are no records are passed over and counted: a run may
/// have been ended while it wrote one.
pub fn read(content: &[u8]) -> (BTreeMap<String, Record>, usize) {
    let (mut records, mut damaged) = (BTreeMap::new(), 0);
    let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    for line in lines.filter(|line| !line.is_empty()) {
        match serde_json::from_slice::<Record>(line) {
            Ok(record) => {
                records.insert(record.key.clone(), record);
            }
            Err(_) => damaged += 1,
        }
    }
    (records, damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // FNV-1a 128 of "" and "a".
        assert_eq!(Fnv::new().hex(), "6c62272e07bb014262b821756295c58d");
        assert_eq!(Fnv::new().add(b"a").hex(), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn a_half_written_line_is_counted_not_believed() {
        let record = Record {
            key: "k".into(),
            task: "t".into(),
            group: None,
            doc_id: 3,
            place: "f:4".into(),
            metrics: [("acc,none".to_owned(), Value::One(1.0))].into(),
            detail: serde_json::json!({"x": 1}),
        };
        let line = serde_json::to_string(&record).unwrap();
        let (records, damaged) = read(format!("{line}\r\n\n{}", &line[..20]).as_bytes());
        assert_eq!((records.get("k"), damaged), (Some(&record), 1));
        // Cut within a character, in front of whole lines and after them.
        let half = &b"{\"key\":\"\xe6\x97"[..];
        for content in [[half, b"\n", line.as_bytes()], [line.as_bytes(), b"\n", half]] {
            let (records, damaged) = read(&content.concat());
            assert_eq!((records.get("k"), damaged), (Some(&record), 1));
        }
    }
}
