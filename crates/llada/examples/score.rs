//! How probable a model finds answers after a text, by Alg. 3: `score MODEL TEXT ANSWER…`.
#![allow(clippy::print_stdout)]

use std::error::Error;

use llada::{Session, diffusion::likelihood::Settings};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, text, answers @ ..] = &arguments[..] else {
        return Err("give a model, a text and answers".into());
    };
    let mut session = Session::open(model)?;
    let pairs = answers.iter().map(|answer| session.pair(text, answer));
    let pairs = pairs.collect::<llada::Result<Vec<_>>>()?;
    let estimates = session.score(&pairs, &Settings::with_samples(128))?;
    for (answer, estimate) in answers.iter().zip(estimates) {
        let error = estimate.standard_error.unwrap_or(f64::NAN);
        println!("{:>10.3} ± {error:.3} nats  {answer:?}", estimate.log_likelihood);
    }
    Ok(())
}
