//! The validation loss: the negative evidence bound in nats per token, the same noise every time.

use crate::{
    Result,
    config::Objective,
    data::Windows,
    diffusion::{forward::Noised, loss},
    model::MaskPredictor,
    rng::{Purpose, Stream},
    train::{Recipe, batch::MicroBatch},
};

/// Buckets of the masked fraction of a row.
const BUCKETS: usize = 10;
/// The noise does not depend on the run, so that runs can be compared.
const SEED: u64 = 0;
/// Address of the draws that are not of one row.
const SHARED: u64 = 1 << 55;

/// One measurement on held-out text.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Validation {
    /// Steps done.
    pub step: u64,
    /// Nats per token: an upper bound (Eq. 4) for diffusion, exact for the baseline.
    pub nll: f64,
    /// Standard error of `nll` over rows.
    pub standard_error: f64,
    /// `nll` in bits per byte of text.
    pub bits_per_byte: f64,
    /// Tokens that were scored, masked versions counted once each.
    pub tokens: u64,
    /// Cross-entropy of the masked tokens by the fraction of the row that is masked; empty for
    /// the baseline.
    pub buckets: Vec<Bucket>,
}

/// Rows with a similar masked fraction.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Bucket {
    /// Masked fractions above this and up to that of the next bucket, the last up to 1.
    pub from: f64,
    /// Mean nats of a masked token; `None` when there was no row.
    pub nll: Option<f64>,
    /// Masked tokens.
    pub tokens: u64,
}

/// One row to score.
struct Item {
    window: u64,
    draw: u64,
    /// Masked tokens; the baseline masks none.
    masked: usize,
}

/// Scores `eval.rows` rows, spread evenly over the held-out text.
///
/// For diffusion each row is scored under `eval.draws` masked versions. A version masks exactly l
/// tokens, and counts their cross-entropy L/l times: the form of Eq. 6, whose mean over l from 1
/// to L is the bound. The l of all versions share out 1..=L evenly.
pub(super) fn measure(
    predictor: &mut MaskPredictor,
    recipe: &Recipe,
    windows: &Windows<'_>,
    mask: u32,
    bytes_per_token: f64,
    step: u64,
) -> Result<Validation> {
    let length = recipe.data.sequence_length;
    let rows = windows.count().min(recipe.eval.rows as u64);
    let diffusion = recipe.train.objective == Objective::Diffusion;
    let draws = if diffusion { recipe.eval.draws as u64 } else { 1 };
    let masked = spread(rows * draws, length);
    let items: Vec<Item> = (0..rows * draws)
        .map(|i| {
            let (row, draw) = (i / draws, i % draws);
            let window = (u128::from(row) * u128::from(windows.count()) / u128::from(rows)) as u64;
            Item { window, draw, masked: masked[i as usize] }
        })
        .collect();

    let mut sums = vec![0.0; rows as usize];
    let mut buckets = [(0.0, 0u64); BUCKETS];
    let mut nll = Vec::new();
    for (chunk, items) in items.chunks(recipe.micro_batch()).enumerate() {
        let first = chunk * recipe.micro_batch();
        let micro = if diffusion {
            masked_rows(windows, items, length, mask)?
        } else {
            let mut tokens = Vec::new();
            items.iter().try_for_each(|i| windows.read(i.window, length, &mut tokens))?;
            let starts: Vec<usize> = (0..=items.len()).map(|row| row * length).collect();
            let mut noised = loss::autoregressive(&tokens, &starts);
            noised.weights.fill(1.0 / (length - 1) as f32);
            MicroBatch { starts, noised }
        };
        predictor.nll(&micro.batch(), &micro.targets(), &mut nll)?;
        let Noised { positions, weights, .. } = &micro.noised;
        for ((at, nll), weight) in positions.iter().zip(&nll).zip(weights) {
            let item = first + at / length;
            sums[item / draws as usize] += f64::from(nll * weight) / draws as f64;
            // A fraction on the border belongs to the lower bucket.
            let bucket = (masked[item] * BUCKETS).saturating_sub(1) / length;
            buckets[bucket.min(BUCKETS - 1)].0 += f64::from(*nll);
            buckets[bucket.min(BUCKETS - 1)].1 += 1;
        }
    }

    let n = rows as f64;
    let mean = sums.iter().sum::<f64>() / n;
    let variance = sums.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let bucket = |(i, (sum, tokens)): (usize, (f64, u64))| Bucket {
        from: i as f64 / BUCKETS as f64,
        nll: (tokens > 0).then(|| sum / tokens as f64),
        tokens,
    };
    Ok(Validation {
        step,
        nll: mean,
        standard_error: (variance / n).sqrt(),
        bits_per_byte: mean / std::f64::consts::LN_2 / bytes_per_token,
        tokens: rows * draws * length as u64,
        buckets: if diffusion {
            buckets.into_iter().enumerate().map(bucket).collect()
        } else {
            Vec::new()
        },
    })
}

/// `n` counts of masked tokens that share out 1..=length evenly, in a mixed order.
fn spread(n: u64, length: usize) -> Vec<usize> {
    let mut stream = Stream::new(SEED, Purpose::Validation, SHARED);
    let offset = stream.uniform();
    let mut counts: Vec<usize> = (0..n)
        .map(|i| 1 + (((i as f64 + offset) / n as f64) * length as f64) as usize)
        .map(|count| count.min(length))
        .collect();
    stream.shuffle(&mut counts);
    counts
}

fn masked_rows(
    windows: &Windows<'_>,
    items: &[Item],
    length: usize,
    mask: u32,
) -> Result<MicroBatch> {
    let mut noised = Noised::default();
    for (row, item) in items.iter().enumerate() {
        windows.read(item.window, length, &mut noised.tokens)?;
        let mut order: Vec<usize> = (0..length).collect();
        let address = (item.window << 16) | item.draw;
        Stream::new(SEED, Purpose::Validation, address).shuffle(&mut order);
        order.truncate(item.masked);
        order.sort_unstable();
        for at in order.into_iter().map(|at| row * length + at) {
            noised.positions.push(at);
            noised.targets.push(noised.tokens[at]);
            noised.weights.push(1.0 / item.masked as f32);
            noised.rows.push(row);
            noised.tokens[at] = mask;
        }
    }
    let starts = (0..=items.len()).map(|row| row * length).collect();
    Ok(MicroBatch { starts, noised })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_counts_share_out_the_length() {
        let counts = spread(640, 64);
        let mut of = [0; 65];
        counts.iter().for_each(|c| of[*c] += 1);
        assert_eq!(of[0], 0);
        assert!(of[1..].iter().all(|n| (9..=11).contains(n)), "{of:?}");
        assert_eq!(spread(7, 1), [1; 7]);
        assert_eq!(counts, spread(640, 64));
    }
}
