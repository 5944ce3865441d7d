//! Fills the holes of a text, which have given lengths: `infill MODEL 'The {{hole:2}} sat.'`.
#![allow(clippy::print_stdout)]

use std::{error::Error, ops::ControlFlow, path::Path};

use llada::{
    checkpoint,
    diffusion::{
        Canvas, Sampler, generate,
        infill::{Encoder, Template},
    },
    model::MaskPredictor,
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, text] = &arguments[..] else {
        return Err("give a model and a text with holes".into());
    };
    let dir = Path::new(dir);
    let tokenizer = Tokenizer::from_dir(dir)?;
    let model = checkpoint::load(dir)?;
    let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
    let attention = model.config.attention;

    let template: Template = text.parse()?;
    let frame = Encoder::new(&tokenizer).frame(&template)?;
    let lengths: Option<Vec<usize>> = frame.lengths().into_iter().collect();
    let lengths = lengths.ok_or("give each hole its length, as in `{{hole:2}}`")?;
    let sampler = Sampler { steps: lengths.iter().sum(), ..Sampler::default() };
    let mut canvases = [Canvas::infill(&frame, &lengths, &sampler, &special, attention)?];
    let mut predictor = MaskPredictor::new(model, Cpu::new(0)?)?;
    generate::run(&mut predictor, &mut canvases, &mut |_, _| ControlFlow::Continue(()))?;
    let fills = frame.fills(&tokenizer, canvases[0].tokens(), &lengths)?;
    println!("{}", template.fill(&fills));
    Ok(())
}
