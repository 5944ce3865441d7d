use super::*;

/// A loss and its slopes as a function of the policy's log-probabilities.
type OfPolicy<'a> = dyn Fn(&[f64]) -> (f64, Vec<f64>) + 'a;

/// Checks ∂value/∂policy by central differences.
fn assert_slopes(policy: &[f64], loss: &OfPolicy<'_>) {
    let slopes = loss(policy).1;
    assert_eq!(slopes.len(), policy.len());
    assert!(slopes.iter().any(|slope| *slope != 0.0));
    for (term, slope) in slopes.iter().enumerate() {
        let at = |h: f64| {
            let mut moved = policy.to_vec();
            moved[term] += h;
            loss(&moved).0
        };
        let found = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((found - slope).abs() < 1e-8, "term {term}: {found} {slope}");
    }
}

const OLD: [f64; 4] = [-40.0, -31.0, -52.0, -60.5];
const REFERENCE: [f64; 4] = [-41.0, -30.0, -53.5, -60.0];
/// Two within the clip range, and one beyond either end of it.
const POLICY: [f64; 4] = [-39.5, -31.8, -55.0, -57.0];
const ADVANTAGES: [f64; 4] = [1.0, -0.5, -0.75, 0.25];
const LENGTHS: [usize; 4] = [9, 8, 7, 6];
const CLIP: Clip = Clip { low: 0.2, high: 0.3 };

fn of<'a>(policy: &'a [f64], reference: &'a [f64]) -> LogProbabilities<'a> {
    LogProbabilities { policy, old: &OLD, reference }
}

#[test]
fn slopes_are_those_of_the_losses() {
    let pair = |loss: Loss| (loss.value, loss.slopes);
    assert_slopes(&POLICY, &|policy| {
        pair(espo::loss(of(policy, &REFERENCE), &ADVANTAGES, &LENGTHS, CLIP, 0.05))
    });
    assert_slopes(&POLICY, &|policy| {
        let settings = gdsd::Settings { clip: Clip { low: 0.6, high: 0.9 }, psi: 0.7, beta: 0.1 };
        pair(gdsd::loss(of(policy, &REFERENCE), &ADVANTAGES[..2], &LENGTHS[..2], settings))
    });
    let token: Vec<f64> = OLD.iter().zip([0.1, -0.15, -0.5, 0.6]).map(|(x, d)| x + d).collect();
    assert_slopes(&token, &|policy| {
        pair(diffu_grpo::loss(of(policy, &REFERENCE), &ADVANTAGES, CLIP, 0.04))
    });
    assert_slopes(&POLICY, &|policy| {
        let found = vrpo::loss(policy, &REFERENCE, &LENGTHS, 0.2, 0.1);
        (found.value, found.slopes)
    });
}

#[test]
fn what_is_clipped_has_no_slope_but_that_of_the_divergence() {
    let loss = espo::loss(of(&POLICY, &[]), &ADVANTAGES, &LENGTHS, CLIP, 0.05);
    assert_eq!((loss.clipped, loss.kl), (0.5, 0.0));
    assert_eq!(loss.slopes.iter().filter(|slope| **slope == 0.0).count(), 2);
    let all = espo::loss(of(&POLICY, &REFERENCE), &ADVANTAGES, &LENGTHS, CLIP, 0.05);
    assert!(all.slopes.iter().all(|slope| *slope != 0.0) && all.kl > 0.0);
    // Where the policy has not moved, the slopes are those of the policy gradient.
    let still = espo::loss(of(&OLD, &[]), &ADVANTAGES, &LENGTHS, CLIP, 0.0);
    for ((slope, a), length) in still.slopes.iter().zip(ADVANTAGES).zip(LENGTHS) {
        assert!((slope + a / length as f64 / 4.0).abs() < 1e-15);
    }
}

#[test]
fn preferences_far_from_the_reference_have_finite_losses() {
    let loss = |gap: f64| vrpo::loss(&[gap, 0.0], &[0.0, 0.0], &[1, 1], 1.0, 0.0);
    assert!((loss(0.0).value - 2.0f64.ln()).abs() < 1e-15);
    assert_eq!((loss(2000.0).value, loss(-2000.0).value), (0.0, 2000.0));
    assert_eq!(loss(-2000.0).slopes, [-1.0, 1.0]);
    assert_eq!((loss(0.0).accuracy(), loss(1.0).accuracy(), loss(3.0).margin()), (0.0, 1.0, 3.0));
}
