//! Fills the holes of a text: `infill MODEL 'The {{hole:2}} sat on the {{hole}}.'`. Where no length is
//! given, one of up to eight tokens is chosen.
#![allow(clippy::print_stdout)]

use std::{error::Error, ops::ControlFlow};

use llada::{
    Codec, Session,
    diffusion::{Settings, infill::Template},
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text] = &arguments[..] else {
        return Err("give a model and a text with holes".into());
    };
    let mut session = Session::open(model)?;
    let template: Template = text.parse()?;
    let frame = session.frame(&template)?;
    let sampler = Codec::infill_sampler(&Settings::default())?;
    let found = session.hole_lengths(&frame, &sampler, 8, &mut || false)?;
    let lengths = found.ok_or("nobody stops the search")?.lengths;
    let mut canvases = [session.infill(&frame, &lengths, &sampler)?];
    session.generate(&mut canvases, &mut |_, _| ControlFlow::Continue(()))?;
    let fills = frame.fills(&session.tokenizer, canvases[0].tokens(), &lengths)?;
    println!("{}", template.fill(&fills));
    Ok(())
}
