//! Text files as one running stream of tokens, as training sees them.

use std::path::PathBuf;

use super::{
    corpus::{Corpus, Format, Separator},
    prepare::encode,
};
use crate::{Result, data::DataError, tokenizer::Tokenizer};

/// Documents, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningText {
    /// An end of text, then each document followed by an end of text.
    pub tokens: Vec<u32>,
    /// Bytes of the documents.
    pub bytes: u64,
    /// Documents.
    pub documents: usize,
    /// Where documents could not be read, and why.
    pub rejected: Vec<String>,
}

impl RunningText {
    /// Reads files, or folders of them, in the formats and with the separators of
    /// [`prepare`](super::prepare()); a file whose name tells no format is plain text. Nothing is
    /// dropped, duplicates neither.
    ///
    /// # Errors
    /// If a file cannot be read, none has a document, or the tokenizer has no end of text.
    pub fn read(inputs: &[PathBuf], tokenizer: &Tokenizer) -> Result<Self> {
        let eos = tokenizer.special_tokens().eos.ok_or(DataError::NoEos)?;
        let end_of_text = tokenizer.token(eos).ok_or(DataError::NoEos)?;
        let mut text = Self { tokens: vec![eos], bytes: 0, documents: 0, rejected: Vec::new() };
        for input in inputs {
            let is_unknown = !input.is_dir() && Format::of(input).is_none();
            let corpus = Corpus {
                inputs: std::slice::from_ref(input),
                format: is_unknown.then_some(Format::Text),
                separator: Separator::EndOfText,
                end_of_text: &end_of_text,
                field: "text",
            };
            corpus.visit(&corpus.files()?, &mut |document| {
                match document.text.map(|t| (t.len(), encode(tokenizer, &t))) {
                    Ok((bytes, Ok(ids))) => text.add(bytes, &ids, eos),
                    Ok((_, Err(error))) => text.reject(&document.place, &error.to_string()),
                    Err(reason) => text.reject(&document.place, &reason),
                }
                Ok(())
            })?;
        }
        if text.documents == 0 {
            let first = text.rejected.first().map(|n| format!(", first {n}")).unwrap_or_default();
            let (inputs, rejected) = (inputs.len(), text.rejected.len());
            return Err(DataError::NoDocuments { inputs, rejected, first }.into());
        }
        Ok(text)
    }

    fn add(&mut self, bytes: usize, ids: &[u32], eos: u32) {
        self.bytes += bytes as u64;
        self.documents += 1;
        self.tokens.extend_from_slice(ids);
        self.tokens.push(eos);
    }

    fn reject(&mut self, place: &str, reason: &str) {
        self.rejected.push(format!("{place}: {reason}"));
    }

    /// Bytes of text per token, the first end of text apart.
    pub fn bytes_per_token(&self) -> f64 {
        self.bytes as f64 / (self.tokens.len() - 1).max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{Kind, train};

    #[test]
    fn documents_follow_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let tokenizer = train(Kind::Character { min_count: 0 }, [Ok("abc")]).unwrap();
        let inputs = [
            file("a.txt", b"ab<|endoftext|>ab\n<|endoftext|>\xff"),
            file("b.jsonl", b"{\"text\": \"c\"}\n{}\n"),
            file("noname", b"a"),
        ];
        let text = RunningText::read(&inputs, &tokenizer).unwrap();
        let end = tokenizer.special_tokens().eos.unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|t| tokenizer.id(t).unwrap());
        assert_eq!(text.tokens, [end, a, b, end, a, b, end, c, end, a, end]);
        assert_eq!((text.bytes, text.documents), (6, 4));
        assert_eq!(text.bytes_per_token(), 0.6);
        assert_eq!(text.rejected.len(), 2, "{:?}", text.rejected);
        assert!(text.rejected[0].contains("a.txt:2: not UTF-8"), "{:?}", text.rejected);

        let empty = [file("empty.txt", b" \n")];
        assert!(RunningText::read(&empty, &tokenizer).is_err());
        assert!(RunningText::read(&[dir.path().join("none")], &tokenizer).is_err());
    }
}
