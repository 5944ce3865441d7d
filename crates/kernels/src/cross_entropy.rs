//! The output head and its soft-max cross-entropy in one: the logits exist only tile by tile.
//!
//! For a hidden row `h` the logits are `scale * W h` and the loss is `log(sum(exp(logits))) -
//! logit[target]`; the gradient of the logits is `softmax - onehot`. A tile is a block of rows
//! times a chunk of the vocabulary. The first pass over the chunks finds the soft-max's sum, the
//! second forms the logits again, and from them the gradients. Cutting the vocabulary to save the
//! buffer of logits follows Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models",
//! arXiv:2411.09009.

use std::ops::Range;

use crate::{
    Cpu, KernelError, Result, WeightView,
    error::check,
    isa::vectorised,
    linear::{self, Out},
    math::{SMALLEST, exp, soft_max_moment, soft_max_sum},
};

/// Logits of one tile, 16 MiB: few beside the weights, and enough for efficient products.
const TILE: usize = 1 << 22;

/// Rows of a tile. Fewer would read the weights too often, more would not make that cheaper.
const ROWS: Range<usize> = 128..512;

/// Logits of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// The output head: `logits = scale * weight * hidden`.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `[vocab, d]`.
    pub weight: WeightView<'a>,
    /// Number of tokens.
    pub vocab: usize,
    /// Width of a hidden row.
    pub d: usize,
    /// Factor of the logits; 1 for most models.
    pub scale: f32,
    /// A token that takes no part in the soft-max, and so is no target.
    pub excluded: Option<u32>,
}

/// The loss of each row: `nll[i] = -log p(targets[i])`.
///
/// `hidden` is `[n, d]`, `targets` and `nll` are `[n]`. A row that holds a NaN gets a NaN.
///
/// # Errors
/// [`Length`](KernelError::Length) when a buffer is not of its shape, and
/// [`Argument`](KernelError::Argument) when a target is not below `vocab`.
pub fn forward(
    cpu: &Cpu,
    hidden: &[f32],
    head: &Head<'_>,
    targets: &[u32],
    nll: &mut [f32],
) -> Result<()> {
    check_shapes("cross_entropy::forward", hidden, head, targets, nll)?;
    if head.d == 0 {
        nll.fill(head.without_width());
        return Ok(());
    }
    let tiles = Tiles::new(head.vocab, targets.len());
    let mut logits = tiles.buffer();
    for rows in tiles.rows() {
        let (targets, nll) = (&targets[rows.clone()], &mut nll[rows.clone()]);
        let hidden = &hidden[rows.start * head.d..rows.end * head.d];
        first_pass(cpu, hidden, head, targets, &tiles, false, &mut logits, nll)?;
    }
    Ok(())
}

/// How sure a row is of what.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Confidence {
    /// The entropy `-sum(p log p)` of its soft-max, in nats.
    pub entropy: f32,
    /// Whether no token is more probable than its target.
    pub is_right: bool,
}

/// The loss of each row as [`forward`] gives it, and its confidence, `[n]`.
///
/// # Errors
/// Those of [`forward`].
pub fn confidences(
    cpu: &Cpu,
    hidden: &[f32],
    head: &Head<'_>,
    targets: &[u32],
    nll: &mut [f32],
    confidences: &mut [Confidence],
) -> Result<()> {
    let op = "cross_entropy::confidences";
    check_shapes(op, hidden, head, targets, nll)?;
    check(op, "confidences", confidences.len(), &[targets.len()])?;
    if head.d == 0 {
        let entropy = head.without_width();
        nll.fill(entropy);
        confidences.fill(Confidence { entropy, is_right: true });
        return Ok(());
    }
    let tiles = Tiles::new(head.vocab, targets.len());
    let mut logits = tiles.buffer();
    for rows in tiles.rows() {
        let (targets, nll) = (&targets[rows.clone()], &mut nll[rows.clone()]);
        let hidden = &hidden[rows.start * head.d..rows.end * head.d];
        let sums = first_pass(cpu, hidden, head, targets, &tiles, true, &mut logits, nll)?;
        for (confidence, sum) in confidences[rows].iter_mut().zip(&sums) {
            *confidence = Confidence {
                entropy: (sum.total.ln() - sum.mean()) as f32,
                is_right: sum.target >= sum.greatest,
            };
        }
    }
    Ok(())
}

/// The derivatives of the total loss that [`forward_backward`] starts from.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// By the `nll` of each row.
    pub nll: &'a [f32],
    /// By the entropy of each row; empty where it does not count.
    pub entropy: &'a [f32],
}

/// The gradients of [`forward_backward`].
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the hidden rows `[n, d]`: written over.
    pub dhidden: &'a mut [f32],
    /// Of the head's weight `[vocab, d]`: added to, block of rows after block of rows.
    pub dweight: &'a mut [f32],
}

/// The loss of each row as [`forward`] gives it, and its gradients.
///
/// # Errors
/// Those of [`forward`].
pub fn forward_backward(
    cpu: &Cpu,
    hidden: &[f32],
    head: &Head<'_>,
    targets: &[u32],
    weights: Weights<'_>,
    nll: &mut [f32],
    Gradients { dhidden, dweight }: Gradients<'_>,
) -> Result<()> {
    let (op, d) = ("cross_entropy::forward_backward", head.d);
    check_shapes(op, hidden, head, targets, nll)?;
    check(op, "weights.nll", weights.nll.len(), &[targets.len()])?;
    let with_entropy = !weights.entropy.is_empty();
    if with_entropy {
        check(op, "weights.entropy", weights.entropy.len(), &[targets.len()])?;
    }
    check(op, "dhidden", dhidden.len(), &[hidden.len()])?;
    check(op, "dweight", dweight.len(), &[head.vocab, d])?;
    if d == 0 {
        nll.fill(head.without_width());
        return Ok(());
    }
    let tiles = Tiles::new(head.vocab, targets.len());
    let mut logits = tiles.buffer();
    for rows in tiles.rows() {
        let (targets, nll) = (&targets[rows.clone()], &mut nll[rows.clone()]);
        let hidden = &hidden[rows.start * d..rows.end * d];
        let dhidden = &mut dhidden[rows.start * d..rows.end * d];
        let sums = first_pass(cpu, hidden, head, targets, &tiles, with_entropy, &mut logits, nll)?;
        let scaled = |weight: &f32| weight * head.scale;
        let factors: Vec<f32> = weights.nll[rows.clone()].iter().map(scaled).collect();
        let part = if with_entropy { rows.clone() } else { 0..0 };
        let of_entropy: Vec<f32> = weights.entropy[part].iter().map(scaled).collect();

        // From the last chunk back: its logits are still in the tile.
        let mut out = Out::Write;
        for columns in tiles.columns().rev() {
            let part = columns.start * d..columns.end * d;
            let (m, n) = (rows.len(), columns.len());
            let logits = &mut logits[..m * n];
            if columns.end < head.vocab {
                head.logits(cpu, hidden, &columns, logits)?;
            }
            logit_gradients(cpu, &sums, targets, (&factors, &of_entropy), &columns, logits);
            let weight = head.weight.slice(part.clone());
            linear::backward_input(
                cpu,
                linear::Shape { m, n, k: d },
                logits,
                weight,
                dhidden,
                out,
            )?;
            linear::backward_weight(
                cpu,
                linear::Shape { m, n, k: d },
                logits,
                hidden,
                &mut dweight[part],
                Out::Add,
            )?;
            out = Out::Add;
        }
    }
    Ok(())
}

/// How the logits, `[n, vocab]`, are cut. A row's chunks depend on the vocabulary only, so that its
/// loss does not depend on the other rows.
struct Tiles {
    vocab: usize,
    n: usize,
    height: usize,
    width: usize,
}

impl Tiles {
    fn new(vocab: usize, n: usize) -> Self {
        // A vocabulary that fits one chunk is not computed twice, so that is worth low tiles.
        let fitting = TILE / vocab.max(1);
        let height = if fitting < ROWS.start { ROWS.end } else { fitting.min(ROWS.end) };
        Self { vocab, n, height, width: vocab.min(TILE / height) }
    }

    fn buffer(&self) -> Vec<f32> {
        vec![0.0; self.height.min(self.n) * self.width]
    }

    fn rows(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (n, height) = (self.n, self.height);
        (0..n).step_by(height).map(move |start| start..n.min(start + height))
    }

    fn columns(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + use<> {
        let (vocab, width) = (self.vocab, self.width);
        (0..vocab.div_ceil(width)).map(move |i| i * width..vocab.min((i + 1) * width))
    }
}

impl Head<'_> {
    /// The loss of every row where nothing tells the tokens apart.
    fn without_width(&self) -> f32 {
        ((self.vocab - usize::from(self.excluded.is_some())) as f64).ln() as f32
    }

    /// The logits of `columns` for the rows of `hidden`.
    fn logits(
        &self,
        cpu: &Cpu,
        hidden: &[f32],
        columns: &Range<usize>,
        logits: &mut [f32],
    ) -> Result<()> {
        let weight = self.weight.slice(columns.start * self.d..columns.end * self.d);
        let (m, n) = (logits.len() / columns.len(), columns.len());
        linear::forward(
            cpu,
            linear::Shape { m, n, k: self.d },
            hidden,
            weight,
            None,
            logits,
            Out::Write,
        )?;
        if self.scale != 1.0 {
            cpu.chunks(logits, CHUNK, |_, part| part.iter_mut().for_each(|x| *x *= self.scale));
        }
        if let Some(token) = self.excluded.map(|token| token as usize)
            && columns.contains(&token)
        {
            // Finite, so that a chunk of nothing else has a greatest logit.
            let column = logits.iter_mut().skip(token - columns.start).step_by(n);
            column.for_each(|x| *x = f32::MIN);
        }
        Ok(())
    }
}

/// What is known of a row's soft-max after some chunks of its logits.
#[derive(Debug, Clone, Copy)]
struct Sum {
    /// The greatest logit.
    greatest: f32,
    /// The sum of `exp(logit - greatest)`.
    total: f64,
    /// The sum of `exp(logit - greatest) * (logit - greatest)`, where entropies are wanted.
    moment: f64,
    /// The target's logit.
    target: f32,
}

impl Sum {
    const EMPTY: Self =
        Self { greatest: f32::NEG_INFINITY, total: 0.0, moment: 0.0, target: f32::NAN };

    /// Adds a chunk, by the online soft-max of Milakov and Gimelshein, arXiv:1805.02867.
    fn add(&mut self, greatest: f32, total: f64) {
        let new = self.greatest.max(greatest);
        let rescale = |old: f32| (f64::from(old) - f64::from(new)).exp();
        self.total = self.total * rescale(self.greatest) + total * rescale(greatest);
        self.greatest = new;
    }

    /// Adds the moment of a chunk, before the chunk.
    fn add_moment(&mut self, greatest: f32, total: f64, moment: f64) {
        let new = f64::from(self.greatest.max(greatest));
        // The terms of a sum move with its greatest logit; one of no terms has none.
        let moved = |greatest: f32, total: f64, moment: f64| {
            let by = f64::from(greatest) - new;
            if total == 0.0 { 0.0 } else { (moment + total * by) * by.exp() }
        };
        self.moment =
            moved(self.greatest, self.total, self.moment) + moved(greatest, total, moment);
    }

    /// The mean of `logit - greatest` over the soft-max.
    fn mean(&self) -> f64 {
        self.moment / self.total
    }

    fn nll(&self) -> f32 {
        (f64::from(self.greatest) - f64::from(self.target) + self.total.ln()) as f32
    }
}

/// Fills `nll` for one block of rows and returns the rows' soft-max sums, with their moments where
/// entropies are wanted; `logits` is left with the last chunk.
#[allow(clippy::too_many_arguments)]
fn first_pass(
    cpu: &Cpu,
    hidden: &[f32],
    head: &Head<'_>,
    targets: &[u32],
    tiles: &Tiles,
    with_entropy: bool,
    logits: &mut [f32],
    nll: &mut [f32],
) -> Result<Vec<Sum>> {
    let mut sums = vec![Sum::EMPTY; targets.len()];
    for columns in tiles.columns() {
        let n = columns.len();
        let logits = &mut logits[..targets.len() * n];
        head.logits(cpu, hidden, &columns, logits)?;
        let rows = CHUNK.div_ceil(n);
        cpu.chunks(&mut sums, rows, |i, sums| {
            for (j, sum) in sums.iter_mut().enumerate() {
                let (row, target) = (&logits[(i * rows + j) * n..][..n], targets[i * rows + j]);
                let (greatest, total) = soft_max_sum(cpu.isa(), row);
                if with_entropy {
                    sum.add_moment(greatest, total, soft_max_moment(cpu.isa(), row, greatest));
                }
                sum.add(greatest, total);
                if columns.contains(&(target as usize)) {
                    sum.target = row[target as usize - columns.start];
                }
            }
        });
    }
    nll.iter_mut().zip(&sums).for_each(|(nll, sum)| *nll = sum.nll());
    Ok(sums)
}

/// Replaces the logits of `columns` by their gradients: `factor * (softmax - onehot)`, and where
/// entropies count, `- factor * softmax * (log softmax + entropy)` by their factors.
fn logit_gradients(
    cpu: &Cpu,
    sums: &[Sum],
    targets: &[u32],
    (factors, of_entropy): (&[f32], &[f32]),
    columns: &Range<usize>,
    logits: &mut [f32],
) {
    let n = columns.len();
    let rows = CHUNK.div_ceil(n);
    cpu.chunks(logits, rows * n, |i, logits| {
        for (j, row) in (i * rows..).zip(logits.chunks_mut(n)) {
            let (sum, factor) = (&sums[j], f64::from(factors[j]));
            let of_entropy = of_entropy.get(j).map_or(0.0, |&factor| f64::from(factor));
            let share = |factor: f64| (factor / sum.total) as f32;
            if of_entropy == 0.0 {
                scaled_exp(cpu.isa(), row, sum.greatest, share(factor));
            } else {
                let (factor, of_entropy) = (share(factor), share(of_entropy));
                tilted_exp(cpu.isa(), row, sum.greatest, factor, of_entropy, sum.mean() as f32);
            }
            if columns.contains(&(targets[j] as usize)) {
                let below = sum.target - sum.greatest;
                let probability = f64::from(exp(below)) / sum.total;
                let mut gradient = factor * (probability - 1.0);
                if of_entropy != 0.0 {
                    gradient -= of_entropy * probability * (f64::from(below) - sum.mean());
                }
                row[targets[j] as usize - columns.start] = gradient as f32;
            }
        }
    });
}

vectorised! {
    /// `x = factor * exp(x - greatest)`.
    fn scaled_exp(row: &mut [f32], greatest: f32, factor: f32) {
        for x in row {
            *x = factor * exp(*x - greatest);
        }
    }
}

vectorised! {
    /// `x = (factor - of_entropy * (x - greatest - mean)) * exp(x - greatest)`.
    fn tilted_exp(row: &mut [f32], greatest: f32, factor: f32, of_entropy: f32, mean: f32) {
        for x in row {
            let below = (*x - greatest).max(SMALLEST);
            *x = (factor - of_entropy * (below - mean)) * exp(below);
        }
    }
}

fn check_shapes(
    op: &'static str,
    hidden: &[f32],
    head: &Head<'_>,
    targets: &[u32],
    nll: &[f32],
) -> Result<()> {
    head.weight.check_matrix(op, "head.weight", head.vocab, head.d)?;
    check(op, "hidden", hidden.len(), &[targets.len(), head.d])?;
    check(op, "nll", nll.len(), &[targets.len()])?;
    let (vocab, excluded) = (head.vocab, head.excluded);
    if excluded.is_some_and(|token| token as usize >= vocab || vocab == 1) {
        let what = format!("token {excluded:?} of {vocab} cannot be left out of the soft-max");
        return Err(KernelError::Argument { op, what });
    }
    let is_wrong = |&target: &u32| target as usize >= vocab || excluded == Some(target);
    let Some(row) = targets.iter().position(is_wrong) else { return Ok(()) };
    let what = match (targets[row] as usize) < vocab {
        true => format!("row {row} has target {}, which is left out of the soft-max", targets[row]),
        false => {
            format!("row {row} has target {}, but the head has {vocab} tokens", targets[row])
        }
    };
    Err(KernelError::Argument { op, what })
}

#[cfg(test)]
mod tests;
