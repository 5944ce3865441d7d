//! ESPO: a whole response is one action, and its evidence bound stands for its log-probability.

use super::{Clip, LogProbabilities, Loss};

/// The loss over responses with `advantages` and `lengths` in tokens:
///
/// mean of −min(ρA, clip(ρ)A) + β·½(ELBO_θ − ELBO_ref)²/L, with ρ = exp((ELBO_θ − ELBO_old)/L).
///
/// A term is the bound of a response.
pub fn loss(
    of: LogProbabilities<'_>,
    advantages: &[f64],
    lengths: &[usize],
    clip: Clip,
    beta: f64,
) -> Loss {
    let n = advantages.len().max(1) as f64;
    let mut loss = Loss::default();
    for (term, (&advantage, &length)) in advantages.iter().zip(lengths).enumerate() {
        let length = length.max(1) as f64;
        let ratio = ((of.policy[term] - of.old[term]) / length).exp();
        let (surrogate, slope, clipped) = clip.surrogate(ratio, advantage);
        let gap = of.gap_to_reference(term);
        let kl = 0.5 * gap * gap / length;
        loss.value += (surrogate + beta * kl) / n;
        loss.kl += kl / n;
        loss.clipped += f64::from(clipped) / n;
        loss.slopes.push((slope * ratio / length + beta * gap / length) / n);
    }
    loss
}
