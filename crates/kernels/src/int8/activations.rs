//! Rows of activations as signed bytes, in the order in which the product reads them.
//!
//! Rows (tokens) lie in the lanes of vectors: a panel is up to 32 rows side by side. For every run of
//! 32 inputs there is a record: the bytes by fours, `[8, width, 4]`, then for each row the scale, and
//! the sums of the first and of the second sixteen bytes.

use super::Output;
use crate::{Cpu, Result, blocks::RUN, error::check, isa::vectorised};

/// Inputs of a row that share a scale: whole runs.
pub(super) const SPAN: usize = 128;
/// Rows of the widest panel.
pub(super) const WIDEST: usize = 32;
/// Bytes of one row in a record: the codes, the scale and the two sums.
const PER_ROW: usize = RUN + 12;
/// Runs that are filled together, whole spans: rows are read in whole cache lines, the records stay in the cache.
const FILL: usize = 16;
/// Runs of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = FILL;
/// Activations that are not worth a second thread.
const SERIAL: usize = 16384;

/// A cache line, the unit in which buffers are made so that vectors do not cross lines.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

impl Line {
    pub(super) const BYTES: usize = size_of::<Self>();
    pub(super) const ZERO: Self = Self([0; 64]);

    pub(super) fn bytes(lines: &mut [Self]) -> &mut [u8] {
        let (from, len) = (lines.as_mut_ptr().cast(), size_of_val(lines));
        // SAFETY: lines are bytes and nothing else.
        unsafe { std::slice::from_raw_parts_mut(from, len) }
    }

    pub(super) fn floats(lines: &mut [Self]) -> &mut [f32] {
        let (from, len) = (lines.as_mut_ptr().cast(), size_of_val(lines) / 4);
        // SAFETY: lines are bytes, aligned for any number, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts_mut(from, len) }
    }
}

/// Rows of `f32` as signed bytes, for [`forward_quantized`](crate::linear::forward_quantized): to be
/// made once where several weights multiply the same rows.
///
/// Every 128 inputs of a row share a scale, the greatest magnitude among them over 127, so that what
/// is lost is at most half of it for each input. Where an input is NaN or infinite the scale is NaN.
/// The buffer is kept from one use to the next.
#[derive(Default)]
pub struct Activations {
    lines: Vec<Line>,
    rows: usize,
    inputs: usize,
}

impl std::fmt::Debug for Activations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Activations[{}, {}]", self.rows, self.inputs)
    }
}

/// Rows that lie side by side.
#[derive(Clone, Copy)]
pub(super) struct Panel {
    /// The first row.
    pub(super) first: usize,
    /// Rows there is room for: 8, 16 or 32.
    pub(super) width: usize,
}

impl Panel {
    /// The panel that begins with row `first` of `rows`: no wider than the rows that are left need.
    pub(super) fn at(first: usize, rows: usize) -> Self {
        let width = match rows - first {
            0..=8 => 8,
            9..=24 => 16,
            _ => WIDEST,
        };
        Self { first, width }
    }

    /// The panels of the rows `from..to`, where `from` begins one.
    pub(super) fn of(from: usize, to: usize) -> impl Iterator<Item = Self> {
        let after = move |panel: &Self| panel.first + panel.width;
        let more = move |first: usize| (first < to).then(|| Self::at(first, to));
        std::iter::successors(more(from), move |panel| more(after(panel)))
    }

    /// Bytes of the record of one run.
    pub(super) fn record(self) -> usize {
        self.width * PER_ROW
    }
}

impl Activations {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { lines: Vec::new(), rows: 0, inputs: 0 }
    }

    /// Rows that were quantised last.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of each row that was quantised last.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// Replaces what was there by `x`, `rows` rows of `inputs` inputs.
    ///
    /// # Errors
    /// [`Length`](crate::KernelError::Length) when `x` is not of that shape, and
    /// [`Argument`](crate::KernelError::Argument) when `inputs` is not a multiple of 32.
    pub fn quantize(&mut self, cpu: &Cpu, x: &[f32], rows: usize, inputs: usize) -> Result<()> {
        const OP: &str = "linear::Activations";
        check(OP, "x", x.len(), &[rows, inputs])?;
        crate::BlockFormat::Q8_0.whole_blocks(OP, inputs)?;
        (self.rows, self.inputs) = (rows, inputs);
        if x.is_empty() {
            return Ok(());
        }
        let runs = inputs / RUN;
        let width = Panel::of(0, rows).last().map_or(0, |panel| panel.first + panel.width);
        let lines = (width * PER_ROW * runs).div_ceil(Line::BYTES);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line::ZERO);
        }
        let to = Output(Line::bytes(&mut self.lines).as_mut_ptr().cast());
        let (isa, panels) = (cpu.isa(), Panel::of(0, rows).count());
        let serial = rows * inputs <= SERIAL || cpu.threads() == 1;
        let chunk = if serial { runs } else { CHUNK };
        let chunks = if serial { 1 } else { runs.div_ceil(CHUNK) };
        let work = |panel: Panel, from: usize| {
            let rows = rows.min(panel.first + panel.width) - panel.first;
            let x = &x[panel.first * inputs..][..rows * inputs];
            for first in (from..runs.min(from + chunk)).step_by(FILL) {
                let at = (panel.first * runs + panel.width * first) * PER_ROW;
                let count = FILL.min(runs - first);
                // SAFETY: the records lie one after the other in the buffer, and no other task writes
                // these.
                let records = unsafe {
                    let to = to.get().cast::<u8>().add(at);
                    std::slice::from_raw_parts_mut(to, count * panel.record())
                };
                fill(isa, x, inputs, first * RUN, panel.width, records);
            }
        };
        if serial {
            Panel::of(0, rows).for_each(|panel| work(panel, 0));
        } else {
            cpu.for_each(panels * chunks, |task| {
                if let Some(panel) = Panel::of(0, rows).nth(task / chunks) {
                    work(panel, task % chunks * chunk);
                }
            });
        }
        Ok(())
    }

    /// The records of a panel, of which those before it take the same for each row.
    pub(super) fn records(&self, panel: Panel) -> &[u8] {
        let runs = self.inputs / RUN;
        &self.as_bytes()[panel.first * PER_ROW * runs..][..panel.record() * runs]
    }

    fn as_bytes(&self) -> &[u8] {
        let (from, len) = (self.lines.as_ptr().cast(), size_of_val(self.lines.as_slice()));
        // SAFETY: lines are bytes and nothing else.
        unsafe { std::slice::from_raw_parts(from, len) }
    }
}

vectorised! {
    /// The records of the inputs from `at` on of the rows `x`; lanes without a row are zero.
    fn fill(x: &[f32], inputs: usize, at: usize, width: usize, records: &mut [u8]) {
        /// Adding it leaves a number rounded to nearest in the low bits.
        const ROUND: f32 = 12_582_912.0;
        /// The bits of infinity: those of every finite magnitude are below.
        const INFINITY: u32 = 0x7f80_0000;
        let rows = x.len() / inputs;
        let words = records.as_chunks_mut::<4>().0;
        let record = width * PER_ROW / 4;
        let runs = words.len() / record;
        if rows < width {
            words.fill([0; 4]);
        }
        for lane in 0..rows {
            let x = &x[lane * inputs + at..][..runs * RUN];
            for (span, x) in x.chunks(SPAN).enumerate() {
                let mut bits = 0;
                for x in x {
                    bits = (x.to_bits() & 0x7fff_ffff).max(bits);
                }
                let most = f32::from_bits(bits);
                // Below this, 127 / most is infinite.
                let tiny = most < 1e-36;
                let factor = if tiny || bits >= INFINITY { 0.0 } else { 127.0 / most };
                let scale = if bits >= INFINITY { f32::NAN } else if tiny { 0.0 } else { most / 127.0 };
                for (run, x) in x.as_chunks::<RUN>().0.iter().enumerate() {
                    let words = &mut words[(span * (SPAN / RUN) + run) * record..][..record];
                    let mut codes = [[0; 4]; RUN / 4];
                    for four in 0..RUN / 4 {
                        for i in 0..4 {
                            codes[four][i] = (x[4 * four + i] * factor + ROUND).to_bits() as u8;
                        }
                    }
                    for four in 0..RUN / 4 {
                        words[four * width + lane] = codes[four];
                    }
                    words[RUN / 4 * width + lane] = scale.to_ne_bytes();
                }
            }
        }
        for run in 0..runs {
            let (codes, rest) = words[run * record..][..record].split_at_mut(RUN / 4 * width);
            for half in 0..2 {
                let codes = &codes[half * RUN / 8 * width..][..RUN / 8 * width];
                let sums = &mut rest[(1 + half) * width..][..width];
                for lane in 0..width {
                    let mut sum = 0;
                    for four in 0..RUN / 8 {
                        let word = i32::from_le_bytes(codes[four * width + lane]);
                        sum += (word << 24 >> 24) + (word << 16 >> 24) + (word << 8 >> 24) + (word >> 24);
                    }
                    sums[lane] = sum.to_ne_bytes();
                }
            }
        }
    }
}

/// The scale and the byte of each input, for the tests: what the product takes for the inputs.
#[cfg(test)]
impl Activations {
    pub(crate) fn dequantized(&self) -> Vec<f64> {
        let mut out = Vec::new();
        for row in 0..self.rows {
            let panel = Panel::of(0, self.rows).find(|p| row < p.first + p.width).unwrap();
            let lane = row - panel.first;
            for record in self.records(panel).chunks_exact(panel.record()) {
                let scale = &record[RUN * panel.width + 4 * lane..][..4];
                let scale = f64::from(f32::from_ne_bytes(scale.try_into().unwrap()));
                for i in 0..RUN {
                    let byte = record[(i / 4 * panel.width + lane) * 4 + i % 4] as i8;
                    out.push(f64::from(byte) * scale);
                }
            }
        }
        out
    }
}
