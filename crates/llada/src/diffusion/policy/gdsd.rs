//! GDSD: the log-ratio of a response regresses on its advantage.

use super::{Clip, LogProbabilities, Loss};

/// What the loss is of, besides log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The log-ratio is cut to [log(1 − low), log(1 + high)].
    pub clip: Clip,
    /// What an advantage counts.
    pub psi: f64,
    /// What the divergence from the reference counts.
    pub beta: f64,
}

/// The loss over responses with `advantages` and `lengths` in tokens, each under as many masks:
///
/// Σ (clamp(log p_θ − log p_old)/L − ψA)² / responses + β · mean of ½(log p_θ − log p_ref)²/L.
///
/// A term is the denoising log-probability of a response under one mask; those of a response follow each
/// other.
pub fn loss(
    of: LogProbabilities<'_>,
    advantages: &[f64],
    lengths: &[usize],
    settings: Settings,
) -> Loss {
    let Settings { clip, psi, beta } = settings;
    let (low, high) = ((1.0 - clip.low).ln(), (1.0 + clip.high).ln());
    let responses = advantages.len().max(1);
    let masks = of.policy.len() / responses;
    let (n, all) = (responses as f64, of.policy.len().max(1) as f64);
    let mut loss = Loss::default();
    for (term, policy) in of.policy.iter().enumerate() {
        let response = term / masks;
        let (advantage, length) = (advantages[response], lengths[response].max(1) as f64);
        let change = policy - of.old[term];
        let inside = (low..=high).contains(&change);
        let off = change.clamp(low, high) / length - psi * advantage;
        let gap = of.gap_to_reference(term);
        let kl = 0.5 * gap * gap / length;
        loss.value += off * off / n + beta * kl / all;
        loss.kl += kl / all;
        loss.clipped += f64::from(!inside) / all;
        let slope = if inside { 2.0 * off / length / n } else { 0.0 };
        loss.slopes.push(slope + beta * gap / length / all);
    }
    loss
}
