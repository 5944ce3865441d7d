//! Which tokens of a response its versions mask.

use std::ops::Range;

use super::Versions;
use crate::{diffusion::likelihood::subset, rng::Stream};

/// A sequence whose response, all that follows the prompt, is masked.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The tokens of the prompt and then those of the response.
    pub tokens: &'a [u32],
    /// Tokens of the prompt.
    pub prompt: usize,
}

impl Response<'_> {
    /// Tokens of the response.
    pub fn len(&self) -> usize {
        self.tokens.len() - self.prompt.min(self.tokens.len())
    }

    /// Whether there is no response.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn places(&self) -> Range<usize> {
        self.prompt..self.tokens.len()
    }
}

/// What a token counts in a version that masks `masked` of `length`.
pub type Weight = dyn Fn(usize, usize) -> f64;

/// The weight (L + 1)/m of ESPO: with m uniform over 0..=L, a mask and its complement have half of the
/// evidence bound each, without bias.
pub fn bound(masked: usize, length: usize) -> f64 {
    (length + 1) as f64 / masked as f64
}

/// The weight 1 of GDSD, whose denoising log-probabilities are not weighed by how much is masked.
pub fn even(_masked: usize, _length: usize) -> f64 {
    1.0
}

/// Adds the version of a response that masks the tokens at `places` of the sequence and predicts them, each
/// with the weight `weight` in the term `term`.
fn push(
    versions: &mut Versions,
    response: Response<'_>,
    mask: u32,
    places: impl Iterator<Item = usize> + Clone,
    (term, weight): (usize, f64),
) {
    let predicted = places.clone().map(|place| (place, weight, term));
    versions.push(response.tokens, mask, places, predicted);
}

/// How many of the tokens of a response of `length`, one at least, the noise level `t` in [0, 1) masks:
/// each of 1..=L is equally likely for a uniform one.
fn count(t: f64, length: usize) -> usize {
    1 + ((t * length as f64) as usize).min(length - 1)
}

/// Adds the version of a response that masks its tokens `masked` (indices into it, ascending) and the one
/// that masks the others, so that each token is predicted once. Both count half, `share` of the term; one
/// that masks nothing is left out.
pub fn push_coupled(
    versions: &mut Versions,
    response: Response<'_>,
    mask: u32,
    masked: &[usize],
    (term, share): (usize, f64),
    weight: &Weight,
) {
    let length = response.len();
    let is_masked = |i: &usize| masked.binary_search(i).is_ok();
    let others: Vec<usize> = (0..length).filter(|i| !is_masked(i)).collect();
    for half in [masked, &others[..]].into_iter().filter(|half| !half.is_empty()) {
        let weight = 0.5 * share * weight(half.len(), length);
        let places = half.iter().map(|i| response.prompt + i);
        push(versions, response, mask, places, (term, weight));
    }
}

/// As [`push_coupled`] with a number of masks that goes by the noise level `t` in [0, 1): each of 0..=L
/// is equally likely for a uniform one.
pub fn draw_coupled(
    versions: &mut Versions,
    response: Response<'_>,
    mask: u32,
    t: f64,
    stream: &mut Stream,
    of: (usize, f64),
    weight: &Weight,
) {
    let length = response.len();
    let count = ((t * (length + 1) as f64) as usize).min(length);
    let masked = subset(stream, length, count);
    push_coupled(versions, response, mask, &masked, of, weight);
}

/// Adds a version of a response that masks m of its L tokens, where m goes by the noise level `t` in
/// [0, 1): each of 1..=L is equally likely for a uniform one. With the weight L/m it is an estimate of
/// the evidence bound by itself (Eq. 6), which counts `share` of its term.
pub fn draw_bound(
    versions: &mut Versions,
    response: Response<'_>,
    mask: u32,
    t: f64,
    stream: &mut Stream,
    (term, share): (usize, f64),
) {
    let length = response.len();
    if length == 0 {
        return;
    }
    let count = count(t, length);
    let weight = share * length as f64 / count as f64;
    let masked = subset(stream, length, count);
    let places = masked.iter().map(|i| response.prompt + i);
    push(versions, response, mask, places, (term, weight));
}

/// Adds an antithetic pair of versions: as [`draw_bound`], which masks m tokens, and one that masks the other
/// L − m and one of these, so that the noise levels of both sum to the same, too. Both count half, `share`
/// of the term.
pub fn draw_antithetic(
    versions: &mut Versions,
    response: Response<'_>,
    mask: u32,
    t: f64,
    stream: &mut Stream,
    (term, share): (usize, f64),
) {
    let length = response.len();
    if length == 0 {
        return;
    }
    let count = count(t, length);
    let mut order: Vec<usize> = response.places().collect();
    stream.shuffle(&mut order);
    for half in [&order[..count], &order[count - 1..]] {
        let mut half = half.to_vec();
        half.sort_unstable();
        let weight = 0.5 * share * length as f64 / half.len() as f64;
        push(versions, response, mask, half.iter().copied(), (term, weight));
    }
}

/// Adds a version for diffu-GRPO: all of the response is masked, and each token of the prompt that
/// `hides` says. The first `counted` tokens of the response are the terms from `first` on.
pub fn push_masked_prompt(
    versions: &mut Versions,
    response: Response<'_>,
    mask: u32,
    counted: usize,
    first: usize,
    hides: &mut dyn FnMut() -> bool,
) {
    let prompt: Vec<usize> = (0..response.prompt).filter(|_| hides()).collect();
    let predicted = response.places().take(counted).enumerate();
    let predicted = predicted.map(|(i, place)| (place, 1.0, first + i));
    versions.push(response.tokens, mask, prompt.into_iter().chain(response.places()), predicted);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::LogitShift, rng::Purpose};

    const TOKENS: [u32; 7] = [0, 1, 2, 3, 4, 5, 6];
    const RESPONSE: Response<'_> = Response { tokens: &TOKENS, prompt: 3 };

    fn stream() -> Stream {
        Stream::new(1, Purpose::Masking, 0)
    }

    #[test]
    fn a_mask_and_its_complement_predict_each_token_once() {
        let mut versions = Versions::new(1);
        push_coupled(&mut versions, RESPONSE, 9, &[0, 3], (0, 1.0), &bound);
        let (all, noised) = versions.part(0..2, &[0.0; 4], LogitShift::Same);
        assert_eq!(all.tokens(), [0, 1, 2, 9, 4, 5, 9, 0, 1, 2, 3, 9, 9, 6]);
        assert_eq!(noised.targets, [3, 6, 4, 5]);
        assert_eq!(versions.log_probabilities(&[1.0; 4]), [-5.0]);
        for masked in [&[][..], &[0, 1, 2, 3]] {
            let mut versions = Versions::new(1);
            push_coupled(&mut versions, RESPONSE, 9, masked, (0, 1.0), &even);
            assert_eq!((versions.count(), versions.predicted()), (1, 4));
            assert_eq!(versions.log_probabilities(&[1.0; 4]), [-2.0]);
        }
    }

    /// With a nll that depends on how many tokens are masked, all estimates have the mean of Eq. 6; the
    /// noise levels of an antithetic pair make up for each other.
    #[test]
    fn estimates_of_the_bound_are_not_biased() {
        type Draw = dyn Fn(&mut Versions, f64, &mut Stream);
        let nll = |masked: usize| 1.0 + 0.7 * (masked as f64).sqrt();
        let bound_of_four: f64 = -(1..=4).map(nll).sum::<f64>();
        let of = |draw: &Draw| -> [f64; 2] {
            let (runs, mut stream) = (4000, stream());
            let estimates: Vec<f64> = (0..runs)
                .map(|_| {
                    let (mut versions, t) = (Versions::new(1), stream.uniform());
                    draw(&mut versions, t, &mut stream);
                    let counts = (0..versions.count()).map(|i| versions.span(i..i + 1).len());
                    let nlls: Vec<f32> =
                        counts.flat_map(|n| std::iter::repeat_n(nll(n) as f32, n)).collect();
                    versions.log_probabilities(&nlls)[0]
                })
                .collect();
            let mean = estimates.iter().sum::<f64>() / estimates.len() as f64;
            let squares = estimates.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            [mean, squares / estimates.len() as f64]
        };
        const TERM: (usize, f64) = (0, 1.0);
        let [mean, variance] = of(&|v, t, s| draw_bound(v, RESPONSE, 9, t, s, TERM));
        assert!((mean - bound_of_four).abs() < 0.05, "{mean} {bound_of_four}");
        let [mean, coupled] = of(&|v, t, s| draw_coupled(v, RESPONSE, 9, t, s, TERM, &bound));
        assert!((mean - bound_of_four).abs() < 0.1 && coupled > 0.0, "{mean} {bound_of_four}");
        let [mean, antithetic] = of(&|v, t, s| draw_antithetic(v, RESPONSE, 9, t, s, TERM));
        assert!((mean - bound_of_four).abs() < 0.02, "{mean} {bound_of_four}");
        assert!(antithetic < 0.1 * variance, "{antithetic} {variance}");
        // Weights of 1 are no bound, but half of every token's.
        let [mean, _] = of(&|v, t, s| draw_coupled(v, RESPONSE, 9, t, s, TERM, &even));
        assert!((mean - bound_of_four / 2.0).abs() < 0.4, "{mean} {bound_of_four}");
    }

    #[test]
    fn an_antithetic_pair_masks_every_token() {
        for t in [0.0, 0.3, 0.99] {
            let mut versions = Versions::new(1);
            draw_antithetic(&mut versions, RESPONSE, 9, t, &mut stream(), (0, 1.0));
            let (_, noised) = versions.part(0..2, &[0.0; 5], LogitShift::Same);
            let (one, other) = noised.targets.split_at(versions.span(0..1).len());
            assert_eq!(one.len() + other.len(), 5);
            assert_eq!(one.iter().filter(|token| other.contains(token)).count(), 1);
            let all = (3..7).all(|token| noised.targets.contains(&token));
            assert!(all && [one, other].iter().all(|half| half.is_sorted()));
            // With a nll of 1 it is that of all tokens, whatever was drawn.
            assert!((versions.log_probabilities(&[1.0; 5])[0] + 4.0).abs() < 1e-12);
        }
    }

    #[test]
    fn counts_are_uniform_in_the_noise_level() {
        let masked = |coupled: bool, t: f64| {
            let mut versions = Versions::new(1);
            match coupled {
                true => {
                    draw_coupled(&mut versions, RESPONSE, 9, t, &mut stream(), (0, 1.0), &bound)
                }
                false => draw_bound(&mut versions, RESPONSE, 9, t, &mut stream(), (0, 1.0)),
            }
            versions.span(0..1).len()
        };
        let levels = (0..20).map(|i| f64::from(i) / 20.0);
        for count in 1..=4 {
            assert_eq!(levels.clone().filter(|&t| masked(false, t) == count).count(), 5);
        }
        // Of 0 masks only the complement is left.
        assert_eq!(levels.clone().filter(|&t| masked(true, t) == 4).count(), 8);
        assert_eq!(levels.filter(|&t| masked(true, t) == 2).count(), 4);
        assert_eq!((masked(false, 1.0), masked(true, 1.0)), (4, 4));
    }

    #[test]
    fn all_of_a_completion_is_masked_and_some_of_its_prompt() {
        let mut versions = Versions::new(5);
        let mut hides = [false, true, false].into_iter();
        push_masked_prompt(&mut versions, RESPONSE, 9, 2, 3, &mut || hides.next().unwrap());
        let (all, noised) = versions.part(0..1, &[0.0; 2], LogitShift::Same);
        assert_eq!(all.tokens(), [0, 9, 2, 9, 9, 9, 9]);
        assert_eq!(noised.targets, [3, 4]);
        assert_eq!(versions.log_probabilities(&[1.0, 2.0]), [0.0, 0.0, 0.0, -1.0, -2.0]);
    }

    #[test]
    fn an_empty_response_has_no_version() {
        let none = Response { tokens: &TOKENS, prompt: 7 };
        let mut versions = Versions::new(1);
        draw_bound(&mut versions, none, 9, 0.5, &mut stream(), (0, 1.0));
        draw_antithetic(&mut versions, none, 9, 0.5, &mut stream(), (0, 1.0));
        draw_coupled(&mut versions, none, 9, 0.5, &mut stream(), (0, 1.0), &bound);
        assert!(none.is_empty() && versions.count() == 0);
    }
}
