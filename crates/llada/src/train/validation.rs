//! The validation loss: the negative evidence bound in nats per token, the same noise every time.

use crate::{
    Result,
    config::Objective,
    diffusion::{forward::Noised, loss},
    model::MaskPredictor,
    rng::{Purpose, Stream},
    train::{Recipe, batch::MicroBatch, source::Source},
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
    /// Tokens that were scored (of responses, in fine-tuning), masked versions counted once each.
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
    /// Which of the held-out rows.
    row: u64,
    draw: u64,
    /// Where in the evenly spread shares of masked tokens it stands, in [0, 1).
    share: f64,
}

/// Scores `eval.rows` rows, spread evenly over what is held out.
///
/// For diffusion each row is scored under `eval.draws` masked versions. A version masks exactly l
/// of the L tokens (of the response, where there is one), and counts their cross-entropy L/l times:
/// the form of Eq. 6, whose mean over l from 1 to L is the bound. The l of all versions share out
/// 1..=L evenly.
pub(super) fn measure(
    predictor: &mut MaskPredictor,
    recipe: &Recipe,
    source: &Source,
    mask: u32,
    step: u64,
) -> Result<Validation> {
    let held_out = source.held_out(recipe)?;
    let rows = held_out.min(recipe.eval.rows as u64);
    let diffusion = recipe.train.objective == Objective::Diffusion;
    let draws = if diffusion { recipe.eval.draws as u64 } else { 1 };
    let shares = spread(rows * draws);
    let items: Vec<Item> = (0..rows * draws)
        .map(|i| {
            let (row, draw) = (i / draws, i % draws);
            let row = (u128::from(row) * u128::from(held_out) / u128::from(rows)) as u64;
            Item { row, draw, share: shares[i as usize] }
        })
        .collect();

    let mut sums = vec![0.0; rows as usize];
    let mut buckets = [(0.0, 0u64); BUCKETS];
    let (mut nll, mut scored) = (Vec::new(), 0);
    for (chunk, items) in items.chunks(recipe.micro_batch()).enumerate() {
        let first = chunk * recipe.micro_batch();
        let micro = score(source, recipe, items, mask)?;
        predictor.nll(&micro.batch.batch(), &micro.batch.targets(), &mut nll)?;
        scored += micro.lengths.iter().sum::<usize>() as u64;
        let Noised { rows, weights, .. } = &micro.batch.noised;
        for ((row, nll), weight) in rows.iter().zip(&nll).zip(weights) {
            let item = first + row;
            sums[item / draws as usize] += f64::from(nll * weight) / draws as f64;
            // A fraction on the border belongs to the lower bucket.
            let length = micro.lengths[*row];
            let bucket = (masked(items[*row].share, length) * BUCKETS).saturating_sub(1) / length;
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
        bits_per_byte: mean / std::f64::consts::LN_2 / source.bytes_per_token(),
        tokens: scored,
        buckets: if diffusion {
            buckets.into_iter().enumerate().map(bucket).collect()
        } else {
            Vec::new()
        },
    })
}

/// Places of `n` items in [0, 1), evenly spread, in a mixed order.
fn spread(n: u64) -> Vec<f64> {
    let mut stream = Stream::new(SEED, Purpose::Validation, SHARED);
    let offset = stream.uniform();
    let mut shares: Vec<f64> = (0..n).map(|i| (i as f64 + offset) / n as f64).collect();
    stream.shuffle(&mut shares);
    shares
}

/// How many of `length` tokens an item with this share masks, 1 to `length`.
fn masked(share: f64, length: usize) -> usize {
    (1 + (share * length as f64) as usize).min(length)
}

/// Rows to score.
struct Scored {
    /// With weights that make each row's sum its mean nll, or the bound on it.
    batch: MicroBatch,
    /// Tokens of each row that count.
    lengths: Vec<usize>,
}

fn score(source: &Source, recipe: &Recipe, items: &[Item], mask: u32) -> Result<Scored> {
    let (mut tokens, mut starts, mut prompts) = (Vec::new(), vec![0], Vec::new());
    for item in items {
        prompts.push(source.read_held_out(recipe, item.row, &mut tokens)?);
        starts.push(tokens.len());
    }
    let rows = || starts.windows(2).zip(&prompts);
    match recipe.train.objective {
        Objective::Diffusion => {
            let lengths: Vec<usize> =
                rows().map(|(row, prompt)| row[1] - row[0] - prompt).collect();
            let mut noised = Noised { tokens, ..Noised::default() };
            for (row, (bounds, prompt)) in rows().enumerate() {
                let item = &items[row];
                let masked = masked(item.share, lengths[row]);
                let mut order: Vec<usize> = (bounds[0] + prompt..bounds[1]).collect();
                let address = (item.row << 16) | item.draw;
                Stream::new(SEED, Purpose::Validation, address).shuffle(&mut order);
                order.truncate(masked);
                order.sort_unstable();
                for at in order {
                    noised.positions.push(at);
                    noised.targets.push(noised.tokens[at]);
                    noised.weights.push(1.0 / masked as f32);
                    noised.rows.push(row);
                    noised.tokens[at] = mask;
                }
            }
            Ok(Scored { batch: MicroBatch { starts, noised }, lengths })
        }
        Objective::Autoregressive => {
            let mut noised = loss::autoregressive_response(&tokens, &starts, &prompts);
            let mut lengths = vec![0; items.len()];
            noised.rows.iter().for_each(|&row| lengths[row] += 1);
            let rows = noised.rows.iter();
            noised.weights = rows.map(|&row| 1.0 / lengths[row] as f32).collect();
            Ok(Scored { batch: MicroBatch { starts, noised }, lengths })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_counts_share_out_the_length() {
        let shares = spread(640);
        let mut of = [0; 65];
        shares.iter().for_each(|share| of[masked(*share, 64)] += 1);
        assert_eq!(of[0], 0);
        assert!(of[1..].iter().all(|n| (9..=11).contains(n)), "{of:?}");
        assert!(spread(7).iter().all(|share| masked(*share, 1) == 1));
        assert_eq!(shares, spread(640));
    }
}
