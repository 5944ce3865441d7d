//! Rotary position embedding in the half-rotation layout: element `i` of a head is rotated
//! together with element `i + head_dim / 2`.
//!
//! Su et al., "RoFormer", arXiv:2104.09864, equation 34, with the pairs laid out as in GPT-NeoX.

use crate::{
    Cpu, KernelError, Result,
    error::{check, elements},
    isa::vectorised,
};

/// Elements of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// Angles that a table stays below: 2 GiB of cosines and sines.
const MOST_ANGLES: usize = 1 << 28;

/// The cosines and sines of every position below a limit.
#[derive(Debug, Clone)]
pub struct Table {
    head_dim: usize,
    /// Elements of a head that are rotated.
    rotary_dim: usize,
    /// `[positions, rotary_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Table {
    /// The table for positions `0..max_positions` and frequencies `theta^(-2i / head_dim)`.
    ///
    /// The frequencies and the angles are rounded to `f32`, as PyTorch's models round them: at
    /// large positions the rounding of the angle is seen in the logits.
    ///
    /// # Errors
    /// [`Argument`](KernelError::Argument) when `head_dim` is odd or zero, `theta` is not positive, or
    /// there would be 2²⁸ angles or more.
    pub fn new(theta: f64, head_dim: usize, max_positions: usize) -> Result<Self> {
        Self::partial(theta, head_dim, head_dim, max_positions)
    }

    /// The table that rotates the first `rotary_dim` elements of each head, by the frequencies
    /// `theta^(-2i / rotary_dim)`, and leaves the others as they are.
    ///
    /// # Errors
    /// Those of [`Table::new`], of `rotary_dim` too, and where that is more than the head.
    pub fn partial(
        theta: f64,
        head_dim: usize,
        rotary_dim: usize,
        max_positions: usize,
    ) -> Result<Self> {
        let refuse = |what| Err(KernelError::Argument { op: "rope::Table::new", what });
        for (name, n) in [("head_dim", head_dim), ("rotary_dim", rotary_dim)] {
            if n == 0 || n % 2 == 1 {
                return refuse(format!("`{name}` is {n}, it must be even and not zero"));
            }
        }
        if rotary_dim > head_dim {
            return refuse(format!("`rotary_dim` is {rotary_dim}, a head has {head_dim} elements"));
        }
        if !(theta > 0.0 && theta.is_finite()) {
            return refuse(format!("`theta` is {theta}, it must be positive and finite"));
        }
        let half = rotary_dim / 2;
        let angles = elements(&[half, max_positions.max(1)]);
        let Some(angles) = angles.filter(|&angles| angles < MOST_ANGLES) else {
            return refuse(format!(
                "{max_positions} positions of heads of {head_dim} are more than a table holds; \
                 ask for shorter rows"
            ));
        };
        let frequency = |i: usize| {
            let exponent = (2 * i) as f32 / rotary_dim as f32;
            1.0 / f64::from(theta as f32).powf(f64::from(exponent)) as f32
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        if cos.try_reserve_exact(angles).and_then(|()| sin.try_reserve_exact(angles)).is_err() {
            return refuse(format!("the system has no memory for {angles} sines and cosines"));
        }
        for position in 0..max_positions {
            for frequency in &frequencies {
                let (s, c) = f64::from(position as f32 * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        Ok(Self { head_dim, rotary_dim, cos, sin })
    }

    /// The width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The number of positions.
    pub fn max_positions(&self) -> usize {
        self.cos.len() / (self.rotary_dim / 2)
    }

    /// The cosines and sines of `position`, `[rotary_dim / 2]` each.
    fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let half = self.rotary_dim / 2;
        let part = position as usize * half..(position as usize + 1) * half;
        (&self.cos[part.clone()], &self.sin[part])
    }
}

/// Rotates `x`, `[rows, heads, head_dim]`, in place; row `i` stands at `positions[i]`.
///
/// # Errors
/// [`Length`](KernelError::Length) when `x` is not of that shape, and
/// [`Argument`](KernelError::Argument) when a position is beyond the table.
pub fn forward(
    cpu: &Cpu,
    x: &mut [f32],
    heads: usize,
    table: &Table,
    positions: &[u32],
) -> Result<()> {
    rotate("rope::forward", cpu, x, heads, table, positions, 1.0)
}

/// The gradient of [`forward`], in place: `dx` holds the gradient of the rotated rows and is
/// rotated back.
///
/// # Errors
/// Those of [`forward`].
pub fn backward(
    cpu: &Cpu,
    dx: &mut [f32],
    heads: usize,
    table: &Table,
    positions: &[u32],
) -> Result<()> {
    rotate("rope::backward", cpu, dx, heads, table, positions, -1.0)
}

/// Rotates by `sign` times the angle of each position.
fn rotate(
    op: &'static str,
    cpu: &Cpu,
    x: &mut [f32],
    heads: usize,
    table: &Table,
    positions: &[u32],
    sign: f32,
) -> Result<()> {
    check(op, "x", x.len(), &[positions.len(), heads, table.head_dim])?;
    let limit = table.max_positions();
    if let Some(row) = positions.iter().position(|&p| p as usize >= limit) {
        let what = format!(
            "row {row} is at position {}, but the table ends at {limit} positions; make it longer \
             or the sequence shorter",
            positions[row]
        );
        return Err(KernelError::Argument { op, what });
    }
    if x.is_empty() {
        return Ok(());
    }
    let width = heads * table.head_dim;
    let rows = CHUNK.div_ceil(width);
    cpu.chunks(x, rows * width, |i, x| {
        for (x, &position) in x.chunks_mut(width).zip(&positions[i * rows..]) {
            let (cos, sin) = table.at(position);
            rotate_row(cpu.isa(), x, table.head_dim, cos, sin, sign);
        }
    });
    Ok(())
}

vectorised! {
    fn rotate_row(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32], sign: f32) {
        let half = cos.len();
        for head in x.chunks_mut(head_dim) {
            let (low, high) = head[..2 * half].split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b, sin) = (*low, *high, sign * sin);
                *low = a * cos - b * sin;
                *high = b * cos + a * sin;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reference, testing::*};

    #[test]
    fn agrees_with_the_reference() {
        for (rows, heads, head_dim) in [(0, 1, 2), (1, 1, 2), (5, 3, 10), (70, 4, 128)] {
            let table = Table::new(500_000.0, head_dim, 100).unwrap();
            let positions = indices(1, rows, 100);
            let x = noise(2, rows * heads * head_dim);
            let found = on_every_cpu(|cpu| {
                let (mut y, mut dx) = (x.clone(), x.clone());
                forward(cpu, &mut y, heads, &table, &positions).unwrap();
                backward(cpu, &mut dx, heads, &table, &positions).unwrap();
                [y, dx].concat()
            });
            let x = wide(&x);
            let y = reference::rope::forward(&x, heads, head_dim, 500_000.0, &positions);
            let dx = reference::rope::backward(&x, heads, head_dim, 500_000.0, &positions);
            // The reference does not round its angles, of up to 100, to `f32`.
            assert_close("y", &found[..x.len()], &y, 1e-5);
            assert_close("dx", &found[x.len()..], &dx, 1e-5);
        }
    }

    /// A head of which a part is rotated is a shorter head, and the rest of it.
    #[test]
    fn rotates_the_first_part_of_a_head() {
        let (heads, head_dim, rotary_dim) = (3, 16, 6);
        let table = Table::partial(10_000.0, head_dim, rotary_dim, 50).unwrap();
        let short = Table::new(10_000.0, rotary_dim, 50).unwrap();
        let positions = indices(1, 9, 50);
        let x = noise(2, 9 * heads * head_dim);
        for cpu in cpus() {
            let mut whole = x.clone();
            forward(&cpu, &mut whole, heads, &table, &positions).unwrap();
            let first = |x: &[f32]| -> Vec<f32> {
                x.chunks(head_dim).flat_map(|head| head[..rotary_dim].to_vec()).collect()
            };
            let mut part = first(&x);
            forward(&cpu, &mut part, heads, &short, &positions).unwrap();
            assert_eq!(first(&whole), part);
            for (whole, x) in whole.chunks(head_dim).zip(x.chunks(head_dim)) {
                assert_eq!(whole[rotary_dim..], x[rotary_dim..]);
            }
            backward(&cpu, &mut whole, heads, &table, &positions).unwrap();
            assert!(whole.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        assert!(Table::partial(10_000.0, 16, 18, 8).is_err());
        assert!(Table::partial(10_000.0, 16, 5, 8).is_err());
    }

    #[test]
    fn angles_are_rounded_as_in_pytorch() {
        let table = Table::new(10_000.0, 64, 4096).unwrap();
        let (cos, sin) = table.at(4095);
        // torch: inv_freq = 1 / 10000 ** (arange(0, 64, 2).float() / 64), angle = 4095 * inv_freq
        let angle = f64::from(4095.0f32 * (1.0f32 / 10_000f32.powf(2.0 / 64.0)));
        assert_eq!((cos[0], sin[0]), (4095f64.cos() as f32, 4095f64.sin() as f32));
        assert_eq!((cos[1], sin[1]), (angle.cos() as f32, angle.sin() as f32));
    }

    #[test]
    fn a_row_does_not_see_the_others() {
        let (rows, width) = (90, 512);
        let table = Table::new(10_000.0, 64, 90).unwrap();
        let positions: Vec<u32> = (0..90).rev().collect();
        let x = noise(1, rows * width);
        let cpu = Cpu::new(2).unwrap();
        let mut all = x.clone();
        forward(&cpu, &mut all, 8, &table, &positions).unwrap();
        for row in [0, 41, 89] {
            let mut one = x[row * width..][..width].to_vec();
            forward(&cpu, &mut one, 8, &table, &positions[row..=row]).unwrap();
            assert_eq!(one, all[row * width..][..width]);
        }
    }

    #[test]
    fn nan_touches_its_pair_only() {
        let cpu = Cpu::new(1).unwrap();
        let table = Table::new(10_000.0, 4, 2).unwrap();
        let mut x = [1.0, f32::NAN, 1.0, 1.0];
        forward(&cpu, &mut x, 1, &table, &[1]).unwrap();
        assert_eq!(x.map(f32::is_nan), [false, true, false, true]);
    }

    #[test]
    fn refuses_what_it_cannot_rotate() {
        assert!(Table::new(10_000.0, 3, 8).is_err());
        assert!(Table::new(10_000.0, 0, 8).is_err());
        assert!(Table::new(0.0, 4, 8).is_err());
        assert!(Table::new(f64::NAN, 4, 8).is_err());
        let cpu = Cpu::new(1).unwrap();
        let table = Table::new(10_000.0, 4, 8).unwrap();
        assert_eq!((table.head_dim(), table.max_positions()), (4, 8));
        assert!(forward(&cpu, &mut [0.0; 8], 1, &table, &[7]).is_err());
        let error = forward(&cpu, &mut [0.0; 8], 1, &table, &[7, 8]).unwrap_err().to_string();
        assert!(error.contains("row 1 is at position 8"), "{error}");
        assert!(error.contains("ends at 8 positions"), "{error}");
    }
}
