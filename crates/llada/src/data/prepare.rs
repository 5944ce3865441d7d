//! Text in, token shards out: duplicates dropped, whole documents held out for validation.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    corpus::{Corpus, Document},
    meta::{IdType, Meta, Part, PrepareOptions, TokenizerMeta},
    shards::ShardWriter,
    windows::mix,
};
use crate::{
    Result,
    data::DataError,
    files::{self, Existing, Output},
    io,
    tokenizer::{Tokenizer, TokenizerFiles},
};

/// How far `prepare` is. The inputs are read twice: to find duplicates, and to tokenise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareProgress {
    /// Bytes read, both times together.
    pub read: u64,
    /// Bytes to read, both times together.
    pub total: u64,
    /// Tokens written.
    pub tokens: u64,
}

/// What happens to a document.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Train,
    Validation,
    Duplicate,
    Rejected,
}

/// How many rejected rows are named in `meta.json`.
pub(super) const NAMED: usize = 10;

/// Writes the documents of `inputs` (files, or folders of them) as token shards to the folder
/// `output`, each followed by the end-of-text token, with `meta.json` and the tokenizer beside
/// them. The folder appears whole or not at all; one that it replaces keeps what `prepare` does
/// not write. No other process may write to it meanwhile.
///
/// A document equal to an earlier one up to white space is dropped. Then each is held out with
/// the probability `options.validation`, decided by a hash of its text and the seed, and so the
/// same whatever the order of the inputs; at least one is. Where there is only one document, that
/// fraction of its end is held out. Rows that cannot be read are counted, and the first named.
///
/// With `options.part`, only the documents of that part are tokenised, and counted in the description;
/// [`merge`](super::merge) makes of all parts what one process would have written.
pub fn prepare(
    inputs: &[PathBuf],
    output: &Path,
    tokenizer: &Tokenizer,
    options: &PrepareOptions,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Meta> {
    check(options)?;
    let eos = tokenizer.special_tokens().eos.ok_or(DataError::NoEos)?;
    let end_of_text = tokenizer.token(eos).ok_or(DataError::NoEos)?;
    let output = Output::lock(output)?;
    if !options.overwrite && files::is_occupied(output.path()) {
        return Err(DataError::Exists { path: output.path().to_path_buf() }.into());
    }
    output.check_own(Meta::is_in(output.path()), &is_written)?;
    let corpus = Corpus {
        inputs,
        format: options.format,
        separator: options.separator,
        end_of_text: &end_of_text,
        field: &options.field,
    };
    let inputs = corpus.files()?;
    let mut size = 0;
    for path in &inputs {
        size += std::fs::metadata(path).map_err(io("read", path))?.len();
    }
    let mut at = PrepareProgress { read: 0, total: 2 * size, tokens: 0 };

    let mut plan = Plan::new(options);
    corpus.visit(&inputs, &mut |document| {
        at.read = document.read;
        progress(at);
        plan.add(&document);
        Ok(())
    })?;
    let tail_held_out = plan.hold_out_one();
    if plan.kept() == 0 {
        let first = plan.rejected.named.first().map(|n| format!(", first {n}")).unwrap_or_default();
        let rejected = plan.rejected.count as usize;
        return Err(DataError::NoDocuments { inputs: inputs.len(), rejected, first }.into());
    }

    let existing = match options.overwrite {
        true => Existing::Replace(&is_written),
        false => Existing::Refuse,
    };
    output.fill(existing, |dir| {
        files::create_dir(dir)?;
        let vocab_size = tokenizer.vocab_size();
        let dtype = IdType::for_vocab(vocab_size);
        let mut train = ShardWriter::new(dir, "train", dtype, options.shard_tokens);
        let mut validation = ShardWriter::new(dir, "val", dtype, options.shard_tokens);
        let mut fates = plan.fates.iter();
        let mut share = Share::new(options.part, plan.bytes);
        let (mut duplicates, mut rejected) = (0, Rejected::default());
        corpus.visit(&inputs, &mut |document| {
            at.read = size + document.read;
            let fate = *fates.next().ok_or(DataError::Changed)?;
            if !share.has(&document) {
                return Ok(());
            }
            let text = match &document.text {
                Ok(text) => text,
                Err(reason) => {
                    rejected.add(&document.place, reason);
                    return Ok(());
                }
            };
            if fate == Fate::Duplicate {
                duplicates += 1;
                return Ok(());
            }
            let mut ids = match encode(tokenizer, text) {
                Ok(ids) => ids,
                Err(error) => {
                    rejected.add(&document.place, &error.to_string());
                    return Ok(());
                }
            };
            ids.push(eos);
            at.tokens += ids.len() as u64;
            progress(at);
            if tail_held_out {
                let held = ((ids.len() as f64 * options.validation).ceil() as usize).min(ids.len());
                let (head, tail) = ids.split_at(ids.len() - held);
                let bytes = (text.len() as f64 * head.len() as f64 / ids.len() as f64) as usize;
                train.push(head, bytes)?;
                return validation.push(tail, text.len() - bytes);
            }
            let split = if fate == Fate::Train { &mut train } else { &mut validation };
            split.push(&ids, text.len())
        })?;
        if fates.next().is_some() {
            return Err(DataError::Changed.into());
        }

        tokenizer.save_dir(dir)?;
        let written = TokenizerFiles::in_folder(dir)?;
        let marks = written.iter().map(|(name, bytes)| TokenizerMeta {
            file: name.into(),
            crc32c: crc32c::crc32c(bytes),
        });
        let meta = Meta {
            version: Meta::VERSION,
            dtype,
            vocab_size,
            tokenizer: marks.collect(),
            options: options.clone(),
            inputs,
            documents: options.part.map(|_| plan.documents),
            duplicates,
            rejected: rejected.count,
            first_rejected: rejected.named,
            tail_held_out,
            train: train.finish()?,
            validation: validation.finish()?,
        };
        files::replace_with(&dir.join("meta.json"), meta.to_text().as_bytes())?;
        Ok(meta)
    })
}

/// Whether `prepare` writes files of this name.
pub(super) fn is_written(name: &str) -> bool {
    let is_shard = |split: &str| {
        let number = name.strip_prefix(split).and_then(|rest| rest.strip_suffix(".bin"));
        number.is_some_and(|n| n.len() >= 5 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    name == "meta.json" || TokenizerFiles::names(name) || is_shard("train-") || is_shard("val-")
}

fn check(options: &PrepareOptions) -> Result<()> {
    if !(0.0..1.0).contains(&options.validation) {
        let found = options.validation.to_string();
        let expected = "a fraction from 0 to below 1";
        return Err(DataError::Option { key: "validation", found, expected }.into());
    }
    if options.shard_tokens == 0 {
        let expected = "at least 1";
        return Err(DataError::Option { key: "shard_tokens", found: "0".into(), expected }.into());
    }
    if let Some(Part { number, of }) = options.part
        && !(1..=of).contains(&number)
    {
        let (found, expected) = (format!("{number}/{of}"), "one of the parts, from 1");
        return Err(DataError::Option { key: "part", found, expected }.into());
    }
    Ok(())
}

/// The ids of a document.
pub(super) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for piece in pieces(text) {
        ids.extend(tokenizer.encode_plain(piece)?);
    }
    Ok(ids)
}

/// A long text in pieces of about a megabyte, because tokenizers need many times the memory of what
/// they are given. It is cut after a line end and before something visible, where the patterns of
/// byte-pair tokenizers cut too, so that the ids stay the same.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    const PIECE: usize = 1 << 20;
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut cuts = rest.match_indices('\n').map(|(at, _)| at + 1);
        let is_cut = |at: &usize| {
            *at >= PIECE && rest[*at..].chars().next().is_some_and(|c| !c.is_whitespace())
        };
        let (piece, later) = rest.split_at(cuts.find(is_cut).unwrap_or(rest.len()));
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The first reading: which document goes where.
struct Plan {
    seen: HashSet<u128>,
    fates: Vec<Fate>,
    /// Documents with a hash below this are held out.
    threshold: u64,
    seed: u64,
    lowest: Option<(u64, usize)>,
    held_out: u64,
    fraction: f64,
    /// Bytes of all texts.
    bytes: u64,
    /// A checksum of all documents in their order.
    documents: u64,
    rejected: Rejected,
}

impl Plan {
    fn new(options: &PrepareOptions) -> Self {
        Self {
            seen: HashSet::new(),
            fates: Vec::new(),
            threshold: (options.validation * u64::MAX as f64) as u64,
            seed: mix(options.seed.wrapping_add(0x9e37_79b9_7f4a_7c15)),
            lowest: None,
            held_out: 0,
            fraction: options.validation,
            bytes: 0,
            documents: 0,
            rejected: Rejected::default(),
        }
    }

    fn add(&mut self, document: &Document) {
        let fate = match &document.text {
            Err(reason) => {
                self.rejected.add(&document.place, reason);
                Fate::Rejected
            }
            Ok(text) => {
                self.bytes += text.len() as u64;
                let identity = identity(text);
                let length = mix(text.len() as u64);
                self.documents ^= identity as u64 ^ (identity >> 64) as u64 ^ length;
                self.place(identity)
            }
        };
        self.documents = mix(self.documents.wrapping_add(fate as u64 + 1));
        self.fates.push(fate);
    }

    fn place(&mut self, identity: u128) -> Fate {
        if !self.seen.insert(identity) {
            return Fate::Duplicate;
        }
        let draw = mix((identity as u64) ^ mix((identity >> 64) as u64 ^ self.seed));
        if self.lowest.is_none_or(|(lowest, _)| draw < lowest) {
            self.lowest = Some((draw, self.fates.len()));
        }
        if draw < self.threshold {
            self.held_out += 1;
            return Fate::Validation;
        }
        Fate::Train
    }

    fn kept(&self) -> u64 {
        self.seen.len() as u64
    }

    /// Holds out the document of the lowest draw when none was, and gives one back when all were.
    /// Returns whether there is only one document, whose tail must serve.
    fn hold_out_one(&mut self) -> bool {
        let Some((_, lowest)) = self.lowest.filter(|_| self.fraction > 0.0) else { return false };
        if self.kept() == 1 {
            self.fates[lowest] = Fate::Train;
            return true;
        }
        if self.held_out == 0 {
            self.fates[lowest] = Fate::Validation;
        } else if self.held_out == self.kept() {
            self.fates[lowest] = Fate::Train;
        }
        false
    }
}

/// Rows that cannot be used, and the first of them by name.
#[derive(Default)]
struct Rejected {
    count: u64,
    named: Vec<String>,
}

impl Rejected {
    fn add(&mut self, place: &str, reason: &str) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(format!("{place}: {reason}"));
        }
    }
}

/// The documents of a part: those that begin in its equal share of the bytes of all texts.
struct Share {
    part: Part,
    bytes: u64,
    /// Bytes of the documents so far.
    begin: u64,
}

impl Share {
    fn new(part: Option<Part>, bytes: u64) -> Self {
        Self { part: part.unwrap_or(Part { number: 1, of: 1 }), bytes: bytes.max(1), begin: 0 }
    }

    /// Whether the next document is of the part.
    fn has(&mut self, document: &Document) -> bool {
        let of = self.part.of as u128;
        let before = (u128::from(self.begin) * of / u128::from(self.bytes)).min(of - 1);
        self.begin += document.text.as_ref().map_or(0, |text| text.len() as u64);
        before as usize + 1 == self.part.number
    }
}

/// FNV-1a of the words of a text, so that white space does not tell documents apart.
fn identity(text: &str) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for word in text.split_whitespace() {
        for byte in word.bytes().chain([b' ']) {
            hash = (hash ^ u128::from(byte)).wrapping_mul(PRIME);
        }
    }
    hash
}

#[cfg(test)]
mod tests;
