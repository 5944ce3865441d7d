//! Which experts a token goes through: the router of a mixture of experts, forward and backward.
//!
//! Scores are computed in `f32` and in a fixed order whatever the rest is stored in, since scores that
//! nearly tie decide.

use std::ops::Range;

use llada_kernels::Cpu;

use crate::config::{Experts, Router, RouterBias, Score};

/// The experts of the tokens of one pass. T tokens, each with k experts; a slot is a token in the
/// list of one of its experts.
#[derive(Debug, Default)]
pub(super) struct Routing {
    per_token: usize,
    /// The score of every expert [T, experts].
    scores: Vec<f32>,
    /// The experts of each token in ascending order [T, k].
    chosen: Vec<u32>,
    /// What each counts.
    weights: Vec<f32>,
    /// The slot of each.
    slot: Vec<u32>,
    /// Of each slot, its number in `chosen`: expert after expert, tokens in order.
    number: Vec<u32>,
    /// Where the slots of each expert begin, and the last end [experts + 1].
    starts: Vec<usize>,
    selection: Selection,
}

/// How tokens were spread over the experts of a layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Load {
    /// Tokens.
    pub tokens: usize,
    /// Tokens that each expert got.
    pub counts: Vec<u64>,
    /// The score of each expert, summed over the tokens.
    pub scores: Vec<f64>,
}

impl Load {
    /// Forgets all tokens.
    pub(super) fn clear(&mut self) {
        self.tokens = 0;
        self.counts.clear();
        self.scores.clear();
    }

    /// Adds the tokens of `routing`.
    pub(super) fn add(&mut self, routing: &Routing, experts: usize) {
        self.counts.resize(experts, 0);
        self.scores.resize(experts, 0.0);
        self.tokens += routing.chosen.len() / routing.per_token.max(1);
        for (count, ends) in self.counts.iter_mut().zip(routing.starts.windows(2)) {
            *count += (ends[1] - ends[0]) as u64;
        }
        for scores in routing.scores.chunks_exact(experts.max(1)) {
            self.scores.iter_mut().zip(scores).for_each(|(sum, score)| *sum += f64::from(*score));
        }
    }
}

/// The load-balancing loss over all layers: the number of experts times Σ_e (share of tokens that went
/// to e) · (mean score of e); 1 per chosen expert where all are used alike. 0 without experts.
///
/// Fedus et al., "Switch Transformers", arXiv 2101.03961, equations 4 to 6, as `transformers`'
/// `load_balancing_loss_func` has it for several experts a token.
pub fn balance_loss(loads: &[Load]) -> f64 {
    let Some((shares, scores)) = means(loads) else { return 0.0 };
    shares.iter().zip(&scores).map(|(f, p)| f * p).sum::<f64>() * shares.len() as f64
}

/// The gradient of `weight` times that loss for the score of each expert, of any token and layer.
pub(super) fn balance(loads: &[Load], weight: f64) -> Option<Vec<f32>> {
    let (shares, _) = means(loads).filter(|_| weight != 0.0)?;
    let tokens: usize = loads.iter().map(|load| load.tokens).sum();
    let factor = weight * shares.len() as f64 / tokens as f64;
    Some(shares.iter().map(|share| (factor * share) as f32).collect())
}

/// For each expert its share of the tokens of all layers, and its mean score.
fn means(loads: &[Load]) -> Option<(Vec<f64>, Vec<f64>)> {
    let experts = loads.iter().map(|load| load.counts.len()).max().filter(|&n| n > 0)?;
    let tokens = loads.iter().map(|load| load.tokens).sum::<usize>() as f64;
    let (mut shares, mut scores) = (vec![0.0; experts], vec![0.0; experts]);
    for load in loads {
        shares.iter_mut().zip(&load.counts).for_each(|(sum, &n)| *sum += n as f64 / tokens);
        scores.iter_mut().zip(&load.scores).for_each(|(sum, score)| *sum += score / tokens);
    }
    Some((shares, scores))
}

/// What the load-balancing loss adds to the gradients of the scores: for each expert the same for
/// every token.
pub(super) type Balance<'a> = Option<&'a [f32]>;

impl Routing {
    /// Chooses the experts of each token by the router's `logits` [T, experts].
    pub(super) fn choose(
        &mut self,
        cpu: &Cpu,
        experts: &Experts,
        bias: Option<&[f32]>,
        logits: &[f32],
    ) {
        let (count, k) = (experts.count, experts.per_token);
        let tokens = logits.len() / count;
        self.per_token = k;
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        cpu.chunks(&mut self.scores, 16 * count, |_, rows| {
            rows.chunks_exact_mut(count).for_each(|row| score(experts.router.score, row));
        });
        self.chosen.resize(tokens * k, 0);
        self.weights.resize(tokens * k, 0.0);
        for (token, scores) in self.scores.chunks_exact(count).enumerate() {
            let part = token * k..(token + 1) * k;
            let (chosen, weights) = (&mut self.chosen[part.clone()], &mut self.weights[part]);
            self.selection.choose(&experts.router, scores, bias, chosen, weights);
        }
        self.list(count);
    }

    /// Lists the tokens of each expert.
    fn list(&mut self, count: usize) {
        self.starts.clear();
        self.starts.resize(count + 1, 0);
        for &expert in &self.chosen {
            self.starts[expert as usize + 1] += 1;
        }
        for expert in 0..count {
            self.starts[expert + 1] += self.starts[expert];
        }
        self.slot.resize(self.chosen.len(), 0);
        self.number.resize(self.chosen.len(), 0);
        // `starts` moves to the ends while the slots are given out, and back.
        for (number, &expert) in self.chosen.iter().enumerate() {
            let next = &mut self.starts[expert as usize];
            self.slot[number] = *next as u32;
            self.number[*next] = number as u32;
            *next += 1;
        }
        self.starts.rotate_right(1);
        self.starts[0] = 0;
    }

    /// Slots of all experts.
    pub(super) fn slots(&self) -> usize {
        self.number.len()
    }

    /// The experts that have tokens, each with its slots.
    pub(super) fn experts(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        let parts = self.starts.windows(2).map(|ends| ends[0]..ends[1]).enumerate();
        parts.filter(|(_, part)| !part.is_empty())
    }

    /// The token of a slot.
    pub(super) fn token(&self, slot: usize) -> usize {
        self.number[slot] as usize / self.per_token
    }

    /// What the expert of a slot counts for its token.
    pub(super) fn weight(&self, slot: usize) -> f32 {
        self.weights[self.number[slot] as usize]
    }

    /// The slots of a token with their weights, by ascending expert.
    pub(super) fn of_token(&self, token: usize) -> impl Iterator<Item = (usize, f32)> {
        let part = token * self.per_token..(token + 1) * self.per_token;
        let slots = self.slot[part.clone()].iter().map(|&slot| slot as usize);
        slots.zip(self.weights[part].iter().copied())
    }

    /// Writes the gradient of the router's logits [T, experts] to `d_logits`, from that of the weight
    /// of each slot; adds that of the bias to `d_bias`.
    pub(super) fn backward(
        &self,
        experts: &Experts,
        d_weights: &[f32],
        balance: Balance<'_>,
        d_logits: &mut [f32],
        mut d_bias: Option<&mut [f32]>,
    ) {
        let (count, router) = (experts.count, &experts.router);
        let rows = d_logits.chunks_exact_mut(count).zip(self.scores.chunks_exact(count));
        for (token, (d, scores)) in rows.enumerate() {
            match balance {
                Some(balance) => d.copy_from_slice(balance),
                None => d.fill(0.0),
            }
            let part = token * self.per_token..(token + 1) * self.per_token;
            let (chosen, slots) = (&self.chosen[part.clone()], &self.slot[part]);
            let pairs =
                || chosen.iter().map(|&e| e as usize).zip(slots.iter().map(|&s| s as usize));
            if router.normalise {
                // w_i = c·s_i/S: ∂/∂s_i = c·(dw_i − Σ_j dw_j·s_j/S)/S.
                let sum: f32 = pairs().map(|(e, _)| scores[e]).sum::<f32>() + TINY;
                let mean: f32 = pairs().map(|(e, slot)| d_weights[slot] * scores[e] / sum).sum();
                for (e, slot) in pairs() {
                    d[e] += router.scale * (d_weights[slot] - mean) / sum;
                }
            } else {
                for (e, slot) in pairs() {
                    let d_weight = router.scale * d_weights[slot];
                    d[e] += d_weight;
                    if let (RouterBias::SelectionAndWeights, Some(bias)) =
                        (router.bias, d_bias.as_deref_mut())
                    {
                        bias[e] += d_weight;
                    }
                }
            }
            match router.score {
                Score::Softmax => {
                    let mean: f32 = d.iter().zip(scores).map(|(d, s)| d * s).sum();
                    d.iter_mut().zip(scores).for_each(|(d, s)| *d = s * (*d - mean));
                }
                Score::Sigmoid => d.iter_mut().zip(scores).for_each(|(d, s)| *d *= s * (1.0 - s)),
            }
        }
    }
}

/// What the reference adds to the sum by which weights are divided.
const TINY: f32 = 1e-20;

/// Makes scores of the logits of one token.
fn score(score: Score, row: &mut [f32]) {
    match score {
        Score::Softmax => {
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            row.iter_mut().for_each(|x| *x = (*x - most).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|x| *x /= sum);
        }
        Score::Sigmoid => row.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
    }
}

/// Buffers of the choice for one token.
#[derive(Debug, Default)]
struct Selection {
    /// What the experts are chosen by.
    by: Vec<f32>,
    groups: Vec<(f32, usize)>,
    order: Vec<usize>,
}

impl Selection {
    /// Chooses the experts of one token, in ascending order, with their weights. Of equal scores the
    /// lower number goes first.
    fn choose(
        &mut self,
        router: &Router,
        scores: &[f32],
        bias: Option<&[f32]>,
        chosen: &mut [u32],
        weights: &mut [f32],
    ) {
        self.by.clear();
        self.by.extend_from_slice(scores);
        if let Some(bias) = bias {
            self.by.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
        if router.groups_per_token < router.groups {
            self.leave_groups(router);
        }
        let (by, k) = (&self.by, chosen.len());
        // A NaN is greater than all numbers, so that what it is the score of is chosen and spreads it.
        let before = |&a: &usize, &b: &usize| by[b].total_cmp(&by[a]).then(a.cmp(&b));
        self.order.clear();
        self.order.extend(0..scores.len());
        if k < self.order.len() {
            self.order.select_nth_unstable_by(k - 1, before);
            self.order.truncate(k);
        }
        // The sum goes from the best to the worst, as in the reference.
        self.order.sort_unstable_by(before);
        let weighed = match router.bias {
            RouterBias::SelectionAndWeights => by.as_slice(),
            _ => scores,
        };
        let sum = match router.normalise {
            true => self.order.iter().map(|&e| weighed[e]).sum::<f32>() + TINY,
            false => 1.0,
        };
        self.order.sort_unstable();
        for ((chosen, weight), &expert) in chosen.iter_mut().zip(weights).zip(&self.order) {
            *chosen = expert as u32;
            *weight = weighed[expert] / sum * router.scale;
        }
    }

    /// Takes the experts of all but the best groups out of the choice.
    fn leave_groups(&mut self, router: &Router) {
        let size = self.by.len() / router.groups;
        self.groups.clear();
        for (number, group) in self.by.chunks_exact(size).enumerate() {
            let best = group.iter().fold([f32::NEG_INFINITY; 2], |[first, second], &score| {
                if score > first { [score, first] } else { [first, second.max(score)] }
            });
            self.groups.push((best[0] + best[1], number));
        }
        self.groups.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(_, number) in &self.groups[router.groups_per_token..] {
            self.by[number * size..(number + 1) * size].fill(f32::NEG_INFINITY);
        }
    }
}
