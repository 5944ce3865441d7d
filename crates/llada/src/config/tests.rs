mod refused;

use serde_json::{Value, json};

use super::*;
use crate::golden::{self, Golden, own_model};

/// The configuration of one of the models that are here.
fn read(model: &str) -> String {
    std::fs::read_to_string(own_model(model).join("config.json")).unwrap()
}

fn parse(value: &Value) -> Result<ModelConfig> {
    ModelConfig::from_json(&value.to_string())
}

/// Model a, with one key changed (or removed, for `None`).
fn with(key: &str, value: Option<Value>) -> Result<ModelConfig> {
    let mut json: Value = serde_json::from_str(&read("a_mha_untied")).unwrap();
    match value {
        Some(value) => json[key] = value,
        None => drop(json.as_object_mut().unwrap().shift_remove(key)),
    }
    parse(&json)
}

/// A golden model with the keys of an object in addition; those that are null are removed.
fn and(model: &str, keys: Value) -> Result<ModelConfig> {
    let mut json: Value = serde_json::from_str(&read(model)).unwrap();
    for (key, value) in keys.as_object().unwrap() {
        match value {
            Value::Null => drop(json.as_object_mut().unwrap().shift_remove(key)),
            value => json[key] = value.clone(),
        }
    }
    parse(&json)
}

const LLADA: &str = "a_mha_untied";
const ILLADA: &str = "e_illada_llama_naming";

fn model_a() -> ModelConfig {
    ModelConfig {
        max_sequence_length: 256,
        tokens: SpecialTokens {
            mask: Some(301),
            eos: Some(305),
            pad: Some(305),
            ..SpecialTokens::default()
        },
        ..ModelConfig::llada(64, 2, 4, 160, 320)
    }
}

#[test]
fn the_configs_have_their_values() {
    let get = |model: &str| ModelConfig::from_json(&read(model)).unwrap();
    let tokens = |mask, eos| SpecialTokens {
        mask: Some(mask),
        eos: Some(eos),
        pad: Some(eos),
        ..SpecialTokens::default()
    };
    assert_eq!(get("a_mha_untied"), model_a());
    assert_eq!(get("c_a_bf16_sharded"), model_a());
    let b = ModelConfig {
        d_model: 48,
        n_layers: 3,
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 8,
        rotary_dim: 8,
        mlp_hidden_size: 112,
        vocab_size: 300,
        embedding_size: 384,
        rope_theta: 10000.0,
        weight_tying: true,
        tokens: tokens(299, 290),
        ..model_a()
    };
    assert_eq!(get("b_gqa_tied"), b);
    let d = ModelConfig {
        d_model: 32,
        n_kv_heads: 2,
        head_dim: 8,
        rotary_dim: 8,
        mlp_hidden_size: 72,
        vocab_size: 160,
        embedding_size: 160,
        max_sequence_length: 128,
        rms_norm_eps: 1e-6,
        qkv_bias: true,
        qk_norm: QkNorm::Whole,
        tokens: tokens(159, 150),
        ..model_a()
    };
    assert_eq!(get("d_qkvbias_qknorm"), d);
    let e = ModelConfig {
        family: Family::Illada,
        d_model: 48,
        n_heads: 6,
        n_kv_heads: 2,
        head_dim: 8,
        rotary_dim: 8,
        mlp_hidden_size: 112,
        vocab_size: 200,
        embedding_size: 200,
        rms_norm_eps: 1e-6,
        weight_tying: true,
        tokens: SpecialTokens::default(),
        ..model_a()
    };
    assert_eq!(get("e_illada_llama_naming"), e);
}

#[test]
fn the_families_differ_in_data() {
    let get = |model: &str| ModelConfig::from_json(&read(model)).unwrap();
    let f = get("f_llada_moe");
    assert_eq!((f.family, f.qk_norm, f.rotary_dim), (Family::LladaMoe, QkNorm::PerHead, 8));
    assert_eq!((f.attention, f.shift), (AttentionMask::Bidirectional, LogitShift::Same));
    let softmax = Router {
        score: Score::Softmax,
        bias: RouterBias::None,
        groups: 1,
        groups_per_token: 1,
        normalise: false,
        scale: 1.0,
    };
    let experts = Experts {
        count: 8,
        per_token: 2,
        hidden_size: 24,
        shared_hidden_size: 0,
        router: softmax,
        layers: vec![true; 2],
    };
    assert_eq!(f.experts, Some(experts.clone()));
    let g = get("g_dream");
    assert_eq!((g.family, g.shift, g.qkv_bias), (Family::Dream, LogitShift::Next, true));
    assert_eq!(g.attention, AttentionMask::Bidirectional);
    let h = get("h_llada2_moe");
    let blocks = |block_length| AttentionMask::BlockCausal { block_length };
    assert_eq!((h.attention, h.head_dim, h.rotary_dim), (blocks(32), 16, 8));
    let router = Router {
        score: Score::Sigmoid,
        bias: RouterBias::Selection,
        groups: 4,
        groups_per_token: 2,
        normalise: true,
        scale: 2.5,
    };
    let layers = vec![false, true, true];
    assert_eq!(h.experts, Some(Experts { shared_hidden_size: 24, router, layers, ..experts }));
    let i = get("i_sdar");
    assert_eq!((i.attention, i.q_dim(), i.d_model), (blocks(4), 64, 48));
    let j = get("j_fast_dllm_v2");
    assert_eq!((j.attention, j.shift, j.qkv_bias), (blocks(8), LogitShift::Next, true));
    // The released files do not name the mask, and have a key of their training.
    let released = json!({"bd_size": 32, "conplemenrary_mask": true, "mask_token_id": null});
    let released = and("j_fast_dllm_v2", released).unwrap();
    assert_eq!((released.attention, released.tokens.mask), (blocks(32), None));
}

/// What a router cannot do is refused by the key that asks for it.
#[test]
fn experts_must_fit_each_other() {
    for (key, value) in [
        ("num_experts_per_tok", json!(9)),
        ("num_experts_per_tok", json!(0)),
        ("num_experts", json!(0)),
        ("n_group", json!(3)),
        ("n_group", json!(8)),
        ("topk_group", json!(5)),
        ("routed_scaling_factor", json!(0.0)),
        ("score_function", json!("softmax")),
        ("norm_topk_prob", json!(false)),
        ("partial_rotary_factor", json!(0.4)),
        ("use_qkv_bias", json!(true)),
    ] {
        let error = and("h_llada2_moe", json!({key: value})).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    }
    for (key, value) in [
        ("moe_layer_freq", json!([1])),
        ("moe_layer_freq", json!([1, 2])),
        ("norm_topk_prob", json!(true)),
        ("moe_router_score_function", json!("sigmoid")),
        ("routed_scaling_factor", json!(2.0)),
    ] {
        let error = and("f_llada_moe", json!({key: value})).unwrap_err().to_string();
        assert!(error.contains(&format!("`{key}`")), "{key}: {error}");
    }
}

#[test]
fn other_architectures_are_refused_by_name() {
    for name in ["LlamaForCausalLM", "LLaDAModel", "DreamForCausalLM", "Qwen3ForCausalLM"] {
        let error = and(ILLADA, json!({"architectures": [name]})).unwrap_err();
        assert_eq!(error.to_string(), format!("unknown architecture `{name}`"));
        let hint = error.hint().unwrap();
        assert!(Family::ALL.iter().all(|family| hint.contains(family.class())), "{hint}");
    }
    let none = ModelConfig::from_json("{}").unwrap_err();
    assert!(matches!(none, ConfigError::Architecture(_)), "{none}");
}

#[test]
fn what_is_written_is_read_back() {
    let config = |golden: Golden| {
        let text = std::fs::read_to_string(golden.folder().join("config.json")).unwrap();
        ModelConfig::from_json(&text).unwrap()
    };
    let mut configs: Vec<_> = golden::MODELS.into_iter().map(config).collect();
    let tokens =
        SpecialTokens { mask: Some(1), eos: Some(2), eot: Some(3), bos: Some(4), pad: Some(5) };
    let scaled = ModelConfig { scale_logits: true, input_emb_norm: true, tokens, ..model_a() };
    configs.push(scaled.with_objective(Objective::Autoregressive));
    for config in configs {
        assert_eq!(parse(&config.to_json()).unwrap(), config);
    }
}

#[test]
fn single_precision_numbers_are_written_short() {
    let text = model_a().to_json().to_string();
    assert!(text.contains(r#""rms_norm_eps":0.00001,"#), "{text}");
    assert!(text.contains(r#""rope_theta":500000.0"#), "{text}");
}

#[test]
fn optional_keys_have_the_reference_s_meaning() {
    assert_eq!(with("n_kv_heads", None).unwrap().n_kv_heads, 4);
    assert_eq!(with("n_kv_heads", Some(Value::Null)).unwrap().n_kv_heads, 4);
    assert_eq!(with("mlp_hidden_size", Some(Value::Null)).unwrap().mlp_hidden_size, 256);
    assert_eq!(with("embedding_size", Some(Value::Null)).unwrap().embedding_size, 320);
    assert_eq!(with("eos_token_id", Some(json!([7, 8]))).unwrap().tokens.eos, Some(7));
    assert_eq!(with("architectures", None).unwrap(), model_a());
    let mut multi_query: Value = serde_json::from_str(&read("a_mha_untied")).unwrap();
    multi_query["n_kv_heads"] = Value::Null;
    multi_query["multi_query_attention"] = json!(true);
    assert_eq!(parse(&multi_query).unwrap().n_kv_heads, 1);
}

#[test]
fn hostile_configs_are_errors_that_name_the_key() {
    let hostile = [
        ("d_model", json!(0)),
        ("d_model", json!(-64)),
        ("d_model", json!(63)),
        ("d_model", json!(1u64 << 60)),
        ("d_model", json!(64.5)),
        ("d_model", json!("64")),
        ("d_model", json!(4)),
        ("n_layers", json!(0)),
        ("n_layers", json!(1_000_000)),
        ("n_heads", json!(0)),
        ("n_heads", json!(128)),
        ("n_kv_heads", json!(0)),
        ("n_kv_heads", json!(3)),
        ("n_kv_heads", json!(8)),
        ("mlp_hidden_size", json!(0)),
        ("vocab_size", json!(0)),
        ("embedding_size", json!(319)),
        ("embedding_size", json!(u64::MAX)),
        ("max_sequence_length", json!(0)),
        ("rms_norm_eps", json!(0)),
        ("rms_norm_eps", json!(-1e-5)),
        ("rms_norm_eps", json!(1e300)),
        ("rms_norm_eps", json!("small")),
        ("rope_theta", json!(0)),
        ("rope_theta", json!([])),
        ("weight_tying", json!(1)),
        ("mask_token_id", json!(320)),
        ("mask_token_id", json!(-1)),
        ("eos_token_id", json!(1u64 << 40)),
        ("eot_token_id", json!(320)),
        ("activation_type", json!("gelu")),
        ("block_type", json!("sequential")),
        ("layer_norm_type", json!("default")),
        ("rope", json!(false)),
        ("alibi", json!(true)),
        ("include_bias", json!(true)),
        ("block_group_size", json!(2)),
        ("rope_scaling", json!({"type": "yarn"})),
        ("objective", json!("both")),
    ];
    for (key, value) in hostile {
        let error = with(key, Some(value.clone())).expect_err(&format!("{key}: {value}"));
        let named = error.to_string();
        // A width of 4 for 4 heads is blamed on the width, 128 heads on it too.
        let blamed = if key == "n_heads" && value == json!(128) { "d_model" } else { key };
        assert!(named.contains(blamed), "{key}: {value}: {named}");
        assert!(error.hint().is_some());
    }
    for key in ["d_model", "n_layers", "n_heads", "vocab_size", "rope_theta", "weight_tying"] {
        let error = with(key, None).unwrap_err();
        assert_eq!(error.to_string(), format!("`config.json` has no `{key}`"));
    }
}

#[test]
fn what_is_not_an_object_is_an_error() {
    let deep = "[".repeat(100_000);
    let nested = format!("{{\"a\":{deep}");
    for text in ["", "null", "[]", "3", "{", "{\"d_model\": nan}", deep.as_str(), nested.as_str()] {
        let error = ModelConfig::from_json(text).unwrap_err();
        assert!(matches!(error, ConfigError::Json(_)), "{error}");
    }
}

#[test]
fn numbers_that_are_none_matter_where_they_are_read_only() {
    let and = |keys: &str| ModelConfig::from_json(&read(LLADA).replacen('{', keys, 1));
    let unread = r#"{"initial_loss": NaN, "x": [Infinity, -Infinity, 1e999],"#;
    assert_eq!(and(unread).unwrap(), model_a());
    for (keys, blamed) in [
        (r#"{"eot_token_id": NaN,"#, "`eot_token_id` is `\"NaN\"`"),
        (r#"{"embedding_multiplier": Infinity,"#, "`embedding_multiplier` is `\"Infinity\"`"),
        (r#"{"rope_scaling": NaN,"#, "`rope_scaling` is `\"NaN\"`"),
    ] {
        let error = and(keys).unwrap_err().to_string();
        assert!(error.contains(blamed), "{error}");
    }
}
