//! One model on the clock.

use std::{fs, ops::ControlFlow, time::Instant};

use anyhow::Result;
use llada::{
    Compute,
    config::{AttentionMask, SpecialTokens},
    diffusion::{Canvas, Prompt, Sampler, generate},
    model::{Batch, MaskPredictor, Reuse},
    rng::{Purpose, Stream},
};
use llada_kernels::{DType, peak};

use super::report::{Again, Forward, Generation, Times, median};

/// What is to be measured about every model.
pub struct Plan {
    /// Lengths of the sequences of single passes.
    pub lengths: Vec<usize>,
    /// Positions whose logits are wanted, at most.
    pub wanted: usize,
    /// Rounds.
    pub rounds: usize,
    /// What matrix products multiply.
    pub compute: Compute,
    /// How to generate, after a prompt of so many tokens.
    pub generation: Option<(Sampler, usize)>,
}

/// What the clock says.
pub struct Found {
    /// Operations each second at best.
    pub peak: f64,
    /// One entry for each length.
    pub forward: Vec<Forward>,
    /// Of a whole generation.
    pub generation: Option<Generation>,
}

/// Measures everything once in each round, so that whatever else the machine does disturbs all
/// alike. Passes are made warm by one that does not count; `tell` is told of every round.
pub fn measure(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    plan: &Plan,
    dtype: DType,
    tell: &dyn Fn(usize),
) -> Result<Found> {
    let cpu = predictor.cpu().clone();
    let mut peaks = Vec::new();
    let mut passes = vec![Vec::new(); plan.lengths.len()];
    let (mut generations, mut repeated) = (Vec::new(), Vec::new());
    let (mut summary, mut reused) = (generate::Summary::default(), 0);
    let longest = plan.lengths.iter().copied().max().unwrap_or(0);
    let prompt = plan.generation.as_ref().map_or(0, |(_, prompt)| *prompt);
    let tokens = tokens(predictor, special, longest.max(prompt));
    for &length in &plan.lengths {
        pass(predictor, &tokens[..length], plan.wanted)?;
    }
    for round in 0..plan.rounds {
        tell(round);
        peaks.push(match dtype {
            DType::Blocks(_) => peak::int8_ops(&cpu),
            _ => peak::flops(&cpu),
        });
        for (&length, seconds) in plan.lengths.iter().zip(&mut passes) {
            seconds.push(pass(predictor, &tokens[..length], plan.wanted)?);
        }
        if let Some((sampler, prompt)) = &plan.generation {
            let generate = |predictor: &mut MaskPredictor| {
                let begun = Instant::now();
                let summary = whole(predictor, special, sampler, &tokens[..*prompt])?;
                anyhow::Ok((summary, begun.elapsed().as_secs_f64()))
            };
            // What an earlier round was fed is forgotten.
            predictor.retain(0);
            predictor.retain(1);
            let (first, seconds) = generate(predictor)?;
            summary = first;
            generations.push(seconds);
            let is_exact = predictor.model().config.attention != AttentionMask::Bidirectional;
            if is_exact || sampler.cache.reuse() == Reuse::Approximate {
                let (second, seconds) = generate(predictor)?;
                reused = second.tokens_reused;
                repeated.push(seconds);
            }
        }
    }
    let peak = median(&peaks);
    let config = &predictor.model().config;
    let forward = plan.lengths.iter().zip(passes).map(|(&length, seconds)| {
        Forward::new(config, length, plan.wanted.min(length), seconds, peak)
    });
    let generation = plan.generation.as_ref().map(|(sampler, prompt)| {
        let times = Times::new(generations);
        Generation {
            prompt_tokens: *prompt,
            forwards: summary.nfe,
            tokens_fed: summary.tokens_fed,
            tokens_per_forward: summary.tokens_per_forward(),
            canvas_tokens: summary.canvas_tokens,
            useful_tokens: summary.useful_tokens,
            seconds_per_useful_token: times.median_seconds / summary.useful_tokens.max(1) as f64,
            useful_tokens_per_second: summary.useful_tokens as f64 / times.median_seconds,
            again: (reused > 0)
                .then(|| Again { tokens_reused: reused, times: Times::new(repeated) }),
            times,
            sampler: sampler.clone(),
        }
    });
    Ok(Found { peak, forward: forward.collect(), generation })
}

/// Random tokens without a meaning of their own.
pub fn tokens(predictor: &MaskPredictor, special: &SpecialTokens, n: usize) -> Vec<u32> {
    let vocabulary = predictor.model().config.vocab_size as u64;
    let mut stream = Stream::new(0, Purpose::Masking, 0);
    let meant = [special.mask, special.eos, special.eot, special.bos, special.pad];
    // A vocabulary of few tokens may have no others.
    let mut draw = || {
        let mut drawn = (0..100).map(|_| stream.below(vocabulary) as u32);
        drawn.find(|token| !meant.contains(&Some(*token))).unwrap_or(0)
    };
    (0..n).map(|_| draw()).collect()
}

/// Seconds of one pass over a sequence, with the logits of its last positions.
fn pass(predictor: &mut MaskPredictor, sequence: &[u32], wanted: usize) -> Result<f64> {
    let wanted: Vec<usize> = (sequence.len().saturating_sub(wanted)..sequence.len()).collect();
    let batch = Batch { tokens: sequence, starts: &[0, sequence.len()], attention_mask: None };
    let mut logits = Vec::with_capacity(wanted.len() * predictor.model().config.embedding_size);
    let begun = Instant::now();
    predictor.logits(batch, &wanted, &mut logits)?;
    Ok(begun.elapsed().as_secs_f64())
}

/// One generation.
fn whole(
    predictor: &mut MaskPredictor,
    special: &SpecialTokens,
    sampler: &Sampler,
    prompt: &[u32],
) -> Result<generate::Summary> {
    let attention = predictor.model().config.attention;
    let prompt = Prompt::from(prompt.to_vec());
    let canvas = Canvas::new(prompt, sampler, special, attention);
    let mut canvases = [canvas.map_err(llada::Error::from)?];
    Ok(generate::run(predictor, &mut canvases, &mut |_, _| ControlFlow::Continue(()))?)
}

/// Forgets the most memory that the process has had; whether the system does.
pub fn forget_peak_memory() -> bool {
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// The most memory that the process has had, in bytes.
pub fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
