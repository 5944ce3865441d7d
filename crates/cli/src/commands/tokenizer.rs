//! `llada tokenizer`.

mod render;

use std::{
    fs::File,
    io::{BufReader, ErrorKind, Read},
    path::{Path, PathBuf},
};

use anyhow::Result;
use llada::{
    checkpoint::gguf,
    files::{Existing, Output},
    text,
    tokenizer::{Kind, Tokenizer, TokenizerFiles, train},
};

use super::{Inputs, argument_or_stdin};
use crate::{
    args::{self, Apply, TokenizerKind, TokenizerTrain},
    error::Failure,
    locate::{self, Shipped},
    term::{self, Term},
};

/// Bytes of text given to the trainer at once; a piece ends at the end of a line.
const PIECE: u64 = 1 << 20;

/// Runs the verb below `tokenizer`.
pub fn run(args: args::Tokenizer, term: &Term) -> Result<()> {
    match args {
        args::Tokenizer::Train(args) => train_from_files(args, term),
        args::Tokenizer::Encode(args) => encode(args),
        args::Tokenizer::Decode(args) => decode(args),
        args::Tokenizer::Render(args) => render::run(&args),
    }
}

/// Opens a `tokenizer.json`, or the one of a folder or of a GGUF file.
pub fn open(path: &Path) -> Result<Tokenizer> {
    let is_model = path.is_dir() || gguf::is_gguf(path);
    Ok(if is_model { Tokenizer::from_dir(path)? } else { Tokenizer::from_file(path)? })
}

fn train_from_files(args: TokenizerTrain, term: &Term) -> Result<()> {
    let kind = match args.kind {
        TokenizerKind::Bpe => Kind::Bpe { vocab_size: args.vocab_size },
        TokenizerKind::Char => Kind::Character { min_count: args.min_count },
    };
    let out = Output::lock(&args.out)?;
    check_free(&args.out, args.overwrite)?;
    let is_own = Tokenizer::from_dir(&args.out).is_ok();
    out.check_own(is_own, &|name| TokenizerFiles::names(name))?;
    let inputs = Inputs::take(&args.inputs)?;
    let pieces = inputs.paths.iter().flat_map(|path| Pieces::open(path));
    let tokenizer = train(kind, pieces)?;
    let goes = |name: &str| args.overwrite && TokenizerFiles::names(name);
    out.fill(Existing::Replace(&goes), |dir| tokenizer.save_dir(dir))?;
    term.note(&format!("wrote {}: {} tokens", args.out.display(), tokenizer.vocab_size()));
    Ok(())
}

/// Refuses a file in the place of the folder, and a folder with a tokenizer.
fn check_free(out: &Path, overwrite: bool) -> Result<(), Failure> {
    if out.exists() && !out.is_dir() {
        let message = format!("`{}` is a file", out.display());
        return Err(Failure::usage(message, "give a folder as --out"));
    }
    let taken = TokenizerFiles::NAMES.iter().find(|name| out.join(name).exists());
    match taken.filter(|_| !overwrite) {
        None => Ok(()),
        Some(name) => Err(Failure::new(
            format!("`{}` has a `{name}` already", out.display()),
            "choose another folder, or replace the tokenizer with `--overwrite`",
        )),
    }
}

fn encode(args: Apply) -> Result<()> {
    let tokenizer = chosen(args.tokenizer)?;
    let ids = tokenizer.encode(&argument_or_stdin(args.input, "text")?)?;
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    term::answer(&ids.join(" "))
}

fn decode(args: Apply) -> Result<()> {
    let tokenizer = chosen(args.tokenizer)?;
    let text = argument_or_stdin(args.input, "token ids")?;
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']'));
    let ids = words.filter(|w| !w.is_empty()).map(|word| {
        word.parse::<u32>().map_err(|_| {
            Failure::usage(format!("`{word}` is not a token id"), "give ids such as `12 7 301`")
        })
    });
    let ids = ids.collect::<Result<Vec<u32>, _>>()?;
    if let Some(id) = ids.iter().find(|id| tokenizer.token(**id).is_none()) {
        let hint = format!("the tokenizer has {} entries", tokenizer.vocab_size());
        return Err(Failure::new(format!("no token has the id {id}"), hint).into());
    }
    term::answer(&tokenizer.decode(&ids, false)?)
}

fn chosen(path: Option<PathBuf>) -> Result<Tokenizer> {
    match path {
        Some(path) => open(&path),
        None => open(&locate::model(None, Shipped::Base)?),
    }
}

/// The text of a file in pieces of whole lines, so that a large file never is in memory at once.
struct Pieces {
    path: PathBuf,
    reader: Option<BufReader<File>>,
    failure: Option<std::io::Error>,
}

impl Pieces {
    fn open(path: &Path) -> Self {
        let (reader, failure) = match File::open(path) {
            Ok(file) => (Some(BufReader::new(file)), None),
            Err(e) => (None, Some(e)),
        };
        Self { path: path.to_owned(), reader, failure }
    }

    fn read(&mut self) -> std::io::Result<Option<String>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(reader) = &mut self.reader else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(PIECE).read_to_end(&mut bytes)?;
        text::read_line(reader, &mut bytes, text::MOST_OF_A_LINE)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|_| std::io::Error::new(ErrorKind::InvalidData, "not UTF-8 text"))
    }
}

impl Iterator for Pieces {
    type Item = llada::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.read();
        if piece.is_err() {
            self.reader = None;
        }
        let error = |source| llada::Error::Io { action: "read", path: self.path.clone(), source };
        piece.map_err(error).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_whole_file_and_end_after_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let text = "one line\n".repeat(300_000);
        std::fs::write(&path, &text).unwrap();
        let pieces: Vec<String> = Pieces::open(&path).map(Result::unwrap).collect();
        assert!(pieces.len() > 1);
        assert!(pieces.iter().all(|p| p.ends_with('\n')));
        assert_eq!(pieces.concat(), text);

        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let found: Vec<bool> = Pieces::open(&path).map(|p| p.is_err()).collect();
        assert_eq!(found, [true]);
        let missing = dir.path().join("none");
        assert!(Pieces::open(&missing).map(|p| p.is_err()).eq([true]));
    }
}
