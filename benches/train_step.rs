//! One training step of Eq. 3 (forward, backward, clipping, AdamW) against PyTorch, with products of `bf16` and
//! of `f32` (PyTorch: autocast, and as it is).
//!
//! `cargo bench --bench train_step -- [shape=10m|110m]`

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

const SMALL: &Sizes<'_> = &[
    ("d", 256),
    ("layers", 8),
    ("heads", 8),
    ("ffn", 1024),
    ("vocab", 4096),
    ("length", 256),
    ("batch", 8),
    ("threads", 2),
];

const LARGE: &Sizes<'_> = &[
    ("d", 768),
    ("layers", 12),
    ("heads", 12),
    ("ffn", 2048),
    ("vocab", 32768),
    ("length", 512),
    ("batch", 4),
    ("threads", 2),
];

fn main() -> Result<()> {
    if duel::is_side() {
        return ours();
    }
    let (sizes, what) = match duel::argument("shape").as_deref() {
        Some("110m") => (LARGE, "135 M parameters, 4 sequences of 512 tokens"),
        _ => (SMALL, "10.5 M parameters, 8 sequences of 256 tokens"),
    };
    let size = |key| sizes.iter().find(|s| s.0 == key).map_or(0, |s| s.1);
    let ours = |compute: &str| {
        let mut args: Vec<String> =
            sizes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        args.push(format!("compute={compute}"));
        Side::ours_with(&format!("llada {compute}"), "train", &args)
    };
    let sides = vec![
        ours("bf16")?,
        ours("f32")?,
        Side::torch("PyTorch f32", "train", sizes)?,
        Side::torch("PyTorch bf16", "train_bf16", sizes)?,
    ];
    let measured = duel::duel(sides, if sizes == LARGE { 1 } else { 2 })?;
    let tokens = size("batch") * size("length");
    let block = 4 * size("d") * size("d") + 3 * size("d") * size("ffn");
    // 6 operations for each weight and token, half of the tokens at the head, and attention.
    let weights = (size("layers") * block + size("vocab") * size("d") / 2) * tokens;
    let attention = 2 * size("layers") * size("d") * size("length") * tokens;
    let flops = 6.0 * (weights + attention) as f64;
    let cpu = Cpu::new(size("threads"))?;
    let single = peak::f32_flops(&cpu);
    duel::report(
        &format!("training step, {what}, 2 threads"),
        &measured,
        tokens as f64,
        flops,
        single,
    );
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
    let compute = duel::argument("compute").ok_or("no `compute=`")?.parse()?;
    let cpu = Cpu::new(duel::size("threads")?)?.with_compute(compute);
    let mut predictor = MaskPredictor::new(model, cpu)?;
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
            ..Targets::default()
        };
        predictor.nll_and_gradient(batch, &targets, false, &mut nll, &mut gradients)?;
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
