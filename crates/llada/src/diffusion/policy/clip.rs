//! The clipped surrogate of proximal policy optimisation.

/// How far the ratio ρ of the policy to the one that wrote the responses counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// ρ counts down to 1 − low.
    pub low: f64,
    /// ρ counts up to 1 + high.
    pub high: f64,
}

impl Clip {
    /// −min(ρA, clip(ρ)A), its derivative by ρ, and whether ρ is clipped.
    pub(super) fn surrogate(&self, ratio: f64, advantage: f64) -> (f64, f64, bool) {
        let clipped = ratio.clamp(1.0 - self.low, 1.0 + self.high);
        match clipped * advantage < ratio * advantage {
            true => (-clipped * advantage, 0.0, true),
            false => (-ratio * advantage, -advantage, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_ratio_that_went_too_far_the_right_way_is_clipped() {
        let clip = Clip { low: 0.2, high: 0.3 };
        assert_eq!(clip.surrogate(1.5, 2.0), (-2.6, 0.0, true));
        assert_eq!(clip.surrogate(1.5, -2.0), (3.0, 2.0, false));
        assert_eq!(clip.surrogate(0.5, -2.0), (1.6, 0.0, true));
        assert_eq!(clip.surrogate(0.5, 2.0), (-1.0, -2.0, false));
        assert_eq!(clip.surrogate(1.0, 2.0), (-2.0, -2.0, false));
        assert_eq!(clip.surrogate(1.0, 0.0).1, 0.0);
    }
}
