//! Our side against a peer, in turn, in one run.
//!
//! Both sides are child processes that speak the same protocol, so that neither pays for the other:
//! a side prints `ready` when it is warm, answers each line `go N` with the seconds that N passes
//! took, and at the end of input prints its peak memory in bytes. Ours is this very program, started
//! again with `--side ours`; the peers are the scripts in `benches/peers`.

#![allow(unreachable_pub, missing_docs, clippy::print_stdout)]

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

/// What a bench returns; its errors end the program.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A named size, `key=value` on a command line.
pub type Sizes<'a> = [(&'a str, usize)];

/// Rounds in which every side runs once.
const ROUNDS: usize = 9;

/// One running side.
pub struct Side {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    seconds: Vec<f64>,
}

/// What a side needed.
pub struct Measured {
    /// The side.
    pub name: String,
    /// Median seconds of a pass.
    pub seconds: f64,
    /// Peak memory of its process, bytes.
    pub memory: f64,
}

impl Side {
    /// This program again, as the side `ours`, for `mode` and `sizes`.
    pub fn ours(mode: &str, sizes: &Sizes<'_>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--side", mode]);
        Self::start("llada", command, sizes)
    }

    /// A PyTorch peer. `LLADA_PYTHON` names the interpreter; `benches/peers/setup.sh` makes one.
    pub fn torch(name: &str, mode: &str, sizes: &Sizes<'_>) -> Result<Self> {
        let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/peers");
        let python =
            std::env::var("LLADA_PYTHON").unwrap_or_else(|_| format!("{peers}/venv/bin/python"));
        let mut command = Command::new(python);
        command.arg(format!("{peers}/torch_llada.py")).arg(mode);
        Self::start(name, command, sizes)
    }

    fn start(name: &str, mut command: Command, sizes: &Sizes<'_>) -> Result<Self> {
        command.args(sizes.iter().map(|(key, value)| format!("{key}={value}")));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {name}: {e}; see benches/README.md"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        let mut side = Self { name: name.into(), child, input, output, seconds: Vec::new() };
        match side.line()?.as_str() {
            "ready" => Ok(side),
            other => Err(format!("{name} said `{other}` instead of `ready`").into()),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(format!("{} ended early", self.name).into());
        }
        Ok(line.trim().into())
    }

    fn go(&mut self, passes: usize) -> Result<()> {
        let input = self.input.as_mut().ok_or("closed")?;
        writeln!(input, "go {passes}")?;
        input.flush()?;
        let seconds: f64 = self.line()?.parse()?;
        self.seconds.push(seconds / passes as f64);
        Ok(())
    }

    fn finish(mut self) -> Result<Measured> {
        drop(self.input.take());
        let memory = self.line()?.parse()?;
        self.child.wait()?;
        self.seconds.sort_by(f64::total_cmp);
        let seconds = self.seconds[self.seconds.len() / 2];
        Ok(Measured { name: self.name, seconds, memory })
    }
}

/// Runs the sides in turn, `passes` passes at a time, and gives the medians.
pub fn duel(mut sides: Vec<Side>, passes: usize) -> Result<Vec<Measured>> {
    for _ in 0..ROUNDS {
        for side in &mut sides {
            side.go(passes)?;
        }
    }
    sides.into_iter().map(Side::finish).collect()
}

/// Prints the table: each side's median, rate, share of the peak, memory, and our advantage.
pub fn report(title: &str, measured: &[Measured], tokens: f64, flops: f64, peak: f64) {
    println!("\n{title}; measured f32 peak {:.0} GFLOP/s", peak / 1e9);
    println!("| side | median | tokens/s | share of peak | peak memory | ours is faster by |");
    println!("|---|---|---|---|---|---|");
    let ours = measured[0].seconds;
    for side in measured {
        println!(
            "| {} | {:.1} ms | {:.0} | {:.0} % | {:.0} MB | {:.2} |",
            side.name,
            side.seconds * 1e3,
            tokens / side.seconds,
            100.0 * flops / side.seconds / peak,
            side.memory / 1e6,
            side.seconds / ours,
        );
    }
}

/// Our side of the protocol: `pass` once for each pass asked for.
pub fn serve(mut pass: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..3 {
        pass()?;
    }
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let passes: usize = line.trim_start_matches("go ").parse()?;
        let start = Instant::now();
        for _ in 0..passes {
            pass()?;
        }
        println!("{}", start.elapsed().as_secs_f64());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    let kib: f64 = peak.split_whitespace().next().unwrap_or("0").parse()?;
    println!("{}", kib * 1024.0);
    Ok(())
}

/// The sizes given on our side's command line.
pub fn size(key: &str) -> Result<usize> {
    let prefix = format!("{key}=");
    let found = std::env::args().find_map(|a| a.strip_prefix(&prefix).map(str::to_owned));
    Ok(found.ok_or_else(|| format!("no `{key}=`"))?.parse()?)
}

/// Whether this process is our side of a duel.
pub fn is_side() -> bool {
    std::env::args().any(|a| a == "--side")
}

/// The model of a bench: the sizes of the command line, LLaDA's architecture.
pub fn config() -> Result<llada::config::ModelConfig> {
    Ok(llada::config::ModelConfig {
        family: llada::config::Family::Llada,
        d_model: size("d")?,
        n_layers: size("layers")?,
        n_heads: size("heads")?,
        n_kv_heads: size("heads")?,
        mlp_hidden_size: size("ffn")?,
        vocab_size: size("vocab")?,
        embedding_size: size("vocab")?,
        max_sequence_length: size("length")?,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        weight_tying: false,
        qkv_bias: false,
        qk_norm: false,
        scale_logits: false,
        input_emb_norm: false,
        objective: llada::config::Objective::Diffusion,
        tokens: Default::default(),
    })
}
