//! What a config says of the computation that is not computed here is refused by name.

use super::*;

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
