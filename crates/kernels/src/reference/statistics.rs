//! The statistics of a row of logits, as written.

use crate::statistics::Statistics;

/// The statistics of one row that has a soft-max.
pub fn of(row: &[f64]) -> Statistics {
    let mut token = 0;
    for i in 1..row.len() {
        if row[i] > row[token] {
            token = i;
        }
    }
    let greatest = row[token];
    let (mut second, mut others, mut distance) = (f64::NEG_INFINITY, 0.0, 0.0);
    for (i, &logit) in row.iter().enumerate() {
        if i != token && logit > f64::NEG_INFINITY {
            let weight = (logit - greatest).exp();
            second = second.max(logit);
            others += weight;
            distance += (greatest - logit) * weight;
        }
    }
    Statistics { token, greatest, second, others, distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        let found = of(&[0.0, 3f64.ln(), 3f64.ln(), f64::NEG_INFINITY, 0.0]);
        assert_eq!((found.token, found.greatest, found.second), (1, 3f64.ln(), 3f64.ln()));
        assert!((found.probability(3f64.ln()) - 0.375).abs() < 1e-15);
        assert!((found.probability(0.0) - 0.125).abs() < 1e-15);
        let entropy = -2.0 * (0.375 * 0.375f64.ln() + 0.125 * 0.125f64.ln());
        assert!((found.entropy() - entropy).abs() < 1e-15);
    }
}
