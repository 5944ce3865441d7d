//! The first greatest logit and its soft-max probability, as written.

use crate::argmax::Choice;

/// The choice of each row of `logits`, `[rows, v]`.
pub fn forward(logits: &[f64], v: usize) -> Vec<Choice> {
    let choose = |row: &[f64]| {
        let mut token = 0;
        for i in 1..v {
            if row[i] > row[token] {
                token = i;
            }
        }
        Choice { token: token as u32, probability: probability(row, token as u32) }
    };
    logits.chunks(v).map(choose).collect()
}

/// The soft-max probability of `token` in one row of logits.
pub fn probability(row: &[f64], token: u32) -> f64 {
    let chosen = row[token as usize];
    1.0 / row.iter().map(|x| (x - chosen).exp()).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let row = [0.0, 3f64.ln(), 3f64.ln(), 0.0];
        let choice = forward(&row, 4)[0];
        assert_eq!(choice.token, 1);
        assert!((choice.probability - 0.375).abs() < 1e-15);
        assert!((probability(&row, 3) - 0.125).abs() < 1e-15);
    }
}
