//! LLaDA-8B and LLaDA-1.5 (arXiv 2502.09992): OLMo's keys and names. Nothing is taken from the
//! defaults of the reference's Python dataclass, several of which (tied weights, dropout 0.1) no
//! released model uses.

use serde_json::{Value, json};

use super::{Convention, Matrix, Parameter, Part};
use crate::config::{ModelConfig, QkNorm, Result, keys::Keys, rope, widen, wrong};

pub(super) struct Llada;

impl Convention for Llada {
    fn classes(&self) -> &'static [&'static str] {
        &["LLaDAModelLM"]
    }

    fn word(&self) -> &'static str {
        "llada"
    }

    fn models(&self) -> &'static str {
        "LLaDA, LLaDA-1.5"
    }

    fn read(&self, keys: &Keys<'_>) -> Result<ModelConfig> {
        keys.expect("activation_type", &json!("silu"))?;
        keys.expect("block_type", &json!("llama"))?;
        keys.expect("layer_norm_type", &json!("rms"))?;
        keys.expect("rope", &json!(true))?;
        keys.expect_or_absent("alibi", &json!(false))?;
        keys.expect_or_absent("include_bias", &json!(false))?;
        keys.expect_or_absent("bias_for_layer_norm", &json!(false))?;
        keys.expect_or_absent("block_group_size", &json!(1))?;
        keys.expect_or_absent("layer_norm_with_affine", &json!(true))?;
        let qk_norm = keys.flag("attention_layer_norm")?.unwrap_or(false);
        if qk_norm {
            keys.expect_or_absent("attention_layer_norm_with_affine", &json!(true))?;
        }
        let d_model = keys.size("d_model")?;
        let n_heads = keys.size("n_heads")?;
        let multi_query = keys.flag("multi_query_attention")?.unwrap_or(false);
        let n_kv_heads = match keys.optional_size("n_kv_heads")? {
            Some(n) => n,
            None if multi_query => 1,
            None => n_heads,
        };
        let mlp_hidden_size = match keys.optional_size("mlp_hidden_size")? {
            Some(n) => n,
            None => keys.size("mlp_ratio")?.saturating_mul(d_model),
        };
        let vocab_size = keys.size("vocab_size")?;
        keys.head_dim("d_model", "n_heads")?;
        let n_layers = keys.size("n_layers")?;
        Ok(ModelConfig {
            n_kv_heads,
            embedding_size: keys.optional_size("embedding_size")?.unwrap_or(vocab_size),
            max_sequence_length: keys.size("max_sequence_length")?,
            rope_theta: rope::theta(keys.0)?,
            rms_norm_eps: keys.number("rms_norm_eps")? as f32,
            weight_tying: keys.required_flag("weight_tying")?,
            qkv_bias: keys.flag("include_qkv_bias")?.unwrap_or(false),
            qk_norm: if qk_norm { QkNorm::Whole } else { QkNorm::None },
            scale_logits: keys.flag("scale_logits")?.unwrap_or(false),
            input_emb_norm: keys.flag("input_emb_norm")?.unwrap_or(false),
            tokens: keys.tokens()?,
            ..ModelConfig::llada(d_model, n_layers, n_heads, mlp_hidden_size, vocab_size)
        })
    }

    fn judged(&self) -> &'static [&'static str] {
        &[
            "alibi",
            "alibi_bias_max",
            "scale_logits",
            "include_bias",
            "include_qkv_bias",
            "bias_for_layer_norm",
            "layer_norm_type",
            "layer_norm_with_affine",
            "attention_layer_norm",
            "attention_layer_norm_with_affine",
            "input_emb_norm",
            "activation_type",
        ]
    }

    fn check(&self, config: &ModelConfig) -> Result<()> {
        let (heads, width) = (config.n_heads, config.q_dim());
        match width == config.d_model && config.head_dim.is_multiple_of(2) {
            true => Ok(()),
            false => {
                let expected = format!("a multiple of {heads} with even heads");
                Err(wrong("d_model", config.d_model, expected))
            }
        }
    }

    fn write(&self, config: &ModelConfig) -> Value {
        json!({
            "auto_map": {
                "AutoConfig": "configuration_llada.LLaDAConfig",
                "AutoModelForCausalLM": "modeling_llada.LLaDAModelLM",
                "AutoModel": "modeling_llada.LLaDAModelLM",
            },
            "model_type": "llada",
            "d_model": config.d_model,
            "n_layers": config.n_layers,
            "n_heads": config.n_heads,
            "n_kv_heads": config.n_kv_heads,
            "mlp_hidden_size": config.mlp_hidden_size,
            "mlp_ratio": 4,
            "vocab_size": config.vocab_size,
            "embedding_size": config.embedding_size,
            "max_sequence_length": config.max_sequence_length,
            "rope": true,
            "rope_full_precision": true,
            "rope_theta": config.rope_theta,
            "rms_norm_eps": widen(config.rms_norm_eps),
            "weight_tying": config.weight_tying,
            "include_bias": false,
            "include_qkv_bias": config.qkv_bias,
            "bias_for_layer_norm": false,
            "attention_layer_norm": config.qk_norm == QkNorm::Whole,
            "attention_layer_norm_with_affine": true,
            "layer_norm_type": "rms",
            "layer_norm_with_affine": true,
            "activation_type": "silu",
            "block_type": "llama",
            "block_group_size": 1,
            "alibi": false,
            "alibi_bias_max": 8.0,
            "attention_dropout": 0.0,
            "embedding_dropout": 0.0,
            "residual_dropout": 0.0,
            "flash_attention": false,
            "init_device": "meta",
            "init_fn": "mitchell",
            "init_std": 0.02,
            "init_cutoff_factor": null,
            "input_emb_norm": config.input_emb_norm,
            "multi_query_attention": null,
            "precision": "amp_bf16",
            "scale_logits": config.scale_logits,
            "use_cache": false,
            "mask_token_id": config.tokens.mask,
            "eos_token_id": config.tokens.eos,
            "bos_token_id": config.tokens.bos,
            "pad_token_id": config.tokens.pad.or(config.tokens.eos),
        })
    }

    fn gguf(&self, config: &ModelConfig) -> Option<&'static str> {
        super::plain_gguf(config)
    }

    fn gguf_interleaves(&self) -> bool {
        true
    }

    fn name(&self, parameter: Parameter) -> String {
        let (block, part) = match parameter {
            Parameter::Embedding => return "model.transformer.wte.weight".into(),
            Parameter::FinalNorm => return "model.transformer.ln_f.weight".into(),
            Parameter::Head => return "model.transformer.ff_out.weight".into(),
            Parameter::Block(block, part) => (block, part),
        };
        let part = match part {
            Part::AttnNorm => "attn_norm.weight".into(),
            Part::FfNorm => "ff_norm.weight".into(),
            Part::AttnOut => "attn_out.weight".into(),
            Part::Weight(p) => format!("{}_proj.weight", p.letter()),
            Part::Bias(p) => format!("{}_proj.bias", p.letter()),
            Part::Norm(p) => format!("{}_norm.weight", p.letter()),
            Part::Dense(Matrix::Gate) => "ff_proj.weight".into(),
            Part::Dense(Matrix::Up) => "up_proj.weight".into(),
            Part::Dense(Matrix::Down) => "ff_out.weight".into(),
            // Never of a model of this family; the names are those of LLaDA-MoE.
            Part::Expert(e, m) => format!("mlp.experts.{e}.{}_proj.weight", m.word()),
            Part::Shared(m) => format!("mlp.shared_expert.{}_proj.weight", m.word()),
            Part::Router => "mlp.gate.weight".into(),
            Part::RouterBias => "mlp.gate.expert_bias".into(),
        };
        format!("model.transformer.blocks.{block}.{part}")
    }
}
