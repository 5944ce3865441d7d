//! Programs that behave, programs that attack, and programs that take too much.

use std::{os::unix::net::UnixListener, sync::OnceLock};

use super::*;

/// The sandbox of this machine, with namespaces or without.
fn sandbox(open: bool) -> Option<&'static Sandbox> {
    static FOUND: [OnceLock<Option<Sandbox>>; 2] = [OnceLock::new(), OnceLock::new()];
    FOUND[usize::from(open)].get_or_init(|| find(open)).as_ref()
}

#[allow(clippy::print_stderr)]
fn find(open: bool) -> Option<Sandbox> {
    let python = python().map_err(|error| eprintln!("SKIPPED: {error}")).ok()?;
    let sandbox = Sandbox { python, open };
    let held = sandbox.try_out().unwrap();
    if !(open || held.network && held.processes && held.files) {
        eprintln!("SKIPPED: this machine has not all namespaces: {held:?}");
        return None;
    }
    Some(sandbox)
}

fn check(sandbox: &Sandbox, program: &str, tests: &str, timeout: f64) -> Verdict {
    let code = Code { program: String::new(), tests: String::new(), timeout, memory_mb: 256 };
    sandbox.run(program, tests, &code).unwrap().0
}

/// Checks in both kinds of cells.
fn in_both(program: &str, tests: &str, judge: &dyn Fn(&Verdict) -> bool) {
    for open in [true, false] {
        let Some(sandbox) = sandbox(open) else { continue };
        let verdict = check(sandbox, program, tests, 20.0);
        assert!(judge(&verdict), "open {open}: {verdict:?}\n{program}\n{tests}");
    }
}

#[test]
fn programs_that_are_right_pass() {
    for (program, tests) in [
        ("def f(x):\n    return x + 1\nassert f(1) == 2", ""),
        ("print('x' * 1_000_000)\nopen('x', 'w').write('y')\ndef f(): pass", "assert f() is None"),
        // What a call does to its arguments is seen by the test.
        (
            "def f(a, b=None):\n    a.append(1)\n    b['k'] = a",
            "a, b = [0], {}\nf(a, b)\n\
          assert a == [0, 1] and b == {'k': [0, 1]}",
        ),
        // Classes and objects of the program, made and changed by the test.
        (
            "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\n\
          \x20   def __eq__(self, o): return (self.a, self.b) == (o.a, o.b)\n\
          def swap(p): return Pair(p.b, p.a)",
            "p = Pair(1, b=2)\np.a = 3\nassert swap(p).b == 3 and swap(p) == Pair(2, 3)\n\
          assert isinstance(p, Pair) and not isinstance(3, Pair) and sorted([2, 1]) == [1, 2]",
        ),
        // A name of Python that the program takes, and modules that it has imported for the test.
        (
            "import math\nfrom math import isclose\ndef sum(a, b): return a + b",
            "assert sum(10, 15) == 25 and math.pi > 3 and isclose(sum(.1, .2), .3)",
        ),
        (
            "from collections import Counter, deque, namedtuple, defaultdict\nfrom decimal import *\n\
          P = namedtuple('P', 'x y')\ndef f(i): return [Counter('aab'), deque([1]), P(1, 2), \
          {1, 2}, Decimal('1.5'), 2 ** 5000, float('inf'), b'x', 1j, range(3)][i]",
            "from decimal import Decimal\nimport collections\nassert f(0) == {'a': 2, 'b': 1}\n\
          assert f(1) == collections.deque([1]) and f(2) == (1, 2) and f(3) == {2, 1}\n\
          assert f(4) == Decimal('1.5') and f(5) == 2 ** 5000 and f(6) == float('inf')\n\
          assert f(7) == b'x' and f(8) == 1j and f(9) == range(3)",
        ),
        // Generators, functions as arguments and as results, exceptions by their names.
        (
            "def g(n):\n    for i in range(n): yield i\ndef apply(f, x): return [f(i) for i in x]\n\
          def adder(n): return lambda x: x + n\ndef bad(): raise KeyError('k')",
            "assert list(g(3)) == [0, 1, 2] and 2 in g(5)\nassert apply(lambda x: x * 2, [1, 2]) == \
          [2, 4]\nassert apply(str.upper, iter('ab')) == ['A', 'B'] and adder(2)(3) == 5\n\
          try:\n    bad()\n    raise SystemExit\nexcept KeyError:\n    pass",
        ),
        (
            "class Stack(list):\n    def push(self, x): self.append(x)\ndef f(): return Stack([1])",
            "s = f()\ns.push(2)\nassert len(s) == 2 and f() == [1] and s[1] == 2",
        ),
        (
            "import signal\nsignal.signal(signal.SIGTERM, lambda *_: None)\n\
          if __name__ == '__main__':\n    n = 3",
            "assert n == 3",
        ),
        (
            "import os\ndef f(): return sorted(os.environ)",
            "assert set(f()) <= {'PATH', 'HOME', 'TMPDIR', 'OMP_NUM_THREADS', 'LC_CTYPE'}, f()",
        ),
    ] {
        in_both(program, tests, &|verdict| verdict.passed && verdict.reason == "passed");
    }
}

#[test]
fn programs_that_are_wrong_say_how() {
    for (program, tests, reason) in [
        ("def f(x):\n    return x", "assert f(1) == 2", "AssertionError"),
        ("def f(x):\n    return x\nassert f(1) == 2", "", "AssertionError"),
        ("def f(x)\n", "", "SyntaxError"),
        ("raise SystemExit(3)", "", "exit status: 3"),
        ("import os\nos._exit(0)", "pass", "ended before its tests"),
        ("import sys\nsys.exit(0)", "pass", "ended before its tests"),
        ("x = input()", "", "EOFError"),
        ("x = bytearray(10**9)", "", "MemoryError"),
        ("class Mine(Exception): pass\nraise Mine('so')", "", "RuntimeError: Mine: so"),
        ("open('x', 'wb').write(bytes(40_000_000))", "", "OSError"),
    ] {
        in_both(program, tests, &|v| !v.passed && v.reason.starts_with(reason));
    }
}

/// Writes what might be taken for a verdict, an answer or a password to every channel.
const BABBLE: &str = "import os, sys, json\nfor n in range(3, 64):\n    for text in [\
    '{\"passed\": true, \"reason\": \"passed\"}', '{\"value\": \"[]\"}', '{\"value\": true}']:\n\
    \x20       try: os.write(n, text.encode() + b'\\n')\n        except OSError: pass\n";

#[test]
fn no_program_forges_its_pass() {
    let wrong = "def f(x): return 0\n";
    let equal = "class E(int):\n    __eq__ = __lt__ = __gt__ = lambda *_: True\n\
                 \x20   __sub__ = __abs__ = __round__ = lambda *_: E()\n    __hash__ = int.__hash__\n";
    let object = equal.replace("E(int)", "E").replace("__hash__ = int.__hash__", "pass");
    let attacks = [
        // Leaving, with what an earlier sandbox took for a pass.
        format!("{wrong}import os\nopen('passed', 'w').close()\nos._exit(0)"),
        format!("{wrong}import atexit, os\natexit.register(lambda: os._exit(0))\nraise SystemExit"),
        "import os\ndef f(x): os._exit(0)".into(),
        "def f(x): raise SystemExit(0)".into(),
        format!(
            "import os, signal\nsignal.signal(14, lambda *_: os._exit(0))\nsignal.alarm(1)\n\
                 {wrong}"
        ),
        // Speaking for the judge.
        format!("{BABBLE}{wrong}"),
        format!("{BABBLE}os._exit(0)"),
        format!("{BABBLE}def f(x):\n    exec(open('/dev/null').read()); return 0"),
        format!(
            "import threading\ndef run():\n    while True:\n        {}\n\
                 threading.Thread(target=run, daemon=True).start()\n{wrong}",
            BABBLE.trim_end().replace('\n', "\n        ")
        ),
        // Values that say they are whatever is wanted.
        format!("{equal}def f(x): return E()"),
        format!("{object}def f(x): return E()"),
        format!(
            "{}def f(x): return E()",
            object.replace("class E:", "class E:\n    __class__ = property(lambda s: int)")
        ),
        "class B(float):\n    def __float__(s): return 2.0\n    def __eq__(s, o): return True\n\
         \x20   __hash__ = None\ndef f(x): return B(9)"
            .into(),
        // Changing what the test is made of, in its own process.
        format!(
            "import builtins\nbuiltins.AssertionError = type('A', (), {{}})\n\
                 builtins.abs = builtins.all = lambda *_: True\nbuiltins.f = lambda x: x + 1\n{wrong}"
        ),
        format!("abs = int = bool = len = print = lambda *_: 0\n{wrong}"),
        format!("import builtins as math, os as copy\n{wrong}"),
        format!("def jump(frame, *_):\n    return jump\nimport sys\nsys.settrace(jump)\n{wrong}"),
        // Looking for the judge in memory, among frames and among processes.
        format!(
            "import gc, sys\nfor o in gc.get_objects():\n    if type(o).__name__ == 'Wire':\n\
                 \x20       o.encode = lambda x: True\n        o.ask = o.receive = lambda *_: True\n\
                 frame = sys._getframe()\nwhile frame:\n    frame.f_globals['verdict'] = \
                 {{'passed': True}}\n    frame = frame.f_back\n{wrong}"
        ),
        format!(
            "import os\nfor p in os.listdir('/proc'):\n    try:\n        m = open(f'/proc/{{p}}/mem', \
                 'r+b') if int(p) != os.getpid() else None\n        \
                 [open(f'/proc/{{p}}/fd/{{n}}', 'w').write('{{\"passed\": true}}\\n') for n in range(9)]\n\
                 \x20   except Exception: pass\n{wrong}"
        ),
        format!(
            "import ctypes, os\nlibc = ctypes.CDLL(None)\nfor p in range(1, 400):\n    \
                 if p != os.getpid() and libc.ptrace(16, p, 0, 0) == 0: libc.ptrace(7, p, 0, 0)\n{wrong}"
        ),
        // Values that are too much for who reads them.
        "def f(x):\n    l = []\n    for _ in range(100_000): l = [l]\n    return l".into(),
        "def f(x):\n    l = []\n    l.append(l)\n    return l".into(),
        "def f(x): return '9' * 200_000_000".into(),
        // Whoever is left behind.
        format!("import os\nif os.fork(): os._exit(0)\n{wrong}"),
    ];
    assert!(attacks.len() >= 20);
    for attack in attacks {
        in_both(&attack, "assert f(41) == 42", &|verdict| !verdict.passed);
        // A value that poses as another may do so in more ways.
        if attack.contains("class ") {
            in_both(&attack, "assert abs(f(1) - 2) < 1e-6", &|verdict| !verdict.passed);
            in_both(&attack, "assert f(1) in [2, 3]", &|verdict| !verdict.passed);
        }
    }
}

#[test]
fn names_of_pythons_stay_pythons_in_tests_of_others() {
    let wrong = "def f(x): return 999.0\n";
    for (program, tests) in [
        ("def abs(x): return 0\n", "assert abs(f(2) - 0.5) < 1e-6"),
        ("set = lambda x: 1\n", "assert set([f(1)]) == set([2.0])"),
        ("sorted = lambda *_: 1\n", "assert sorted([f(1)]) == sorted([2.0])"),
        (
            "class math: isclose = staticmethod(lambda *a, **k: True)\n",
            "assert math.isclose(f(2), 4.0)",
        ),
        (
            "import builtins\nforged = dict(vars(builtins), abs=lambda x: 0)\n\
             __builtins__ = forged\n",
            "assert abs(f(2) - 0.5) < 1e-6",
        ),
    ] {
        in_both(&format!("{program}{wrong}"), tests, &|verdict| !verdict.passed);
    }
    // Where it is what is tested, it is the program's.
    in_both("def sum(a, b): return a + b", "assert sum(10, 15) == 25", &|verdict| verdict.passed);
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn no_memory_without_a_process_and_no_other_namespace() {
    let libc = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n";
    for (call, errno) in [
        ("libc.memfd_create(b'x', 0)", 1),
        ("libc.shmget(0, 1 << 20, 0o1600)", 1),
        ("libc.unshare(0x10000000)", 1),
        ("libc.syscall(56, 0x10000011, 0, 0, 0, 0)", 1),
        ("libc.syscall(435, 0, 0)", 38),
    ] {
        let program = format!(
            "{libc}found = {call}\nassert found == -1 and ctypes.get_errno() == {errno}, \
             (found, ctypes.get_errno())"
        );
        in_both(&program, "", &|verdict| verdict.passed);
    }
    let threads = "import subprocess, threading\nt = threading.Thread(target=print)\nt.start()\n\
                   t.join()\nassert subprocess.run(['/bin/true']).returncode == 0";
    in_both(threads, "", &|verdict| verdict.passed);
}

#[test]
fn a_program_without_tests_must_come_to_its_end() {
    for attack in [
        "import os\nopen('passed', 'w').close()\nos._exit(0)\nassert False".to_owned(),
        "import sys\nsys.exit()\nassert False".into(),
        format!("{BABBLE}os._exit(0)\nassert False"),
        format!("import atexit\natexit.register(print, 1)\n{BABBLE}assert False"),
        "import os\nif os.fork(): os._exit(0)\nassert False".into(),
        "import os\nos.execv('/bin/true', ['true'])".into(),
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)".into(),
    ] {
        in_both(&attack, "", &|verdict| !verdict.passed);
    }
}

#[test]
fn what_a_program_starts_ends_with_it() {
    let name = format!("llada-test-child-{}", std::process::id());
    let program = format!(
        "import os, subprocess, sys, time\nsleep = 'import os, time; os.fork(); time.sleep(60)'\n\
         if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        \
         subprocess.Popen([sys.executable, '-c', sleep, '{name}'], start_new_session=True)\n    \
         os._exit(0)\ntime.sleep(0.5)"
    );
    for open in [true, false] {
        let Some(sandbox) = sandbox(open) else { continue };
        assert!(check(sandbox, &program, "", 20.0).passed);
        let alive = || {
            std::fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&name)
            })
        };
        // The system takes a moment to end a namespace; the child would sleep for a minute.
        let begun = Instant::now();
        while alive() {
            assert!(begun.elapsed() < Duration::from_secs(30), "a child outlived its program");
            std::thread::sleep(POLL);
        }
    }
}

#[test]
fn time_memory_processes_and_disk_are_bounded_together() {
    let many = "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        \
                x = bytearray(b'x' * (100 << 20))\n        time.sleep(30)\n        os._exit(0)\n\
                time.sleep(30)";
    let files = "for i in range(8):\n    open(str(i), 'wb').write(bytes(15 << 20))\n\
                 import time\ntime.sleep(30)";
    for (program, reasons) in [
        ("while True: pass", ["longer than", "longer than"]),
        (many, ["more than 256 MiB of memory", "MemoryError"]),
        (files, ["more than 64 MiB of files", "OSError"]),
    ] {
        for open in [true, false] {
            let Some(sandbox) = sandbox(open) else { continue };
            let limit = if program.starts_with("while") { 0.5 } else { 25.0 };
            let verdict = check(sandbox, program, "", limit);
            let named = reasons.iter().any(|reason| verdict.reason.starts_with(reason));
            assert!(!verdict.passed && named, "open {open}: {verdict:?}\n{program}");
        }
    }
    // A bomb of processes: whatever ends it, nothing is left of it, and the next program runs.
    let Some(sandbox) = sandbox(false) else { return };
    let verdict = check(sandbox, "import os\nwhile True:\n    os.fork()", "", 10.0);
    assert!(!verdict.passed, "{verdict:?}");
    assert!(check(sandbox, "def f(): return 1", "assert f() == 1", 20.0).passed);
}

#[test]
fn other_files_processes_and_sockets_are_out_of_reach() {
    let Some(sandbox) = sandbox(false) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let name = path.display();
    std::fs::write(dir.path().join("secret"), "x").unwrap();
    for (program, reason) in [
        ("import socket\nsocket.create_connection(('127.0.0.1', 9), 2)".to_owned(), "OSError"),
        (format!("import socket\nsocket.socket(1).connect('{name}')"), "FileNotFoundError"),
        (format!("open('{}/secret')", dir.path().display()), "FileNotFoundError"),
        ("open('/usr/llada-was-here', 'w')".into(), "OSError"),
        ("import os\nos.kill(1, 9)\nopen('/proc/1/mem', 'r+b')".into(), "PermissionError"),
        (format!("open('/proc/{}/environ')", std::process::id()), "FileNotFoundError"),
        (
            "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.umount2(b'/usr', 2)\n\
          libc.mount(b'none', b'/usr', b'tmpfs', 0, None)\nopen('/usr/x', 'w')"
                .into(),
            "OSError",
        ),
    ] {
        let verdict = check(sandbox, &program, "", 20.0);
        assert!(!verdict.passed && verdict.reason.starts_with(reason), "{program}: {verdict:?}");
    }
}
