//! The processor: which instructions it has, and the threads that run the operations.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    KernelError, Result,
    pool::ThreadPool,
    simd,
    tiles::{self, Tiles},
};

/// The instruction set that the kernels are written for, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, on every machine.
    Portable,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL) with FMA and F16C.
    Avx512,
}

impl Isa {
    /// The best set that this machine runs.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "portable" => Ok(Self::Portable),
            "avx2" => Ok(Self::Avx2),
            "avx512" => Ok(Self::Avx512),
            _ => Err(KernelError::Argument {
                op: "isa",
                what: format!("`{s}` is not one of `portable`, `avx2`, `avx512`"),
            }),
        }
    }
}

/// What matrix products multiply. Sums, weights and everything else are `f32` in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// `f32`.
    #[default]
    F32,
    /// Both factors rounded to `bf16`: a relative error of 2^-8 in each. Weights of blocks are multiplied as
    /// they are without, unless there is a matrix unit ([`Cpu::has_tiles`]).
    Bf16,
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

impl FromStr for Compute {
    type Err = KernelError;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(KernelError::Argument {
                op: "compute",
                what: format!("`{s}` is not one of `f32`, `bf16`"),
            }),
        }
    }
}

/// One instruction-set extension and whether the processor has it, for `llada doctor`.
pub type Features = Vec<(&'static str, bool)>;

/// Runs the operations: an instruction set and a thread pool. Cheap to clone.
#[derive(Clone)]
pub struct Cpu {
    isa: Isa,
    compute: Compute,
    /// What multiplies tiles of `bf16`, if anything does.
    tiles: Option<Tiles>,
    pool: Arc<ThreadPool>,
    /// The pool of whoever calls, alone.
    alone: Arc<ThreadPool>,
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("isa", &self.isa)
            .field("compute", &self.compute)
            .field("tiles", &self.tiles)
            .field("threads", &self.threads())
            .finish()
    }
}

impl Cpu {
    /// The most threads that can be asked for.
    pub const MOST_THREADS: usize = 4096;

    /// The best instruction set on `threads` threads; 0 means one for each core.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_isa(Isa::detect(), threads)
    }

    /// A chosen instruction set, which this machine must have.
    pub fn with_isa(isa: Isa, threads: usize) -> Result<Self> {
        if isa > Isa::detect() {
            return Err(KernelError::Argument {
                op: "cpu",
                what: format!("this processor has no `{isa}`; its best is `{}`", Isa::detect()),
            });
        }
        let threads = match threads {
            0 => thread::available_parallelism().map_or(1, usize::from).min(Self::MOST_THREADS),
            threads if threads > Self::MOST_THREADS => {
                let what =
                    format!("{threads} threads are too many: {} will do", Self::MOST_THREADS);
                return Err(KernelError::Argument { op: "cpu", what });
            }
            threads => threads,
        };
        let pool = |threads: usize| match ThreadPool::new(threads) {
            Ok(pool) => Ok(Arc::new(pool)),
            Err(e) => Err(KernelError::Argument {
                op: "cpu",
                what: format!("the system does not give {threads} threads ({e}): ask for fewer"),
            }),
        };
        let compute = Compute::default();
        let tiles = (isa == Isa::Avx512 && tiles::is_usable()).then_some(Tiles::Hardware);
        Ok(Self { isa, compute, tiles, pool: pool(threads)?, alone: pool(1)? })
    }

    /// The same with other factors of matrix products.
    #[must_use]
    pub fn with_compute(self, compute: Compute) -> Self {
        Self { compute, ..self }
    }

    /// The same with another unit for tiles of `bf16`, or with none: for tests and measurements. One that this
    /// machine has not is replaced by a model of it.
    #[doc(hidden)]
    #[must_use]
    pub fn with_tiles(self, tiles: Option<Tiles>) -> Self {
        Self { tiles, ..self }
    }

    /// The same instruction set on the thread of whoever calls: what tasks of an operation run theirs on.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { pool: Arc::clone(&self.alone), ..self.clone() }
    }

    /// The instruction set that the kernels use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What matrix products multiply.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Whether there are instructions for products of `bf16`; without them they are plain Rust, and slow.
    pub fn has_bf16(&self) -> bool {
        self.has_tiles() || simd::has_bf16(self.isa)
    }

    /// Whether a matrix unit multiplies tiles of `bf16`: AMX, if the system lets this process use it.
    pub fn has_tiles(&self) -> bool {
        self.tiles.is_some()
    }

    /// What multiplies tiles of `bf16`, where that is what matrix products are of.
    pub(crate) fn tiles(&self) -> Option<Tiles> {
        self.tiles.filter(|_| self.compute == Compute::Bf16)
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The extensions that matter to the kernels, and whether the processor has each.
    pub fn features() -> Features {
        #[cfg(target_arch = "x86_64")]
        return vec![
            ("avx2", is_x86_feature_detected!("avx2")),
            ("fma", is_x86_feature_detected!("fma")),
            ("f16c", is_x86_feature_detected!("f16c")),
            ("avx512f", is_x86_feature_detected!("avx512f")),
            ("avx512bw", is_x86_feature_detected!("avx512bw")),
            ("avx512vnni", is_x86_feature_detected!("avx512vnni")),
            ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
            ("avx512fp16", is_x86_feature_detected!("avx512fp16")),
            ("avxvnni", is_x86_feature_detected!("avxvnni")),
            // Both, and that the system lets this process use them.
            ("amx_tile", tiles::is_usable()),
            ("amx_bf16", tiles::is_usable()),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        Vec::new()
    }

    /// Runs `task(0)` … `task(n - 1)` on the threads. Tasks must write to disjoint places; what they
    /// compute must not depend on how many threads there are.
    pub fn for_each(&self, n: usize, task: impl Fn(usize) + Sync) {
        self.pool.for_each(n, &task);
    }

    /// Runs `task(i, chunk)` on the chunks of `chunk` elements of `out`, in parallel.
    pub fn chunks<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        self.each_of(out.chunks_mut(chunk.max(1)).enumerate(), |(i, part)| task(i, part));
    }

    /// As [`Cpu::chunks`] for two outputs: each task has a chunk of both.
    pub(crate) fn chunk_pairs<T: Send>(
        &self,
        (a, a_chunk): (&mut [T], usize),
        (b, b_chunk): (&mut [T], usize),
        task: impl Fn(usize, &mut [T], &mut [T]) + Sync,
    ) {
        let pairs = a.chunks_mut(a_chunk.max(1)).zip(b.chunks_mut(b_chunk.max(1)));
        self.each_of(pairs.enumerate(), |(i, (a, b))| task(i, a, b));
    }

    /// Runs `task` on all items, which the threads take one by one. Operations of a task are to run
    /// [`alone`](Self::alone).
    pub fn each_of<I: Iterator + Send>(&self, items: I, task: impl Fn(I::Item) + Sync) {
        let count = items.size_hint().1.unwrap_or(usize::MAX).min(self.threads());
        if count <= 1 {
            return items.for_each(task);
        }
        let items = Mutex::new(items);
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        self.for_each(count, |_| {
            while let Some(item) = next() {
                task(item);
            }
        });
    }
}
