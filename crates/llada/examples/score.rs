//! How probable a model finds answers after a text, by Alg. 3: `score MODEL TEXT ANSWER…`.
#![allow(clippy::print_stdout)]

use std::{error::Error, ops::ControlFlow, path::Path};

use llada::{
    checkpoint,
    diffusion::likelihood::{Settings, encode_pair, score},
    model::MaskPredictor,
    tokenizer::Tokenizer,
};
use llada_kernels::Cpu;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, text, answers @ ..] = &arguments[..] else {
        return Err("give a model, a text and answers".into());
    };
    let dir = Path::new(dir);
    let tokenizer = Tokenizer::from_dir(dir)?;
    let model = checkpoint::load(dir)?;
    let special = checkpoint::special_tokens(&model.config, Some(&tokenizer));
    let mut predictor = MaskPredictor::new(model, Cpu::new(0)?)?;

    let pairs = answers.iter().map(|answer| encode_pair(&tokenizer, text, answer));
    let pairs = pairs.collect::<llada::Result<Vec<_>>>()?;
    let settings = Settings::with_samples(128);
    score(&mut predictor, &special, &pairs, &settings, &mut |i, estimate| {
        let error = estimate.standard_error.unwrap_or(f64::NAN);
        println!("{:>10.3} ± {error:.3} nats  {:?}", estimate.log_likelihood, answers[i]);
        ControlFlow::Continue(())
    })?;
    Ok(())
}
