//! A server with OpenAI's API: where it is, who asks, and what it answers or why it does not.

use std::{
    io::BufReader,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use llada::{chat::Message, diffusion::Settings};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value, json};
use ureq::{
    Agent, Body, RequestBuilder,
    http::{Response, header},
};

use super::{
    events::Events,
    fault::{self, Fault},
};
use crate::{error::Failure, interrupt::Flag, web};

/// The longest silence of a server: a slow one may think for long before its first word.
const SILENCE: Duration = Duration::from_secs(600);

/// The longest time to wait for what a server says of itself.
const INTRODUCTION: Duration = Duration::from_secs(30);

/// Bytes of an answer that is not streamed, at most.
const LONGEST: u64 = 16 << 20;

/// Chunks that may wait to be taken.
const WAITING: usize = 64;

/// A server, and who asks it.
#[derive(Clone)]
pub(super) struct Server {
    agent: Agent,
    /// The address below which the paths of the API are.
    base: String,
    /// Its host and port, as people know it.
    host: String,
    key: Option<String>,
}

/// What a server of this program says of a model.
#[derive(Debug, Deserialize)]
pub(super) struct Props {
    pub(super) model: String,
    /// Whether it was tuned for conversations.
    pub(super) chat: bool,
    pub(super) max_sequence_length: usize,
    /// The settings that are made unless others are asked for.
    #[serde(rename = "default_generation_settings", deserialize_with = "known")]
    pub(super) usual: Settings,
    /// No other server has such a table.
    #[serde(rename = "settings")]
    _settings: Vec<IgnoredAny>,
}

/// Reads the settings that this program knows: the server may be newer.
fn known<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Settings, D::Error> {
    let mut settings = Settings::default();
    for (name, value) in Map::deserialize(deserializer)? {
        _ = settings.set_value(&name, &value);
    }
    Ok(settings)
}

impl Server {
    /// The server at `url`, which is its own address or that of its API.
    pub(super) fn new(url: &str, key: Option<&str>) -> Result<Self> {
        let Some((_, host, port)) = web::origin(url) else {
            let message = format!("`--url` is no address: `{url}`");
            return Err(Failure::usage(message, "`http://127.0.0.1:8080` is one").into());
        };
        let key = key.map(str::trim).filter(|key| !key.is_empty());
        if key.is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            let message = "the API key has characters that no key has";
            return Err(Failure::usage(message, "copy it again into LLADA_API_KEY").into());
        }
        let base = base(url);
        Ok(Self {
            agent: web::agent(SILENCE)?,
            base,
            host: format!("{host}:{port}"),
            key: key.map(str::to_owned),
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// What it says of a model, if it is a server of this program.
    pub(super) fn props(&self, model: Option<&str>) -> Result<Option<Props>, Fault> {
        let Some(root) = self.base.strip_suffix("/v1") else { return Ok(None) };
        let request = self.agent.get(format!("{root}/props"));
        let request = match model {
            Some(model) => request.query("model", model),
            None => request,
        };
        let config = request.config().timeout_global(Some(INTRODUCTION));
        match self.signed(config.build()).call() {
            Ok(response) if response.status().as_u16() == 503 => Err(self.refusal(response)),
            Ok(response) if response.status().is_success() => {
                let text = response.into_body().with_config().limit(LONGEST).read_to_string();
                Ok(text.ok().and_then(|text| serde_json::from_str(&text).ok()))
            }
            Ok(_) | Err(ureq::Error::Timeout(_)) => Ok(None),
            Err(error) => Err(fault::broken(&self.host, &error)),
        }
    }

    /// How many tokens `messages` are for a model of a server of this program.
    pub(super) fn count(&self, messages: &[Message], model: Option<&str>) -> Result<usize, Fault> {
        // This path is Anthropic's, where the system has a field of its own.
        let (system, messages) = match messages {
            [system, rest @ ..] if system.role == "system" => (Some(&system.content), rest),
            all => (None, all),
        };
        let request = json!({ "messages": messages, "system": system, "model": model });
        let response = self.post("messages/count_tokens", &request)?;
        let counted = self.json(response)?;
        let tokens = counted["input_tokens"].as_u64().and_then(|n| usize::try_from(n).ok());
        tokens.ok_or_else(|| fault::not_understood(&self.host, &counted.to_string()))
    }

    /// Asks for an answer, which is read on a thread of its own: nothing else lets Ctrl-C end a wait for
    /// bytes. Whoever drops the reply ends the request with the next bytes that come. `None` once `stop`
    /// is set.
    pub(super) fn ask(&self, request: &Value, stop: &Flag) -> Result<Option<Reply>, Fault> {
        let (news, taken) = mpsc::sync_channel(WAITING);
        let (server, request) = (self.clone(), request.clone());
        thread::spawn(move || {
            if let Err(fault) = server.read(&request, &news) {
                // Whoever has gone by now does not want to know.
                _ = news.send(Err(fault));
            }
        });
        let reply = Reply(taken);
        Ok(match reply.next(stop)? {
            News::Stopped => None,
            _ => Some(reply),
        })
    }

    /// Reads the reply to a request until nobody takes it.
    fn read(&self, request: &Value, news: &SyncSender<Result<News, Fault>>) -> Result<(), Fault> {
        let response = self.post("chat/completions", request)?;
        let kind = fault::content_type(&response);
        if news.send(Ok(News::Begun)).is_err() {
            return Ok(());
        }
        // What is no stream is an answer in one piece, or none.
        if kind != "text/event-stream" && !kind.is_empty() {
            let whole = self.json(response)?;
            _ = news.send(Ok(News::Chunk(whole))).and_then(|()| news.send(Ok(News::Done)));
            return Ok(());
        }
        for data in Events(BufReader::new(response.into_body().into_reader())) {
            let data = data.map_err(|error| fault::cut_off(&self.host, Some(&error)))?;
            let next = match data.trim() {
                "" => continue,
                "[DONE]" => News::Done,
                text => match serde_json::from_str(text) {
                    Ok(chunk) => News::Chunk(self.checked(chunk)?),
                    Err(_) => return Err(fault::not_understood(&self.host, &self.clean(text))),
                },
            };
            if news.send(Ok(next)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn post(&self, path: &str, request: &Value) -> Result<Response<Body>, Fault> {
        let post = self.agent.post(format!("{}/{path}", self.base));
        let post = self.signed(post).header(header::CONTENT_TYPE, "application/json");
        let response = post.send(request.to_string());
        let response = response.map_err(|error| fault::broken(&self.host, &error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(response)),
        }
    }

    /// The request with the key, which goes to the address that was given and, since redirections are not
    /// followed, nowhere else.
    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.key {
            Some(key) => request.header(header::AUTHORIZATION, format!("Bearer {key}")),
            None => request,
        }
    }

    /// The JSON of a response.
    fn json(&self, response: Response<Body>) -> Result<Value, Fault> {
        let text = response.into_body().with_config().limit(LONGEST).read_to_string();
        let text = text.map_err(|error| fault::broken(&self.host, &error))?;
        match serde_json::from_str(&text) {
            Ok(json) => self.checked(json),
            Err(_) => Err(fault::not_understood(&self.host, &self.clean(&text))),
        }
    }

    /// A piece of JSON that is not the end of an answer by an error.
    fn checked(&self, json: Value) -> Result<Value, Fault> {
        match json.get("error").is_some_and(|error| !error.is_null()) {
            true => {
                Err(fault::failed(&self.host, &fault::Said::of(&self.clean(&json.to_string()))))
            }
            false => Ok(json),
        }
    }

    /// What a status that says no means.
    fn refusal(&self, response: Response<Body>) -> Fault {
        let header = |name: header::HeaderName| {
            let value = response.headers().get(name);
            value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let status = response.status().as_u16();
        let wait = header(header::RETRY_AFTER);
        let wait = wait.and_then(|wait| web::retry_after(&wait, SystemTime::now()));
        let target = header(header::LOCATION).map(|target| self.clean(&target));
        let text = response.into_body().with_config().limit(LONGEST).read_to_string();
        let said = fault::Said::of(&self.clean(&text.unwrap_or_default()));
        let has_key = self.key.is_some();
        fault::Refusal { host: &self.host, status, wait, target, has_key, said }.fault()
    }

    /// What a server says, without the key, which some repeat.
    fn clean(&self, text: &str) -> String {
        match &self.key {
            Some(key) => text.replace(key.as_str(), "…"),
            None => text.to_owned(),
        }
    }
}

/// The address of the API: of a server without a path, `/v1`.
fn base(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let url = url.strip_suffix("/chat/completions").unwrap_or(url);
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    if has_path { url.to_owned() } else { format!("{url}/v1") }
}

/// What comes of a reply.
#[derive(Debug)]
pub(super) enum News {
    /// The server takes the request.
    Begun,
    /// A chunk of the answer.
    Chunk(Value),
    /// The server says that this was all.
    Done,
    /// The stream is over, and nothing said that this was all.
    Over,
    /// Nobody wants more of it.
    Stopped,
}

/// A reply on its way.
pub(super) struct Reply(Receiver<Result<News, Fault>>);

impl Reply {
    /// What comes next, or nothing more once `stop` is set.
    pub(super) fn next(&self, stop: &Flag) -> Result<News, Fault> {
        while !stop.is_set() {
            match self.0.recv_timeout(Duration::from_millis(20)) {
                Ok(news) => return news,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(News::Over),
            }
        }
        Ok(News::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_servers_or_of_apis() {
        for (url, expected) in [
            ("http://localhost:8080", "http://localhost:8080/v1"),
            ("http://localhost:8080/", "http://localhost:8080/v1"),
            ("http://localhost:8080/v1", "http://localhost:8080/v1"),
            ("https://a.org/api/v1/", "https://a.org/api/v1"),
            ("https://a.org/v1/chat/completions?x", "https://a.org/v1"),
        ] {
            assert_eq!(base(url), expected);
        }
        for wrong in ["localhost:8080", "ftp://a.org", "http://me:secret@a.org", ""] {
            assert!(Server::new(wrong, None).is_err(), "{wrong}");
        }
        assert!(Server::new("http://a.org", Some("two words")).is_err());
    }

    #[test]
    fn no_message_repeats_the_key() {
        let server = Server::new("http://a.org", Some(" sk-1 ")).unwrap();
        assert_eq!(server.clean("no key sk-1 here"), "no key … here");
    }
}
