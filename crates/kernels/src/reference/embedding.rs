//! Looking up rows, as written.

/// The rows `ids` of `table`, `[vocab, d]`.
pub fn forward(ids: &[u32], table: &[f64], d: usize) -> Vec<f64> {
    ids.iter().flat_map(|&id| table[id as usize * d..][..d].to_vec()).collect()
}

/// The gradient of the table, `[vocab, d]`, for `dout`, `[ids.len(), d]`.
pub fn backward(ids: &[u32], dout: &[f64], vocab: usize, d: usize) -> Vec<f64> {
    let mut dtable = vec![0.0; vocab * d];
    for (row, &id) in ids.iter().enumerate() {
        for i in 0..d {
            dtable[id as usize * d + i] += dout[row * d + i];
        }
    }
    dtable
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn gradient() {
        let (ids, table, dout) = ([2, 0, 2], wide(&noise(1, 12)), wide(&noise(2, 9)));
        let dtable = backward(&ids, &dout, 4, 3);
        assert_gradient("dtable", &table, &dtable, |t| dot(&forward(&ids, t, 3), &dout));
    }
}
