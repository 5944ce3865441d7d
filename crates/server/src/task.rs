//! What the engine of a server runs: canvases, and answers that are scored.

use llada::{
    Result,
    config::AttentionMask,
    diffusion::{
        Canvas, Query, ReadSpec, Reading, Step,
        infill::length::Trial,
        likelihood::{Greedy, Scoring},
    },
    engine::{CacheRequest, Work},
};

/// One work of a request.
#[derive(Debug)]
pub(crate) enum Task {
    /// A sequence on its way from masks to text.
    Canvas(Box<Canvas>),
    /// The likelihood of an answer.
    Scoring(Box<Scoring>),
    /// Whether greedy decoding gives an answer.
    Greedy(Box<Greedy>),
    /// A length of a hole.
    Trial(Box<Trial>),
}

impl Task {
    /// The last step, of a canvas.
    pub(crate) fn last_step(&self) -> Option<&Step> {
        match self {
            Self::Canvas(canvas) => Some(canvas.last_step()),
            Self::Scoring(_) | Self::Greedy(_) | Self::Trial(_) => None,
        }
    }

    fn work(&self) -> &dyn Work {
        match self {
            Self::Canvas(canvas) => &**canvas,
            Self::Scoring(scoring) => &**scoring,
            Self::Greedy(greedy) => &**greedy,
            Self::Trial(trial) => &**trial,
        }
    }
}

impl Work for Task {
    fn plan(&self, ahead: usize) -> Option<Query<'_>> {
        self.work().plan(ahead)
    }

    fn read_spec(&self, ahead: usize, wanted: usize) -> ReadSpec<'_> {
        self.work().read_spec(ahead, wanted)
    }

    fn commit(&mut self, readings: &[Reading]) -> Result<()> {
        match self {
            Self::Canvas(canvas) => Work::commit(&mut **canvas, readings),
            Self::Scoring(scoring) => scoring.commit(readings),
            Self::Greedy(greedy) => greedy.commit(readings),
            Self::Trial(trial) => trial.commit(readings),
        }
    }

    fn attention(&self) -> AttentionMask {
        self.work().attention()
    }

    fn cache(&self) -> Option<CacheRequest> {
        self.work().cache()
    }
}
