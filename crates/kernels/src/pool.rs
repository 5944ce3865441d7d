//! The thread pool that runs operations: asleep when there is nothing to do, but not so soon as to be
//! asleep between the operations of a pass.
//!
//! A pass of a small model is hundreds of operations of some tens of microseconds each. Waking a
//! thread takes as long as such an operation, and so does handing over work through queues.

use std::{
    cell::UnsafeCell,
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How long a thread looks for work without letting others run.
const SPIN: Duration = Duration::from_micros(20);
/// How long it looks for work at all before it sleeps: longer than what lies between two operations.
const AWAKE: Duration = Duration::from_micros(200);
/// Looks between two looks at the clock.
const LOOKS: usize = 32;

/// Tasks of one operation.
type Job<'a> = dyn Fn(usize) + Sync + 'a;

/// A cache line of its own, so that threads that look at one number are not slowed down by another.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    /// Threads at work on the operation, [`OPEN`] while more may join, and above the number of operations
    /// so far.
    state: Apart<AtomicU64>,
    /// The task that is taken next.
    next: Apart<AtomicUsize>,
    /// The operation and the number of its tasks; written while it is not open and nobody is at work.
    job: UnsafeCell<Option<(*const Job<'static>, usize)>>,
    /// What a task died of on another thread.
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    /// Threads that sleep or are about to.
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
    over: AtomicBool,
}

// SAFETY: `job` is written by the one thread that has the pool's turn, while the state says that nobody
// else reads it; a `Job` is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is used only while the caller of `for_each` keeps what it points to.
unsafe impl Send for Shared {}

/// More threads may join the operation.
const OPEN: u64 = 1 << 32;
/// One operation more.
const ONE: u64 = 1 << 33;

/// Threads, of which the caller of an operation is one.
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    threads: usize,
    turn: Mutex<()>,
}

impl ThreadPool {
    /// A pool of `threads` threads, at least one, with the caller's.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Apart(AtomicU64::new(0)),
            next: Apart(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            over: AtomicBool::new(false),
        });
        let pool = Self { shared, threads, turn: Mutex::new(()) };
        for i in 1..threads {
            let shared = Arc::clone(&pool.shared);
            thread::Builder::new().name(format!("llada-{i}")).spawn(move || shared.serve())?;
        }
        Ok(pool)
    }

    /// Threads, with the caller's.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task(0)` … `task(n - 1)`, each once. Tasks that are operations of the same pool run on their
    /// own thread, and so does all while another operation is under way.
    ///
    /// # Panics
    /// As a task does, after all are over.
    pub(crate) fn for_each(&self, n: usize, task: &Job<'_>) {
        if n <= 1 || self.threads == 1 {
            return (0..n).for_each(task);
        }
        let turn = match self.turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
            Err(TryLockError::WouldBlock) => return (0..n).for_each(task),
        };
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. The operation is over, and nobody holds the pointer, before
        // this function returns or unwinds: `close` waits for that.
        let job =
            unsafe { std::mem::transmute::<*const Job, *const Job>(std::ptr::from_ref(task)) };
        shared.open(job, n);
        let own = catch_unwind(AssertUnwindSafe(|| shared.work(task, n)));
        if own.is_err() {
            shared.next.0.store(n, Ordering::Relaxed);
        }
        shared.close();
        let others = lock(&shared.panic).take();
        drop(turn);
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.shared.wake();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Begins an operation.
    fn open(&self, job: *const Job<'static>, n: usize) {
        // SAFETY: the last operation is closed and this thread has the turn.
        unsafe { *self.job.get() = Some((job, n)) };
        self.next.0.store(0, Ordering::Relaxed);
        let state = self.state.0.load(Ordering::Relaxed);
        // In one order with `sleepers`: either a thread sees this before it sleeps, or is woken.
        self.state.0.store(state.wrapping_add(ONE) | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Ends the operation: nobody joins any more, and all who did are done.
    fn close(&self) {
        self.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut patience = Patience::default();
        while !self.state.0.load(Ordering::Acquire).is_multiple_of(OPEN) {
            patience.wait();
        }
    }

    fn wake(&self) {
        drop(lock(&self.bed));
        self.bell.notify_all();
    }

    /// Takes tasks until none are left.
    fn work(&self, task: &Job<'_>, n: usize) {
        loop {
            let i = self.next.0.fetch_add(1, Ordering::Relaxed);
            if i >= n {
                return;
            }
            task(i);
        }
    }

    /// What the other threads do.
    fn serve(&self) {
        let mut last = 0;
        while let Some(number) = self.next_operation(last) {
            last = number;
            if self.join(number) {
                // SAFETY: having joined, this thread sees what `open` wrote, which stays until it is done.
                if let Some((job, n)) = unsafe { *self.job.get() } {
                    // SAFETY: whoever opened the operation waits for this thread before the job ends.
                    let work = || self.work(unsafe { &*job }, n);
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                        *lock(&self.panic) = Some(panic);
                        self.next.0.store(n, Ordering::Relaxed);
                    }
                }
                self.state.0.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits for an operation other than `last`; `None` when there will be none.
    fn next_operation(&self, last: u64) -> Option<u64> {
        let open = |state: u64| (state & OPEN != 0 && state / ONE != last).then_some(state / ONE);
        let mut patience = Patience::default();
        loop {
            if let Some(number) = open(self.state.0.load(Ordering::Acquire)) {
                return Some(number);
            }
            if self.over.load(Ordering::Relaxed) {
                return None;
            }
            if patience.wait() < AWAKE {
                continue;
            }
            let mut bed = lock(&self.bed);
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            while open(self.state.0.load(Ordering::SeqCst)).is_none()
                && !self.over.load(Ordering::SeqCst)
            {
                bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether this thread is now at work on operation `number`: not if that is closed.
    fn join(&self, number: u64) -> bool {
        let joined = |state: u64| (state & OPEN != 0 && state / ONE == number).then(|| state + 1);
        self.state.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, joined).is_ok()
    }
}

/// Waiting that first costs no time to end, then lets other threads run.
#[derive(Default)]
struct Patience {
    looks: usize,
    since: Option<Instant>,
    waited: Duration,
}

impl Patience {
    /// Waits a little, and says for how long it has been waiting.
    fn wait(&mut self) -> Duration {
        if self.waited < SPIN {
            std::hint::spin_loop();
        } else {
            thread::yield_now();
        }
        self.looks += 1;
        if self.looks.is_multiple_of(LOOKS) || self.waited >= SPIN {
            self.waited = self.since.get_or_insert_with(Instant::now).elapsed();
        }
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn counts(n: usize) -> Vec<AtomicUsize> {
        (0..n).map(|_| AtomicUsize::new(0)).collect()
    }

    fn once(count: &AtomicUsize) {
        count.fetch_add(1, Relaxed);
    }

    fn all_once(counts: &[AtomicUsize]) -> bool {
        counts.iter().all(|count| count.load(Relaxed) == 1)
    }

    #[test]
    fn every_task_runs_once() {
        for threads in 1..5 {
            let pool = ThreadPool::new(threads).unwrap();
            for n in (0..40).chain([1000]) {
                let counts = counts(n);
                pool.for_each(n, &|i| once(&counts[i]));
                assert!(all_once(&counts), "{threads} threads, {n} tasks");
            }
        }
    }

    /// What tasks write is there when the operation is over, thousands of times without and some times with
    /// sleep in between.
    #[test]
    fn results_are_there_awake_or_asleep() {
        let pool = ThreadPool::new(3).unwrap();
        for round in 0..5000 {
            if round % 500 == 0 {
                thread::sleep(5 * AWAKE);
            }
            let sums: Vec<AtomicUsize> = counts(7);
            pool.for_each(7, &|i| sums[i].store(round + i, Relaxed));
            let expected = (0..7).map(|i| round + i);
            assert!(sums.iter().map(|sum| sum.load(Relaxed)).eq(expected));
        }
    }

    #[test]
    fn all_threads_take_part() {
        let pool = ThreadPool::new(3).unwrap();
        let arrived = AtomicUsize::new(0);
        // Each task waits for the others, so that no thread can run two.
        pool.for_each(3, &|_| {
            arrived.fetch_add(1, Relaxed);
            while arrived.load(Relaxed) < 3 {
                thread::yield_now();
            }
        });
        assert_eq!(arrived.load(Relaxed), 3);
    }

    #[test]
    fn operations_within_tasks_and_of_several_callers_are_whole() {
        let pool = ThreadPool::new(3).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let counts = counts(36);
                        pool.for_each(6, &|i| {
                            pool.for_each(6, &|j| once(&counts[6 * i + j]));
                        });
                        assert!(all_once(&counts));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_works_on() {
        let pool = ThreadPool::new(3).unwrap();
        for bad in 0..12 {
            let run = || pool.for_each(12, &|i| assert!(i != bad, "task {i}"));
            let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(panic.downcast_ref::<String>(), Some(&format!("task {bad}")));
            let counts = counts(12);
            pool.for_each(12, &|i| once(&counts[i]));
            assert!(all_once(&counts));
        }
    }
}
