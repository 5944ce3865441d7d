//! What happens when a mapped file becomes shorter while it is in use: its pages are gone, and whoever
//! touches one gets the signal SIGBUS, of which a program dies without a word. A program that calls
//! [`explain_shrunk_files`] says instead which file it was.

use std::{ops::Range, path::Path};

/// Makes a file that became shorter while it was mapped end the program with a message and exit code 1,
/// where there are such signals. It takes over SIGBUS for the process, so it is for programs to call,
/// not for libraries; other causes of that signal go to whoever handled it before.
pub fn explain_shrunk_files() {
    #[cfg(unix)]
    signal::install();
}

/// Makes writing beyond the limit of file sizes (`ulimit -f`) an error like any other, where it is a
/// signal, SIGXFSZ, of which a program dies without a word. It is for programs to call too.
pub fn report_large_files() {
    // SAFETY: to ignore a signal runs no code of ours.
    #[cfg(unix)]
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Where a mapped file lies, known to the handler as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    #[cfg(unix)]
    entry: &'static signal::Entry,
}

impl Place {
    pub(crate) fn new(bytes: Range<*const u8>, path: &Path) -> Self {
        #[cfg(unix)]
        return Self {
            entry: signal::Entry::enter(bytes.start as usize..bytes.end as usize, path),
        };
        #[cfg(not(unix))]
        {
            let _ = (bytes, path);
            Self {}
        }
    }
}

#[cfg(unix)]
impl Drop for Place {
    fn drop(&mut self) {
        self.entry.leave();
    }
}

#[cfg(unix)]
mod signal {
    use std::{
        ops::Range,
        path::Path,
        ptr,
        sync::{
            Once,
            atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst},
        },
    };

    /// One mapping. Entries are never freed, only used again, so that the handler can read the list at
    /// any time and without a lock.
    #[derive(Debug)]
    pub(super) struct Entry {
        /// The first address; 0 while the entry is free, 1 while it is being filled.
        start: AtomicUsize,
        end: AtomicUsize,
        /// The message, which belongs to the entry.
        message: AtomicPtr<Vec<u8>>,
        next: AtomicPtr<Entry>,
    }

    static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
    static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(ptr::null_mut());

    /// Where an overflowing stack is this signal, the handler runs on another stack. On Linux it is not, and the
    /// other stack, which is as small as the registers of AMX allow, has no room left for a handler.
    const ALTERNATE: libc::c_int = if cfg!(target_os = "linux") { 0 } else { libc::SA_ONSTACK };

    const FREE: usize = 0;
    const TAKEN: usize = 1;

    fn entries() -> impl Iterator<Item = &'static Entry> {
        // SAFETY: a pointer of the list is null or to an entry that is never freed.
        let at = |entry: &AtomicPtr<Entry>| unsafe { entry.load(SeqCst).as_ref() };
        std::iter::successors(at(&ENTRIES), move |entry| at(&entry.next))
    }

    impl Entry {
        /// Enters a mapping into the list.
        pub(super) fn enter(bytes: Range<usize>, path: &Path) -> &'static Self {
            let name: String = path.to_string_lossy().chars().map(visible).collect();
            let message = format!(
                "error: `{name}` can no longer be read: it became shorter while it was in use, or its \
                 disk fails\n\
                 hint: write a new file and rename it over the old one, which a running program then \
                 keeps\n"
            );
            let take =
                |entry: &&Self| entry.start.compare_exchange(FREE, TAKEN, SeqCst, SeqCst).is_ok();
            let entry = entries().find(take).unwrap_or_else(Self::add);
            entry.message.store(Box::into_raw(Box::new(message.into_bytes())), SeqCst);
            entry.end.store(bytes.end, SeqCst);
            entry.start.store(bytes.start, SeqCst);
            entry
        }

        /// One more entry, taken.
        fn add() -> &'static Self {
            let place = Box::into_raw(Box::new(Self {
                start: AtomicUsize::new(TAKEN),
                end: AtomicUsize::new(0),
                message: AtomicPtr::default(),
                next: AtomicPtr::default(),
            }));
            // SAFETY: it was just made, is never freed and only ever shared.
            let entry: &'static Self = unsafe { &*place };
            let link = |head| {
                entry.next.store(head, SeqCst);
                Some(place)
            };
            // The function always gives a new head.
            let _ = ENTRIES.fetch_update(SeqCst, SeqCst, link);
            entry
        }

        /// Takes the mapping off the list.
        pub(super) fn leave(&self) {
            self.start.store(TAKEN, SeqCst);
            self.end.store(0, SeqCst);
            let message = self.message.swap(ptr::null_mut(), SeqCst);
            if !message.is_null() {
                // SAFETY: it comes from `Box::into_raw` in `enter`, and the swap took it for good. The
                // handler reads it only for a fault inside the mapping, which nobody uses any more.
                drop(unsafe { Box::from_raw(message) });
            }
            self.start.store(FREE, SeqCst);
        }

        fn has(&self, address: usize) -> bool {
            let start = self.start.load(SeqCst);
            start > TAKEN && start <= address && address < self.end.load(SeqCst)
        }
    }

    /// A path must not command the terminal.
    fn visible(c: char) -> char {
        if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }
    }

    /// Takes SIGBUS over, once.
    pub(super) fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: zeros are a valid `sigaction`, the mask is emptied by its own function, both
            // pointers are to structures that live until the call is over, and the handler has the
            // signature that SA_SIGINFO asks for and calls nothing that is unsafe in a handler.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let handler: extern "C" fn(_, _, _) = handle;
                action.sa_sigaction = handler as libc::sighandler_t;
                action.sa_flags = libc::SA_SIGINFO | ALTERNATE;
                libc::sigemptyset(&raw mut action.sa_mask);
                let mut previous: libc::sigaction = std::mem::zeroed();
                libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut previous);
                PREVIOUS.store(Box::into_raw(Box::new(previous)), SeqCst);
                libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut());
            }
        });
    }

    extern "C" fn handle(
        signal: libc::c_int,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) {
        // SAFETY: with SA_SIGINFO the system gives a valid structure.
        let address = unsafe { (*info).si_addr() } as usize;
        let ours = entries().find(|entry| entry.has(address));
        if let Some(entry) = ours {
            // SAFETY: the mapping was touched, so it is alive, and with it its entry's message. `write`
            // and `_exit` may be called in a handler.
            unsafe {
                if let Some(message) = entry.message.load(SeqCst).as_ref() {
                    libc::write(2, message.as_ptr().cast(), message.len());
                }
                libc::_exit(1);
            }
        }
        // SAFETY: `install` stored the pointer, which is never freed.
        let Some(previous) = (unsafe { PREVIOUS.load(SeqCst).as_ref() }) else { return };
        match previous.sa_sigaction {
            // Once the default is back, the instruction that failed is tried again and ends the program.
            libc::SIG_DFL | libc::SIG_IGN => {
                // SAFETY: a valid structure; `sigaction` may be called in a handler.
                unsafe { libc::sigaction(signal, previous, ptr::null_mut()) };
            }
            // SAFETY: the previous handler, called as the system would have called it.
            handler => unsafe {
                if previous.sa_flags & libc::SA_SIGINFO != 0 {
                    type Detailed =
                        extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                    let handler = std::mem::transmute::<libc::sighandler_t, Detailed>(handler);
                    handler(signal, info, context);
                } else {
                    let handler = std::mem::transmute::<
                        libc::sighandler_t,
                        extern "C" fn(libc::c_int),
                    >(handler);
                    handler(signal);
                }
            },
        }
    }

    #[cfg(test)]
    pub(super) fn known(address: usize) -> bool {
        entries().any(|entry| entry.has(address))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::process::ExitStatusExt,
        process::{Command, Output},
    };

    use super::*;
    use crate::Mapping;

    /// Says to the test below that it is the child.
    const CHILD: &str = "LLADA_SHRINKING_FILE";

    /// Maps a file, makes it shorter and reads it: the child process of the test that follows.
    #[test]
    fn read_a_file_that_shrinks() {
        let Ok(what) = std::env::var(CHILD) else { return };
        let (kind, path) = what.split_once(':').unwrap();
        explain_shrunk_files();
        explain_shrunk_files();
        let file = File::options().write(true).open(path).unwrap();
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        if kind == "ours" {
            let mapping = Mapping::open(Path::new(path)).unwrap();
            file.set_len(10).unwrap();
            panic!("{}", sum(&mapping));
        }
        let reading = File::open(path).unwrap();
        // SAFETY: this is the misuse that the test is about, in a process of its own.
        let mapping = unsafe { memmap2::Mmap::map(&reading) }.unwrap();
        file.set_len(10).unwrap();
        panic!("{}", sum(&mapping));
    }

    fn child(kind: &str) -> Output {
        let name = format!("llada-shrinking-{kind}\x1b-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fault::tests::read_a_file_that_shrinks", "--nocapture"])
            .env(CHILD, format!("{kind}:{}", path.display()))
            .output()
            .unwrap();
        fs::remove_file(&path).unwrap();
        output
    }

    #[test]
    fn a_file_that_shrinks_ends_in_a_message() {
        let output = child("ours");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("error: `") && stderr.contains("became shorter"), "{stderr}");
        assert!(stderr.contains("llada-shrinking-ours\u{fffd}-"), "{stderr}");
    }

    #[test]
    fn other_faults_are_what_they_were() {
        let output = child("other");
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }

    #[test]
    fn places_are_known_as_long_as_they_live() {
        let path = Path::new("file");
        // Addresses that nothing else has, in the middle of the half that is the system's.
        let range = |n: usize| {
            let start = (usize::MAX / 4 * 3 + 4096 * n) as *const u8;
            start..start.wrapping_add(4096)
        };
        let known = |n| signal::known(range(n).start as usize + 17);
        let mut places: Vec<Option<Place>> =
            (0..50).map(|n| Some(Place::new(range(n), path))).collect();
        assert!((0..50).all(known) && !known(50));
        assert!(!signal::known(range(49).end as usize));
        (0..50).step_by(2).for_each(|n| places[n] = None);
        assert!((0..50).all(|n| known(n) == (n % 2 == 1)));
        std::thread::scope(|scope| {
            for thread in 1..5 {
                scope.spawn(move || {
                    for n in 0..100 {
                        let place = Place::new(range(100 * thread + n), path);
                        assert!(known(100 * thread + n));
                        drop(place);
                        assert!(!known(100 * thread + n));
                    }
                });
            }
        });
        assert!((0..50).all(|n| known(n) == (n % 2 == 1)));
    }
}
