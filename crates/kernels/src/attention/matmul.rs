//! The small matrix products that attention is made of.

use crate::simd::Simd;

/// The left operand `A[i, p]`, in any order.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> Left<'a> {
    /// `data` by rows of `width` elements.
    #[inline(always)]
    pub(super) fn new(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, column: 1 }
    }

    /// The transpose of `data`, which has rows of `width` elements.
    #[inline(always)]
    pub(super) fn transposed(data: &'a [f32], width: usize) -> Self {
        Self { data, row: 1, column: width }
    }
}

/// `C[m, n] = A[m, k] B[k, n]`, or `C += A B`.
///
/// `b` and `c` have rows of `b_width` and `c_width` elements; `n` is a multiple of the vector. Each
/// element of `C` is summed over `k` in order, whatever `m` and `n`.
#[inline(always)]
pub(super) fn matmul<S: Simd, const ADD: bool>(
    s: S,
    (m, n, k): (usize, usize, usize),
    a: Left<'_>,
    (b, b_width): (&[f32], usize),
    (c, c_width): (&mut [f32], usize),
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    debug_assert_eq!(n % S::LANES, 0);
    let a_data = &a.data[..=(m - 1) * a.row + (k - 1) * a.column];
    let b = &b[..(k - 1) * b_width + n];
    let c = &mut c[..(m - 1) * c_width + n];
    let tile = Tile {
        k,
        a: a_data.as_ptr(),
        a_row: a.row,
        a_column: a.column,
        b: b.as_ptr(),
        b_width,
        c: c.as_mut_ptr(),
        c_width,
    };
    let mut j = 0;
    // SAFETY (all blocks): the slices above reach to the last element of each matrix, and a tile at
    // (i, j) of R rows and C vectors is only asked for where i + R <= m and j + C * LANES <= n.
    while j + 2 * S::LANES <= n {
        // SAFETY: see above.
        unsafe { tile.column::<S, 2, ADD>(s, m, j) };
        j += 2 * S::LANES;
    }
    if j < n {
        // SAFETY: see above.
        unsafe { tile.column::<S, 1, ADD>(s, m, j) };
    }
}

/// Where the operands of a product lie.
#[derive(Clone, Copy)]
struct Tile {
    k: usize,
    a: *const f32,
    a_row: usize,
    a_column: usize,
    b: *const f32,
    b_width: usize,
    c: *mut f32,
    c_width: usize,
}

impl Tile {
    /// The `COLUMNS` vectors at column `j` of all `m` rows.
    ///
    /// # Safety
    /// They are inside the matrices.
    #[inline(always)]
    unsafe fn column<S: Simd, const COLUMNS: usize, const ADD: bool>(
        self,
        s: S,
        m: usize,
        j: usize,
    ) {
        let mut i = 0;
        // SAFETY (all blocks): `i` and the rows that follow it are below `m`.
        while S::ROWS >= 8 && i + 8 <= m {
            // SAFETY: see above.
            unsafe { self.product::<S, 8, COLUMNS, ADD>(s, i, j) };
            i += 8;
        }
        while S::ROWS >= 6 && i + 6 <= m {
            // SAFETY: see above.
            unsafe { self.product::<S, 6, COLUMNS, ADD>(s, i, j) };
            i += 6;
        }
        while i + 4 <= m {
            // SAFETY: see above.
            unsafe { self.product::<S, 4, COLUMNS, ADD>(s, i, j) };
            i += 4;
        }
        while i < m {
            // SAFETY: see above.
            unsafe { self.product::<S, 1, COLUMNS, ADD>(s, i, j) };
            i += 1;
        }
    }

    /// `ROWS` rows by `COLUMNS` vectors at (i, j), held in registers over all of `k`.
    ///
    /// # Safety
    /// They are inside the matrices.
    #[inline(always)]
    unsafe fn product<S: Simd, const ROWS: usize, const COLUMNS: usize, const ADD: bool>(
        self,
        s: S,
        i: usize,
        j: usize,
    ) {
        let mut sum = [[s.splat(0.0); COLUMNS]; ROWS];
        // SAFETY: the caller says that these rows and columns are inside the matrices.
        unsafe {
            let c = self.c.add(i * self.c_width + j);
            if ADD {
                for r in 0..ROWS {
                    for v in 0..COLUMNS {
                        sum[r][v] = s.read(c.add(r * self.c_width + v * S::LANES));
                    }
                }
            }
            let mut a = self.a.add(i * self.a_row);
            let mut b = self.b.add(j);
            for _ in 0..self.k {
                let mut right = [s.splat(0.0); COLUMNS];
                for v in 0..COLUMNS {
                    right[v] = s.read(b.add(v * S::LANES));
                }
                for r in 0..ROWS {
                    let left = s.splat(*a.add(r * self.a_row));
                    for v in 0..COLUMNS {
                        sum[r][v] = s.mul_add(left, right[v], sum[r][v]);
                    }
                }
                // After the last step they may point beyond the matrices, but are not read.
                a = a.wrapping_add(self.a_column);
                b = b.wrapping_add(self.b_width);
            }
            for r in 0..ROWS {
                for v in 0..COLUMNS {
                    s.write(sum[r][v], c.add(r * self.c_width + v * S::LANES));
                }
            }
        }
    }
}
