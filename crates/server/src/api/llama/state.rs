//! `/health`, `/props`, `/slots` and `/metrics`.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use llada::{
    config::{AttentionMask, Objective},
    diffusion::{
        Settings,
        settings::{Key, Kind},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    app::Shared,
    error::{ApiError, ApiResult},
    models,
};

/// Which model is asked about.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    model: Option<String>,
    /// Whether it is a failure that all slots are taken.
    fail_on_no_slot: Option<String>,
}

/// Whether the server answers.
pub(crate) async fn health(State(app): State<Shared>) -> ApiResult<Json<Value>> {
    app.check_ready()?;
    Ok(Json(json!({ "status": "ok" })))
}

/// What Prometheus reads.
pub(crate) async fn metrics(State(app): State<Shared>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], app.metrics.text()).into_response()
}

/// What the slots of a model do.
pub(crate) async fn slots(
    State(app): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
) -> ApiResult<Json<Value>> {
    let Query(which) = which?;
    // Whoever watches a model does not have it loaded.
    let slots = match app.models.peek(which.model.as_deref())? {
        Some(model) => model.runner.slots(),
        None => vec![None; app.options.parallel],
    };
    let is_asked = which.fail_on_no_slot.is_some_and(|flag| flag != "0");
    if is_asked && slots.iter().all(Option::is_some) {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no slot available"));
    }
    let told = slots.iter().enumerate().map(|(id, slot)| match slot {
        Some(slot) => {
            json!({ "id": id, "is_processing": true, "id_task": slot.work, "nfe": slot.nfe })
        }
        None => json!({ "id": id, "is_processing": false }),
    });
    Ok(Json(told.collect()))
}

/// What a model is, and all settings of the sampler with their ranges.
pub(crate) async fn props(
    State(app): State<Shared>,
    which: Result<Query<Which>, QueryRejection>,
) -> ApiResult<Json<Value>> {
    let Query(which) = which?;
    let model = app.models.get(which.model.as_deref()).await?;
    let codec = &model.codec;
    let config = codec.config();
    let usual = models::usual_sampler(codec, model.is_for_chat);
    let usual = usual.map_err(|error| ApiError::sampler(&error))?;
    let values = Settings { seed: None, ..Settings::of(&usual) }.to_json();
    let settings: Vec<Value> =
        Settings::KEYS.iter().map(|key| setting(key, values.get(key.name))).collect();
    let (attention, block) = match config.attention {
        AttentionMask::Bidirectional => ("bidirectional", None),
        AttentionMask::Causal => ("causal", None),
        AttentionMask::BlockCausal { block_length } => ("block-causal", Some(block_length)),
    };
    Ok(Json(json!({
        "model": model.name,
        // Its name, and no path of this machine.
        "model_path": model.path.file_name().map(|name| name.to_string_lossy()),
        "chat": model.is_for_chat,
        "mask": codec.special.mask,
        "eos": codec.special.eos,
        "eot": codec.special.eot,
        "max_sequence_length": config.max_sequence_length,
        "n_ctx": config.max_sequence_length,
        "parameters": config.parameters(),
        "attention": attention,
        "attention_block": block,
        "objective": match config.objective {
            Objective::Diffusion => "diffusion",
            Objective::Autoregressive => "autoregressive",
        },
        "infill": codec.special.mask.is_some() && config.attention == AttentionMask::Bidirectional,
        "total_slots": app.options.parallel,
        "default_generation_settings": values,
        "settings": settings,
        "build_info": concat!("llada ", env!("CARGO_PKG_VERSION")),
    })))
}

/// A setting as a page draws it.
fn setting(key: &Key, value: Option<&Value>) -> Value {
    let mut setting = json!({
        "name": key.name,
        "about": key.about(),
        "placeholder": key.placeholder,
        "default": key.default,
        "source": key.source,
        "group": key.group.title(),
        "frequent": key.is_frequent,
        "value": value,
    });
    match key.kind {
        Kind::Number(range) => {
            setting["kind"] = "number".into();
            setting["from"] = range.least.into();
            setting["to"] = range.most.into();
            setting["whole"] = range.is_whole.into();
            setting["above"] = range.is_above.into();
        }
        Kind::Seed => setting["kind"] = "seed".into(),
        Kind::Switch => setting["kind"] = "switch".into(),
        Kind::Name(names) => {
            setting["kind"] = "name".into();
            setting["values"] = names().into();
        }
    }
    setting
}
