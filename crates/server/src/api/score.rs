//! `/v1/score`: how probable a model finds answers.

use axum::{Json, extract::State};
use llada::diffusion::likelihood::{Alike, Greedy, Scoring, Settings};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    body::{Body, Fields},
    message::{self, ChatMessage},
};
use crate::{
    answer,
    app::Shared,
    error::{ApiError, ApiResult},
    task::Task,
};

/// Most noisy copies of a request, of all its answers together.
const MAX_SAMPLES: usize = 1 << 18;

/// Most answers of a request.
const MAX_PAIRS: usize = 1024;

/// Answers that are to be scored.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Score {
    /// The model; the first of the server where none is named.
    #[serde(default)]
    model: Option<String>,
    /// What comes before the answers.
    #[serde(default)]
    prompt: Option<String>,
    /// The same as a conversation.
    #[serde(default)]
    messages: Option<Vec<ChatMessage>>,
    /// The answers.
    answers: Vec<String>,
    /// Noisy copies of each answer; more are more precise.
    #[serde(default)]
    mc_num: Option<usize>,
    /// Noisy copies of one iteration.
    #[serde(default)]
    batch_size: Option<usize>,
    /// The guidance of Eq. 16.
    #[serde(default)]
    cfg_scale: Option<f32>,
    /// Seed of the noise.
    #[serde(default)]
    seed: Option<u64>,
    /// Whether to tell also if greedy decoding gives just the answer.
    #[serde(default)]
    greedy: bool,
}

impl Fields for Score {
    const SETTINGS: bool = false;
}

/// Scores answers.
pub(crate) async fn create(State(app): State<Shared>, body: Body<Score>) -> ApiResult<Json<Value>> {
    let fields = body.fields;
    if fields.answers.is_empty() || fields.answers.len() > MAX_PAIRS {
        let message = format!("there must be from 1 to {MAX_PAIRS} answers");
        return Err(ApiError::field("answers", message));
    }
    let usual = Settings::default();
    let usual = fields.mc_num.map_or(usual, Settings::with_samples);
    let settings = Settings {
        mc_num: usual.mc_num,
        batch_size: fields.batch_size.unwrap_or(usual.batch_size),
        cfg_scale: fields.cfg_scale.unwrap_or(usual.cfg_scale),
        seed: fields.seed.unwrap_or(usual.seed),
    };
    let most = MAX_SAMPLES / fields.answers.len();
    if settings.mc_num > most || settings.batch_size > most {
        let message = format!("mc_num and batch_size are at most {most} for so many answers");
        return Err(ApiError::field("mc_num", message));
    }
    let messages = fields.messages.map(message::messages).transpose()?;
    let model = app.models.get(fields.model.as_deref()).await?;
    let codec = &model.codec;
    let (mut scorings, mut greedy) = (Vec::new(), Vec::new());
    for answer in &fields.answers {
        let pair = match (&messages, &fields.prompt) {
            (Some(messages), None) => codec.chat_pair(messages, answer)?,
            (None, prompt) => codec.pair(prompt.as_deref().unwrap_or_default(), answer)?,
            (Some(_), Some(_)) => {
                let message = "`prompt` and `messages` both say what comes before; give one";
                return Err(ApiError::field("messages", message));
            }
        };
        let mut draws = Alike { seed: settings.seed };
        let number = scorings.len();
        let scoring =
            Scoring::new(codec.config(), &codec.special, &pair, &settings, number, &mut draws)?;
        scorings.push(Task::Scoring(Box::new(scoring)));
        if fields.greedy {
            let work = Greedy::new(codec.config(), &codec.special, &pair, settings.cfg_scale)?;
            greedy.push(Task::Greedy(Box::new(work)));
        }
    }
    let count = scorings.len();
    let tasks = scorings.into_iter().chain(greedy).collect();
    let done = answer::work(&app, &model, tasks).await?;
    let (scored, decoded) = done.split_at(count);
    let mut scores: Vec<Value> = scored.iter().map(score).collect();
    for (score, task) in scores.iter_mut().zip(decoded) {
        if let Task::Greedy(greedy) = task {
            score["is_greedy"] = greedy.verdict().into();
        }
    }
    Ok(Json(
        json!({ "object": "llada.score", "model": model.name, "seed": settings.seed, "scores": scores }),
    ))
}

fn score(task: &Task) -> Value {
    let estimate = match task {
        Task::Scoring(scoring) => scoring.estimate(),
        Task::Canvas(_) | Task::Greedy(_) | Task::Trial(_) => None,
    };
    estimate.map_or(Value::Null, |estimate| {
        json!({
            "log_likelihood": estimate.log_likelihood,
            "standard_error": estimate.standard_error,
            "samples": estimate.samples,
            "tokens": estimate.tokens,
        })
    })
}
