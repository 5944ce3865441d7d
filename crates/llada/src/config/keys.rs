//! The keys of a `config.json`, as the two families call them.

use serde_json::{Map, Value, json};

use super::{
    ConfigError, Family, MAX_DIMENSION, ModelConfig, Objective, Result, SpecialTokens, rope, wrong,
};

/// The keys of one `config.json`, with typed look-ups.
pub(super) struct Keys<'a>(pub(super) &'a Map<String, Value>);

impl Keys<'_> {
    /// The model that they describe.
    pub(super) fn model(&self) -> Result<ModelConfig> {
        match self.architecture()? {
            "LLaDAModelLM" => self.llada(),
            "ILLaDAForCausalLM" => self.illada(),
            other => Err(ConfigError::Architecture(other.into())),
        }
    }

    /// `architectures[0]`, with which the class that `auto_map` names must agree; LLaDA-MoE shares
    /// LLaDA's `model_type`, so that key cannot decide.
    fn architecture(&self) -> Result<&str> {
        fn text(value: Option<&Value>) -> Option<&str> {
            value.and_then(Value::as_str)
        }
        let listed = self.0.get("architectures").and_then(|listed| listed.get(0));
        let mapped = self.0.get("auto_map").and_then(|map| map.get("AutoModelForCausalLM"));
        let mapped = text(mapped).map(|path| path.rsplit('.').next().unwrap_or(path));
        let named = text(listed).or(mapped).or(match text(self.0.get("model_type")) {
            Some("llada") => Some("LLaDAModelLM"),
            other => other,
        });
        let named = named.unwrap_or("(none given)");
        match mapped {
            Some(mapped) if mapped != named => {
                Err(wrong("auto_map", mapped, format!("`{named}`, as `architectures` says")))
            }
            _ => Ok(named),
        }
    }

    fn llada(&self) -> Result<ModelConfig> {
        self.expect("activation_type", &json!("silu"))?;
        self.expect("block_type", &json!("llama"))?;
        self.expect("layer_norm_type", &json!("rms"))?;
        self.expect("rope", &json!(true))?;
        self.expect_or_absent("alibi", &json!(false))?;
        self.expect_or_absent("include_bias", &json!(false))?;
        self.expect_or_absent("bias_for_layer_norm", &json!(false))?;
        self.expect_or_absent("block_group_size", &json!(1))?;
        self.expect_or_absent("layer_norm_with_affine", &json!(true))?;
        let qk_norm = self.flag("attention_layer_norm")?.unwrap_or(false);
        if qk_norm {
            self.expect_or_absent("attention_layer_norm_with_affine", &json!(true))?;
        }
        let d_model = self.size("d_model")?;
        let n_heads = self.size("n_heads")?;
        let multi_query = self.flag("multi_query_attention")?.unwrap_or(false);
        let n_kv_heads = match self.optional_size("n_kv_heads")? {
            Some(n) => n,
            None if multi_query => 1,
            None => n_heads,
        };
        let mlp_hidden_size = match self.optional_size("mlp_hidden_size")? {
            Some(n) => n,
            None => self.size("mlp_ratio")?.saturating_mul(d_model),
        };
        let vocab_size = self.size("vocab_size")?;
        Ok(ModelConfig {
            family: Family::Llada,
            d_model,
            n_layers: self.size("n_layers")?,
            n_heads,
            n_kv_heads,
            mlp_hidden_size,
            vocab_size,
            embedding_size: self.optional_size("embedding_size")?.unwrap_or(vocab_size),
            max_sequence_length: self.size("max_sequence_length")?,
            rope_theta: rope::theta(self.0)?,
            rms_norm_eps: self.number("rms_norm_eps")? as f32,
            weight_tying: self.flag("weight_tying")?.ok_or(ConfigError::Missing("weight_tying"))?,
            qkv_bias: self.flag("include_qkv_bias")?.unwrap_or(false),
            qk_norm,
            scale_logits: self.flag("scale_logits")?.unwrap_or(false),
            input_emb_norm: self.flag("input_emb_norm")?.unwrap_or(false),
            objective: self.objective()?,
            tokens: self.tokens()?,
        })
    }

    fn illada(&self) -> Result<ModelConfig> {
        if !self.0.contains_key("hidden_act") {
            return Err(ConfigError::Missing("hidden_act"));
        }
        self.expect_or_absent("rope", &json!(true))?;
        let n_heads = self.size("num_attention_heads")?;
        let vocab_size = self.size("vocab_size")?;
        Ok(ModelConfig {
            family: Family::Illada,
            d_model: self.size("hidden_size")?,
            n_layers: self.size("num_hidden_layers")?,
            n_heads,
            n_kv_heads: self.optional_size("num_key_value_heads")?.unwrap_or(n_heads),
            mlp_hidden_size: self.size("intermediate_size")?,
            vocab_size,
            embedding_size: vocab_size,
            max_sequence_length: self.size("max_position_embeddings")?,
            rope_theta: rope::theta(self.0)?,
            rms_norm_eps: self.number("rms_norm_eps")? as f32,
            weight_tying: self
                .flag("tie_word_embeddings")?
                .ok_or(ConfigError::Missing("tie_word_embeddings"))?,
            qkv_bias: false,
            qk_norm: false,
            scale_logits: false,
            input_emb_norm: false,
            objective: self.objective()?,
            tokens: self.tokens()?,
        })
    }

    fn objective(&self) -> Result<Objective> {
        match self.0.get("objective") {
            None | Some(Value::Null) => Ok(Objective::Diffusion),
            Some(v) => serde_json::from_value(v.clone())
                .map_err(|_| wrong("objective", v, "`diffusion` or `autoregressive`")),
        }
    }

    fn tokens(&self) -> Result<SpecialTokens> {
        Ok(SpecialTokens {
            mask: self.id("mask_token_id")?,
            eos: self.id("eos_token_id")?,
            eot: self.id("eot_token_id")?,
            bos: self.id("bos_token_id")?,
            pad: self.id("pad_token_id")?,
        })
    }

    fn expect(&self, key: &'static str, expected: &Value) -> Result<()> {
        let found = self.0.get(key).ok_or(ConfigError::Missing(key))?;
        if found == expected { Ok(()) } else { Err(wrong(key, found, format!("`{expected}`"))) }
    }

    fn expect_or_absent(&self, key: &'static str, expected: &Value) -> Result<()> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(_) => self.expect(key, expected),
        }
    }

    fn optional_size(&self, key: &'static str) -> Result<Option<usize>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64() {
                Some(n) if n <= MAX_DIMENSION => Ok(Some(n as usize)),
                _ => Err(wrong(key, v, format!("a whole number up to {MAX_DIMENSION}"))),
            },
        }
    }

    fn size(&self, key: &'static str) -> Result<usize> {
        self.optional_size(key)?.ok_or(ConfigError::Missing(key))
    }

    fn number(&self, key: &'static str) -> Result<f64> {
        let v = self.0.get(key).ok_or(ConfigError::Missing(key))?;
        v.as_f64().ok_or_else(|| wrong(key, v, "a number"))
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(v) => Err(wrong(key, v, "`true` or `false`")),
        }
    }

    /// A token id; of a list, as some checkpoints give for EOS, the first.
    fn id(&self, key: &'static str) -> Result<Option<u32>> {
        let found = match self.0.get(key) {
            Some(Value::Array(list)) => list.first(),
            other => other,
        };
        match found {
            None | Some(Value::Null) => Ok(None),
            Some(v) => match v.as_u64().and_then(|n| u32::try_from(n).ok()) {
                Some(id) => Ok(Some(id)),
                None => Err(wrong(key, v, "a token id")),
            },
        }
    }
}
