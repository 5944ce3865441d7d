//! The names that llama.cpp gives to the tensors of this architecture, and the order of their rows.
//!
//! Its rotary embedding turns neighbouring rows of a head, (0, 1), (2, 3), …; that of LLaDA's own
//! code turns a row of the first half with the same row of the second. The rows of q and k are
//! stored in the order that makes both compute the same.

use crate::{
    config::{
        ModelConfig,
        family::{Parameter, Part, Projection},
    },
    model::Layout,
};

/// One parameter of the model as a GGUF file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// The name of its tensor.
    pub(super) name: String,
    /// Rows of one head, where the rows are in llama.cpp's rotary order.
    pub(super) rotary: Option<usize>,
    /// Its number among the experts that the tensor is a stack of, and how many these are.
    pub(super) stacked: Option<(usize, usize)>,
}

/// The name of every parameter of `layout`, in its order.
pub(super) fn names(config: &ModelConfig, layout: &Layout) -> Vec<Name> {
    layout.specs().iter().map(|spec| name(config, spec.parameter)).collect()
}

fn name(config: &ModelConfig, parameter: Parameter) -> Name {
    let plain = |name: &str| Name { name: name.into(), rotary: None, stacked: None };
    let (n, part) = match parameter {
        Parameter::Embedding => return plain("token_embd.weight"),
        Parameter::FinalNorm => return plain("output_norm.weight"),
        Parameter::Head => return plain(HEAD),
        Parameter::Block(n, part) => (n, part),
    };
    let word = match part {
        Part::AttnNorm => "attn_norm.weight".into(),
        Part::FfNorm => "ffn_norm.weight".into(),
        Part::AttnOut => "attn_output.weight".into(),
        Part::Weight(p) => format!("attn_{}.weight", p.letter()),
        Part::Bias(p) => format!("attn_{}.bias", p.letter()),
        Part::Norm(p) => format!("attn_{}_norm.weight", p.letter()),
        Part::Dense(m) => format!("ffn_{}.weight", m.word()),
        Part::Expert(_, m) => format!("ffn_{}_exps.weight", m.word()),
        Part::Shared(m) => format!("ffn_{}_shexp.weight", m.word()),
        Part::Router => "ffn_gate_inp.weight".into(),
        Part::RouterBias => "exp_probs_b.bias".into(),
    };
    let is_rotated = match part {
        Part::Weight(p) | Part::Bias(p) | Part::Norm(p) => p != Projection::V,
        _ => false,
    };
    let experts = config.experts.as_ref().map_or(0, |experts| experts.count);
    Name {
        name: format!("blk.{n}.{word}"),
        rotary: (is_rotated && config.family.gguf_interleaves()).then_some(config.head_dim),
        stacked: match part {
            Part::Expert(e, _) => Some((e, experts)),
            _ => None,
        },
    }
}

/// The LM head; a file without it ties the head to the embedding.
pub(super) const HEAD: &str = "output.weight";

/// Which row of LLaDA's order is row `row` of llama.cpp's; heads have `head` rows.
pub(super) fn from_rotary(row: usize, head: usize) -> usize {
    let (first, i) = (row / head * head, row % head);
    first + i % 2 * (head / 2) + i / 2
}

/// Which row of llama.cpp's order is row `row` of LLaDA's.
pub(super) fn to_rotary(row: usize, head: usize) -> usize {
    let (first, i) = (row / head * head, row % head);
    first + i % (head / 2) * 2 + i / (head / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::load_config, config::QkNorm, golden};

    #[test]
    fn the_orders_of_rows_undo_each_other() {
        for head in [2, 4, 16, 22] {
            for row in 0..3 * head {
                assert_eq!(from_rotary(to_rotary(row, head), head), row);
                assert_eq!(to_rotary(from_rotary(row, head), head), row);
                assert_eq!(to_rotary(row, head) / head, row / head);
            }
        }
        let order: Vec<usize> = (0..8).map(|row| from_rotary(row, 8)).collect();
        assert_eq!(order, [0, 4, 1, 5, 2, 6, 3, 7]);
    }

    #[test]
    fn every_tensor_has_a_name_of_its_own() {
        for golden in golden::MODELS {
            let config = load_config(&golden.own_folder()).unwrap();
            let layout = Layout::new(&config);
            let mut names = names(&config, &layout);
            // GGML keeps names in 64 bytes.
            assert!(names.iter().all(|n| !n.name.is_empty() && n.name.len() < 64));
            names.sort_by(|a, b| (&a.name, a.stacked).cmp(&(&b.name, b.stacked)));
            let own = |name: &Name| (name.name.clone(), name.stacked);
            assert!(names.windows(2).all(|pair| own(&pair[0]) != own(&pair[1])));
            let rotary = names.iter().filter(|n| n.rotary.is_some()).count();
            let options =
                1 + usize::from(config.qkv_bias) + usize::from(config.qk_norm != QkNorm::None);
            let rotated = if config.family.gguf_interleaves() { 2 * config.n_layers } else { 0 };
            assert_eq!(rotary, rotated * options);
        }
    }
}
