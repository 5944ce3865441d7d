//! `/openapi.json`: the paths, with the schemas of what they take.

use axum::Json;
use llada::diffusion::{
    Settings,
    settings::{Key, Kind},
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::api::{anthropic, body::Fields, infill, llama, openai, score};

/// The description of all paths.
pub(crate) async fn document() -> Json<Value> {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        })
        .into_generator();
    let mut paths = Map::new();
    let mut post = |path: &str, about: &str, body: Value, stream: bool| {
        paths.insert(path.into(), json!({ "post": operation(about, Some(body), stream) }));
    };
    post(
        "/v1/chat/completions",
        "The next message of a conversation",
        body::<openai::chat::Chat>(&mut schemas),
        true,
    );
    post(
        "/v1/completions",
        "The continuation of a text",
        body::<openai::completions::Completion>(&mut schemas),
        true,
    );
    post(
        "/v1/fim/completions",
        "The text between two others",
        body::<openai::edits::Fim>(&mut schemas),
        true,
    );
    post(
        "/v1/edit/completions",
        "The new text of a region of code",
        body::<openai::edits::Edit>(&mut schemas),
        true,
    );
    post(
        "/v1/apply/completions",
        "A file with a snippet merged into it",
        body::<openai::edits::Edit>(&mut schemas),
        true,
    );
    post("/v1/infill", "A text with its holes filled", body::<infill::Infill>(&mut schemas), true);
    post("/v1/score", "How probable answers are", body::<score::Score>(&mut schemas), false);
    post(
        "/v1/messages",
        "The next message of a conversation, as Anthropic has it",
        body::<anthropic::Messages>(&mut schemas),
        true,
    );
    post(
        "/v1/messages/count_tokens",
        "The tokens of a conversation",
        body::<anthropic::Count>(&mut schemas),
        false,
    );
    post(
        "/completion",
        "The continuation of a text, as llama-server has it",
        body::<llama::completion::Completion>(&mut schemas),
        true,
    );
    post(
        "/infill",
        "The text between two others, as llama-server has it",
        body::<llama::completion::Infill>(&mut schemas),
        true,
    );
    post("/tokenize", "The tokens of a text", body::<llama::tokens::Tokenize>(&mut schemas), false);
    post(
        "/detokenize",
        "The text of tokens",
        body::<llama::tokens::Detokenize>(&mut schemas),
        false,
    );
    post(
        "/apply-template",
        "The text of a conversation",
        body::<llama::tokens::Apply>(&mut schemas),
        false,
    );
    for (path, about) in [
        ("/v1/models", "The models"),
        ("/health", "Whether the server answers"),
        ("/props", "The model, and all settings with their ranges"),
        ("/slots", "What runs"),
        ("/metrics", "Counts, for Prometheus"),
    ] {
        let mut operation = operation(about, None, false);
        if path == "/metrics" {
            let text =
                json!({ "application/openmetrics-text": { "schema": { "type": "string" } } });
            operation["responses"]["200"]["content"] = text;
        }
        paths.insert(path.into(), json!({ "get": operation }));
    }
    let schemas = Value::Object(schemas.take_definitions(true));
    Json(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "llada",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Masked-diffusion language models over HTTP.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "security": [{}, { "bearer": [] }],
        "components": {
            "schemas": schemas,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
        "paths": paths,
    }))
}

/// The schema of a body: the fields of an endpoint, and the settings beside them.
fn body<F: Fields>(schemas: &mut SchemaGenerator) -> Value {
    let mut schema = schemas.root_schema_for::<F>().to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("$defs");
        object.insert("additionalProperties".into(), false.into());
    }
    // What a root schema defines is defined for all.
    F::json_schema(schemas);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        if F::SETTINGS {
            properties.extend(Settings::KEYS.iter().map(|key| (key.name.to_owned(), setting(key))));
        }
        properties.extend(F::IGNORED.iter().map(|name| ((*name).to_owned(), ignored())));
    }
    schema
}

/// What is accepted and has no effect.
fn ignored() -> Value {
    json!({ "description": "Accepted, without effect", "deprecated": true })
}

fn setting(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Number(range) => {
            let kind = if range.is_whole { "integer" } else { "number" };
            let least = if range.is_above { "exclusiveMinimum" } else { "minimum" };
            json!({ "type": [kind, "null"], least: range.least, "maximum": range.most })
        }
        Kind::Seed => json!({ "type": ["integer", "null"] }),
        Kind::Switch => json!({ "type": ["boolean", "null"] }),
        Kind::Name(names) => json!({ "type": ["string", "null"], "examples": names() }),
    };
    schema["description"] = key.about().into();
    schema
}

fn operation(about: &str, body: Option<Value>, is_stream: bool) -> Value {
    let mut content = json!({ "application/json": { "schema": {} } });
    if is_stream {
        content["text/event-stream"] = json!({});
    }
    let mut responses = json!({ "200": { "description": "The answer", "content": content } });
    for (status, why) in [
        ("400", "The request is wrong"),
        ("401", "The API key is missing or wrong"),
        ("403", "The origin or the host is none of this server's"),
        ("404", "There is no such model"),
        ("408", "The body did not come in time"),
        ("413", "The body is too long"),
        ("422", "The model cannot give this answer"),
        ("429", "As many requests run and wait as may"),
        ("503", "The model is being loaded, or the server ends"),
        ("504", "The answer took too long"),
    ] {
        let error = json!({ "application/json": { "schema": { "type": "object", "required": ["error"] } } });
        responses[status] = json!({ "description": why, "content": error });
    }
    let mut operation = json!({ "summary": about, "responses": responses });
    if let Some(body) = body {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": body } } });
    }
    operation
}
