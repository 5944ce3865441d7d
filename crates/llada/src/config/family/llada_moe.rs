//! LLaDA-MoE (arXiv 2509.24389): OLMoE's names. Its `model_type` is that of LLaDA.

use serde_json::{Value, json};

use super::{Convention, Family, Parameter, Part, llama};
use crate::config::{
    AttentionMask, Experts, ModelConfig, QkNorm, Result, Router, RouterBias, keys::Keys,
};

pub(super) struct LladaMoe;

impl Convention for LladaMoe {
    fn classes(&self) -> &'static [&'static str] {
        &["LLaDAMoEModelLM", "LLaDAMoEModel"]
    }

    fn word(&self) -> &'static str {
        "llada-moe"
    }

    fn models(&self) -> &'static str {
        "LLaDA-MoE"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        let config = llama::read(Family::LladaMoe, keys)?;
        keys.expect_or_absent("moe_router_score_function", &json!("softmax"))?;
        keys.expect_or_absent("norm_topk_prob", &json!(false))?;
        let layers = match keys.flags("moe_layer_freq", config.n_layers)? {
            Some(layers) => layers,
            None => vec![true; config.n_layers],
        };
        let is_dense = layers.contains(&false);
        let mlp_hidden_size = match keys.optional_size("dense_intermediate_size")? {
            Some(size) => size,
            None if is_dense => keys.size("dense_intermediate_size")?,
            None => 0,
        };
        let bias = match keys.flag("moe_router_enable_expert_bias")? {
            Some(true) => RouterBias::SelectionAndWeights,
            _ => RouterBias::None,
        };
        let qk_norm = match keys.flag("qk_layernorm")? {
            Some(true) => QkNorm::PerHead,
            _ => QkNorm::None,
        };
        let experts = Experts {
            count: keys.size("num_experts")?,
            per_token: keys.size("num_experts_per_tok")?,
            hidden_size: keys.size("expert_intermediate_size")?,
            shared_hidden_size: keys.optional_size("shared_expert_intermediate_size")?.unwrap_or(0),
            router: Router { bias, ..Router::SOFTMAX },
            layers,
        };
        Ok(ModelConfig {
            mlp_hidden_size,
            qk_norm,
            rotary_dim: keys.rotary_dim(config.head_dim)?,
            experts: Some(experts),
            ..config
        })
    }

    fn judged(&self) -> &'static [&'static str] {
        &[
            "expert_intermediate_size",
            "moe_layer_freq",
            "moe_router_enable_expert_bias",
            "moe_router_score_function",
            "norm_topk_prob",
            "num_experts",
            "num_experts_per_tok",
            "partial_rotary_factor",
            "qk_layernorm",
            "shared_expert_intermediate_size",
        ]
    }

    fn write(&self, config: &ModelConfig) -> Value {
        let mut json = llama::write(config);
        json["model_type"] = json!("llada");
        json["auto_map"] = json!({
            "AutoConfig": "configuration_lladamoe.LLaDAConfig",
            "AutoModel": "modeling_lladamoe.LLaDAMoEModel",
            "AutoModelForCausalLM": "modeling_lladamoe.LLaDAMoEModelLM",
        });
        json["dense_intermediate_size"] = json!(config.mlp_hidden_size);
        json["qk_layernorm"] = json!(config.qk_norm == QkNorm::PerHead);
        json["partial_rotary_factor"] =
            json!(config.rotary_dim as f64 / config.head_dim.max(1) as f64);
        json["moe_router_score_function"] = json!("softmax");
        json["norm_topk_prob"] = Value::Null;
        let Some(experts) = &config.experts else { return json };
        json["num_experts"] = json!(experts.count);
        json["num_experts_per_tok"] = json!(experts.per_token);
        json["expert_intermediate_size"] = json!(experts.hidden_size);
        json["shared_expert_intermediate_size"] =
            Some(experts.shared_hidden_size).filter(|&size| size > 0).into();
        json["moe_layer_freq"] = experts.layers.iter().map(|&has| u8::from(has)).collect();
        json["moe_router_enable_expert_bias"] = json!(experts.router.bias != RouterBias::None);
        json
    }

    fn gguf(&self, config: &ModelConfig) -> Option<&'static str> {
        let experts = config.experts.as_ref()?;
        let is_plain = experts.layers.iter().all(|&has| has)
            && experts.shared_hidden_size == 0
            && experts.router.bias == RouterBias::None
            && config.qk_norm == QkNorm::PerHead
            && config.q_dim() == config.d_model
            && config.rotary_dim == config.head_dim
            && config.attention == AttentionMask::Bidirectional;
        is_plain.then_some("llada-moe")
    }

    fn name(&self, parameter: Parameter) -> String {
        match parameter {
            Parameter::Block(block, Part::Shared(m)) => {
                format!("model.layers.{block}.mlp.shared_expert.{}_proj.weight", m.word())
            }
            other => llama::name(other),
        }
    }
}
