//! Programs that a model wrote, run apart: in a folder of their own, without network, input or
//! environment, with limits of time, memory and file size.
//!
//! It keeps accidents in, not attackers: a program can read what the user can read, and write where
//! the user can write. For models that are not trusted, run the whole evaluation in a container.
//! Without namespaces, a process that leaves its group outlives the program.

#[cfg(unix)]
use std::os::unix::{fs::DirBuilderExt, process::CommandExt};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use llada::eval::{Checker, EvalError, Verdict, task::Code};

use crate::error::Failure;

/// Largest file that a program may write, in blocks of 512 bytes: 16 MiB.
const FILE_BLOCKS: u64 = 32_768;
/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(5);
/// How a program without network is started: user, network and process namespaces of its own, and
/// an end of it that takes all its children along.
const ISOLATE: [&str; 5] = ["-r", "-n", "-p", "-f", "--kill-child"];

/// Runs programs in Python.
#[derive(Debug)]
pub struct Sandbox {
    python: PathBuf,
    isolated: bool,
}

impl Sandbox {
    /// Finds `python3`, and a way to run it without network; without such a way it is refused,
    /// unless `allow_network`.
    pub fn new(allow_network: bool) -> Result<Self> {
        if !cfg!(unix) {
            let message = "programs can be checked on Unix only, which limits their resources";
            return Err(Failure::new(message, "leave out the task").into());
        }
        let asked = Command::new("python3")
            .args(["-I", "-c", "import sys; print(sys.executable)"])
            .stdin(Stdio::null())
            .output();
        let python = asked.ok().filter(|out| out.status.success()).map(|out| out.stdout);
        let python = python.and_then(|path| String::from_utf8(path).ok());
        let python = python.map(|path| PathBuf::from(path.trim())).filter(|path| path.is_file());
        let Some(python) = python else {
            let message = "`python3`, which checks programs, cannot be started";
            return Err(Failure::new(message, "install Python 3, or leave out the task").into());
        };
        let isolated = Command::new("unshare")
            .args(ISOLATE)
            .arg("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !isolated && !allow_network {
            let message = "this machine offers no way to keep programs from the network \
                           (`unshare -rn` fails)";
            let hint = "run in a container without network, and add `--allow-network`";
            return Err(Failure::new(message, hint).into());
        }
        let sandbox = Self { python, isolated };
        let easy = Code { program: String::new(), timeout: 60.0, memory_mb: 1024 };
        match sandbox.run("pass", &easy)? {
            verdict if verdict.passed => Ok(sandbox),
            verdict => {
                let message = format!("an empty program does not pass: {}", verdict.reason);
                Err(Failure::new(message, "check that `python3` and `sh` work here").into())
            }
        }
    }

    /// Starts a program whose errors go to `errors`.
    fn start(&self, folder: &Path, code: &Code, errors: File) -> std::io::Result<Child> {
        // The shell sets the limits, and becomes the program.
        let kib = code.memory_mb.saturating_mul(1024);
        let seconds = code.timeout.ceil() as u64 + 1;
        let limits = format!(
            "ulimit -v {kib} && ulimit -t {seconds} && ulimit -f {FILE_BLOCKS} && ulimit -c 0 && \
             exec \"$@\""
        );
        let mut command = match self.isolated {
            true => {
                let mut command = Command::new("unshare");
                command.args(ISOLATE).arg("sh");
                command
            }
            false => Command::new("sh"),
        };
        command
            .args(["-c", &limits, "sh"])
            .arg(&self.python)
            .args(["-I", "-B", "program.py"])
            .current_dir(folder)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(errors));
        #[cfg(unix)]
        command.process_group(0);
        command.spawn()
    }

    fn run(&self, program: &str, code: &Code) -> std::io::Result<Verdict> {
        let folder = Folder::new()?;
        let passed = folder.0.join("passed");
        // A program that leaves early, even without an error, does not reach its last line.
        let last = format!("open({}, 'w').close()", python_string(&passed.to_string_lossy()));
        fs::write(folder.0.join("program.py"), format!("{program}\n{last}\n"))?;
        let errors = folder.0.join("errors");
        let mut child = self.start(&folder.0, code, File::create(&errors)?)?;
        let status = wait(&mut child, Duration::from_secs_f64(code.timeout))?;
        // What it left running in the background ends too.
        kill_group(&child);
        let reason = match status {
            None => format!("longer than {} s", code.timeout),
            Some(status) if status.success() && passed.is_file() => "passed".into(),
            Some(status) if status.success() => "ended before its tests".into(),
            Some(status) => last_line(&errors).unwrap_or_else(|| status.to_string()),
        };
        Ok(Verdict { passed: reason == "passed" && status.is_some(), reason })
    }
}

impl Checker for Sandbox {
    fn check(&mut self, program: &str, code: &Code) -> llada::Result<Verdict> {
        let verdict = self.run(program, code);
        verdict.map_err(|e| EvalError::Checker(e.to_string()).into())
    }
}

/// Waits for the end of a program; `None` when its time is over, and it was killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= limit {
            kill_group(child);
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Kills the processes of a program's group. The standard library can only kill the first of them.
fn kill_group(child: &Child) {
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -9 -{}", child.id())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// The last line of what a program complained about, which names the exception.
fn last_line(errors: &Path) -> Option<String> {
    let text = fs::read(errors).ok()?;
    let end = &text[text.len().saturating_sub(4096)..];
    let text = String::from_utf8_lossy(end);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(200).collect())
}

/// A text as a literal of Python, which reads JSON's.
fn python_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A fresh folder that nobody else can read, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("llada-check-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let mut builder = fs::DirBuilder::new();
            #[cfg(unix)]
            builder.mode(0o700);
            match builder.create(&path) {
                // One that a killed run left there.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(path)),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sandbox of this machine, or a message why its tests are left out.
    #[allow(clippy::print_stderr)]
    fn sandbox(allow_network: bool) -> Option<Sandbox> {
        Sandbox::new(allow_network).map_err(|error| eprintln!("SKIPPED: {error}")).ok()
    }

    fn check_in(mut sandbox: Sandbox, program: &str, timeout: f64) -> Verdict {
        let code = Code { program: String::new(), timeout, memory_mb: 256 };
        sandbox.check(program, &code).unwrap()
    }

    /// Needs Python only.
    fn check(program: &str, timeout: f64) -> Option<Verdict> {
        Some(check_in(sandbox(true)?, program, timeout))
    }

    #[test]
    fn right_and_wrong_programs() {
        for (program, passed, reason) in [
            ("def f(x):\n    return x + 1\nassert f(1) == 2", true, "passed"),
            ("def f(x):\n    return x\nassert f(1) == 2", false, "AssertionError"),
            ("def f(x)\n", false, "SyntaxError"),
            ("raise SystemExit(3)", false, "exit status: 3"),
            ("import os\nos._exit(0)", false, "ended before its tests"),
            ("import sys\nsys.exit(0)", false, "ended before its tests"),
            ("print('x' * 10_000_000)", true, "passed"),
            ("x = input()", false, "EOFError"),
            (
                "import os\nassert set(os.environ) <= {'PATH', 'HOME', 'TMPDIR', \
              'OMP_NUM_THREADS', 'PWD', 'SHLVL', '_', 'OLDPWD', 'LC_CTYPE'}, os.environ",
                true,
                "passed",
            ),
            ("open('x', 'w').write('y')", true, "passed"),
        ] {
            let Some(verdict) = check(program, 10.0) else { return };
            assert_eq!(verdict.passed, passed, "{program}: {verdict:?}");
            assert!(verdict.reason.starts_with(reason), "{program}: {verdict:?}");
        }
    }

    #[test]
    fn a_program_without_end_is_killed_with_its_children() {
        let Some(verdict) = check("while True: pass", 0.3) else { return };
        assert_eq!((verdict.passed, verdict.reason.as_str()), (false, "longer than 0.3 s"));
        let name = format!("llada-test-child-{}", std::process::id());
        let program = format!(
            "import subprocess, sys, time\nsleep = 'import time; time.sleep(60)'\n\
             subprocess.Popen([sys.executable, '-c', sleep, '{name}'], start_new_session=True)\n\
             time.sleep(60)"
        );
        // Without namespaces such a child escapes.
        let Some(isolated) = sandbox(false) else { return };
        check_in(isolated, &program, 1.0);
        let is_alive = || {
            fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
                let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&name)
            })
        };
        // The system takes a moment to end a namespace; the child would sleep for a minute.
        for _ in 0..1000 {
            if !is_alive() {
                return;
            }
            std::thread::sleep(POLL);
        }
        panic!("a child outlived its program");
    }

    #[test]
    fn memory_and_files_are_bounded() {
        let Some(verdict) = check("x = bytearray(10**9)", 10.0) else { return };
        assert_eq!((verdict.passed, verdict.reason.as_str()), (false, "MemoryError"));
        let Some(verdict) = check("open('x', 'wb').write(bytes(40_000_000))", 10.0) else { return };
        assert!(!verdict.passed, "{verdict:?}");
    }

    #[test]
    fn there_is_no_network_unless_it_is_allowed() {
        let program = "import socket\n\
             server = socket.socket()\nserver.bind(('127.0.0.1', 0))\nserver.listen()\n\
             socket.create_connection(server.getsockname(), 2).close()";
        let Some(open) = sandbox(true) else { return };
        let verdict = check_in(Sandbox { isolated: false, ..open }, program, 10.0);
        assert!(verdict.passed, "{verdict:?}");
        let Some(isolated) = sandbox(false) else { return };
        let verdict = check_in(isolated, program, 10.0);
        assert!(!verdict.passed && verdict.reason.starts_with("OSError"), "{verdict:?}");
    }

    #[test]
    fn folders_are_removed() {
        let path = {
            let folder = Folder::new().unwrap();
            fs::write(folder.0.join("x"), "y").unwrap();
            folder.0.clone()
        };
        assert!(!path.exists());
    }
}
