//! Token embedding: looks up rows of a table.

use crate::{Cpu, KernelError, Result, WeightView, error::check};

/// Elements of one task: enough to outweigh handing it to a thread.
const CHUNK: usize = 16384;

/// Columns of a table row whose gradient one task sums: a token that stands at half of the
/// positions, as the mask does in training, is then still shared between threads.
const COLUMNS: usize = 256;

/// `out[i] = table[ids[i]]`, widened to `f32`.
///
/// `table` is `[vocab, d]`, `out` is `[ids.len(), d]`.
///
/// # Errors
/// [`Length`](KernelError::Length) when a buffer is not of that shape, and
/// [`Argument`](KernelError::Argument) when an id is not below `vocab`.
pub fn forward(
    cpu: &Cpu,
    ids: &[u32],
    table: WeightView<'_>,
    vocab: usize,
    d: usize,
    out: &mut [f32],
) -> Result<()> {
    table.check_matrix("embedding::forward", "table", vocab, d)?;
    check("embedding::forward", "out", out.len(), &[ids.len(), d])?;
    check_ids("embedding::forward", ids, vocab)?;
    if d == 0 {
        return Ok(());
    }
    let rows = CHUNK.div_ceil(d);
    cpu.chunks(out, rows * d, |i, out| {
        for (out, &id) in out.chunks_mut(d).zip(&ids[i * rows..]) {
            table.slice(id as usize * d..(id as usize + 1) * d).widen(out);
        }
    });
    Ok(())
}

/// Adds the gradient of [`forward`] for `dout`, `[ids.len(), d]`, to `dtable`, `[vocab, d]`.
///
/// The rows of a repeated id are added in the order of `ids`.
///
/// # Errors
/// Those of [`forward`].
pub fn backward(
    cpu: &Cpu,
    ids: &[u32],
    dout: &[f32],
    vocab: usize,
    d: usize,
    dtable: &mut [f32],
) -> Result<()> {
    check("embedding::backward", "dout", dout.len(), &[ids.len(), d])?;
    check("embedding::backward", "dtable", dtable.len(), &[vocab, d])?;
    check_ids("embedding::backward", ids, vocab)?;
    if d == 0 {
        return Ok(());
    }
    let mut by_id: Vec<usize> = (0..ids.len()).collect();
    by_id.sort_by_key(|&i| ids[i]);

    // One job for each piece of a table row: its gradient, its first column, its positions.
    let mut jobs = Vec::new();
    let (mut table_rest, mut passed) = (dtable, 0);
    for positions in by_id.chunk_by(|&a, &b| ids[a] == ids[b]) {
        let id = ids[positions[0]] as usize;
        let (row, rest) = table_rest[(id - passed) * d..].split_at_mut(d);
        (table_rest, passed) = (rest, id + 1);
        let pieces = row.chunks_mut(COLUMNS).enumerate();
        jobs.extend(pieces.map(|(i, piece)| (piece, i * COLUMNS, positions)));
    }
    cpu.chunks(&mut jobs, CHUNK / COLUMNS, |_, jobs| {
        for (piece, column, positions) in jobs {
            for position in *positions {
                let dout = &dout[position * d + *column..][..piece.len()];
                piece.iter_mut().zip(dout).for_each(|(sum, g)| *sum += g);
            }
        }
    });
    Ok(())
}

fn check_ids(op: &'static str, ids: &[u32], vocab: usize) -> Result<()> {
    let Some(row) = ids.iter().position(|&id| id as usize >= vocab) else { return Ok(()) };
    let what = format!("row {row} has id {}, but the table has {vocab} rows", ids[row]);
    Err(KernelError::Argument { op, what })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::{BlockFormat, reference, testing::*};

    #[test]
    fn agrees_with_the_reference() {
        for (n, vocab, d) in [(0, 3, 4), (1, 1, 1), (50, 7, 300), (300, 40, 129)] {
            let (ids, table) = (indices(1, n, vocab), noise(2, vocab * d));
            let dout = noise(3, n * d);
            let found = on_every_cpu(|cpu| {
                let (mut out, mut dtable) = (vec![9.0; n * d], vec![0.0; vocab * d]);
                forward(cpu, &ids, WeightView::F32(&table), vocab, d, &mut out).unwrap();
                backward(cpu, &ids, &dout, vocab, d, &mut dtable).unwrap();
                [out, dtable].concat()
            });
            let out = reference::embedding::forward(&ids, &wide(&table), d);
            let dtable = reference::embedding::backward(&ids, &wide(&dout), vocab, d);
            assert_close("out", &found[..n * d], &out, 0.0);
            assert_close("dtable", &found[n * d..], &dtable, 1e-6);
        }
    }

    #[test]
    fn narrow_tables_and_accumulation() {
        let cpu = Cpu::new(1).unwrap();
        let table = [1.5f32, -2.0, 0.25, 4.0];
        let (b, h) = (table.map(bf16::from_f32), table.map(f16::from_f32));
        for table in [WeightView::Bf16(&b), WeightView::F16(&h)] {
            let mut out = [0.0; 4];
            forward(&cpu, &[1, 0], table, 2, 2, &mut out).unwrap();
            assert_eq!(out, [0.25, 4.0, 1.5, -2.0]);
        }
        let mut dtable = [10.0; 4];
        backward(&cpu, &[1, 1], &[1.0, 2.0, 3.0, f32::NAN], 2, 2, &mut dtable).unwrap();
        assert_eq!(dtable[..3], [10.0, 10.0, 14.0]);
        assert!(dtable[3].is_nan());
    }

    #[test]
    fn tables_of_blocks() {
        let cpu = Cpu::new(2).unwrap();
        let (table, ids) = (noise(1, 7 * 256), [3, 0, 6, 3]);
        for format in BlockFormat::ALL {
            let mut bytes = vec![0; format.bytes(table.len()).unwrap()];
            format.quantize(&cpu, &table, &mut bytes).unwrap();
            let mut wide = vec![0.0; table.len()];
            format.dequantize(&cpu, &bytes, &mut wide).unwrap();
            let (mut expected, mut found) = ([0.0; 1024], [0.0; 1024]);
            forward(&cpu, &ids, WeightView::F32(&wide), 7, 256, &mut expected).unwrap();
            let view = WeightView::Blocks { format, bytes: &bytes };
            forward(&cpu, &ids, view, 7, 256, &mut found).unwrap();
            assert_eq!(found, expected, "{format}");
            // As many weights, but rows that are not whole blocks.
            let error = forward(&cpu, &[0], view, 256, 7, &mut [0.0; 7]).unwrap_err();
            assert!(error.to_string().contains("whole"), "{error}");
        }
    }

    #[test]
    fn refuses_other_shapes_and_ids() {
        let cpu = Cpu::new(1).unwrap();
        let table = [0.0; 6];
        let run = |ids: &[u32], table: &[f32], out: usize| {
            forward(&cpu, ids, WeightView::F32(table), 3, 2, &mut vec![0.0; out])
        };
        assert!(run(&[2], &table, 2).is_ok());
        assert!(run(&[2], &table[..4], 2).is_err());
        assert!(run(&[2], &table, 3).is_err());
        let error = run(&[0, 3], &table, 4).unwrap_err().to_string();
        assert!(error.contains("row 1 has id 3"), "{error}");
        assert!(backward(&cpu, &[3], &[0.0; 2], 3, 2, &mut [0.0; 6]).is_err());
        assert!(backward(&cpu, &[2], &[0.0; 1], 3, 2, &mut [0.0; 6]).is_err());
        assert!(backward(&cpu, &[2], &[0.0; 2], 3, 2, &mut [0.0; 5]).is_err());
    }
}
