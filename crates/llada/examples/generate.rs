//! Continues a text, and shows how the canvas is unmasked: `generate MODEL TEXT [TOKENS]`.
#![allow(clippy::print_stdout)]

use std::{error::Error, ops::ControlFlow};

use llada::{Session, diffusion::Sampler};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, text, length) = match &arguments[..] {
        [model, text] => (model, text, 16),
        [model, text, length] => (model, text, length.parse()?),
        _ => return Err("give a model and a text".into()),
    };
    let mut session = Session::open(model)?;

    // One step for each token, all masks open from the start: the paper's Alg. 4 without blocks.
    let sampler = Sampler {
        gen_length: length,
        block_length: length,
        steps: length,
        temperature: 0.5,
        ..Sampler::default()
    };
    let mut canvases = [session.canvas(session.encode(text)?, &sampler)?];
    let mut committed = Vec::new();
    let summary = session.generate(&mut canvases, &mut |_canvas, step| {
        committed.extend(step.committed.iter().cloned());
        ControlFlow::Continue(())
    })?;
    for commit in committed {
        let token = session.tokenizer.decode(&[commit.token], false)?;
        println!("{:>4} {:>5.1} % {token:?}", commit.position, commit.confidence * 100.0);
    }
    println!("{text}{}", session.text(&canvases[0])?);
    println!("{} forward passes", summary.nfe);
    Ok(())
}
