//! Chats with servers: ours, and others that fail.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::{llada, outcome};

/// A server that gives these answers to requests for messages, one after the other, and knows nothing
/// else.
struct Mock {
    url: String,
    /// The requests for messages, as they came.
    requests: Arc<Mutex<Vec<String>>>,
}

impl Mock {
    fn start(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            let mut answers = answers.into_iter();
            for stream in listener.incoming().flatten() {
                let request = read(&stream);
                let answer = match request.starts_with("POST /v1/chat/completions ") {
                    true => {
                        seen.lock().unwrap().push(request);
                        answers.next().unwrap()
                    }
                    false => response(404, "text/plain", "no"),
                };
                // A client that goes away is no failure of the server's.
                thread::spawn(move || write(stream, &answer));
            }
        });
        Self { url, requests }
    }

    /// The JSON of a request.
    fn request(&self, number: usize) -> Value {
        let request = &self.requests.lock().unwrap()[number];
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    }
}

fn read(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut text, mut length) = (String::new(), 0);
    loop {
        let begin = text.len();
        if reader.read_line(&mut text).unwrap() == 0 || text[begin..].trim().is_empty() {
            break;
        }
        let line = text[begin..].to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}

/// Writes an answer; at `<hang>` nothing more comes.
fn write(mut stream: TcpStream, answer: &str) {
    let (now, hangs) = match answer.split_once("<hang>") {
        Some((now, _)) => (now, true),
        None => (answer, false),
    };
    _ = stream.write_all(now.as_bytes());
    if hangs {
        thread::sleep(Duration::from_secs(600));
    }
}

fn response(status: u16, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// A stream of these texts, without an end.
fn begun(texts: &[&str]) -> String {
    let chunk = |text: &&str| {
        let choices = serde_json::json!([{ "index": 0, "delta": { "content": text } }]);
        format!("data: {}\n\n", serde_json::json!({ "choices": choices }))
    };
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    head.to_owned() + &texts.iter().map(chunk).collect::<String>()
}

/// A whole stream of these texts.
fn stream(texts: &[&str]) -> String {
    let end = r#"{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}"#;
    format!("{}data: {end}\n\ndata: [DONE]\n\n", begun(texts))
}

fn chat(dir: &Path, url: &str, flags: &[&str], input: &str) -> (i32, String, String) {
    let args = [&["chat", "--url", url], flags].concat();
    let mut command = llada(dir, &args);
    command.env_remove("LLADA_API_KEY").env_remove("HTTP_PROXY").env_remove("http_proxy");
    outcome(command.write_stdin(input).output().unwrap())
}

/// The messages that a chat saved.
fn saved(dir: &Path, name: &str) -> Vec<[String; 2]> {
    let text = std::fs::read_to_string(dir.join(name)).unwrap();
    let saved: Value = serde_json::from_str(&text).unwrap();
    let part = |message: &Value, key: &str| message[key].as_str().unwrap().to_owned();
    let messages = saved["messages"].as_array().unwrap();
    messages.iter().map(|m| [part(m, "role"), part(m, "content")]).collect()
}

#[cfg(feature = "serve")]
pub(crate) mod ours {
    use std::process::Child;

    use super::*;
    use crate::tuned;

    /// `llada serve` on a free port, until it is dropped.
    pub(crate) struct Served {
        process: Child,
        pub(crate) url: String,
    }

    impl Served {
        pub(crate) fn start(flags: &[&str]) -> Self {
            let mut command = Command::new(env!("CARGO_BIN_EXE_llada"));
            command.args(["serve", tuned(), "--port", "0", "--threads", "1"]).args(flags);
            command.env_remove("LLADA_API_KEY").env_remove("LLADA_LOG");
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let mut process = command.spawn().unwrap();
            let mut log = BufReader::new(process.stderr.take().unwrap());
            let mut url = None;
            while url.is_none() {
                let mut line = String::new();
                assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
                let place = line.split("listening at ").nth(1);
                url = place.and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
            }
            // Its log has to be read on, or it would wait for a reader.
            thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            Self { process, url: url.unwrap() }
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            self.process.kill().unwrap();
            self.process.wait().unwrap();
        }
    }

    #[test]
    fn a_server_answers_as_its_model_does_here() {
        let dir = tempfile::tempdir().unwrap();
        let server = Served::start(&[]);
        let flags = ["-n", "16", "--seed", "7", "--temperature", "1", "--system", "Be kind."];
        let input = "Hello\nWho are you?\n/retry\n/set temperature 0\n/undo\nWhat is a wolf?\n/show\n\
                     /save a.json\n";
        let local = [&["chat", tuned()], &flags[..]].concat();
        let (code, here, _) =
            outcome(llada(dir.path(), &local).write_stdin(input).output().unwrap());
        assert_eq!(code, 0);
        let messages = saved(dir.path(), "a.json");
        for url in [server.url.clone(), format!("{}/v1/", server.url)] {
            let (code, there, stderr) = chat(dir.path(), &url, &flags, input);
            assert_eq!((code, there.as_str()), (0, here.as_str()), "{stderr}");
            assert_eq!(saved(dir.path(), "a.json"), messages);
            for part in
                ["gen_length              16", "transfer ", "5 messages of ", "beside an answer"]
            {
                assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
            }
        }
        let (_, _, stderr) = chat(dir.path(), &server.url, &["-v", "-n", "16"], "Hello\n");
        assert!(stderr.contains(" NFE · ") && stderr.contains("112 left"), "{stderr}");
    }

    #[test]
    fn long_conversations_lose_their_oldest_turns() {
        let dir = tempfile::tempdir().unwrap();
        let server = Served::start(&[]);
        let line = "Once upon a time there was a king who had three sons.\n".repeat(4);
        let (code, _, stderr) = chat(dir.path(), &server.url, &["-n", "16"], &(line + "/show\n"));
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains("left out") && stderr.contains("8 messages of"), "{stderr}");
        let (code, _, stderr) =
            chat(dir.path(), &server.url, &["-n", "16"], &("word ".repeat(200) + "\nHi\n"));
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("say less"), "{stderr}");
    }

    #[test]
    fn the_key_goes_along_and_is_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let server = Served::start(&["--api-key", "sesame"]);
        let (code, stdout, stderr) = chat(dir.path(), &server.url, &[], "Hello\n");
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("(401)") && stderr.contains("LLADA_API_KEY"), "{stderr}");
        let flags = ["-v", "--api-key", "open"];
        let (code, _, stderr) = chat(dir.path(), &server.url, &flags, "Hello\n");
        assert_eq!(code, 1);
        assert!(stderr.contains("check the key") && !stderr.contains("open"), "{stderr}");
        let args = ["-v", "chat", "--url", &server.url, "-n", "16"];
        let mut command = llada(dir.path(), &args);
        command.env("LLADA_API_KEY", "sesame").env_remove("http_proxy");
        let (code, stdout, stderr) = outcome(command.write_stdin("Hello\n").output().unwrap());
        assert_eq!((code, stdout.is_empty()), (0, false), "{stderr}");
        assert!(!stderr.contains("sesame"), "{stderr}");
    }

    #[test]
    fn what_the_server_refuses_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let also = format!("other={}", crate::storyteller());
        let server = Served::start(&["--also", &also]);
        let (code, _, stderr) = chat(dir.path(), &server.url, &["--model", "gpt"], "Hello\n");
        assert_eq!(code, 1);
        assert!(stderr.contains("no model `gpt`") && stderr.contains("--model"), "{stderr}");
        let input = "/set reference dream\nHello\n/set reference default\nHello\n/save a.json\n";
        let (code, stdout, stderr) = chat(dir.path(), &server.url, &["-n", "16"], input);
        assert_eq!((code, stdout.lines().count()), (1, 1), "{stderr}");
        assert!(stderr.contains("(400)") && stderr.contains("1 of the lines"), "{stderr}");
        assert_eq!(saved(dir.path(), "a.json").len(), 2);
        let (code, _, stderr) =
            chat(dir.path(), &server.url, &["-m", "other", "-n", "16"], "Hello\n");
        assert_eq!(code, 0, "{stderr}");
        // The environment names a model of this machine.
        let mut command = llada(dir.path(), &["chat", "--url", &server.url, "-n", "16"]);
        command.env("LLADA_MODEL", "elsewhere");
        let (code, _, stderr) = outcome(command.write_stdin("Hello\n").output().unwrap());
        assert_eq!(code, 0, "{stderr}");
    }
}

#[test]
fn any_server_is_told_what_it_knows() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(vec![
        stream(&["", "  Hel", "lo \x1b[2J", " ", "you.", "\n"]),
        response(
            200,
            "application/json",
            r#"{"choices": [{"message": {"content": "Whole."}, "finish_reason": "stop"}]}"#,
        ),
    ]);
    let flags = ["-n", "9", "--model", "m-1", "--seed", "5", "--json-object", "--api-key", "k"];
    let input = "Hi\nAgain\n/show\n/save a.json\n";
    let (code, stdout, stderr) = chat(dir.path(), &mock.url, &flags, input);
    assert_eq!((code, stdout.as_str()), (0, "Hello \x1b[2J you.\nWhole.\n"), "{stderr}");
    assert!(stderr.contains("\n4 messages\n"), "{stderr}");
    let expected = serde_json::json!({
        "model": "m-1",
        "messages": [{ "role": "user", "content": "Hi" }],
        "max_tokens": 9,
        "seed": 5,
        "response_format": { "type": "json_object" },
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    assert_eq!(mock.request(0), expected);
    assert_eq!(mock.request(1)["messages"].as_array().unwrap().len(), 3);
    let head = mock.requests.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.contains("authorization: bearer k\r\n"), "{head}");
    assert_eq!(saved(dir.path(), "a.json")[1][1], "Hello \x1b[2J you.");
}

#[test]
fn whatever_fails_the_message_is_taken_back_and_the_chat_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let wait = |seconds: u32| {
        let error = r#"{"error": {"message": "slow down"}}"#;
        let retry = format!("Status\r\nretry-after: {seconds}\r\n");
        response(429, "application/json", error).replacen("Status\r\n", &retry, 1)
    };
    let error = "data: {\"error\": {\"message\": \"out of \\u001b[31m memory\"}}\n\n";
    let page = response(200, "text/html", "<!DOCTYPE html><p>Welcome");
    let moved =
        response(301, "text/plain", "").replacen("Status\r\n", "Status\r\nlocation: /v2\r\n", 1);
    for (answer, parts) in [
        (
            wait(3600),
            &["too many requests (429): slow down; it asks to wait 1h00m", "in 1h00m"][..],
        ),
        (begun(&["Half an"]) + error, &["fails: out of ␛[31m memory"]),
        (begun(&["Half an"]), &["broke off its answer"]),
        (begun(&["Half an"]) + "data: oh\n\n", &["answers with `oh`"]),
        (String::new(), &["cannot reach 127.0.0.1:"]),
        (page, &["a page for browsers", "/v1"]),
        (moved, &["elsewhere (301)", "`/v2`"]),
        (response(500, "text/plain", "oh"), &["fails (500): oh"]),
        (response(200, "application/json", ""), &["answers with nothing"]),
        ("nonsense\r\n\r\n".into(), &["cannot reach"]),
    ] {
        let mock = Mock::start(vec![answer, stream(&["Fine."])]);
        let input = "Lost\nHello\n/save a.json\n";
        let (code, stdout, stderr) = chat(dir.path(), &mock.url, &[], input);
        assert_eq!((code, stdout.ends_with("Fine.\n")), (1, true), "{stdout}{stderr}");
        assert!(["", "Half an\n"].contains(&stdout.trim_end_matches("Fine.\n")), "{stdout}");
        for part in parts {
            assert!(stderr.contains(part), "{part} is missing in\n{stderr}");
        }
        assert!(stderr.contains("\n  hint: "), "{stderr}");
        let messages = saved(dir.path(), "a.json");
        assert_eq!(messages, [["user", "Hello"], ["assistant", "Fine."]]);
    }
    let mock = Mock::start(vec![wait(1), stream(&["Fine."])]);
    let (code, stdout, stderr) = chat(dir.path(), &mock.url, &[], "Hello\n");
    assert_eq!((code, stdout.as_str()), (0, "Fine.\n"), "{stderr}");
    assert!(stderr.contains("asks to wait 1.0s; trying again then"), "{stderr}");
}

#[test]
fn a_server_that_is_not_there_ends_the_chat_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let (code, stdout, stderr) = chat(dir.path(), &url, &[], "Hello\n");
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains(&format!("cannot reach 127.0.0.1:{port}")), "{stderr}");
    assert!(stderr.contains("`llada serve`"), "{stderr}");
    let (code, _, stderr) = chat(dir.path(), "localhost:8080", &[], "Hello\n");
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("is no address"), "{stderr}");
}

#[test]
#[cfg(unix)]
fn an_interrupt_keeps_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::start(vec![
        begun(&["Half an"]) + "<hang>",
        begun(&[]) + "<hang>",
        stream(&["Fine."]),
    ]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_llada"));
    command.args(["chat", "--url", &mock.url]).current_dir(dir.path());
    command.env_remove("LLADA_MODEL").env_remove("LLADA_API_KEY").env_remove("http_proxy");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let id = process.id().to_string();
    let interrupt =
        || assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let mut stdout = process.stdout.take().unwrap();
    let input = "One\nTwo\nThree\n/save a.json\n";
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let mut first = [0; 7];
    stdout.read_exact(&mut first).unwrap();
    interrupt();
    // The second request has come, and nothing of its answer will.
    while mock.requests.lock().unwrap().len() < 2 {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(200));
    interrupt();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let mut stderr = String::new();
    process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0), "{stderr}");
    assert_eq!((&first, rest.as_str()), (b"Half an", "\nFine.\n"));
    assert!(stderr.contains("the message is taken back"), "{stderr}");
    let said =
        [["user", "One"], ["assistant", "Half an"], ["user", "Three"], ["assistant", "Fine."]];
    assert_eq!(saved(dir.path(), "a.json"), said);
}
