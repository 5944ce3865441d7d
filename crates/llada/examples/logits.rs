//! Writes the logits of every position of a sequence as `f32`, to be compared with another program's:
//! `logits MODEL ID,ID,…`.

use std::{error::Error, io::Write, path::Path};

use llada::{
    checkpoint,
    model::{Batch, MaskPredictor},
};
use llada_kernels::Cpu;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, ids] = &arguments[..] else {
        return Err("give a model and the ids of a sequence".into());
    };
    let tokens = ids.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let model = checkpoint::load(Path::new(model))?;
    let mut predictor = MaskPredictor::new(model, Cpu::new(0)?)?;
    let positions: Vec<usize> = (0..tokens.len()).collect();
    let mut logits = Vec::new();
    let batch = Batch { tokens: &tokens, starts: &[0, tokens.len()], attention_mask: None };
    predictor.logits(batch, &positions, &mut logits)?;
    let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(std::io::stdout().write_all(&bytes)?)
}
