//! Opens a model for a verb, and says what people should know of it.

use std::{path::Path, time::Instant};

use anyhow::Result;
use llada::{Session, checkpoint::GENERATION_CONFIG, diffusion::Settings};
use llada_kernels::Cpu;

use crate::{
    args::Machine,
    locate::{self, Shipped},
    term::Term,
    view::units,
};

/// Opens the model in `model`, or the shipped one `otherwise`, on the machine.
pub fn open(
    model: Option<&Path>,
    otherwise: Shipped,
    machine: &Machine,
    term: &Term,
) -> Result<Session> {
    let path = locate::model(model, otherwise)?;
    let begun = Instant::now();
    let mut session = Session::open_on(&path, Cpu::new(machine.threads())?)?;
    machine.compute.set(&mut session.predictor);
    let cpu = session.predictor.cpu();
    term.detail(&format!(
        "{}: {} parameters, loaded in {}; kernels {}, products in {}, {} threads",
        path.display(),
        units::count(session.config().parameters() as u64),
        units::duration(begun.elapsed().as_secs_f64()),
        cpu.isa(),
        cpu.compute(),
        cpu.threads()
    ));
    if session.proposed != Settings::NONE {
        term.detail(&format!("{GENERATION_CONFIG}: {}", units::settings(&session.proposed)));
    }
    Ok(session)
}

/// Says so where the model cannot know the marks of a conversation: it was never fine-tuned.
pub fn note_base_model(session: &Session, term: &Term) -> Result<()> {
    if !session.knows_chat_marks()? {
        term.note(&format!(
            "`{}` has no chat tokens: it is a base model, which continues text rather than \
             answers; use `llada run`, or fine-tune it on conversations",
            session.name
        ));
    }
    Ok(())
}
