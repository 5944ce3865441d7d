use serde_json::json;

use super::*;

/// A configuration as PEFT 0.21 writes it, with some keys changed.
fn read(changes: Value) -> Result<Settings, Wrong> {
    let mut config = json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
        "auto_mapping": null, "base_model_name_or_path": "base", "bias": "none",
        "corda_config": null, "ensure_weight_tying": false, "eva_config": null,
        "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "kasa_config": null, "layer_replication": null,
        "layers_pattern": null, "layers_to_transform": null, "loftq_config": {},
        "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.05, "lora_ga_config": null,
        "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2",
        "qalora_group_size": 16, "r": 8, "rank_pattern": {}, "revision": null,
        "target_modules": ["q_proj", "ff_out"], "target_parameters": null,
        "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null,
        "use_dora": false, "use_qalora": false, "use_rslora": false, "velora_config": null
    });
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Settings::read(config.as_object().unwrap())
}

const Q0: &str = "model.transformer.blocks.0.q_proj";
const V11: &str = "model.transformer.blocks.11.v_proj";
const DOWN1: &str = "model.transformer.blocks.1.ff_out";
const HEAD: &str = "model.transformer.ff_out";

/// Which of these four modules are adapted.
fn adapted(changes: Value) -> [bool; 4] {
    let settings = read(changes.clone()).unwrap_or_else(|e| panic!("{changes}: {e}"));
    [Q0, V11, DOWN1, HEAD].map(|path| settings.adapts(path, path != HEAD).unwrap())
}

#[test]
fn modules_are_chosen_as_peft_does() {
    let targets = |value: Value| adapted(json!({ "target_modules": value }));
    // Values from `peft.tuners.tuners_utils.check_target_module_exists`.
    assert_eq!(adapted(json!({})), [true, false, true, true]);
    assert_eq!(targets(json!(["proj"])), [false; 4], "names end after a dot");
    assert_eq!(targets(json!(["blocks.0.q_proj", HEAD])), [true, false, false, true]);
    assert_eq!(targets(json!([""])), [false; 4]);
    assert_eq!(targets(json!("all-linear")), [true, true, true, false]);
    assert_eq!(targets(json!("ALL-linear")), [true, true, true, false]);
    assert_eq!(targets(json!("q_proj")), [false; 4], "the whole path must match");
    assert_eq!(targets(json!(".*q_proj")), [true, false, false, false]);
    assert_eq!(targets(json!(r".*\.(q_proj|v_proj)")), [true, true, false, false]);
    assert_eq!(targets(json!(r".*blocks\.(?!1\.).*")), [true, true, false, false]);
    assert_eq!(
        targets(json!(r".*\.[01]\..*|model\.transformer\.ff_out")),
        [true, false, true, true]
    );
    let excluding =
        |value: Value| adapted(json!({"target_modules": "all-linear", "exclude_modules": value}));
    assert_eq!(excluding(json!(["ff_out", Q0])), [false, true, false, false]);
    assert_eq!(excluding(json!(".*_proj")), [false, false, true, false]);
    assert_eq!(excluding(json!("all-linear")), [true, true, true, false]);
    assert_eq!(excluding(json!([])), [true, true, true, false]);
    let names = ["q_proj", "v_proj", "ff_out"];
    let layers = |layers: Value, pattern: Value| {
        let keys = json!({
            "target_modules": names, "layers_to_transform": layers, "layers_pattern": pattern
        });
        adapted(keys)
    };
    assert_eq!(layers(json!(1), json!(null)), [false, false, true, false]);
    assert_eq!(layers(json!([0, 11]), json!(null)), [true, true, false, false]);
    assert_eq!(layers(json!([0, 1]), json!("blocks")), [true, false, true, false]);
    assert_eq!(layers(json!([0, 1]), json!(["layers", "blocks"])), [true, false, true, false]);
    assert_eq!(layers(json!([0]), json!("layers")), [false; 4]);
    assert_eq!(layers(json!([]), json!(null)), [true; 4]);
    let whole = json!({"target_modules": [Q0, "v_proj"], "layers_to_transform": [5]});
    assert_eq!(adapted(whole), [true, false, false, false], "a whole path counts in any layer");
}

#[test]
fn rank_and_alpha_are_those_of_the_first_pattern_that_fits() {
    let settings = read(json!({
        "rank_pattern": {"q_proj": 4, r"blocks\.0\..*": 2, "^model.transformer.blocks.1.ff_out": 3},
        "alpha_pattern": {"0.q_proj|v_proj": 1.5, "q_proj": 7, "proj": 9},
        "use_rslora": true
    }));
    let settings = settings.unwrap();
    // Values from `peft.utils.other.get_pattern_key`.
    assert_eq!(settings.of(Q0).unwrap(), (4, 1.5));
    assert_eq!(settings.of("model.transformer.blocks.0.k_proj").unwrap(), (2, 16.0));
    assert_eq!(settings.of(V11).unwrap(), (8, 1.5));
    assert_eq!(settings.of(DOWN1).unwrap(), (3, 16.0), "an anchor holds where the path begins");
    assert!(settings.rank_stabilized);
}

#[test]
fn what_changes_the_model_otherwise_is_refused_by_name() {
    for (key, value) in [
        ("peft_type", json!("ADALORA")),
        ("peft_type", json!("lora")),
        ("peft_type", json!(null)),
        ("r", json!(0)),
        ("r", json!(2.5)),
        ("r", json!(null)),
        ("lora_alpha", json!("16")),
        ("lora_alpha", json!(null)),
        ("rank_pattern", json!({"q_proj": 0})),
        ("rank_pattern", json!({"q_proj": "4"})),
        ("rank_pattern", json!(["q_proj"])),
        ("rank_pattern", json!({"q_proj(": 4})),
        ("alpha_pattern", json!({"q_proj": null})),
        ("alpha_pattern", json!({"*": 4})),
        ("use_rslora", json!("yes")),
        ("target_modules", json!(null)),
        ("target_modules", json!(5)),
        ("target_modules", json!([1])),
        ("target_modules", json!("a)|(b")),
        ("exclude_modules", json!("(")),
        ("layers_to_transform", json!(-1)),
        ("layers_to_transform", json!(["a"])),
        ("layers_pattern", json!("blocks")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("PiSSA")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("OLoRA")),
        ("init_lora_weights", json!("lora_ga")),
        ("init_lora_weights", json!("LoRA_GA")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("something_new")),
        ("init_lora_weights", json!(1)),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["wte"])),
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("use_qalora", json!(true)),
        ("use_bdlora", json!({"nblocks": 2})),
        ("alora_invocation_tokens", json!([65, 66])),
        ("layer_replication", json!([[0, 2], [1, 3]])),
        ("trainable_token_indices", json!([1])),
        ("target_parameters", json!(["experts.down_proj"])),
        ("megatron_config", json!({"a": 1})),
        ("arrow_config", json!({"top_k": 3})),
        ("kasa_config", json!({"beta": 1.0})),
        ("monteclora_config", json!({"num_samples": 8})),
        ("ensure_weight_tying", json!(true)),
        ("of_a_later_version", json!(true)),
        ("of_a_later_version", json!(0.5)),
        ("of_a_later_version", json!("fast")),
        ("of_a_later_version", json!({"a": 1})),
    ] {
        let error = read(json!({ key: value })).expect_err(&format!("{key}: {value}"));
        assert!(error.contains(&format!("`{key}")), "{key}: {error}");
    }
    let error = read(json!({"target_modules": "q.*", "layers_to_transform": [0]})).unwrap_err();
    assert!(error.contains("`layers_to_transform`"), "{error}");
    // A pattern that never ends is given up.
    let settings = read(json!({"target_modules": r"(?:(?=m)(?:[a-z._]*)*)*\d!"})).unwrap();
    assert!(settings.adapts(&"a".repeat(200), true).map_or_else(|e| e.contains("matched"), |m| !m));
}

#[test]
fn what_leaves_the_model_alone_is_accepted() {
    for (key, value) in [
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("Gaussian")),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!("orthogonal")),
        ("init_lora_weights", json!("mica")),
        ("eva_config", json!({"rho": 2.0})),
        ("auto_mapping", json!({"base_model_class": "LLaDAModelLM"})),
        ("revision", json!("main")),
        ("lora_alpha", json!(0.5)),
        ("of_a_later_version", json!(null)),
        ("of_a_later_version", json!(false)),
        ("of_a_later_version", json!([])),
        ("alora_invocation_tokens", json!([])),
        ("rank_pattern", json!(null)),
        ("bias", json!("none")),
    ] {
        assert!(!read(json!({ key: value })).unwrap().starts_random, "{key}: {value}");
    }
    assert!(read(json!({"init_lora_weights": false})).unwrap().starts_random);
}
