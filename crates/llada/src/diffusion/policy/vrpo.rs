//! VRPO of LLaDA 1.5: direct preference optimisation on evidence bounds, whose variance is kept low by
//! many noise levels with one mask each, the same for the policy and its reference.

/// What a preference loss tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Preference {
    /// The loss.
    pub value: f64,
    /// ∂loss/∂ELBO of each response.
    pub slopes: Vec<f64>,
    /// β times how much more the policy prefers the chosen response than the reference does, of each
    /// pair.
    pub margins: Vec<f64>,
}

impl Preference {
    /// The share of the pairs in which the policy has moved to the chosen response.
    pub fn accuracy(&self) -> f64 {
        let right = self.margins.iter().filter(|margin| **margin > 0.0).count();
        right as f64 / self.margins.len().max(1) as f64
    }

    /// The mean margin.
    pub fn margin(&self) -> f64 {
        self.margins.iter().sum::<f64>() / self.margins.len().max(1) as f64
    }
}

/// The loss over pairs of a chosen and a rejected response, whose bounds follow each other in `policy`
/// and `reference`:
///
/// mean of −log σ(β(B_θ − B_ref)(chosen) − β(B_θ − B_ref)(rejected)) − sft · B_θ(chosen)/L.
///
/// `lengths` are those of the responses in tokens.
pub fn loss(
    policy: &[f64],
    reference: &[f64],
    lengths: &[usize],
    beta: f64,
    sft: f64,
) -> Preference {
    let gaps: Vec<f64> = policy.iter().zip(reference).map(|(a, b)| a - b).collect();
    let n = (gaps.len() / 2).max(1) as f64;
    let mut found = Preference::default();
    for (pair, gap) in gaps.chunks_exact(2).enumerate() {
        let margin = beta * (gap[0] - gap[1]);
        let length = lengths[2 * pair].max(1) as f64;
        found.value += (softplus(-margin) - sft * policy[2 * pair] / length) / n;
        let slope = beta * sigmoid(-margin) / n;
        found.slopes.extend([-slope - sft / length / n, slope]);
        found.margins.push(margin);
    }
    found
}

/// log(1 + eˣ).
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
