//! The names that llama.cpp gives to the tensors of this architecture, and the order of their rows.
//!
//! Its rotary embedding turns neighbouring rows of a head, (0, 1), (2, 3), …; that of LLaDA's own
//! code turns a row of the first half with the same row of the second. The rows of q and k are
//! stored in the order that makes both compute the same.

use crate::{config::ModelConfig, model::Layout};

/// One tensor of the model as a GGUF file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// Its name.
    pub(super) name: String,
    /// Rows of one head, where the rows are in llama.cpp's rotary order.
    pub(super) rotary: Option<usize>,
}

/// The name of every tensor of `layout`, in its order.
pub(super) fn names(config: &ModelConfig, layout: &Layout) -> Vec<Name> {
    let empty = Name { name: String::new(), rotary: None };
    let mut names = vec![empty; layout.specs().len()];
    let mut set = |id: usize, name: String, rotary| names[id] = Name { name, rotary };
    set(layout.wte, "token_embd.weight".into(), None);
    set(layout.ln_f, "output_norm.weight".into(), None);
    if let Some(head) = layout.head {
        set(head, HEAD.into(), None);
    }
    let rotary = Some(config.head_dim());
    for (n, block) in layout.blocks.iter().enumerate() {
        let mut part = |id, part: &str, rotary| set(id, format!("blk.{n}.{part}"), rotary);
        for (i, (of, rotary)) in [("q", rotary), ("k", rotary), ("v", None)].into_iter().enumerate()
        {
            part(block.qkv[i], &format!("attn_{of}.weight"), rotary);
            if let Some(bias) = block.qkv_bias {
                part(bias[i], &format!("attn_{of}.bias"), rotary);
            }
            if let Some(&norm) = block.qk_norm.as_ref().and_then(|norms| norms.get(i)) {
                part(norm, &format!("attn_{of}_norm.weight"), rotary);
            }
        }
        part(block.attn_norm, "attn_norm.weight", None);
        part(block.attn_out, "attn_output.weight", None);
        part(block.ff_norm, "ffn_norm.weight", None);
        part(block.gate, "ffn_gate.weight", None);
        part(block.up, "ffn_up.weight", None);
        part(block.down, "ffn_down.weight", None);
    }
    names
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
    use crate::checkpoint::{load_config, tests::own};

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
        for model in ["a_mha_untied", "b_gqa_tied", "d_qkvbias_qknorm", "e_illada_llama_naming"] {
            let config = load_config(&own(model)).unwrap();
            let layout = Layout::new(&config);
            let mut names = names(&config, &layout);
            // GGML keeps names in 64 bytes.
            assert!(names.iter().all(|n| !n.name.is_empty() && n.name.len() < 64));
            names.sort_by(|a, b| a.name.cmp(&b.name));
            assert!(names.windows(2).all(|pair| pair[0].name != pair[1].name));
            let rotary = names.iter().filter(|n| n.rotary.is_some()).count();
            let options = 1 + usize::from(config.qkv_bias) + usize::from(config.qk_norm);
            assert_eq!(rotary, 2 * config.n_layers * options);
        }
    }
}
