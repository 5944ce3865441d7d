//! Our side against a peer, in turn, in one run.
//!
//! Both sides are child processes that speak the same protocol, so that neither pays for the other:
//! a side prints `ready` when it is up, answers each line `go N CASE` with the seconds that N passes
//! took, and at the end of input prints its peak memory in bytes. What a case is, is the bench's
//! matter; where a side gives several numbers, the others are times of parts of the work. Ours is this very program, started
//! again with `--side ours`; the peers are the scripts in `benches/peers`.

#![allow(unreachable_pub, missing_docs, dead_code, clippy::print_stdout)]

use std::{
    error::Error,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What a bench returns; its errors end the program.
pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A named size, `key=value` on a command line.
pub type Sizes<'a> = [(&'a str, usize)];

/// Rounds in which every side runs once, unless a bench has its own.
pub const ROUNDS: usize = 9;

/// Before each turn. Threads of PyTorch and libllama go on spinning after their work, some for 0.2 s, which
/// would cost whoever comes next.
const PAUSE: Duration = Duration::from_millis(400);

/// One running side.
pub struct Side {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Of each round: a pass, and parts of it.
    seconds: Vec<Vec<f64>>,
    /// Of each round: processor time of a pass.
    cpu: Vec<f64>,
    /// Whether the process computes itself, and does not start others that do.
    is_computing: bool,
}

/// What a side needed.
pub struct Measured {
    /// The side.
    pub name: String,
    /// Median seconds of a pass.
    pub seconds: f64,
    /// Median seconds of the parts that the side told of.
    pub parts: Vec<f64>,
    /// Median seconds of processor time, of all its threads, on Linux. On one thread it says more than
    /// the clock where something else runs on the machine; waiting threads may spin.
    pub cpu: f64,
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

    /// The same under another name, with arguments that are no sizes.
    pub fn ours_with(name: &str, mode: &str, args: &[String]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--side", mode]).args(args);
        Self::start(name, command, &[])
    }

    /// A PyTorch peer. `LLADA_PYTHON` names the interpreter; `benches/peers/setup.sh` makes one.
    pub fn torch(name: &str, mode: &str, sizes: &Sizes<'_>) -> Result<Self> {
        Self::python(name, "torch_llada.py", "LLADA_PYTHON", &[mode.into()], sizes)
    }

    /// A script of `benches/peers` with its arguments; the environment may name the interpreter.
    pub fn python(
        name: &str,
        script: &str,
        variable: &str,
        args: &[String],
        sizes: &Sizes<'_>,
    ) -> Result<Self> {
        let peers = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benches/peers");
        let own = || format!("{peers}/venv/bin/python");
        let mut command = Command::new(std::env::var(variable).unwrap_or_else(|_| own()));
        command.arg(format!("{peers}/{script}")).args(args);
        Self::start(name, command, sizes)
    }

    /// A peer that is a program of its own.
    pub fn program(name: &str, path: &str, args: &[String]) -> Result<Self> {
        let mut command = Command::new(path);
        command.args(args);
        Self::start(name, command, &[])
    }

    /// The same of a script that starts the peer anew for each turn: its own processor time says nothing.
    #[must_use]
    pub fn starting_others(self) -> Self {
        Self { is_computing: false, ..self }
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
        let mut side = Self {
            name: name.into(),
            child,
            input,
            output,
            seconds: Vec::new(),
            cpu: Vec::new(),
            is_computing: true,
        };
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

    fn go(&mut self, passes: usize, case: &str) -> Result<()> {
        thread::sleep(PAUSE);
        let before = cpu_seconds(self.child.id());
        let input = self.input.as_mut().ok_or("closed")?;
        writeln!(input, "go {passes} {case}")?;
        input.flush()?;
        let mut seconds = Vec::new();
        for number in self.line()?.split_whitespace() {
            seconds.push(number.parse::<f64>()? / passes as f64);
        }
        self.seconds.push(seconds);
        self.cpu.push((cpu_seconds(self.child.id()) - before) / passes as f64);
        Ok(())
    }

    fn finish(mut self) -> Result<Measured> {
        drop(self.input.take());
        let memory = self.line()?.parse()?;
        self.child.wait()?;
        Ok(Measured { memory, ..self.measured() })
    }

    /// The medians of the rounds so far, which are forgotten.
    fn measured(&mut self) -> Measured {
        let rounds = std::mem::take(&mut self.seconds);
        let count = rounds.iter().map(Vec::len).min().unwrap_or(0);
        let mut medians = (0..count).map(|i| {
            let mut seconds: Vec<f64> = rounds.iter().map(|round| round[i]).collect();
            seconds.sort_by(f64::total_cmp);
            seconds[seconds.len() / 2]
        });
        let seconds = medians.next().unwrap_or(f64::NAN);
        let mut cpu = std::mem::take(&mut self.cpu);
        cpu.sort_by(f64::total_cmp);
        let cpu = cpu.get(cpu.len() / 2).copied().filter(|_| self.is_computing);
        let cpu = cpu.unwrap_or(f64::NAN);
        let (name, parts) = (self.name.clone(), medians.collect());
        Measured { name, seconds, parts, cpu, memory: f64::NAN }
    }
}

/// Seconds that all threads of a process have run for; not a number where the system does not tell.
fn cpu_seconds(process: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return f64::NAN };
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.flatten().filter_map(of).sum::<f64>() / 1e9
}

/// Runs the sides in turn on each of the `cases`, `rounds` times after one that does not count
/// where `warm`, and gives the medians of every case.
pub fn duel_cases(
    mut sides: Vec<Side>,
    cases: &[String],
    rounds: usize,
    warm: bool,
) -> Result<Vec<Vec<Measured>>> {
    let mut found = Vec::new();
    for case in cases {
        for round in 0..rounds + usize::from(warm) {
            for side in &mut sides {
                side.go(1, case)?;
                if warm && round == 0 {
                    side.seconds.clear();
                    side.cpu.clear();
                }
            }
        }
        found.push(sides.iter_mut().map(Side::measured).collect::<Vec<_>>());
    }
    for (i, side) in sides.into_iter().enumerate() {
        let memory = side.finish()?.memory;
        found.iter_mut().for_each(|case| case[i].memory = memory);
    }
    Ok(found)
}

/// Runs the sides in turn, `passes` passes at a time, and gives the medians.
pub fn duel(mut sides: Vec<Side>, passes: usize) -> Result<Vec<Measured>> {
    for _ in 0..ROUNDS {
        for side in &mut sides {
            side.go(passes, "")?;
        }
    }
    sides.into_iter().map(Side::finish).collect()
}

/// Prints the table: each side's median, rate, share of the peak, memory, and our advantage.
pub fn report(title: &str, measured: &[Measured], tokens: f64, flops: f64, peak: f64) {
    report_of(title, measured, tokens, flops, "f32", peak);
}

/// The same against the peak of another kind of arithmetic.
pub fn report_of(
    title: &str,
    measured: &[Measured],
    tokens: f64,
    flops: f64,
    kind: &str,
    peak: f64,
) {
    println!("\n{title}; measured {kind} peak {:.0} Gop/s", peak / 1e9);
    println!(
        "| side | median | CPU time | tokens/s | share of peak | peak memory | ours is faster by |"
    );
    println!("|---|---|---|---|---|---|---|");
    let ours = measured[0].seconds;
    for side in measured {
        println!(
            "| {} | {:.1} ms | {:.1} ms | {:.0} | {:.0} % | {:.0} MB | {:.2} |",
            side.name,
            side.seconds * 1e3,
            side.cpu * 1e3,
            tokens / side.seconds,
            100.0 * flops / side.seconds / peak,
            side.memory / 1e6,
            side.seconds / ours,
        );
    }
}

/// Our side of the protocol, warmed up: `pass` once for each pass asked for.
pub fn serve(mut pass: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..3 {
        pass()?;
    }
    serve_cases(|_| pass())
}

/// Our side of the protocol: `pass` of a case, once for each pass asked for.
pub fn serve_cases(mut pass: impl FnMut(&str) -> Result<()>) -> Result<()> {
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (passes, case) = line.trim_start_matches("go ").split_once(' ').unwrap_or((&line, ""));
        let passes: usize = passes.parse()?;
        let start = Instant::now();
        for _ in 0..passes {
            pass(case)?;
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
    Ok(argument(key).ok_or_else(|| format!("no `{key}=`"))?.parse()?)
}

/// What the command line gives for `key=`.
pub fn argument(key: &str) -> Option<String> {
    let prefix = format!("{key}=");
    std::env::args().find_map(|a| a.strip_prefix(&prefix).map(str::to_owned))
}

/// Whether this process is our side of a duel.
pub fn is_side() -> bool {
    std::env::args().any(|a| a == "--side")
}

/// The model of a bench: the sizes of the command line, LLaDA's architecture.
pub fn config() -> Result<llada::config::ModelConfig> {
    let (d, layers, heads) = (size("d")?, size("layers")?, size("heads")?);
    Ok(llada::config::ModelConfig {
        max_sequence_length: size("length")?,
        rope_theta: 10_000.0,
        ..llada::config::ModelConfig::llada(d, layers, heads, size("ffn")?, size("vocab")?)
    })
}
