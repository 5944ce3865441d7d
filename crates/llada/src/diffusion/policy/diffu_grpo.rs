//! diffu-GRPO of d1: tokens are actions, whose log-probabilities one pass gives in which all of the
//! completion and some of the prompt are masked.

use super::{Clip, LogProbabilities, Loss};

/// The loss over tokens, each with the advantage of its completion:
///
/// mean of −min(ρA, clip(ρ)A) + β(e^Δ − Δ − 1), with ρ = p_θ/p_old and Δ = log p_ref − log p_θ.
///
/// A term is a token up to the end of its completion.
pub fn loss(of: LogProbabilities<'_>, advantages: &[f64], clip: Clip, beta: f64) -> Loss {
    let n = advantages.len().max(1) as f64;
    let mut loss = Loss::default();
    for (term, &advantage) in advantages.iter().enumerate() {
        let ratio = (of.policy[term] - of.old[term]).exp();
        let (surrogate, slope, clipped) = clip.surrogate(ratio, advantage);
        let gap = -of.gap_to_reference(term);
        let kl = gap.exp() - gap - 1.0;
        loss.value += (surrogate + beta * kl) / n;
        loss.kl += kl / n;
        loss.clipped += f64::from(clipped) / n;
        loss.slopes.push((slope * ratio + beta * (1.0 - gap.exp())) / n);
    }
    loss
}
