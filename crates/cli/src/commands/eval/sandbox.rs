//! Programs that a model wrote, run apart from everything else, and judged from outside.
//!
//! Two processes take part: the program runs in one cell, its tests in another, and what a test
//! calls is done in the cell of the program and comes back as a plain value. So a program reaches
//! neither its tests nor the verdict. A cell is made of namespaces where the system has them, of
//! limits for each process, and of a watch over all of them; `docs/concepts/sandbox.md` says what
//! holds back what.

mod folder;
mod watch;

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use llada::eval::{Checker, EvalError, Verdict, task::Code};
use serde_json::{Value, json};

use crate::{error::Failure, term::Term};
use folder::Folder;

/// Largest file that a program may write.
const FILE_BYTES: u64 = 16 << 20;
/// Bytes that it may have on disk in all.
const DISK_BYTES: u64 = 64 << 20;
/// Processes and threads that it may have in all.
const TASKS: usize = 64;
/// How often the processes of a program are looked at.
const POLL: Duration = Duration::from_millis(10);
/// How long two interpreters may take to start.
const START: Duration = Duration::from_secs(60);
/// Longest line of a judge.
const LONGEST: usize = 1 << 16;

const CELL: &str = include_str!("sandbox/cell.py");
const WIRE: &str = include_str!("sandbox/wire.py");
const PROGRAM: &str = include_str!("sandbox/program.py");
const JUDGE: &str = include_str!("sandbox/judge.py");

/// Runs programs in Python.
#[derive(Debug)]
pub struct Sandbox {
    python: PathBuf,
    /// Whether cells are made without namespaces, for tests.
    open: bool,
}

/// What a cell holds back on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    network: bool,
    processes: bool,
    files: bool,
}

impl Sandbox {
    /// Finds `python3`, and a way to run it without network; without such a way it is refused,
    /// unless `allow_network`. Says on `term` what the machine cannot hold back.
    pub fn new(allow_network: bool, term: &Term) -> Result<Self> {
        folder::remove_leftovers();
        let sandbox = Self { python: python()?, open: false };
        let held = sandbox.try_out()?;
        if !held.network && !allow_network {
            let message = "this machine offers no way to keep programs from the network: it has no \
                           namespaces for this user";
            let hint = "run in a container without network, and add `--allow-network`";
            return Err(Failure::new(message, hint).into());
        }
        let missing = [
            (held.network, "the network"),
            (held.processes, "other processes"),
            (held.files, "files that this user can read"),
        ];
        let missing: Vec<&str> = missing.iter().filter(|m| !m.0).map(|m| m.1).collect();
        if !missing.is_empty() {
            term.warn(&format!(
                "programs of the model are not kept from {}; see docs/concepts/sandbox.md",
                missing.join(", ")
            ));
        }
        Ok(sandbox)
    }

    /// Runs an empty program, which must pass.
    fn try_out(&self) -> Result<Held> {
        let (program, tests) = ("pass".to_owned(), "pass".to_owned());
        let easy = Code { program, tests, timeout: 60.0, memory_mb: 1024 };
        let (verdict, held) = self.run(&easy.program, &easy.tests, &easy)?;
        match held {
            Some(held) if verdict.passed => Ok(held),
            _ => {
                let message = format!("an empty program does not pass: {}", verdict.reason);
                Err(Failure::new(message, "check that `python3` works here").into())
            }
        }
    }

    /// Runs a program and its tests; also what its cell holds back, where it came to be.
    fn run(&self, program: &str, tests: &str, code: &Code) -> io::Result<(Verdict, Option<Held>)> {
        let _one = one_at_a_time();
        watch::adopt();
        let folder = Folder::new()?;
        let (to_program, to_judge) = UnixStream::pair()?;
        let (control, of_judge) = UnixStream::pair()?;
        let errors = tempfile::tempfile()?;
        let cells = watch::Cells::new();
        let streams = Streams { input: to_judge, output: Stdio::null(), errors: &errors };
        let watched = cells.add(self.start("program", PROGRAM, &folder, code, streams)?);
        let output = Stdio::from(OwnedFd::from(of_judge));
        let streams = Streams { input: to_program, output, errors: &errors };
        cells.add(self.start("judge", JUDGE, &folder, code, streams)?);

        control.set_read_timeout(Some(POLL))?;
        control.set_write_timeout(Some(START))?;
        let mut judge = Judge { control, heard: Vec::new() };
        let ready = judge.hear(START, &mut || None)?.ok();
        let Some(ready) = ready.and_then(|line| Held::read(&line)) else {
            let reason = last_line(errors)?.unwrap_or_else(|| "it did not start".into());
            return Ok((failed(reason), None));
        };
        judge.say(&json!({ "program": program, "tests": tests }))?;
        let limit = Duration::from_secs_f64(code.timeout);
        let verdict = judge.hear(limit, &mut || excess(watched, &folder, ready, code))?;
        drop(cells);
        Ok((verdict.map_or_else(failed, |line| read_verdict(&line)), Some(ready)))
    }

    /// Starts Python in a cell of its own.
    fn start(
        &self,
        role: &str,
        text: &str,
        folder: &Folder,
        code: &Code,
        Streams { input, output, errors }: Streams<'_>,
    ) -> io::Result<std::process::Child> {
        let settings = json!({
            "role": role,
            "open": self.open,
            "root": rustix::process::geteuid().is_root(),
            "folder": folder.path(),
            "memory": code.memory_mb.saturating_mul(1 << 20).min(i64::MAX as u64),
            "cpu": code.timeout.ceil() as u64 + 1,
            "file": FILE_BYTES,
            "disk": DISK_BYTES,
            "tasks": TASKS + watch::tasks_of_this_user(),
        });
        Command::new(&self.python)
            .args(["-I", "-B", "-c", &format!("{CELL}\n{WIRE}\n{text}"), &settings.to_string()])
            .current_dir(folder.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::from(OwnedFd::from(input)))
            .stdout(output)
            .stderr(Stdio::from(errors.try_clone()?))
            .process_group(0)
            .spawn()
    }
}

/// The standard streams of a cell; what it writes to its first errors goes to a file.
struct Streams<'a> {
    input: UnixStream,
    output: Stdio,
    errors: &'a File,
}

impl Checker for Sandbox {
    fn check(&mut self, program: &str, tests: &str, code: &Code) -> llada::Result<Verdict> {
        let verdict = self.run(program, tests, code);
        Ok(verdict.map_err(|e| EvalError::Checker(e.to_string()))?.0)
    }
}

/// Children that lost their parents come to this process, which ends all that it has: so programs
/// are checked one after the other.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path of `python3`.
fn python() -> Result<PathBuf> {
    let _one = one_at_a_time();
    let asked = Command::new("python3")
        .args(["-I", "-c", "import sys; print(sys.executable)"])
        .stdin(Stdio::null())
        .output();
    let path = asked.ok().filter(|out| out.status.success()).map(|out| out.stdout);
    let path = path.and_then(|path| String::from_utf8(path).ok());
    path.map(|path| PathBuf::from(path.trim())).filter(|path| path.is_file()).ok_or_else(|| {
        let message = "`python3`, which checks programs, cannot be started";
        Failure::new(message, "install Python 3.9 or newer, or leave out the task").into()
    })
}

impl Held {
    /// What the cell of the program tells, before the program runs.
    fn read(ready: &Value) -> Option<Self> {
        let held = |what: &str| ready["program"][what].as_bool();
        let (network, processes, files) = (held("network")?, held("processes")?, held("files")?);
        Some(Self { network, processes, files })
    }
}

/// What a program takes too much of, with all of its processes together.
fn excess(root: u32, folder: &Folder, held: Held, code: &Code) -> Option<String> {
    let used = watch::used(root);
    if used.tasks > TASKS {
        return Some(format!("more than {TASKS} processes"));
    }
    if used.bytes >> 20 > code.memory_mb {
        return Some(format!("more than {} MiB of memory in all", code.memory_mb));
    }
    // Its own file system is no larger.
    let too_large = !held.files && folder.bytes() > DISK_BYTES;
    too_large.then(|| format!("more than {} MiB of files", DISK_BYTES >> 20))
}

fn failed(reason: String) -> Verdict {
    Verdict { passed: false, reason }
}

fn read_verdict(line: &Value) -> Verdict {
    let reason = line["reason"].as_str().unwrap_or("the judge said nothing");
    let passed = line["passed"].as_bool().unwrap_or(false);
    Verdict { passed, reason: reason.trim().chars().take(200).collect() }
}

/// The last line of what a cell complained about while it started.
fn last_line(mut errors: File) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    errors.rewind()?;
    errors.take(LONGEST as u64).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    Ok(line.map(|line| line.trim().chars().take(200).collect()))
}

/// The channel to the judge, of which the program has no end.
struct Judge {
    control: UnixStream,
    heard: Vec<u8>,
}

impl Judge {
    fn say(&mut self, value: &Value) -> io::Result<()> {
        // One that is gone has left its reason, or is found to be gone when it is listened to.
        match self.control.write_all(format!("{value}\n").as_bytes()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }

    /// The next line, or why there is none: `watch` found a reason to stop, or time is over.
    fn hear(
        &mut self,
        limit: Duration,
        watch: &mut dyn FnMut() -> Option<String>,
    ) -> io::Result<std::result::Result<Value, String>> {
        let begun = Instant::now();
        let mut part = [0; 4096];
        loop {
            if let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(serde_json::from_slice(&line).map_err(|e| e.to_string()));
            }
            match self.control.read(&mut part) {
                Ok(0) => return Ok(Err("its tests were ended by a limit".into())),
                Ok(_) if self.heard.len() > LONGEST => return Ok(Err("the judge babbles".into())),
                Ok(n) => self.heard.extend_from_slice(&part[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(Err("its tests were ended by a limit".into()));
                }
                Err(e) => return Err(e),
            }
            if let Some(reason) = watch() {
                return Ok(Err(reason));
            }
            if begun.elapsed() >= limit {
                return Ok(Err(format!("longer than {} s", limit.as_secs_f64())));
            }
        }
    }
}

#[cfg(test)]
mod tests;
