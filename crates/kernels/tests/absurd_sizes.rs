//! Every public operation with sizes that no memory has: an error or nothing to do, never a panic, and
//! never a product that has wrapped to the length of the buffer. It must hold in release builds too,
//! where overflow goes unnoticed: `cargo test -p llada-kernels --release --test absurd_sizes`.
#![allow(clippy::unwrap_used)]

use half::{bf16, f16};
use llada_kernels::{
    BlockFormat, Cpu, DType, KernelError, Mapping, Result, WeightView,
    adamw::{AdamW, Parameter, Step},
    attention::{self, Cache, CachedSequence, Mask, Sequences, Shape, Storage},
    cross_entropy::{self, Head},
    embedding, grad_norm,
    linear::{self, Activations, Out},
    rms_norm, rope, statistics, swiglu,
};

/// Small sizes, odd sizes, and those around which products wrap.
const SIZES: [usize; 21] = [
    0,
    1,
    2,
    7,
    8,
    32,
    256,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    (1 << 32) + 1,
    (1 << 33) + 5,
    1 << 59,
    1 << 60,
    1 << 61,
    (1 << 61) + 1,
    1 << 62,
    (1 << 62) + 32,
    1 << 63,
    usize::MAX - 31,
    usize::MAX,
];

/// Elements of the longest buffer that is given.
const ROOM: usize = 1 << 16;

/// A buffer's length for a shape that would fool arithmetic that wraps, and whether it is right.
fn length(shape: &[usize]) -> (usize, bool) {
    let wrapped = shape.iter().fold(1usize, |n, &size| n.wrapping_mul(size));
    let len = if wrapped <= ROOM { wrapped } else { 8 };
    let zero = shape.contains(&0);
    let exact = shape.iter().try_fold(1u128, |n, &size| n.checked_mul(size as u128));
    (len, if zero { len == 0 } else { exact == Some(len as u128) })
}

/// Buffers of some length, to be read and to be written.
struct Buffers {
    read: Vec<f32>,
    bytes: Vec<u8>,
    bf16: Vec<bf16>,
    f16: Vec<f16>,
}

impl Buffers {
    fn new() -> Self {
        let (bf16, f16) = (vec![bf16::ONE; ROOM], vec![f16::ONE; ROOM]);
        Self { read: vec![0.5; ROOM], bytes: vec![0; 2 * ROOM], bf16, f16 }
    }

    fn of(&self, shape: &[usize]) -> (&[f32], bool) {
        let (len, fits) = length(shape);
        (&self.read[..len], fits)
    }

    /// A matrix in every storage type, and whether it has this shape. Blocks are whole, and then a
    /// byte too long.
    fn weights(&self, rows: usize, columns: usize) -> Vec<(WeightView<'_>, bool)> {
        let (len, fits) = length(&[rows, columns]);
        let mut views = vec![
            (WeightView::F32(&self.read[..len]), fits),
            (WeightView::Bf16(&self.bf16[..len]), fits),
            (WeightView::F16(&self.f16[..len]), fits),
        ];
        for format in BlockFormat::ALL {
            let bytes = format.bytes(len).unwrap_or(format.block_bytes());
            let whole = columns.is_multiple_of(format.block_len()) && format.bytes(len).is_some();
            let view = |bytes| WeightView::Blocks { format, bytes: &self.bytes[..bytes] };
            views.push((view(bytes), fits && whole));
            views.push((view(bytes + 1), false));
        }
        views
    }
}

/// A call with buffers that do not fit must be refused. One with buffers that fit has nothing to
/// compute or computes it.
fn judge(what: &str, fits: bool, result: Result<()>) {
    assert!(fits || result.is_err(), "{what} was accepted");
}

/// All choices of `N` of the sizes.
fn choices<const N: usize>() -> impl Iterator<Item = [usize; N]> {
    (0..SIZES.len().pow(N as u32)).map(|mut number| {
        [(); N].map(|()| {
            let size = SIZES[number % SIZES.len()];
            number /= SIZES.len();
            size
        })
    })
}

fn cpus() -> [Cpu; 2] {
    [1, 3].map(|threads| Cpu::new(threads).unwrap())
}

#[test]
fn the_calls_that_once_crashed() {
    let cpu = Cpu::new(2).unwrap();
    assert!(Activations::new().quantize(&cpu, &[], 256, 1 << 59).is_err());
    let (w, mut y) = (WeightView::F32(&[]), [0.0; 64]);
    let out = Out::Write;
    assert!(
        linear::forward(&cpu, linear::Shape { m: 8, n: 8, k: 1 << 61 }, &[], w, None, &mut y, out)
            .is_err()
    );
    assert!(
        linear::backward_input(&cpu, linear::Shape { m: 8, n: 8, k: 1 << 61 }, &y, w, &mut [], out)
            .is_err()
    );
}

#[test]
fn linear_layers() {
    let buffers = Buffers::new();
    for cpu in cpus() {
        for [m, n, k] in choices() {
            let what = format!("{m} rows, {n} outputs, {k} inputs");
            let (x, x_fits) = buffers.of(&[m, k]);
            let (dy, dy_fits) = buffers.of(&[m, n]);
            let (bias, bias_fits) = buffers.of(&[n]);
            let (mut dx, mut dw) = (x.to_vec(), buffers.of(&[n, k]).0.to_vec());
            let dw_fits = length(&[n, k]).1;
            for (w, w_fits) in buffers.weights(n, k) {
                let (mut y, fits) = (dy.to_vec(), x_fits && dy_fits && w_fits);
                let found = linear::forward(
                    &cpu,
                    linear::Shape { m, n, k },
                    x,
                    w,
                    None,
                    &mut y,
                    Out::Write,
                );
                judge(&what, fits, found);
                let found = linear::forward(
                    &cpu,
                    linear::Shape { m, n, k },
                    x,
                    w,
                    Some(bias),
                    &mut y,
                    Out::Add,
                );
                judge(&what, fits && bias_fits, found);
                let found = linear::backward_input(
                    &cpu,
                    linear::Shape { m, n, k },
                    dy,
                    w,
                    &mut dx,
                    Out::Write,
                );
                judge(&what, fits, found);
            }
            let found =
                linear::backward_weight(&cpu, linear::Shape { m, n, k }, dy, x, &mut dw, Out::Add);
            judge(&what, x_fits && dy_fits && dw_fits, found);
            let mut db = bias.to_vec();
            judge(&what, dy_fits && bias_fits, linear::backward_bias(&cpu, dy, m, n, &mut db));
        }
    }
}

#[test]
fn quantised_rows() {
    let buffers = Buffers::new();
    for cpu in cpus() {
        let mut rows = Activations::new();
        for [m, k] in choices() {
            let (x, fits) = buffers.of(&[m, k]);
            let found = rows.quantize(&cpu, x, m, k);
            let whole = k.is_multiple_of(32);
            judge(&format!("{m} rows of {k}"), fits && whole, found);
            // What they are then, also after a refusal, is multiplied with whatever is given.
            for n in SIZES {
                for (w, _) in buffers.weights(n, rows.inputs()) {
                    let mut y = vec![0.0; length(&[rows.rows(), n]).0];
                    let _ = linear::forward_quantized(&cpu, &rows, w, None, n, &mut y, Out::Write);
                }
            }
        }
    }
}

#[test]
fn embeddings() {
    let buffers = Buffers::new();
    for cpu in cpus() {
        for [vocab, d] in choices() {
            for ids in [&[][..], &[0], &[0, 6, 6]] {
                let what = format!("{} of {vocab} rows of {d}", ids.len());
                let (out, fits) = buffers.of(&[ids.len(), d]);
                let (mut out, inside) = (out.to_vec(), ids.iter().all(|&id| (id as usize) < vocab));
                for (table, table_fits) in buffers.weights(vocab, d) {
                    let found = embedding::forward(&cpu, ids, table, vocab, d, &mut out);
                    judge(&what, fits && table_fits && inside, found);
                }
                let (table, table_fits) = buffers.of(&[vocab, d]);
                let mut dtable = table.to_vec();
                let found = embedding::backward(&cpu, ids, &out, vocab, d, &mut dtable);
                judge(&what, fits && table_fits && inside, found);
            }
        }
    }
}

#[test]
fn output_heads() {
    let buffers = Buffers::new();
    for cpu in cpus() {
        for [vocab, d] in choices() {
            for targets in [&[][..], &[0], &[0, 1, 0]] {
                let what = format!("{} rows of {d}, {vocab} tokens", targets.len());
                let (hidden, hidden_fits) = buffers.of(&[targets.len(), d]);
                let (dweight, dweight_fits) = buffers.of(&[vocab, d]);
                let (mut dhidden, mut dweight) = (hidden.to_vec(), dweight.to_vec());
                let inside = targets.iter().all(|&target| (target as usize) < vocab);
                let (weights, mut nll) = (vec![1.0; targets.len()], vec![0.0; targets.len()]);
                for (weight, weight_fits) in buffers.weights(vocab, d) {
                    let (fits, head) = (
                        hidden_fits && weight_fits && inside,
                        Head { weight, vocab, d, scale: 0.5, excluded: None },
                    );
                    let found = cross_entropy::forward(&cpu, hidden, &head, targets, &mut nll);
                    judge(&what, fits, found);
                    let found = cross_entropy::forward_backward(
                        &cpu,
                        hidden,
                        &head,
                        targets,
                        cross_entropy::Weights { nll: &weights, entropy: &[] },
                        &mut nll,
                        cross_entropy::Gradients { dhidden: &mut dhidden, dweight: &mut dweight },
                    );
                    judge(&what, fits && dweight_fits, found);
                }
            }
        }
    }
}

#[test]
fn rotary_embeddings() {
    let buffers = Buffers::new();
    for [head_dim, positions] in choices() {
        let few = head_dim.max(2).checked_mul(positions.max(1)).is_some_and(|n| n < 1 << 24);
        let table = rope::Table::new(1e4, head_dim, positions);
        assert!(few || table.is_err(), "{positions} positions of {head_dim}");
        let Ok(table) = table else { continue };
        for cpu in cpus() {
            for heads in SIZES {
                for at in [&[][..], &[0], &[1, 0]] {
                    let (x, fits) = buffers.of(&[at.len(), heads, head_dim]);
                    let (mut x, what) = (x.to_vec(), format!("{heads} heads of {head_dim}"));
                    judge(&what, fits, rope::forward(&cpu, &mut x, heads, &table, at));
                    judge(&what, fits, rope::backward(&cpu, &mut x, heads, &table, at));
                }
            }
        }
    }
}

#[test]
fn attention_of_rows() {
    let buffers = Buffers::new();
    let (max, many) = (usize::MAX, [0; 100]);
    let starts: [&[usize]; 10] = [
        &[],
        &[0],
        &[0, 0, 0],
        &many,
        &[0, 1],
        &[0, 3, 3, 4],
        &[0, 1 << 32],
        &[0, 1, 1 << 61],
        &[0, max],
        &[max, max],
    ];
    let masks = [Mask::Bidirectional, Mask::Causal, Mask::BlockCausal(max), Mask::BlockCausal(0)];
    for cpu in cpus() {
        for [heads, kv_heads, head_dim] in choices() {
            let shape = Shape { heads, kv_heads, head_dim };
            for (starts, mask) in starts.iter().zip(masks.into_iter().cycle()) {
                let tokens = starts.last().copied().unwrap_or(0);
                let what = format!("{shape:?}, {tokens} tokens, {mask:?}");
                let (q, q_fits) = buffers.of(&[tokens, heads, head_dim]);
                let (k, k_fits) = buffers.of(&[tokens, kv_heads, head_dim]);
                let (lse, lse_fits) = buffers.of(&[tokens, heads]);
                let fits = q_fits && k_fits && lse_fits && !starts.is_empty();
                let (mut out, mut sums) = (q.to_vec(), lse.to_vec());
                let rows = Sequences { starts, attention_mask: None };
                let found = attention::forward(
                    &cpu,
                    attention::Inputs { shape, mask, q, k, v: k },
                    rows,
                    &mut out,
                    &mut sums,
                );
                judge(&what, fits, found);
                let (mut dk, mut dv) = (k.to_vec(), k.to_vec());
                let found = attention::backward(
                    &cpu,
                    attention::Inputs { shape, mask, q, k, v: k },
                    rows,
                    attention::Saved { out: q, lse },
                    q,
                    attention::Gradients { dq: &mut out, dk: &mut dk, dv: &mut dv },
                );
                judge(&what, fits, found);
            }
        }
    }
}

#[test]
fn caches_and_rows_that_go_on() {
    let buffers = Buffers::new();
    let cpu = Cpu::new(2).unwrap();
    for [kv_heads, head_dim, capacity] in choices() {
        let shape = Shape { heads: kv_heads, kv_heads, head_dim };
        let small = [kv_heads, head_dim, capacity].iter().all(|&size| size <= 256);
        // What the system may have memory for, or not, is left alone.
        let impossible = [kv_heads, head_dim, capacity].iter().any(|&size| size > 1 << 58);
        if !small && !impossible {
            continue;
        }
        for storage in [Storage::F32, Storage::Bf16] {
            let cache = Cache::new(shape, capacity, storage);
            let nothing = [kv_heads, head_dim, capacity].contains(&0);
            assert!(small || nothing || cache.is_err(), "{capacity} of {shape:?}");
            let Ok(mut cache) = cache else { continue };
            for heads in [kv_heads, 0, usize::MAX] {
                for [tokens, first, len] in [[0, 0, 0], [1, 0, 1], [1, usize::MAX, 1]]
                    .into_iter()
                    .chain([[usize::MAX, 1, 2], [usize::MAX, 0, usize::MAX], [1, 0, usize::MAX]])
                {
                    let shape = Shape { heads, ..shape };
                    let (q, q_fits) = buffers.of(&[tokens, heads, head_dim]);
                    let (k, k_fits) = buffers.of(&[tokens, kv_heads, head_dim]);
                    let (lse, lse_fits) = buffers.of(&[tokens, heads]);
                    let (mut out, mut lse) = (q.to_vec(), lse.to_vec());
                    let mut rows = [CachedSequence {
                        tokens,
                        first,
                        len,
                        attention_mask: None,
                        cache: &mut cache,
                    }];
                    let found = attention::forward_cached(
                        &cpu,
                        attention::Inputs { shape, mask: Mask::Causal, q, k, v: k },
                        &mut rows,
                        &mut out,
                        &mut lse,
                    );
                    let fits = q_fits && k_fits && lse_fits && len <= capacity;
                    judge(&format!("{tokens} from {first} of {len}"), fits, found);
                }
            }
        }
    }
}

#[test]
fn blocks_and_storage_types() {
    let cpu = Cpu::new(1).unwrap();
    for size in SIZES {
        for format in BlockFormat::ALL {
            let (per, bytes) = (format.block_len(), format.block_bytes());
            let exact = |n: usize, from: usize, to: usize| {
                let whole = n.is_multiple_of(from).then(|| (n / from) as u128 * to as u128);
                whole.and_then(|n| usize::try_from(n).ok())
            };
            assert_eq!(format.bytes(size), exact(size, per, bytes));
            assert_eq!(format.len(size), exact(size, bytes, per));
            assert_eq!(DType::Blocks(format).bytes(size), format.bytes(size));
        }
        assert_eq!(DType::F32.bytes(size), size.checked_mul(4));
        assert_eq!(DType::F16.bytes(size), size.checked_mul(2));
    }
    let (x, mut blocks, mut out) = ([0.5; 512], [0; 600], [0.0; 512]);
    for format in BlockFormat::ALL {
        for len in 0..x.len() {
            let whole = format.bytes(len);
            judge("x", whole == Some(34), format.quantize(&cpu, &x[..len], &mut blocks[..34]));
            let found = format.dequantize(&cpu, &blocks[..len], &mut out[..256]);
            judge("blocks", format.len(len) == Some(256), found);
        }
    }
}

#[test]
fn operations_without_sizes_of_their_own() {
    let cpu = Cpu::new(2).unwrap();
    let lengths = [0, 1, 5];
    let mut all = (0..3usize.pow(5)).map(|n| [1, 3, 9, 27, 81].map(|p| lengths[n / p % 3]));
    assert!(all.len() == 243);
    let adam = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    all.by_ref().for_each(|[a, b, c, d, e]| {
        let new = |len: usize| vec![0.5f32; len];
        let (mut x, mut y, mut z) = (new(c), new(d), new(e));
        let same = a == b && b == c;
        judge("swiglu", same, swiglu::forward(&cpu, &new(a), &new(b), &mut x));
        let all_same = same && c == d && d == e;
        let found = swiglu::backward(&cpu, &new(a), &new(b), &new(c), &mut y, &mut z);
        judge("swiglu", all_same, found);
        let last = Step { number: u64::MAX, lr: 0.1, grad_scale: 1.0 };
        let grad = &new(a);
        let parameter = Parameter { value: &mut x, grad, mean: &mut y, square: &mut z };
        let found = adam.step(&cpu, last, parameter);
        judge("adamw", a == c && c == d && d == e, found);
        let found = rms_norm::forward(&cpu, &new(a), &new(b), 1e-5, &mut x, &mut y);
        judge("rms_norm", a == b * d && c == a, found);
        let (x, dout) = (new(a), new(c));
        let saved = rms_norm::Saved { x: &x, rstd: &new(b) };
        let gradients = rms_norm::Gradients { dx: &mut y, dweight: &mut z };
        let found = rms_norm::backward(&cpu, &new(b), saved, &dout, gradients);
        judge("rms_norm", a == b * b && c == a && d == a && e == b, found);
    });
    let none = Step { number: 0, lr: 0.1, grad_scale: 1.0 };
    let empty = Parameter { value: &mut [], grad: &[], mean: &mut [], square: &mut [] };
    assert!(adam.step(&cpu, none, empty).is_err());
    assert_eq!(grad_norm::forward(&cpu, &[&[], &[]]).unwrap(), 0.0);
    assert_eq!(statistics::of(&[]), None);
}

#[test]
fn threads_and_memory() {
    for threads in SIZES.into_iter().filter(|&threads| threads > Cpu::MOST_THREADS) {
        assert!(matches!(Cpu::new(threads), Err(KernelError::Argument { .. })), "{threads}");
    }
    for len in SIZES.into_iter().filter(|&len| len >= 1 << 59) {
        assert!(Mapping::filled(len, |_| panic!("there is no such memory")).is_err(), "{len}");
    }
    let memory = Mapping::filled(100, |out| out.fill(7)).unwrap();
    for [start, end] in choices() {
        memory.release(start..end);
    }
    assert_eq!(memory[..], [7; 100]);
}
