//! LLaDA2.0 and 2.1 (arXiv 2512.15745): a sigmoid router with groups, a shared expert, rotary
//! positions in a part of each head, and block-causal attention in blocks of 32 tokens.

use serde_json::{Value, json};

use super::{Convention, Family, Parameter, Part, llama};
use crate::config::{
    AttentionMask, Experts, ModelConfig, PublishedSampler, QkNorm, Result, Router, RouterBias,
    Score, keys::Keys,
};

pub(super) struct Llada2;

/// Tokens of a block in the released models, whose configuration does not say.
const BLOCK: usize = 32;

impl Convention for Llada2 {
    fn classes(&self) -> &'static [&'static str] {
        &["LLaDA2MoeModelLM"]
    }

    fn word(&self) -> &'static str {
        "llada2"
    }

    fn models(&self) -> &'static str {
        "LLaDA2.0, LLaDA2.1"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        keys.size("intermediate_size")?;
        let config = llama::read(Family::Llada2, keys)?;
        for (key, value) in [
            ("use_qkv_bias", json!(false)),
            ("use_bias", json!(false)),
            ("norm_head", json!(false)),
            ("score_function", json!("sigmoid")),
            ("norm_topk_prob", json!(true)),
        ] {
            keys.expect_or_absent(key, &value)?;
        }
        let dense = keys.optional_size("first_k_dense_replace")?.unwrap_or(0);
        let hidden_size = keys.size("moe_intermediate_size")?;
        let shared = keys.optional_size("num_shared_experts")?.unwrap_or(0);
        let shared = shared.saturating_mul(hidden_size);
        keys.expect_or_absent("moe_shared_expert_intermediate_size", &json!(shared))?;
        let groups = keys.optional_size("n_group")?.unwrap_or(1);
        let bias = match keys.flag("moe_router_enable_expert_bias")? {
            Some(false) => RouterBias::None,
            _ => RouterBias::Selection,
        };
        let experts = Experts {
            count: keys.size("num_experts")?,
            per_token: keys.size("num_experts_per_tok")?,
            hidden_size,
            shared_hidden_size: shared,
            router: Router {
                score: Score::Sigmoid,
                bias,
                groups,
                groups_per_token: keys.optional_size("topk_group")?.unwrap_or(groups),
                normalise: true,
                scale: keys.optional_number("routed_scaling_factor")?.unwrap_or(1.0) as f32,
            },
            layers: (0..config.n_layers).map(|layer| layer >= dense).collect(),
        };
        let block_length = keys.optional_size("block_size")?.unwrap_or(BLOCK);
        let qk_norm = match keys.flag("use_qk_norm")? {
            Some(false) => QkNorm::None,
            _ => QkNorm::PerHead,
        };
        Ok(ModelConfig {
            attention: AttentionMask::BlockCausal { block_length },
            qk_norm,
            rotary_dim: keys.rotary_dim(config.head_dim)?,
            experts: Some(experts),
            ..config
        })
    }

    fn judged(&self) -> &'static [&'static str] {
        &[
            "block_size",
            "first_k_dense_replace",
            "max_window_layers",
            "moe_intermediate_size",
            "moe_shared_expert_intermediate_size",
            "mtp_loss_scaling_factor",
            "moe_router_enable_expert_bias",
            "norm_head",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "num_shared_experts",
            "partial_rotary_factor",
            "rotary_dim",
            "routed_scaling_factor",
            "score_function",
            "topk_group",
            "use_bias",
            "use_qk_norm",
            "use_qkv_bias",
        ]
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write(config);
        json["model_type"] = json!("llada2_moe");
        json["auto_map"] = json!({
            "AutoConfig": "configuration_llada2_moe.LLaDA2MoeConfig",
            "AutoModel": "modeling_llada2_moe.LLaDA2MoeModel",
            "AutoModelForCausalLM": "modeling_llada2_moe.LLaDA2MoeModelLM",
        });
        json["head_dim"] = json!(config.head_dim);
        json["partial_rotary_factor"] =
            json!(config.rotary_dim as f64 / config.head_dim.max(1) as f64);
        json["use_qk_norm"] = json!(config.qk_norm == QkNorm::PerHead);
        for key in ["use_qkv_bias", "use_bias", "norm_head"] {
            json[key] = json!(false);
        }
        if let Some(block_length) = config.attention.block_length().filter(|&n| n != BLOCK) {
            json["block_size"] = json!(block_length);
        }
        let Some(experts) = &config.experts else { return json };
        let Router { groups, groups_per_token, scale, bias, .. } = experts.router;
        json["score_function"] = json!("sigmoid");
        json["norm_topk_prob"] = json!(true);
        json["num_experts"] = json!(experts.count);
        json["num_experts_per_tok"] = json!(experts.per_token);
        json["moe_intermediate_size"] = json!(experts.hidden_size);
        json["num_shared_experts"] = json!(experts.shared_hidden_size / experts.hidden_size.max(1));
        json["n_group"] = json!(groups);
        json["topk_group"] = json!(groups_per_token);
        json["routed_scaling_factor"] = json!(crate::config::widen(scale));
        json["moe_router_enable_expert_bias"] = json!(bias != RouterBias::None);
        json["first_k_dense_replace"] =
            json!(experts.layers.iter().take_while(|&&has| !has).count());
        json
    }

    fn sampler(&self) -> PublishedSampler {
        PublishedSampler::Llada2
    }

    fn is_by_blocks(&self) -> bool {
        true
    }

    fn name(&self, parameter: Parameter) -> String {
        let (block, part) = match parameter {
            Parameter::Embedding => return "model.word_embeddings.weight".into(),
            Parameter::Block(block, part) => (block, part),
            other => return llama::name(other),
        };
        let attention = match part {
            Part::Weight(_) => "query_key_value.weight",
            Part::Bias(_) => "query_key_value.bias",
            Part::Norm(super::Projection::Q) => "query_layernorm.weight",
            Part::Norm(_) => "key_layernorm.weight",
            Part::AttnOut => "dense.weight",
            _ => return llama::name(parameter),
        };
        format!("model.layers.{block}.attention.{attention}")
    }

    fn fuses_qkv(&self) -> bool {
        true
    }
}
