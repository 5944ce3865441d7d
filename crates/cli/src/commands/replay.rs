//! `llada replay`: a recorded canvas, played or exported.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use llada::{
    diffusion::{
        Step,
        trace::{Header, Reader, Text, TraceError},
    },
    files,
    tokenizer::Tokenizer,
};

use super::STANDARD;
use crate::{
    args::{Export, Replay},
    error::{Failure, Interrupted},
    interrupt::Flag,
    term::{self, Term},
    view::{
        canvas::Painter,
        export::{self, Film},
        scene::{Cell, Scene},
    },
};

/// Plays the recording on the terminal, or writes it as a file.
pub fn run(args: Replay, term: &Term) -> Result<()> {
    let tokenizer = args.tokenizer.as_deref().map(super::tokenizer::open).transpose()?;
    let recording = Recording::read(&args.file, tokenizer, term)?;
    let format = match (args.export, &args.out) {
        (Some(format), _) => format,
        (None, None) => return recording.play(Duration::from_millis(args.delay.into()), term),
        (None, Some(out)) => Export::of(out).ok_or_else(|| {
            let message = format!("`{}` does not say in what format to write", out.display());
            Failure::usage(message, "end its name in `.svg` or `.html`, or give `--export`")
        })?,
    };
    let film = recording.film();
    let exported = match format {
        Export::Html => export::html(&film, args.delay.into()),
        Export::Svg => export::svg(&film, args.delay.into(), args.width.into()),
    };
    let Some(out) = args.out.filter(|out| out.as_os_str() != STANDARD) else {
        return term::answer(exported.trim_end());
    };
    let is_input =
        out.canonicalize().is_ok_and(|out| args.file.canonicalize().is_ok_and(|f| f == out));
    if is_input {
        let message = format!("`{}` is the recording itself", out.display());
        return Err(Failure::usage(message, "give another name to `--out`").into());
    }
    files::write(&out, exported.as_bytes())?;
    term.note(&format!("wrote {}", out.display()));
    Ok(())
}

/// Bytes of text that the tokens of a recording may have, and how many more for each byte of the file:
/// a few of those that record a token can ask for a long text.
const MOST_TEXT: (u64, u64) = (64 << 10, 16);

/// A trace, all of it.
struct Recording {
    header: Header,
    steps: Vec<Step>,
    /// Texts of single tokens, from the recording.
    texts: HashMap<u32, Text>,
    /// Reads tokens together, where there is one.
    tokenizer: Option<Tokenizer>,
}

impl Recording {
    fn read(path: &Path, tokenizer: Option<Tokenizer>, term: &Term) -> Result<Self> {
        let source: Box<dyn Read> = match path.as_os_str() == STANDARD {
            true => Box::new(std::io::stdin()),
            false => Box::new(
                File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?,
            ),
        };
        let refuse = |what: String, hint: Option<String>| {
            let message = format!("cannot replay `{}`: {what}", path.display());
            let hint = hint.unwrap_or_else(|| "record it again with `llada run --trace`".into());
            Failure::new(message, hint)
        };
        let of_trace = |e: TraceError| refuse(e.to_string(), e.hint());
        let mut reader = Reader::new(BufReader::new(source)).map_err(of_trace)?;
        let header = reader.header().clone();
        let steps = reader.by_ref().collect::<Result<Vec<Step>, _>>().map_err(of_trace)?;
        if reader.is_cut_off() {
            let name = path.display();
            term.warn(&format!("the last line of `{name}` is cut off, and left out"));
        }
        let mut texts = HashMap::new();
        let prompt_texts = header.prompt_text.iter().flatten().cloned();
        texts.extend(header.prompt.iter().copied().zip(prompt_texts));
        for commit in steps.iter().flat_map(|s| &s.committed) {
            if let Some(text) = &commit.text {
                texts.insert(commit.token, text.clone());
            }
        }
        let recording = Self { header, steps, texts, tokenizer };
        let most = MOST_TEXT.0 + MOST_TEXT.1 * reader.bytes();
        if recording.text_bytes() > most {
            let what = format!("its tokens have more than {most} bytes of text, out of proportion");
            return Err(refuse(what, None).into());
        }
        Ok(recording)
    }

    /// Bytes of all texts that ever stand in a cell.
    fn text_bytes(&self) -> u64 {
        let committed = self.steps.iter().flat_map(|step| &step.committed).map(|c| c.token);
        let mut lengths = HashMap::new();
        let mut length =
            |id: u32| *lengths.entry(id).or_insert_with(|| self.decode(&[id]).len() as u64);
        self.header.prompt.iter().copied().chain(committed).map(&mut length).sum()
    }

    /// The canvas before the first step. Of a layout that stopped early, the part that was opened.
    fn scene(&self) -> Scene {
        let prompt = &self.header.prompt;
        let sampler = &self.header.sampler;
        let length = match sampler.variable_length {
            Some(_) => self.header.length.min(prompt.len() + sampler.initial_length()),
            None => self.header.length,
        };
        let mut scene = Scene::new(prompt, length, self.header.mask);
        let may_stop = sampler.stop_at_eos && sampler.variable_length.is_none();
        if sampler.blocks.grows() || may_stop {
            let positions = self.steps.iter().flat_map(|s| &s.committed).map(|c| c.position + 1);
            scene.truncate(positions.max().unwrap_or(0).max(prompt.len()));
        }
        scene
    }

    fn decode(&self, tokens: &[u32]) -> String {
        if let Some(text) = self.tokenizer.as_ref().and_then(|t| t.decode(tokens, false).ok()) {
            return text;
        }
        let mut bytes = Vec::new();
        for id in tokens {
            match self.texts.get(id) {
                Some(text) => bytes.extend_from_slice(text.as_bytes()),
                None => bytes.extend_from_slice(format!("⟨{id}⟩").as_bytes()),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn film(&self) -> Film {
        let prompt: String = self.decode(&self.header.prompt).chars().take(60).collect();
        let title = format!("{}: {}", self.header.model, prompt.trim());
        Film::record(title, self.scene(), &self.steps, &|tokens| self.decode(tokens))
    }

    /// Draws on a terminal; elsewhere gives the text at the end of the recording.
    fn play(&self, delay: Duration, term: &Term) -> Result<()> {
        let mut scene = self.scene();
        if !term.interactive {
            self.steps.iter().for_each(|step| scene.apply(step));
            return term::answer(&self.answer(&scene));
        }
        let stop = Flag::listen(term, None)?;
        let mut painter = Painter::new(*term);
        let count = self.steps.len();
        let decode = |tokens: &[u32]| self.decode(tokens);
        painter.paint(&scene, &scene.texts(&decode), &format!("step 0/{count}"));
        for step in &self.steps {
            if stop.wait(delay) {
                return Err(Interrupted.into());
            }
            scene.apply(step);
            let status = format!("step {}/{count} · {} NFE", scene.step, step.nfe);
            painter.paint(&scene, &scene.texts(&decode), &status);
        }
        Ok(())
    }

    /// The tokens of the response, without masks; of a prompt with masks, which was a text to fill,
    /// all of it.
    fn answer(&self, scene: &Scene) -> String {
        let is_filled = self.header.prompt.iter().any(|&token| Some(token) == self.header.mask);
        let tokens = scene.cells.iter().filter_map(|cell| match cell {
            Cell::Token { token, .. } => Some(*token),
            Cell::Given(token) if is_filled => Some(*token),
            _ => None,
        });
        self.decode(&tokens.collect::<Vec<u32>>())
    }
}
