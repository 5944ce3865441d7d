//! One training step of Eq. 3 (forward, backward, clipping, AdamW) against PyTorch.
//!
//! `cargo bench --bench train_step`

#[path = "duel/mod.rs"]
mod duel;

use duel::{Result, Side, Sizes};
use llada::{
    diffusion::{forward, loss},
    model::{Batch, Gradients, MaskPredictor, Model, Ragged, Targets},
    rng::{Purpose, Stream},
};
use llada_kernels::{
    Cpu,
    adamw::{AdamW, Parameter, Step},
    grad_norm, peak,
};

const SIZES: &Sizes<'_> = &[
    ("d", 256),
    ("layers", 8),
    ("heads", 8),
    ("ffn", 1024),
    ("vocab", 4096),
    ("length", 256),
    ("batch", 8),
    ("threads", 2),
];

fn main() -> Result<()> {
    if duel::is_side() {
        return ours();
    }
    let size = |key| SIZES.iter().find(|s| s.0 == key).map_or(0, |s| s.1);
    let sides = vec![Side::ours("train", SIZES)?, Side::torch("PyTorch", "train", SIZES)?];
    let measured = duel::duel(sides, 2)?;
    let tokens = size("batch") * size("length");
    let block = 4 * size("d") * size("d") + 3 * size("d") * size("ffn");
    // 6 operations for each weight and token, half of the tokens at the head, and attention.
    let weights = (size("layers") * block + size("vocab") * size("d") / 2) * tokens;
    let attention = 2 * size("layers") * size("d") * size("length") * tokens;
    let flops = 6.0 * (weights + attention) as f64;
    let peak = peak::f32_flops(&Cpu::new(size("threads"))?);
    let title = "training step, 10.5 M parameters, 8 sequences of 256 tokens, f32, 2 threads";
    duel::report(title, &measured, tokens as f64, flops, peak);
    Ok(())
}

/// The same step as `train_step` in `peers/torch_llada.py`.
fn ours() -> Result<()> {
    let config = duel::config()?;
    let (sequences, length, vocab) =
        (duel::size("batch")?, duel::size("length")?, config.vocab_size);
    let mask = vocab as u32 - 1;
    let mut stream = Stream::new(0, Purpose::Masking, 0);
    let mut batch = Ragged::default();
    for _ in 0..sequences {
        batch.push((0..length).map(|_| stream.below(u64::from(mask)) as u32));
    }
    let model = Model::init(config, 0)?;
    let mut gradients = Gradients::zeros(&model);
    let mut moments = [Gradients::zeros(&model), Gradients::zeros(&model)];
    let mut predictor = MaskPredictor::new(model, Cpu::new(duel::size("threads")?)?)?;
    let cpu = predictor.cpu().clone();
    let adamw = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let (mut step, mut nll) = (0, Vec::new());
    duel::serve(|| {
        step += 1;
        let t = forward::noise_levels(&mut stream, sequences, false);
        let mut draw = |_| stream.uniform();
        let noised = forward::noise(batch.tokens(), batch.starts(), &t, 1e-3, mask, &mut draw);
        let weights = loss::pretrain_weights(&noised, batch.tokens().len());
        gradients.clear();
        let batch = Batch { tokens: &noised.tokens, ..batch.as_batch() };
        let targets = Targets {
            positions: &noised.positions,
            tokens: &noised.targets,
            weights: &weights,
            balance: 0.0,
        };
        predictor.nll_and_gradient(&batch, &targets, false, &mut nll, &mut gradients)?;
        let all: Vec<&[f32]> = gradients.0.iter().collect();
        let norm = grad_norm::forward(&cpu, &all)?;
        let clip = (1.0 / norm).min(1.0) as f32;
        let [mean, square] = &mut moments;
        let values = predictor.model_mut().tensors.flatten().values_mut();
        let parameter = Parameter {
            value: values,
            grad: gradients.0.values(),
            mean: mean.0.values_mut(),
            square: square.0.values_mut(),
        };
        adamw.step(&cpu, Step { number: step, lr: 1e-4, grad_scale: clip }, parameter)?;
        Ok(())
    })
}
