//! Continues a text, and shows how the canvas is unmasked: `generate MODEL TEXT [TOKENS]`.
#![allow(clippy::print_stdout)]

use std::{error::Error, ops::ControlFlow, path::Path};

use llada::{
    checkpoint,
    diffusion::{Canvas, Sampler, generate},
    model::MaskPredictor,
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, text, length) = match &arguments[..] {
        [dir, text] => (Path::new(dir), text, 16),
        [dir, text, length] => (Path::new(dir), text, length.parse()?),
        _ => return Err("give a model and a text".into()),
    };
    let tokenizer = Tokenizer::from_dir(dir)?;
    let model = checkpoint::load(dir)?;
    let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
    let attention = model.config.attention;

    // One step for each token, all masks open from the start: the paper's Alg. 4 without blocks.
    let sampler = Sampler {
        gen_length: length,
        block_length: length,
        steps: length,
        temperature: 0.5,
        ..Sampler::default()
    };
    let prompt = tokenizer.encode(text)?.into();
    let mut canvases = [Canvas::new(prompt, &sampler, &special, attention)?];
    let mut predictor = MaskPredictor::new(model, Cpu::new(0)?)?;
    let summary = generate::run(&mut predictor, &mut canvases, &mut |_row, step| {
        for kept in &step.committed {
            let token = tokenizer.decode(&[kept.token], false).unwrap_or_default();
            println!("{:>4} {:>5.1} % {token:?}", kept.position, kept.confidence * 100.0);
        }
        ControlFlow::Continue(())
    })?;
    println!("{}", tokenizer.decode(canvases[0].tokens(), true)?);
    println!("{} forward passes", summary.nfe);
    Ok(())
}
