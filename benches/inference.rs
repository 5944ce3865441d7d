//! Forward passes and whole generations against libllama, on the same GGUF file, and against PyTorch,
//! with weights of the same shape.
//!
//! `cargo bench --bench inference -- [shape=100m,1b,moe-7b] [format=q8_0,q4_0,q4_k] [lengths=32,128,512]
//! [wanted=32] [rounds=9] [threads=2] [isa=avx2] [peers=libllama,torch,candle,diffuse-rs]`, where `isa` is of
//! our side alone; with `generate=N`, N whole
//! generations instead, ours with `preset`, `steps`, `blocks`, `block`, `transfer`, `cache` as given.

#![allow(clippy::print_stdout)]

#[path = "duel/mod.rs"]
mod duel;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use duel::{Measured, Result, Side};
use llada::{
    checkpoint::{
        self,
        gguf::{self, Formats},
    },
    diffusion::{Canvas, Prompt, Sampler, generate},
    model::{Batch, MaskPredictor, Model, Shape},
    rng::{Purpose, Stream},
    tokenizer::TokenizerFiles,
    train::forward_flops,
};
use llada_kernels::{BlockFormat, Cpu, DType, Isa, peak};

fn main() -> Result<()> {
    if duel::is_side() {
        return ours();
    }
    for shape in given("shape", "100m,1b").split(',') {
        let known = Shape::ALL.into_iter().find(|known| known.name() == shape);
        let shape = known.ok_or_else(|| format!("there is no shape `{shape}`"))?;
        for format in given("format", "q8_0,q4_0,q4_k").split(',') {
            let file = Weights::new(shape, format)?;
            match given("generate", "0").parse()? {
                0 => forward(shape, format, &file.path)?,
                rounds => whole(shape, format, &file.path, rounds)?,
            }
        }
    }
    Ok(())
}

fn given(key: &str, otherwise: &str) -> String {
    duel::argument(key).unwrap_or_else(|| otherwise.to_owned())
}

fn number(key: &str, otherwise: usize) -> Result<usize> {
    Ok(given(key, &otherwise.to_string()).parse()?)
}

fn has_peer(name: &str) -> bool {
    given("peers", "libllama,torch").split(',').any(|peer| peer == name)
}

/// The instruction set of our side.
fn isa() -> Result<Isa> {
    Ok(duel::argument("isa").map_or(Ok(Isa::detect()), |isa| isa.parse())?)
}

fn dtype(format: &str) -> Result<DType> {
    let floats = [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::Bf16)];
    let blocks = BlockFormat::ALL.map(|blocks| (blocks.name(), DType::Blocks(blocks)));
    let mut all = floats.into_iter().chain(blocks);
    let found = all.find(|(name, _)| name.eq_ignore_ascii_case(format));
    Ok(found.ok_or_else(|| format!("there is no format `{format}`"))?.1)
}

/// A file of random weights, which goes when it is no longer needed.
struct Weights {
    path: PathBuf,
}

impl Weights {
    fn new(shape: Shape, format: &str) -> Result<Self> {
        let formats = Formats::usual(dtype(format)?);
        let name = format!("llada-bench-{}-{format}-{}.gguf", shape.name(), std::process::id());
        let path = std::env::temp_dir().join(name);
        let cpu = Cpu::new(0)?;
        let model = Model::random(shape.config(), &formats, 0, &cpu)?;
        gguf::save(&model, &TokenizerFiles::default(), &path, &formats, &cpu)?;
        Ok(Self { path })
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Single passes.
fn forward(shape: Shape, format: &str, file: &Path) -> Result<()> {
    let lengths: Vec<String> =
        given("lengths", "32,128,512").split(',').map(str::to_owned).collect();
    let longest = lengths
        .iter()
        .map(|length| length.parse())
        .collect::<std::result::Result<Vec<usize>, _>>()?;
    let longest = longest.into_iter().max().unwrap_or(0);
    let (wanted, threads) = (number("wanted", 32)?, number("threads", 2)?);
    let file = file.display().to_string();
    let sizes = [("length", longest), ("wanted", wanted), ("threads", threads)];
    let words: Vec<String> = sizes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let with_file = |first: &str| [&[format!("{first}{file}")], &words[..]].concat();

    let mut sides = vec![Side::ours_with(
        "llada",
        "forward",
        &[with_file("file="), vec![format!("isa={}", isa()?)]].concat(),
    )?];
    let python = |name, args: &[String]| {
        Side::python(name, "libllama_speed.py", "LLADA_LIBLLAMA_PYTHON", args, &[])
    };
    if has_peer("libllama") {
        sides.push(python("libllama", &with_file(""))?);
        let args = [with_file(""), vec!["flash=auto".into()]].concat();
        sides.push(python("libllama, flash attention", &args)?);
    }
    let config = shape.config();
    // The others have no mixture of experts.
    let is_dense = config.experts.is_none();
    if has_peer("torch") && is_dense {
        let model = [
            ("d", config.d_model),
            ("layers", config.n_layers),
            ("heads", config.n_heads),
            ("ffn", config.mlp_hidden_size),
            ("vocab", config.vocab_size),
            ("batch", 1),
        ];
        let sizes = [&model[..], &sizes].concat();
        let modes: &[(&str, &str)] = match dtype(format)? {
            DType::Blocks(_) => &[("PyTorch dynamic int8", "int8")],
            _ => &[("PyTorch f32", "forward"), ("PyTorch bf16", "bf16")],
        };
        for (name, mode) in modes {
            sides.push(Side::torch(name, mode, &sizes)?);
        }
    }
    if has_peer("candle") && is_dense {
        let own =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/peers/candle/target/release/peer");
        let path = std::env::var("LLADA_CANDLE").unwrap_or_else(|_| own.to_owned());
        sides.push(Side::program("candle", &path, &with_file(""))?);
    }
    if has_peer("diffuse-rs") {
        sides.push(diffuse("diffuse-rs", &with_file(""))?);
    }
    let measured = duel::duel_cases(sides, &lengths, number("rounds", duel::ROUNDS)?, true)?;
    let cpu = Cpu::with_isa(isa()?, threads)?;
    let (kind, peak) = match dtype(format)? {
        DType::Blocks(_) => ("int8", peak::int8_ops(&cpu)),
        _ => ("f32", peak::f32_flops(&cpu)),
    };
    for (length, measured) in lengths.iter().zip(measured) {
        let tokens: usize = length.parse()?;
        let wanted = wanted.min(tokens);
        let title = format!(
            "forward, {} in {format}, {length} tokens, {wanted} logits, {threads} threads",
            shape.name()
        );
        let operations = forward_flops(&config, tokens, wanted);
        duel::report_of(&title, &measured, tokens as f64, operations, kind, peak);
    }
    Ok(())
}

/// The peer diffuse-rs, which `LLADA_DIFFUSE_RS` names.
fn diffuse(name: &str, args: &[String]) -> Result<Side> {
    let program = std::env::var("LLADA_DIFFUSE_RS")
        .map_err(|_| "LLADA_DIFFUSE_RS does not name diffuse-rs's program")?;
    let args = [&[program], args].concat();
    Ok(Side::python(name, "diffuse_rs.py", "LLADA_PYTHON", &args, &[])?.starting_others())
}

/// Whole generations: ours as given, ours as the official sampler does it, and libllama so.
fn whole(shape: Shape, format: &str, file: &Path, rounds: usize) -> Result<()> {
    let (prompt, response) = (number("prompt", 64)?, number("response", 128)?);
    let threads = number("threads", 2)?;
    let sizes = [
        ("length", prompt + response),
        ("wanted", response),
        ("threads", threads),
        ("prompt", prompt),
        ("response", response),
    ];
    let file = file.display().to_string();
    let words: Vec<String> = sizes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let settings: Vec<String> = ["preset", "steps", "blocks", "block", "transfer", "cache", "isa"]
        .iter()
        .filter_map(|key| Some(format!("{key}={}", duel::argument(key)?)))
        .collect();
    let ours = |name: &str, settings: &[String]| {
        Side::ours_with(
            name,
            "forward",
            &[&[format!("file={file}")], &words[..], settings].concat(),
        )
    };
    let mut sides = vec![ours("llada, as given", &settings)?, ours("llada, official", &[])?];
    if has_peer("libllama") {
        let args = [std::slice::from_ref(&file), &words[..]].concat();
        let script = "libllama_speed.py";
        sides.push(Side::python(
            "libllama, official",
            script,
            "LLADA_LIBLLAMA_PYTHON",
            &args,
            &[],
        )?);
    }
    if has_peer("diffuse-rs") {
        let steps = format!("steps={}", number("steps", response)?);
        let block = format!("block={}", number("block", 0)?);
        let whole = [std::slice::from_ref(&file), &words[..], &[steps, block]].concat();
        sides.push(diffuse("diffuse-rs, whole sequences", &whole)?);
        let cached = [&whole[..], &["cached=1".into()]].concat();
        sides.push(diffuse("diffuse-rs, with its cache", &cached)?);
    }
    let cases = ["generate".to_owned()];
    let mut measured = duel::duel_cases(sides, &cases, rounds, false)?.remove(0);
    let without = measured.iter().filter_map(|side| {
        let name = format!("{}, without choosing the tokens", side.name);
        Some(Measured { name, seconds: *side.parts.first()?, parts: Vec::new(), ..*side })
    });
    let without: Vec<Measured> = without.collect();
    measured.extend(without);
    println!(
        "\ngeneration of {response} tokens after {prompt}, {} in {format}, {threads} threads; given: {}",
        shape.name(),
        settings.join(" ")
    );
    println!(
        "| side | median | CPU time | seconds/token | peak memory | ours as given is faster by |"
    );
    println!("|---|---|---|---|---|---|");
    for side in &measured {
        println!(
            "| {} | {:.2} s | {:.2} s | {:.3} | {:.0} MB | {:.2} |",
            side.name,
            side.seconds,
            side.cpu,
            side.seconds / response as f64,
            side.memory / 1e6,
            side.seconds / measured[0].seconds,
        );
    }
    Ok(())
}

fn ours() -> Result<()> {
    let file = duel::argument("file").ok_or("no `file=`")?;
    let model = checkpoint::load(Path::new(&file))?;
    let mask = model.config.tokens.mask.ok_or("the file has no mask")?;
    let mut predictor = MaskPredictor::new(model, Cpu::with_isa(isa()?, duel::size("threads")?)?)?;
    let mut stream = Stream::new(0, Purpose::Masking, 0);
    let (length, wanted) = (duel::size("length")?, duel::size("wanted")?);
    let ids: Vec<u32> = (0..length).map(|_| stream.below(u64::from(mask)) as u32).collect();
    let mut logits = Vec::new();
    duel::serve_cases(|case| {
        if case == "generate" {
            return generation(&mut predictor, &ids[..duel::size("prompt")?]);
        }
        let n: usize = case.parse()?;
        let batch = Batch { tokens: &ids[..n], starts: &[0, n], attention_mask: None };
        let wanted: Vec<usize> = (n.saturating_sub(wanted)..n).collect();
        Ok(predictor.logits(batch, &wanted, &mut logits)?)
    })
}

/// One generation: the official sampler, or what the command line gives.
fn generation(predictor: &mut MaskPredictor, prompt: &[u32]) -> Result<()> {
    let response = duel::size("response")?;
    let preset = match given("preset", "exact").as_str() {
        "exact" => Sampler::exact(),
        "balanced" => Sampler::balanced(),
        "fast" => Sampler::fast(),
        other => return Err(format!("there is no preset `{other}`").into()),
    };
    let default = Sampler { gen_length: response, steps: response, ..preset };
    let sampler = Sampler {
        steps: number("steps", response)?,
        block_length: number("block", default.block_length)?,
        blocks: given("blocks", &default.blocks.to_string()).parse()?,
        transfer: duel::argument("transfer").map_or(Ok(default.transfer), |rule| rule.parse())?,
        cache: duel::argument("cache").map_or(Ok(default.cache), |cache| cache.parse())?,
        ..default
    };
    let config = &predictor.model().config;
    let (special, attention) = (config.tokens, config.attention);
    let canvas = Canvas::new(Prompt::from(prompt.to_vec()), &sampler, &special, attention)?;
    let mut canvases = [canvas];
    generate::run(predictor, &mut canvases, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(())
}
