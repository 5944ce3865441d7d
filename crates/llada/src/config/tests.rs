use serde_json::{Value, json};

use super::*;
use crate::checkpoint::tests::{golden, own};

/// The configuration of one of the models that are here.
fn read(model: &str) -> String {
    std::fs::read_to_string(own(model).join("config.json")).unwrap()
}

/// That of a golden model, of which a test knows the name only.
fn golden_config(model: &str) -> ModelConfig {
    let text = std::fs::read_to_string(golden(model).join("config.json")).unwrap();
    ModelConfig::from_json(&text).unwrap()
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
        groups_kept: 1,
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
        groups_kept: 2,
        normalise: true,
        scale: 2.5,
    };
    let layers = vec![false, true, true];
    assert_eq!(h.experts, Some(Experts { shared_hidden_size: 24, router, layers, ..experts }));
    let i = get("i_sdar");
    assert_eq!((i.attention, i.q_dim(), i.d_model), (blocks(4), 64, 48));
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
    let llada = ["a_mha_untied", "b_gqa_tied", "d_qkvbias_qknorm", "e_illada_llama_naming"];
    let others = ["f_llada_moe", "g_dream", "h_llada2_moe", "i_sdar"];
    let mut configs: Vec<_> = llada.into_iter().chain(others).map(golden_config).collect();
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

#[test]
fn the_base_of_the_angles_is_read_wherever_it_is_written() {
    for model in [LLADA, ILLADA] {
        for settings in [
            json!({"rope_theta": 20000.0}),
            json!({"rope_theta": 20000, "rope_type": "default"}),
            json!({"rope_theta": 20000.0, "type": "default", "factor": 1.0}),
            json!({"rope_theta": 20000.0, "rope_type": "linear", "factor": 1.0}),
            json!({"rope_theta": 20000.0, "partial_rotary_factor": 1.0, "factor": null}),
            json!({"rope_theta": 20000.0, "original_max_position_embeddings": 256}),
            json!({"full_attention": {"rope_theta": 20000.0, "rope_type": "default"}}),
            json!({"full_attention": {"rope_theta": 2e4}, "other": {"rope_theta": 20000}}),
        ] {
            let keys = json!({"rope_theta": null, "rope_parameters": settings.clone()});
            let config = and(model, keys).unwrap_or_else(|e| panic!("{settings}: {e}"));
            assert_eq!(config.rope_theta, 20000.0, "{settings}");
            let keys = json!({"rope_theta": null, "rope_scaling": settings});
            assert_eq!(and(model, keys).unwrap().rope_theta, 20000.0);
        }
        for nothing in [json!({}), json!({"rope_type": "default"}), json!({"type": "default"})] {
            let keys = json!({"rope_scaling": nothing.clone(), "rope_parameters": nothing});
            assert_eq!(and(model, keys).unwrap().rope_theta, 500000.0);
        }
        let missing = and(model, json!({"rope_theta": null, "rope_parameters": {}})).unwrap_err();
        assert_eq!(missing.to_string(), "`config.json` has no `rope_theta`");
    }
}

#[test]
fn scaled_rotary_positions_are_refused_by_name() {
    let base = json!({"rope_theta": 500000.0});
    let with = |more: Value| {
        let mut settings = base.clone();
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        settings
    };
    let settings = [
        (with(json!({"rope_type": "linear", "factor": 4.0})), "rope_type"),
        (with(json!({"type": "dynamic", "factor": 2.0})), "type"),
        (with(json!({"rope_type": "yarn", "factor": 1.0})), "rope_type"),
        (with(json!({"rope_type": "longrope", "short_factor": [1.0]})), "rope_type"),
        (with(json!({"rope_type": "llama3", "factor": 8.0})), "rope_type"),
        (with(json!({"rope_type": "proportional"})), "rope_type"),
        (with(json!({"rope_type": 3})), "rope_type"),
        (with(json!({"factor": 8.0})), "factor"),
        (with(json!({"partial_rotary_factor": 0.5})), "partial_rotary_factor"),
        (with(json!({"attention_factor": 1.2})), "attention_factor"),
        (with(json!({"beta_fast": 32})), "beta_fast"),
        (with(json!({"mrope_section": [8, 8]})), "mrope_section"),
        (
            with(json!({"original_max_position_embeddings": 128})),
            "original_max_position_embeddings",
        ),
        (json!({"full_attention": {"rope_type": "linear"}}), "full_attention.rope_type"),
        (json!({"full_attention": {"factor": 2}}), "full_attention.factor"),
        (json!({"full_attention": null}), "full_attention"),
        (json!({"full_attention": {"rope_theta": 1e4}}), "full_attention.rope_theta"),
        (json!({"rope_theta": 10000.0}), "rope_theta"),
        (json!({"rope_theta": "big"}), "rope_theta"),
    ];
    for model in [LLADA, ILLADA] {
        for key in ["rope_parameters", "rope_scaling"] {
            for (settings, blamed) in &settings {
                let error = and(model, json!({ key: settings })).expect_err(&settings.to_string());
                assert!(error.to_string().contains(&format!("`{key}.{blamed}`")), "{error}");
                assert!(error.hint().is_some());
            }
            for other in [json!("linear"), json!(2.0), json!([1])] {
                let error = and(model, json!({ key: other })).unwrap_err();
                assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
            }
        }
    }
}

#[test]
fn keys_that_would_change_the_numbers_are_refused_by_name() {
    let of_both = [
        ("rope_scaling_factor", json!(4.0)),
        ("rope_scaling_type", json!("linear")),
        ("rope_type", json!("yarn")),
        ("rope_ratio", json!(2)),
        ("rope_interleave", json!(true)),
        ("rope_local_base_freq", json!(10000.0)),
        ("use_rope", json!(false)),
        ("no_rope_layers", json!([1, 0])),
        ("partial_rotary_factor", json!(0.5)),
        ("rotary_pct", json!(0.25)),
        ("rotary_dim", json!(4)),
        ("original_max_position_embeddings", json!(128)),
        ("position_embedding_type", json!("alibi")),
        ("head_dim", json!(32)),
        ("sliding_window", json!(64)),
        ("attention_chunk_size", json!(64)),
        ("layer_types", json!(["full_attention", "sliding_attention"])),
        ("layer_types", json!(["full_attention", "linear_attention"])),
        ("attention_type", json!("local")),
        ("attention_bias", json!(true)),
        ("mlp_bias", json!(true)),
        ("qkv_bias", json!(true)),
        ("lm_head_bias", json!(true)),
        ("use_qk_norm", json!(true)),
        ("qk_layernorm", json!(true)),
        ("norm_after", json!(true)),
        ("norm_type", json!("layer_norm")),
        ("embedding_layer_norm", json!(true)),
        ("clip_qkv", json!(8.0)),
        ("alibi", json!(true)),
        ("is_causal", json!(true)),
        ("use_parallel_residual", json!(true)),
        ("parallel_attn", json!(true)),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("logits_soft_cap", json!(30.0)),
        ("logits_scaling", json!(8.0)),
        ("logit_scale", json!(0.0625)),
        ("scale_emb", json!(12)),
        ("scale_depth", json!(1.4)),
        ("embedding_multiplier", json!(12.0)),
        ("residual_multiplier", json!(0.22)),
        ("attention_multiplier", json!(0.0078125)),
        ("query_pre_attn_scalar", json!(256)),
        ("num_experts", json!(64)),
        ("num_local_experts", json!(8)),
        ("moe_intermediate_size", json!(512)),
        ("hidden_act", json!("gelu")),
        ("hidden_activation", json!("relu")),
        ("pruned_heads", json!({"0": [1]})),
        ("quantization_config", json!({"quant_method": "bitsandbytes", "load_in_4bit": true})),
        ("quantization_config", json!({"quant_method": "gptq", "bits": 4})),
        ("quantization", json!({"group_size": 64, "bits": 4})),
        ("compression_config", json!({"format": "pack-quantized"})),
        ("load_in_8bit", json!(true)),
        ("auto_map", json!({"AutoModelForCausalLM": "modeling_llada.LLaDAMoEModelLM"})),
    ];
    for model in [LLADA, ILLADA] {
        for (key, value) in &of_both {
            let error = and(model, json!({ *key: value })).expect_err(&format!("{key}: {value}"));
            assert!(error.to_string().contains(&format!("`{key}`")), "{key}: {error}");
            assert!(error.hint().is_some());
        }
    }
    let of_one = [
        (ILLADA, "scale_logits", json!(true)),
        (ILLADA, "input_emb_norm", json!(true)),
        (ILLADA, "attention_layer_norm", json!(true)),
        (ILLADA, "block_type", json!("parallel")),
        (ILLADA, "rope", json!(false)),
        (LLADA, "layer_norm_type", json!("gemma_rms")),
        (LLADA, "layer_norm_with_affine", json!(false)),
        (LLADA, "block_type", json!("sequential")),
        ("d_qkvbias_qknorm", "attention_layer_norm_with_affine", json!(false)),
    ];
    for (model, key, value) in of_one {
        let error = and(model, json!({ key: value })).expect_err(key);
        assert!(error.to_string().contains(&format!("`{key}`")), "{key}: {error}");
    }
}

#[test]
fn what_other_objects_say_of_the_computation_is_refused_by_its_path() {
    let scaled = json!({"rope_type": "yarn", "factor": 4.0});
    for (key, object, blamed) in [
        ("text_config", json!({"rope_scaling": scaled}), "rope_scaling.rope_type"),
        ("text_config", json!({"rope_parameters": {"factor": 2.0}}), "rope_parameters.factor"),
        ("text_config", json!({"rope_scaling": "linear"}), "rope_scaling"),
        ("text_config", json!({"rope_theta": 10000.0}), "rope_theta"),
        ("attn_config", json!({"rope": false}), "rope"),
        ("attn_config", json!({"alibi": true, "alibi_bias_max": 8}), "alibi"),
        ("attn_config", json!({"inner": {"useYarn": 1}}), "inner.useYarn"),
        ("model", json!({"layers": [{}, {"attention_bias": true}]}), "layers[1].attention_bias"),
        ("llm", json!({"hidden_act": "gelu"}), "hidden_act"),
    ] {
        for model in [LLADA, ILLADA] {
            let error = and(model, json!({ key: object })).expect_err(blamed);
            assert!(error.to_string().contains(&format!("`{key}.{blamed}`")), "{error}");
        }
    }
    let same = json!({
        "rope_theta": 500000, "rope_scaling": null, "rope_parameters": {"rope_type": "default"},
        "rope": true, "alibi": false, "alibi_bias_max": 8.0, "attention_bias": false,
        "temperature": 0.5, "inner": [{"use_yarn": false}, [1, 2]], "layer_norm_type": "rms",
    });
    for model in [LLADA, ILLADA] {
        let mut keys = json!({"text_config": same, "id2label": {"0": "bias"}});
        if model == ILLADA {
            keys["text_config"].as_object_mut().unwrap().shift_remove("layer_norm_type");
        }
        let plain = ModelConfig::from_json(&read(model)).unwrap();
        assert_eq!(and(model, keys).unwrap(), plain);
    }
}

#[test]
fn ways_to_reach_further_are_refused_unless_they_are_off() {
    for (key, on, off) in [
        ("use_dynamic_ntk", json!(true), json!(false)),
        ("use_dynamic_ntk", json!(1), json!(0)),
        ("ntk_alpha", json!(2.0), json!(1.0)),
        ("use_yarn", json!(true), json!(0)),
        ("useYarn", json!(1), json!(0)),
        ("yarn_factor", json!(4.0), json!(1)),
        ("yarn", json!({"factor": 4}), json!({})),
        ("yarn", json!(true), json!(null)),
        ("longrope", json!(1), json!(false)),
        ("long_factor", json!([1.0, 2.0]), json!([1.0, 1.0])),
        ("short_factor", json!([1.5]), json!([])),
        ("position_interpolation", json!(2.0), json!(0)),
        ("position_interpolation_factor", json!(0.5), json!(1.0)),
        ("mscale", json!(0.7), json!(1.0)),
        ("use_xpos", json!(true), json!(false)),
        ("nope_layers", json!([3]), json!([])),
        ("use_logn_attn", json!(true), json!(false)),
        ("logn", json!(true), json!(false)),
        ("use_rope_scaling", json!(1), json!(0)),
        ("positional_encoding", json!("sinusoidal"), json!("rope")),
        ("self_extend", json!({"group": 4}), json!(false)),
    ] {
        for model in [LLADA, ILLADA] {
            let error = and(model, json!({ key: on })).expect_err(key);
            assert!(error.to_string().contains(&format!("`{key}`")), "{error}");
            and(model, json!({ key: off })).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
    }
}

#[test]
fn keys_that_leave_the_numbers_alone_are_passed_over() {
    let harmless = json!({
        "rope_scaling_factor": 1.0, "rotary_pct": 1.0, "partial_rotary_factor": 1,
        "use_rope": true, "no_rope_layers": [1, 1], "original_max_position_embeddings": 256,
        "position_embedding_type": "rope", "sliding_window": 256, "use_sliding_window": true,
        "max_window_layers": 28, "layer_types": ["full_attention", "full_attention"],
        "attention_bias": false, "mlp_bias": false, "clip_qkv": {}, "alibi": false,
        "logit_scale": 1.0, "embedding_multiplier": 1, "num_experts": 0, "pruned_heads": {},
        "quantization_config": {}, "is_causal": false, "use_parallel_residual": false,
        "chunk_size_feed_forward": 0, "pretraining_tp": 2, "attention_dropout": 0.1,
        "initializer_range": 0.02, "init_scale": 2.0, "dtype": "bfloat16", "use_cache": true,
        "temperature": 0.7, "tensor_parallel_size": 2, "_attn_implementation": "sdpa",
        "id2label": {"0": "LABEL_0"}, "hidden_act": "silu", "layer_norm_eps": 1e-5,
    });
    for model in [LLADA, ILLADA] {
        let plain = ModelConfig::from_json(&read(model)).unwrap();
        assert_eq!(and(model, harmless.clone()).unwrap(), plain);
        let unused = json!({"sliding_window": 8, "use_sliding_window": false});
        assert_eq!(and(model, unused).unwrap(), plain);
    }
    let swish = and(ILLADA, json!({"hidden_act": "swish"})).unwrap();
    assert_eq!(swish, ModelConfig::from_json(&read(ILLADA)).unwrap());
    let nulls = ["alibi", "include_bias", "bias_for_layer_norm", "block_group_size", "clip_qkv"];
    for key in nulls {
        assert_eq!(with(key, Some(Value::Null)).unwrap(), model_a(), "{key}");
    }
    let mapped = json!({"AutoModelForCausalLM": "modeling_llada.LLaDAModelLM"});
    let keys = json!({"architectures": null, "model_type": null, "auto_map": mapped});
    assert_eq!(and(LLADA, keys).unwrap(), model_a());
    let causal = json!({"objective": "autoregressive", "is_causal": true});
    assert_eq!(and(LLADA, causal).unwrap().objective, Objective::Autoregressive);
}
