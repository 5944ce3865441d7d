//! What is asked of a model: the beginning of a sequence or a text with holes, and how it is sampled.

use std::{ops::Range, sync::Arc};

use llada::{
    Codec,
    config::AttentionMask,
    constraint::Automaton,
    diffusion::{Canvas, Sampler, SamplerError, Settings},
    rng::nth_seed,
};

use super::{
    Fill, Finish, Holes,
    progress::{self, Progress},
};
use crate::error::{ApiError, ApiResult};

/// What an answer begins with.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// A prompt that is to be continued.
    Prompt(Vec<u32>),
    /// A text with holes that are to be filled.
    Holes(Holes),
}

/// How long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Length {
    /// Its useful tokens.
    pub(crate) cap: usize,
    /// Whether further canvases follow a full one up to there.
    pub(crate) grows: bool,
}

/// One answer that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) start: Start,
    pub(crate) sampler: Sampler,
    pub(crate) length: Length,
    /// Texts that end it and do not belong to it.
    pub(crate) stops: Vec<String>,
    /// What it must match.
    pub(crate) automaton: Option<Arc<Automaton>>,
    /// Settings that were accepted and have no effect.
    unused: Vec<&'static str>,
}

/// A response that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    /// The tokens that it continues.
    pub(crate) prompt: Vec<u32>,
    pub(crate) settings: &'a Settings,
    /// Its most useful tokens.
    pub(crate) max_tokens: Option<usize>,
    /// Whether it is a message of a conversation.
    pub(crate) is_chat: bool,
    pub(crate) stops: Vec<String>,
    /// What it must match.
    pub(crate) automaton: Option<Arc<Automaton>>,
}

impl Ask {
    /// Asks for a response.
    ///
    /// The cap is no canvas: where no length was set, a canvas is as long as the model's answers usually
    /// are, or shorter where that is enough, and further ones follow up to the cap. What must match
    /// something has one canvas, in which it must end.
    ///
    /// # Errors
    /// If the settings contradict each other, the model or the prompt.
    pub(crate) fn response(codec: &Codec, wanted: Wanted<'_>) -> ApiResult<Self> {
        let Wanted { prompt, settings, max_tokens, is_chat, stops, automaton } = wanted;
        let limit = codec.config().max_sequence_length;
        let room = limit.saturating_sub(prompt.len());
        if room == 0 {
            let message = format!(
                "the prompt has {} tokens, and this model's maximum context length is {limit} tokens; shorten the prompt",
                prompt.len()
            );
            return Err(ApiError::bad(message).coded("context_length_exceeded"));
        }
        if let Some(block) = settings.block_length.filter(|&block| block > room) {
            let message = format!("block_length is {block}, and there is room for {room} tokens");
            let error = ApiError::field("block_length", message);
            return Err(error.coded("context_length_exceeded"));
        }
        let sampler = |settings: &Settings| match is_chat {
            true => codec.chat_sampler(settings),
            false => codec.sampler(settings, prompt.len()),
        };
        let (settings, unused) = used(settings, sampler);
        let sampler =
            |settings: &Settings| sampler(settings).map_err(|error| ApiError::sampler(&error));
        let (sampler, length) = match settings.gen_length {
            Some(length) if length > room => {
                let message =
                    format!("gen_length is {length}, and there is room for {room} tokens");
                let error = ApiError::field("gen_length", message);
                return Err(error.coded("context_length_exceeded"));
            }
            Some(length) if automaton.is_some() && max_tokens.is_some_and(|most| most < length) => {
                let message =
                    "what must match something is not cut off: give `max_tokens` or `gen_length`";
                return Err(ApiError::field("max_tokens", message));
            }
            Some(length) => {
                let cap = max_tokens.unwrap_or(length).min(length);
                (sampler(&settings)?, Length { cap, grows: false })
            }
            None => {
                // Steps are shared by the blocks of the canvas that it becomes.
                let usual = sampler(&Settings { steps: None, ..settings.clone() })?;
                // What must match something may need more than answers usually have.
                let least = automaton.as_ref().map_or(0, |automaton| automaton.shortest());
                let cap = max_tokens.unwrap_or(usual.gen_length.max(2 * least)).min(room);
                if least > cap {
                    return Err(short(least, cap, room, limit));
                }
                let is_whole = is_chat && codec.config().attention == AttentionMask::Bidirectional;
                let block = if is_whole { usual.block().max(1) } else { 1 };
                let fitted = match automaton.is_some() {
                    // It ends in this canvas: nothing of it may be cut off.
                    true => ended(&settings, block, least, cap),
                    false => fitted(&settings, block, usual.gen_length.min(cap), room),
                };
                let seed = Some(usual.seed);
                let sampler = sampler(&Settings { seed, ..fitted })?;
                let grows = automaton.is_none() && cap > sampler.gen_length;
                (sampler, Length { cap, grows })
            }
        };
        Ok(Self { start: Start::Prompt(prompt), sampler, length, stops, automaton, unused })
    }

    /// The sampler for the holes of a text, and the settings that have no effect on it.
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub(crate) fn infill_sampler(settings: &Settings) -> ApiResult<(Sampler, Vec<&'static str>)> {
        let (settings, unused) = used(settings, Codec::infill_sampler);
        let sampler = Codec::infill_sampler(&settings);
        Ok((sampler.map_err(|error| ApiError::sampler(&error))?, unused))
    }

    /// Fills for the holes of a text, by a [sampler](Self::infill_sampler) on which settings have no effect.
    pub(crate) fn holes(
        holes: Holes,
        (sampler, unused): (Sampler, Vec<&'static str>),
        stops: Vec<String>,
    ) -> Self {
        let cap = holes.lengths.iter().sum();
        let length = Length { cap, grows: false };
        Self { start: Start::Holes(holes), sampler, length, stops, automaton: None, unused }
    }

    /// What a response says of what has no effect: the `warnings` of its request, and settings.
    pub(crate) fn warning(&self, warnings: &[String]) -> Option<String> {
        let unused =
            self.unused.iter().map(|name| format!("`{name}` has no effect at temperature 0"));
        let all: Vec<String> = warnings.iter().cloned().chain(unused).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// The same so many times, each with a seed of its own.
    pub(crate) fn times(&self, n: usize) -> impl Iterator<Item = Self> {
        (0..n as u64).map(|i| {
            let seed = nth_seed(self.seed(), i);
            let sampler = Sampler { seed, ..self.sampler.clone() };
            Self { sampler, ..self.clone() }
        })
    }

    pub(crate) fn seed(&self) -> u64 {
        self.sampler.seed
    }

    /// Whether it is a response, and not fills of holes.
    pub(super) fn is_response(&self) -> bool {
        matches!(self.start, Start::Prompt(_))
    }

    /// The first canvas.
    pub(super) fn canvas(&self, codec: &Codec) -> llada::Result<Canvas> {
        let mut canvas = match &self.start {
            Start::Prompt(prompt) => codec.canvas(prompt.clone(), &self.sampler)?,
            Start::Holes(Holes { frame, lengths }) => {
                codec.infill(frame, lengths, &self.sampler)?
            }
        };
        if let Some(automaton) = &self.automaton {
            canvas.constrain(Arc::clone(automaton))?;
        }
        Ok(canvas)
    }

    /// A further canvas after a full sequence; `None` where the answer may not grow or there is no room.
    pub(super) fn next(&self, tokens: &[u32], codec: &Codec) -> llada::Result<Option<Canvas>> {
        let Start::Prompt(prompt) = &self.start else { return Ok(None) };
        let has = tokens.len() - prompt.len();
        let room = codec.config().max_sequence_length - tokens.len();
        let wanted = self.length.cap.saturating_sub(has).min(room);
        let block = self.sampler.block().max(1);
        let length = wanted.next_multiple_of(block).min(self.sampler.gen_length);
        let length = if length > room { room - room % block } else { length };
        if !self.length.grows || length == 0 {
            return Ok(None);
        }
        // As many steps for each block as before.
        let blocks = self.sampler.gen_length.div_ceil(block).max(1);
        let steps = (self.sampler.steps / blocks).max(1) * length.div_ceil(block);
        let sampler = Sampler { gen_length: length, steps, ..self.sampler.clone() };
        codec.canvas(tokens.to_vec(), &sampler).map(Some)
    }

    /// Follows the answer on `canvas`.
    pub(super) fn progress(&self, canvas: &Canvas) -> Progress {
        let place = self.place(canvas.prompt().tokens.len());
        let (tokens, mask) = (canvas.tokens().to_vec(), canvas.mask_token());
        Progress::new(tokens, place, mask, self.length.cap, self.stops.clone())
    }

    /// Where the answer is: of several holes, from the first to the end of the last.
    fn place(&self, prompt: usize) -> Range<usize> {
        match &self.start {
            Start::Prompt(_) => prompt..usize::MAX,
            Start::Holes(Holes { frame, lengths }) => {
                let places = frame.places(lengths);
                let first = places.first().map_or(0, |place| place.start);
                first..places.last().map_or(first, |place| place.end)
            }
        }
    }

    /// The tokens that were given.
    pub(super) fn prompt_tokens(&self, prompt: usize) -> usize {
        match &self.start {
            Start::Prompt(_) => prompt,
            Start::Holes(holes) => holes.frame.given(),
        }
    }

    /// What came of it.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub(super) fn result(
        &self,
        progress: &Progress,
        confidence: &[f32],
        codec: &Codec,
    ) -> llada::Result<Result> {
        let Start::Holes(Holes { frame, lengths }) = &self.start else {
            let finish = progress.finish().unwrap_or(Finish::Length);
            let (text, tokens) = (progress.text().to_owned(), progress.useful().to_vec());
            return Ok(Result { finish, text, tokens, fills: Vec::new() });
        };
        let texts = frame.fills(&codec.tokenizer, progress.tokens(), lengths)?;
        let fill = |(place, text): (Range<usize>, String)| {
            let tokens = progress.tokens().get(place.clone()).unwrap_or_default().to_vec();
            let sure = confidence.get(place).unwrap_or_default();
            let sum: f64 = sure.iter().map(|&c| f64::from(c)).sum();
            Fill { text, confidence: sum / tokens.len().max(1) as f64, tokens }
        };
        let fills: Vec<Fill> = frame.places(lengths).into_iter().zip(texts).map(fill).collect();
        let mut text: String = fills.iter().map(|fill| fill.text.as_str()).collect();
        let stop = progress::first_stop(&text, &self.stops);
        if let Some((at, _)) = stop {
            text.truncate(at);
        }
        let tokens = fills.iter().flat_map(|fill| fill.tokens.iter().copied()).collect();
        Ok(Result { finish: Finish::Stop(stop.map(|(_, stop)| stop.clone())), text, tokens, fills })
    }
}

/// The settings without those that many clients always send and that mean nothing where no token is drawn,
/// `top_k` and `top_p`, and the names of those.
fn used(
    settings: &Settings,
    sampler: impl Fn(&Settings) -> std::result::Result<Sampler, SamplerError>,
) -> (Settings, Vec<&'static str>) {
    let rest = Settings { top_k: None, top_p: None, ..settings.clone() };
    // Whether tokens are drawn is no matter of lengths, which may not fit yet.
    let free = Settings { gen_length: None, block_length: None, steps: None, ..rest.clone() };
    if sampler(&free).map_or(true, |sampler| sampler.filters()) {
        return (settings.clone(), Vec::new());
    }
    let made = [("top_k", settings.top_k.is_some()), ("top_p", settings.top_p.is_some())];
    (rest, made.iter().filter(|(_, is_made)| *is_made).map(|(name, _)| *name).collect())
}

/// What must match something has no room for the shortest that does, in a model of so long sequences.
fn short(least: usize, cap: usize, room: usize, limit: usize) -> ApiError {
    let how = match least {
        _ if least >= limit => format!("this model's sequences have {limit}"),
        _ if least > room => "shorten the prompt".into(),
        _ => format!("give `max_tokens` as {least} or more"),
    };
    let message = format!(
        "the shortest answer that satisfies the constraint has {least} tokens; there is room for {cap}; {how}"
    );
    ApiError::field("max_tokens", message)
}

/// The settings of a canvas of `wanted` tokens, in whole blocks of so many, and no longer than there is room
/// for.
fn fitted(settings: &Settings, block: usize, wanted: usize, room: usize) -> Settings {
    let whole = wanted.next_multiple_of(block);
    match if whole > room { room - room % block } else { whole } {
        // Less room than a block takes: a block of its own.
        0 => blocks(settings, room, None),
        length => blocks(settings, length, (block > 1).then_some(block)),
    }
}

/// The settings of a canvas of at most `cap` tokens, in whole blocks of so many if `least` tokens fit into
/// those, and else one block.
fn ended(settings: &Settings, block: usize, least: usize, cap: usize) -> Settings {
    let whole = cap - cap % block;
    match (block, whole >= least.max(1)) {
        (1, _) => blocks(settings, cap, None),
        (block, true) => blocks(settings, whole, Some(block)),
        (_, false) => blocks(settings, cap, Some(cap)),
    }
}

/// Settings with these lengths, where none was asked for.
fn blocks(settings: &Settings, gen_length: usize, block: Option<usize>) -> Settings {
    let block_length = settings.block_length.or(block);
    Settings { gen_length: Some(gen_length), block_length, ..settings.clone() }
}

/// What came of an answer.
#[derive(Debug)]
pub(super) struct Result {
    pub(super) finish: Finish,
    pub(super) text: String,
    /// Its useful tokens.
    pub(super) tokens: Vec<u32>,
    pub(super) fills: Vec<Fill>,
}
