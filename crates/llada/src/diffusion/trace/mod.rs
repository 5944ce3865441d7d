//! What happened in each step: the one event that every viewer consumes, and its file format.
//!
//! A trace is JSON Lines. The first line is the [`Header`], each further line a [`Step`]. With the
//! text of the tokens written along, a replay needs neither model nor tokenizer. The text of a token
//! that holds a part of a character only is a list of its bytes: [`Text`].

mod error;
mod reader;
mod text;
mod writer;

pub use error::TraceError;
pub use reader::Reader;
pub use text::Text;
pub use writer::Writer;

use serde::{Deserialize, Serialize};

use super::{Canvas, Sampler};

/// A page that plays a trace and needs nothing from elsewhere. Between marks `@@` stand the names of what is put in
/// their places: TITLE, TEXT, RAMP (the colours from unsure to sure) and DATA (what each cell shows in each step).
pub const FILM: &str = include_str!("film.html");

/// Version of the format that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// A token that stopped being a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Position in the sequence.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Its probability under the model, among the tokens that counted.
    pub confidence: f32,
    /// Its text, in traces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<Text>,
}

/// What one step changed in one sequence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Forward passes of this sequence so far, this one included.
    pub nfe: usize,
    /// Index of the step in the schedule; steps that would commit nothing are passed over.
    pub step: usize,
    /// Index of the block.
    pub block: usize,
    /// Tokens that were written, by position: in the place of masks, or where the sampler edits in that
    /// of other tokens.
    pub committed: Vec<Commit>,
    /// Positions that became masks again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remasked: Vec<usize>,
    /// Positions, in ascending order, of masks that were then put into the sequence: what stood there
    /// moves on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inserted: Vec<usize>,
    /// How many of the sequence's first tokens can no longer change.
    pub stable: usize,
}

impl Step {
    /// Whether it changed a token.
    pub(super) fn changes(&self) -> bool {
        !self.committed.is_empty() || !self.remasked.is_empty()
    }
}

/// What a trace is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the format.
    pub llada_trace: u32,
    /// Version of the program that wrote it.
    pub program: String,
    /// Name of the model.
    pub model: String,
    /// The settings, seed included.
    pub sampler: Sampler,
    /// The mask token, if the model has one.
    pub mask: Option<u32>,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Their texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_text: Option<Vec<Text>>,
    /// Length of the sequence when its response is full: the most that it can have.
    pub length: usize,
}

impl Header {
    /// The header for a fresh `canvas` of the model that goes by the name of `model`.
    pub fn new(canvas: &Canvas, model: &str) -> Self {
        Self {
            llada_trace: VERSION,
            program: concat!("llada ", env!("CARGO_PKG_VERSION")).into(),
            model: model.into(),
            sampler: canvas.sampler().clone(),
            mask: canvas.mask_token(),
            prompt: canvas.prompt().tokens.clone(),
            prompt_text: None,
            length: canvas.length(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};

    use super::*;

    fn header() -> Header {
        Header {
            llada_trace: VERSION,
            program: "llada 0.0.0".into(),
            model: "tiny".into(),
            sampler: Sampler::exact(),
            mask: Some(9),
            prompt: vec![1, 2],
            prompt_text: None,
            length: 5,
        }
    }

    fn step(position: usize) -> Step {
        let commit = Commit { position, token: 7, confidence: 0.25, text: None };
        Step {
            nfe: 1,
            step: 0,
            block: 0,
            committed: vec![commit],
            remasked: vec![],
            inserted: vec![],
            stable: 3,
        }
    }

    fn written(steps: &[Step], text: impl FnMut(u32) -> Option<Text>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, &header(), text).unwrap();
        steps.iter().for_each(|step| writer.step(step).unwrap());
        out
    }

    /// The first error of reading `steps` after a good header.
    fn complaint(steps: &str) -> String {
        let mut input = written(&[], |_| None);
        input.extend_from_slice(steps.as_bytes());
        let mut reader = Reader::new(&input[..]).unwrap();
        let error = reader.by_ref().find_map(Result::err).expect("an error");
        assert!(reader.next().is_none(), "nothing is read after an error");
        error.to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        let steps = [step(2), Step { remasked: vec![3], inserted: vec![3, 4], ..step(4) }];
        let input = written(&steps, |_| None);
        let reader = Reader::new(&input[..]).unwrap();
        assert_eq!(reader.header(), &header());
        assert_eq!(reader.collect::<Result<Vec<_>, _>>().unwrap(), steps);
    }

    #[test]
    fn texts_travel_along() {
        let input = written(&[step(2)], |token| Some(format!("<{token}>").as_str().into()));
        let mut reader = Reader::new(&input[..]).unwrap();
        assert_eq!(reader.header().prompt_text, Some(vec!["<1>".into(), "<2>".into()]));
        assert_eq!(reader.next().unwrap().unwrap().committed[0].text, Some("<7>".into()));
        assert!(reader.next().is_none());
    }

    #[test]
    fn a_bad_step_is_named_by_its_line() {
        let good = serde_json::to_string(&step(2)).unwrap();
        let outside = good.replace("\"position\":2", "\"position\":5");
        assert_eq!(
            complaint(&format!("{good}\n{outside}\n")),
            "line 3: position 5 is outside the sequence of 5 tokens"
        );
        let unstable = good.replace("\"stable\":3", "\"stable\":7");
        assert!(complaint(&unstable).contains("position 6"));
        let remasked = serde_json::to_string(&Step { remasked: vec![5], ..step(2) }).unwrap();
        assert!(complaint(&remasked).contains("position 5"));
        let inserted = serde_json::to_string(&Step { inserted: vec![5], ..step(2) }).unwrap();
        assert!(complaint(&inserted).contains("position 5"));
        assert!(complaint(&format!("{}\n", &good[..20])).starts_with("line 2: "));
        let descending = serde_json::to_string(&Step { inserted: vec![4, 3], ..step(2) }).unwrap();
        assert!(complaint(&descending).contains("ascending"));
        assert!(complaint("\u{0}\u{1}\n").starts_with("line 2: "));
        assert!(complaint(&("[".repeat(100_000) + "\n")).starts_with("line 2: "));
        let negative = good.replace("\"nfe\":1", "\"nfe\":-1") + "\n";
        assert!(complaint(&negative).starts_with("line 2: "));
    }

    #[test]
    fn a_last_line_that_is_cut_off_is_left_out() {
        let steps = [step(2), step(3)];
        let whole = written(&steps, |_| None);
        let first = whole.len() - serde_json::to_vec(&steps[1]).unwrap().len() - 1;
        for end in first..whole.len() {
            let mut reader = Reader::new(&whole[..end]).unwrap();
            let read: Vec<Step> = reader.by_ref().map(Result::unwrap).collect();
            // Without its newline only is the line whole all the same.
            let is_whole = end == whole.len() - 1;
            assert_eq!(read, steps[..1 + usize::from(is_whole)], "{end}");
            assert_eq!(reader.is_cut_off(), end > first && !is_whole, "{end}");
            assert_eq!(reader.bytes(), end as u64);
        }
        // Half a header is no trace.
        assert!(Reader::new(&whole[..20]).is_err());
    }

    #[test]
    fn what_no_run_writes_is_refused_before_it_costs_time_or_memory() {
        let commit = |text: Text| Commit { text: Some(text), ..step(2).committed[0].clone() };
        let long = Step { committed: vec![commit(vec![b'a'; 1025].into())], ..step(2) };
        assert!(complaint(&serde_json::to_string(&long).unwrap()).contains("1025 bytes"));
        let whole = Step { committed: vec![commit(vec![b'a'; 1024].into())], ..step(2) };
        let input = written(&[whole], |_| None);
        assert!(Reader::new(&input[..]).unwrap().all(|step| step.is_ok()));

        let many = serde_json::to_string(&Step { inserted: vec![4; 6], ..step(2) }).unwrap();
        assert!(complaint(&many).contains("too often"));
        let often = Step { inserted: vec![1], ..step(2) };
        let mut input = serde_json::to_vec(&Header { length: 1 << 17, ..header() }).unwrap();
        for _ in 0..1025 {
            input.push(b'\n');
            input.extend(serde_json::to_vec(&often).unwrap());
        }
        let results: Vec<_> = Reader::new(&input[..]).unwrap().collect();
        assert!(results.len() == 1025 && results[..1024].iter().all(Result::is_ok));
        assert!(matches!(results[1024], Err(TraceError::Insertions { line: 1026, .. })));

        let line = format!("{{\"nfe\":1{}}}\n", " ".repeat(15 << 20));
        let step = line.replace(
            "{\"nfe\":1",
            "{\"nfe\":1,\"step\":0,\"block\":0,\"committed\":[],\"stable\":0",
        );
        assert!(complaint(&step.repeat(5)).contains("longer than"));
    }

    #[test]
    fn a_line_without_end_is_refused_without_reading_it_all() {
        let endless = io::Cursor::new(written(&[], |_| None)).chain(io::repeat(b' '));
        let mut reader = Reader::new(io::BufReader::new(endless)).unwrap();
        let error = reader.next().unwrap().unwrap_err();
        assert!(matches!(error, TraceError::LineTooLong { line: 2 }), "{error}");
    }

    #[test]
    fn a_header_must_be_a_possible_one() {
        let read = |header: &Header| Reader::new(&serde_json::to_vec(header).unwrap()[..]).err();
        let newer = read(&Header { llada_trace: 2, ..header() }).unwrap();
        assert!(matches!(newer, TraceError::Version { found: 2 }), "{newer}");
        let short = read(&Header { length: 1, ..header() }).unwrap();
        assert!(matches!(short, TraceError::Length { length: 1, prompt: 2 }), "{short}");
        assert!(read(&Header { length: usize::MAX, ..header() }).is_some());
        for text in ["", "{}", "hello", "[]"] {
            let error = Reader::new(text.as_bytes()).unwrap_err();
            assert!(error.hint().unwrap().contains("--trace"), "{error}");
        }
    }
}
