//! candle on the clock: a peer of `cargo bench --bench inference`.
//!
//! usage: peer MODEL.gguf [key=value ...]
//!
//! Speaks the benches' protocol (see `duel/mod.rs`); a case is the length of a sequence, one pass
//! of which is timed with the logits of its last `wanted` positions. The model is candle's own
//! quantised Llama without the causal mask and the cache. Sizes: wanted, threads.

use std::{error::Error, fs::File, io::BufRead, time::Instant};

use candle_core::{
    quantized::{gguf_file::Content, QMatMul},
    DType, Device, Module, Result, Tensor, D,
};
use candle_nn::{ops, rotary_emb::rope_i};

struct Block {
    attn_norm: Tensor,
    qkv: [QMatMul; 3],
    out: QMatMul,
    ffn_norm: Tensor,
    gate: QMatMul,
    up: QMatMul,
    down: QMatMul,
}

struct Llada {
    embedding: Tensor,
    blocks: Vec<Block>,
    norm: Tensor,
    head: QMatMul,
    cos: Tensor,
    sin: Tensor,
    heads: usize,
    eps: f32,
}

impl Llada {
    fn load(path: &str) -> std::result::Result<Self, Box<dyn Error>> {
        let mut file = File::open(path)?;
        let content = Content::read(&mut file)?;
        let get = |key: &str| content.metadata.get(&format!("llada.{key}")).ok_or("a key is missing");
        let size = |key: &str| -> std::result::Result<usize, Box<dyn Error>> { Ok(get(key)?.to_u32()? as usize) };
        let heads = size("attention.head_count")?;
        let (layers, half) = (size("block_count")?, size("rope.dimension_count")? / 2);
        let eps = get("attention.layer_norm_rms_epsilon")?.to_f32()?;
        let theta = get("rope.freq_base")?.to_f32()?;
        let device = Device::Cpu;
        let mut tensor = |name: &str| content.tensor(&mut file, name, &device);
        let mut blocks = Vec::new();
        for n in 0..layers {
            let mut matrix =
                |part: &str| QMatMul::from_qtensor(tensor(&format!("blk.{n}.{part}.weight"))?);
            let qkv = [matrix("attn_q")?, matrix("attn_k")?, matrix("attn_v")?];
            let (out, gate) = (matrix("attn_output")?, matrix("ffn_gate")?);
            let (up, down) = (matrix("ffn_up")?, matrix("ffn_down")?);
            let mut vector =
                |part: &str| tensor(&format!("blk.{n}.{part}.weight"))?.dequantize(&device);
            let (attn_norm, ffn_norm) = (vector("attn_norm")?, vector("ffn_norm")?);
            blocks.push(Block { attn_norm, qkv, out, ffn_norm, gate, up, down });
        }
        let longest = size("context_length")?;
        let turns: Vec<f32> = (0..half).map(|i| theta.powf(-(i as f32) / half as f32)).collect();
        let turns = Tensor::from_vec(turns, (1, half), &device)?;
        let places = Tensor::arange(0, longest as u32, &device)?.to_dtype(DType::F32)?;
        let angles = places.reshape((longest, 1))?.matmul(&turns)?;
        Ok(Self {
            embedding: tensor("token_embd.weight")?.dequantize(&device)?,
            blocks,
            norm: tensor("output_norm.weight")?.dequantize(&device)?,
            head: QMatMul::from_qtensor(tensor("output.weight")?)?,
            cos: angles.cos()?,
            sin: angles.sin()?,
            heads,
            eps,
        })
    }

    /// Logits of the last `wanted` tokens of the sequence.
    fn forward(&self, ids: &Tensor, wanted: usize) -> Result<Tensor> {
        let mut x = self.embedding.index_select(ids, 0)?.unsqueeze(0)?;
        let (_, length, d) = x.dims3()?;
        let (cos, sin) = (self.cos.narrow(0, 0, length)?, self.sin.narrow(0, 0, length)?);
        let scale = 1.0 / ((d / self.heads) as f64).sqrt();
        for block in &self.blocks {
            let h = ops::rms_norm(&x, &block.attn_norm, self.eps)?;
            let heads = |m: &QMatMul| -> Result<Tensor> {
                let rows = m.forward(&h)?.reshape((1, length, self.heads, d / self.heads))?;
                rows.transpose(1, 2)?.contiguous()
            };
            let [q, k, v] = &block.qkv;
            let (q, k) = (rope_i(&heads(q)?, &cos, &sin)?, rope_i(&heads(k)?, &cos, &sin)?);
            let scores = (q.matmul(&k.t()?)? * scale)?;
            let mixed = ops::softmax_last_dim(&scores)?.matmul(&heads(v)?)?;
            let mixed = mixed.transpose(1, 2)?.reshape((1, length, d))?;
            x = (x + block.out.forward(&mixed)?)?;
            let h = ops::rms_norm(&x, &block.ffn_norm, self.eps)?;
            let gated = (ops::silu(&block.gate.forward(&h)?)? * block.up.forward(&h)?)?;
            x = (x + block.down.forward(&gated)?)?;
        }
        let last = x.narrow(1, length - wanted, wanted)?.contiguous()?;
        self.head.forward(&ops::rms_norm(&last, &self.norm, self.eps)?)
    }
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let path = args.first().ok_or("usage: peer MODEL.gguf [key=value ...]")?;
    let size = |key: &str| -> std::result::Result<usize, Box<dyn Error>> {
        let found = args.iter().find_map(|arg| arg.strip_prefix(key)?.strip_prefix('='));
        Ok(found.ok_or_else(|| format!("no `{key}=`"))?.parse()?)
    };
    let wanted = size("wanted")?;
    std::env::set_var("RAYON_NUM_THREADS", size("threads")?.to_string());
    let model = Llada::load(path)?;
    let vocabulary = model.embedding.dim(0)? as u32;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace().skip(1);
        let passes: usize = words.next().ok_or("no number of passes")?.parse()?;
        let length: u32 = words.next().ok_or("no length")?.parse()?;
        let ids: Vec<u32> = (0..length).map(|i| i * 7919 % vocabulary).collect();
        let ids = Tensor::new(ids, &Device::Cpu)?;
        let start = Instant::now();
        for _ in 0..passes {
            let logits = model.forward(&ids, wanted.min(length as usize))?;
            assert!(logits.sum(D::Minus1)?.flatten_all()?.to_vec1::<f32>()?[0].is_finite());
        }
        println!("{}", start.elapsed().as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    let kib: f64 = peak.split_whitespace().next().unwrap_or("0").parse()?;
    println!("{}", kib * 1024.0);
    Ok(())
}
