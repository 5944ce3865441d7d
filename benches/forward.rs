//! One f32 forward pass with the logits of every position, against PyTorch eager and compiled.
//!
//! `cargo bench --bench forward`

#[path = "duel/mod.rs"]
mod duel;

use duel::{Result, Side};
use llada::{
    model::{Batch, MaskPredictor, Model},
    rng::{Purpose, Stream},
};
use llada_kernels::{Cpu, peak};

const D: usize = 768;
const LAYERS: usize = 12;
const FFN: usize = 2048;
const VOCAB: usize = 32768;
const THREADS: usize = 2;

fn main() -> Result<()> {
    if duel::is_side() {
        return ours();
    }
    for length in [128, 256] {
        let sizes = &[
            ("d", D),
            ("layers", LAYERS),
            ("heads", 12),
            ("ffn", FFN),
            ("vocab", VOCAB),
            ("length", length),
            ("batch", 1),
            ("threads", THREADS),
        ];
        let sides = vec![
            Side::ours("forward", sizes)?,
            Side::torch("PyTorch eager", "forward", sizes)?,
            Side::torch("torch.compile, frozen", "compiled", sizes)?,
        ];
        let measured = duel::duel(sides, 4)?;
        let weights = LAYERS * (4 * D * D + 3 * D * FFN) + VOCAB * D;
        let attention = 2 * LAYERS * D * length;
        let flops = 2.0 * (length * (weights + attention)) as f64;
        let peak = peak::f32_flops(&Cpu::new(THREADS)?);
        let title = format!("forward, 110 M parameters, {length} tokens, all logits, 2 threads");
        duel::report(&title, &measured, length as f64, flops, peak);
    }
    Ok(())
}

fn ours() -> Result<()> {
    let config = duel::config()?;
    let length = duel::size("length")?;
    let mut stream = Stream::new(0, Purpose::Masking, 0);
    let vocab = config.vocab_size as u64;
    let ids: Vec<u32> = (0..length).map(|_| stream.below(vocab) as u32).collect();
    let (starts, all) = ([0, length], (0..length).collect::<Vec<_>>());
    let cpu = Cpu::new(duel::size("threads")?)?;
    let mut predictor = MaskPredictor::new(Model::init(config, 0)?, cpu)?;
    let mut logits = Vec::new();
    duel::serve(|| {
        let batch = Batch { tokens: &ids, starts: &starts, attention_mask: None };
        Ok(predictor.logits(batch, &all, &mut logits)?)
    })
}
