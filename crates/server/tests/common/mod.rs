//! A server of a shipped model, and ways to ask it.
#![allow(dead_code, reason = "no test uses all of it")]

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use llada_kernels::Cpu;
use llada_server::Options;
use serde_json::Value;
use tokio::sync::oneshot;

/// The folder of a shipped model.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models").join(name)
}

/// The chat model for longer sequences than it was trained on, which is good enough for their form.
pub(crate) fn longer() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("long");
    std::fs::create_dir(&place).unwrap();
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model("storyteller-chat").join(file), place.join(file)).unwrap();
    }
    let config = std::fs::read_to_string(model("storyteller-chat").join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["max_sequence_length"] = 1024.into();
    std::fs::write(place.join("config.json"), config.to_string()).unwrap();
    (dir, place)
}

/// A server that runs until it is dropped.
pub(crate) struct Server {
    /// Where it listens: `http://127.0.0.1:PORT`, or `unix:PATH`.
    pub(crate) place: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), llada_server::ServeError>>>,
    agent: ureq::Agent,
}

/// An answer: its status, its headers and its text.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The JSON that it is.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The object of a stream's events, each with its name.
    pub(crate) fn events(&self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        for event in self.text.split("\n\n") {
            let field = |name: &str| {
                event
                    .lines()
                    .filter_map(|line| line.strip_prefix(name))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            let data = field("data: ");
            if !data.is_empty() && data != "[DONE]" {
                events.push((field("event: "), serde_json::from_str(&data).expect(&data)));
            }
        }
        events
    }

    /// The status, or what the error says where it is another.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }
}

impl Server {
    /// Serves the shipped chat model, with these options but for the port.
    pub(crate) fn start(options: Options) -> Self {
        Self::of(options, vec![("storyteller-chat".into(), model("storyteller-chat"))])
    }

    /// Serves these models.
    pub(crate) fn of(options: Options, models: Vec<(String, PathBuf)>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (told, place) = mpsc::channel();
        let options = Options { port: 0, ..options };
        let thread = thread::spawn(move || {
            let listening = move |place: &str| told.send(place.to_owned()).unwrap();
            let stop = async {
                _ = stopped.await;
            };
            llada_server::serve(options, models, Cpu::new(2).unwrap(), listening, stop)
        });
        let place = place.recv_timeout(Duration::from_secs(60)).expect("it listens");
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let server = Self { place, stop: Some(stop), thread: Some(thread), agent };
        if server.place.starts_with("http") {
            while server.get("/health").status == 503 {
                thread::sleep(Duration::from_millis(20));
            }
        }
        server
    }

    fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let mut response = response.expect("an answer");
        let text =
            response.body_mut().with_config().limit(64 << 20).read_to_string().expect("a text");
        Answer { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    /// Begins its end.
    pub(crate) fn tell_to_stop(&mut self) {
        _ = self.stop.take().map(|stop| stop.send(()));
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        Self::answer(self.agent.get(format!("{}{path}", self.place)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, &body.to_string(), &[])
    }

    pub(crate) fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.place));
        let request = headers.iter().fold(request, |r, (name, value)| r.header(*name, *value));
        Self::answer(request.header("content-type", "application/json").send(body))
    }

    /// What a connection gets that sends just these bytes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A server that closes early resets what it did not read.
        _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A connection.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.place.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Tells it to end, and waits until it has.
    pub(crate) fn stop(&mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic").expect("a good end");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
