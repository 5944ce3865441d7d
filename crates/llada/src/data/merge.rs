//! Parts of one preparation, put together.

use std::path::{Path, PathBuf};

use llada_kernels::Cpu;

use super::{
    meta::{Meta, Part},
    prepare::{NAMED, is_written},
    shards::{ShardWriter, Shards},
};
use crate::{
    Result,
    data::DataError,
    files::{self, Existing, Output},
    tokenizer::TokenizerFiles,
};

/// Writes to the folder `output` what [`prepare`](super::prepare) would have written of all documents, from
/// folders that it wrote with [`part`](super::PrepareOptions::part), given in any order. Every byte of
/// theirs is checked. With `overwrite`, an existing folder of shards is replaced.
///
/// # Errors
/// When the folders are not all parts of one preparation, one is damaged, or `output` cannot be written.
pub fn merge(parts: &[PathBuf], output: &Path, overwrite: bool, cpu: &Cpu) -> Result<Meta> {
    let output = Output::lock(output)?;
    if !overwrite && files::is_occupied(output.path()) {
        return Err(DataError::Exists { path: output.path().to_path_buf() }.into());
    }
    output.check_own(Meta::is_in(output.path()), &is_written)?;
    let parts = parts.iter().map(|dir| Shards::open(dir, cpu)).collect::<Result<Vec<_>>>()?;
    let parts = in_order(parts)?;
    let existing = if overwrite { Existing::Replace(&is_written) } else { Existing::Refuse };
    output.fill(existing, |dir| write(&parts, dir))
}

/// The parts by their numbers, of which none is missing.
fn in_order(mut parts: Vec<Shards>) -> Result<Vec<Shards>> {
    let wrong = |shards: &Shards, reason: String| {
        Err(DataError::Parts { path: shards.dir().to_path_buf(), reason }.into())
    };
    let number = |shards: &Shards| shards.meta().options.part.map_or(0, |part| part.number);
    parts.sort_by_key(number);
    for (index, shards) in parts.iter().enumerate() {
        let Some(Part { number, of }) = shards.meta().options.part else {
            return wrong(shards, "it has all documents, not a part of them".into());
        };
        if let Some(what) = difference(shards.meta(), parts[0].meta()) {
            let first = parts[0].dir().display();
            return wrong(shards, format!("it was prepared with another {what} than `{first}`"));
        }
        if index > 0 && number == index {
            return wrong(shards, format!("part {number} of {of} is there twice"));
        }
        if number != index + 1 {
            return wrong(
                shards,
                format!("it is part {number} of {of}, part {} is not there", index + 1),
            );
        }
        if index + 1 == parts.len() && number != of {
            return wrong(
                shards,
                format!("it is part {number} of {of}, part {} is not there", number + 1),
            );
        }
    }
    Ok(parts)
}

/// What differs between two that are not of one preparation.
fn difference(a: &Meta, b: &Meta) -> Option<&'static str> {
    let (a, b) = (whole(a), whole(b));
    let differences = [
        (a.options.part != b.options.part, "number of parts"),
        (a.options.seed != b.options.seed, "seed"),
        (a.options.validation != b.options.validation, "fraction for validation"),
        (a.tokenizer != b.tokenizer, "tokenizer"),
        (a.documents != b.documents, "content of its inputs"),
        (a != b, "format, field or separator"),
    ];
    differences.into_iter().find(|(differ, _)| *differ).map(|(_, what)| what)
}

/// What all parts of a preparation say alike.
fn whole(meta: &Meta) -> Meta {
    let mut whole = Meta { duplicates: 0, rejected: 0, ..meta.clone() };
    whole.options.part = whole.options.part.map(|part| Part { number: 0, ..part });
    whole.first_rejected.clear();
    // Machines may have the same files in different places.
    whole.inputs.clear();
    (whole.train, whole.validation) = Default::default();
    whole
}

fn write(parts: &[Shards], dir: &Path) -> Result<Meta> {
    files::create_dir(dir)?;
    let of_first = parts.first().ok_or(DataError::NoDocuments {
        inputs: 0,
        rejected: 0,
        first: String::new(),
    })?;
    let mut meta = whole(of_first.meta());
    (meta.options.part, meta.documents) = (None, None);
    meta.inputs = of_first.meta().inputs.clone();
    let limit = meta.options.shard_tokens;
    let mut train = ShardWriter::new(dir, "train", meta.dtype, limit);
    let mut validation = ShardWriter::new(dir, "val", meta.dtype, limit);
    for shards in parts {
        let part = shards.meta();
        train.push_split(shards.train(), part.train.documents)?;
        validation.push_split(shards.validation(), part.validation.documents)?;
        meta.duplicates += part.duplicates;
        meta.rejected += part.rejected;
        meta.first_rejected.extend(part.first_rejected.iter().cloned());
    }
    meta.first_rejected.truncate(NAMED);
    (meta.train, meta.validation) = (train.finish()?, validation.finish()?);
    for (name, bytes) in TokenizerFiles::in_folder(of_first.dir())?.iter() {
        if meta.tokenizer.iter().any(|mark| mark.file == name) {
            files::replace_with(&dir.join(name), bytes)?;
        }
    }
    files::replace_with(&dir.join("meta.json"), meta.to_text().as_bytes())?;
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{PrepareOptions, prepare},
        tokenizer::{Kind, Tokenizer, train},
    };

    const TEXT: &str = "the quick brown fox jumps over the lazy dog 0123456789\n";

    struct Bench {
        dir: tempfile::TempDir,
        tokenizer: Tokenizer,
        inputs: Vec<PathBuf>,
    }

    impl Bench {
        /// Documents of very different lengths in files of two formats, with duplicates and bad rows.
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let tokenizer = train(Kind::Character { min_count: 0 }, [Ok(TEXT.to_owned())]).unwrap();
            let text = |i: usize| format!("fox {}{}", i % 40, " dog".repeat(i * i % 31));
            let texts: String = (0..50).map(|i| text(i) + "<|endoftext|>").collect();
            let row = |i: usize| match i % 5 {
                0 => "{\"other\": 1}\n".to_owned(),
                _ => format!("{{\"text\": \"{}\"}}\n", text(i + 30)),
            };
            let rows: String = (0..60).map(row).collect();
            let inputs = vec![dir.path().join("a.txt"), dir.path().join("b.jsonl")];
            std::fs::write(&inputs[0], texts).unwrap();
            std::fs::write(&inputs[1], rows).unwrap();
            Self { dir, tokenizer, inputs }
        }

        fn part(&self, number: usize, of: usize, options: &PrepareOptions) -> PathBuf {
            let out = self.dir.path().join(format!("part-{number}-{of}"));
            let options = PrepareOptions {
                part: Some(Part { number, of }),
                overwrite: true,
                ..options.clone()
            };
            prepare(&self.inputs, &out, &self.tokenizer, &options, &mut |_| {}).unwrap();
            out
        }

        fn merge(&self, parts: &[PathBuf], name: &str) -> Result<PathBuf> {
            let out = self.dir.path().join(name);
            merge(parts, &out, false, &Cpu::new(2).unwrap())?;
            Ok(out)
        }
    }

    fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut files: Vec<_> =
            entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn parts_merge_to_what_one_process_writes() {
        let mut bench = Bench::new();
        let one = vec![bench.inputs[0].clone()];
        for (case, (inputs, options)) in [
            (bench.inputs.clone(), PrepareOptions { validation: 0.2, ..Default::default() }),
            (bench.inputs.clone(), PrepareOptions { shard_tokens: 97, ..Default::default() }),
            (
                one,
                PrepareOptions {
                    validation: 0.3,
                    separator: crate::data::Separator::WholeFile,
                    ..Default::default()
                },
            ),
        ]
        .into_iter()
        .enumerate()
        {
            bench.inputs = inputs;
            let all = bench.dir.path().join(format!("all-{case}"));
            prepare(&bench.inputs, &all, &bench.tokenizer, &options, &mut |_| {}).unwrap();
            for of in [1, 2, 3, 7] {
                let mut parts: Vec<_> =
                    (1..=of).map(|number| bench.part(number, of, &options)).collect();
                parts.reverse();
                let merged = bench.merge(&parts, &format!("merged-{case}-{of}")).unwrap();
                assert_eq!(content(&merged), content(&all), "case {case}, {of} parts");
            }
        }
    }

    #[test]
    fn the_work_is_shared_out() {
        let bench = Bench::new();
        let tokens = |number| {
            let dir = bench.part(number, 3, &PrepareOptions::default());
            Shards::open(&dir, &Cpu::new(1).unwrap()).unwrap().train().tokens()
        };
        let tokens = [tokens(1), tokens(2), tokens(3)];
        assert!(tokens.iter().all(|&part| part > tokens.iter().sum::<u64>() / 6), "{tokens:?}");
    }

    #[test]
    fn what_is_no_preparation_is_refused() {
        let bench = Bench::new();
        let options = PrepareOptions::default();
        let [one, two, three] = [1, 2, 3].map(|number| bench.part(number, 3, &options));
        let other = bench.part(2, 4, &options);
        let text = std::fs::read_to_string(&bench.inputs[0]).unwrap();
        std::fs::write(&bench.inputs[0], text.replacen("fox 3", "fox 4", 1)).unwrap();
        std::fs::rename(&two, bench.dir.path().join("kept")).unwrap();
        let changed = bench.dir.path().join("changed");
        std::fs::rename(bench.part(2, 3, &options), &changed).unwrap();
        std::fs::rename(bench.dir.path().join("kept"), &two).unwrap();
        let all = bench.dir.path().join("all");
        prepare(&bench.inputs, &all, &bench.tokenizer, &options, &mut |_| {}).unwrap();
        for (parts, reason) in [
            (vec![&one, &two], "part 3 is not there"),
            (vec![&one, &three], "part 2 is not there"),
            (vec![&two, &three], "part 1 is not there"),
            (vec![&one, &two, &two, &three], "part 2 of 3 is there twice"),
            (vec![&one, &other, &three], "another number of parts"),
            (vec![&one, &changed, &three], "another content of its inputs"),
            (vec![&all], "it has all documents"),
            (vec![], "no document"),
        ] {
            let parts: Vec<_> = parts.into_iter().cloned().collect();
            let error = bench.merge(&parts, "never").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!bench.dir.path().join("never").exists());
        }
        let damaged = two.join("train-00000.bin");
        let mut bytes = std::fs::read(&damaged).unwrap();
        bytes[5] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        let error = bench.merge(&[one, two, three], "never").unwrap_err().to_string();
        assert!(error.contains("checksum"), "{error}");
    }
}
