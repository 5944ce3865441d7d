//! `/v1/models`, and `/v1/embeddings`, which a mask predictor has not.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use serde_json::{Value, json};

use crate::{
    app::{App, Shared},
    error::{ApiError, ApiResult},
};

fn object(app: &App, name: &str) -> Value {
    let model = app.models.peek(Some(name)).ok().flatten();
    let mut object = json!({
        "id": name,
        "object": "model",
        "created": app.started,
        "owned_by": "llada",
        "loaded": model.is_some(),
    });
    if let Some(model) = model {
        let config = model.codec.config();
        object["max_model_len"] = config.max_sequence_length.into();
        object["parameters"] = config.parameters().into();
        object["chat"] = model.is_for_chat.into();
    }
    object
}

/// The models that can be asked.
pub(crate) async fn list(State(app): State<Shared>) -> Json<Value> {
    let models: Vec<Value> = app.models.names().map(|name| object(&app, name)).collect();
    Json(json!({ "object": "list", "data": models }))
}

/// One of them.
pub(crate) async fn one(
    State(app): State<Shared>,
    name: Result<Path<String>, PathRejection>,
) -> ApiResult<Json<Value>> {
    let Path(name) = name?;
    match app.models.names().any(|known| known == name) {
        true => Ok(Json(object(&app, &name))),
        false => {
            let name: String = name.chars().take(200).collect();
            let message = format!("there is no model `{name}` here");
            Err(ApiError::new(StatusCode::NOT_FOUND, message).coded("model_not_found"))
        }
    }
}

/// Says that there are none.
pub(crate) async fn embeddings() -> ApiError {
    let message = "these models predict masked tokens and have no embeddings of texts; use a model made for them";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message).coded("not_supported")
}
