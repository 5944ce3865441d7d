//! The program on a terminal: a chat that is typed, a canvas that is watched.

use std::{path::Path, process::Command};

use rexpect::session::{PtySession, spawn_command};

use crate::{storyteller, tuned};

/// Long enough for a loaded machine; nothing waits for it unless a test fails.
const PATIENCE: Option<u64> = Some(120_000);

fn spawn(home: &Path, args: &[&str]) -> PtySession {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llada"));
    command.args(args).current_dir(home).env("HOME", home).env("TERM", "xterm-256color");
    command.env("LLADA_THREADS", "1");
    for key in ["LLADA_MODEL", "LLADA_NO_HISTORY", "NO_COLOR", "XDG_STATE_HOME"] {
        command.env_remove(key);
    }
    spawn_command(command, PATIENCE).unwrap()
}

fn chat(home: &Path, flags: &[&str]) -> PtySession {
    let common = ["chat", "-m", tuned(), "-n", "4", "--seed", "1", "--no-watch"];
    let mut session = spawn(home, &[&common[..], flags].concat());
    session.exp_string("Ctrl-D ends").unwrap();
    session.exp_string(EMPTY).unwrap();
    session
}

/// The contents of the messages that a chat saved.
fn saved(home: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(home.join("said.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let messages = json["messages"].as_array().unwrap().iter();
    messages
        .filter(|message| message["role"] == "user")
        .map(|message| message["content"].as_str().unwrap().to_owned())
        .collect()
}

fn save_and_quit(mut session: PtySession) {
    press(&mut session, "/save said.json\r");
    session.exp_string("wrote said.json").unwrap();
    session.exp_string(EMPTY).unwrap();
    press(&mut session, "\x04");
    session.exp_eof().unwrap();
}

/// What the line editor writes when a line is empty: the prompt, and the cursor goes behind it.
const EMPTY: &str = "> \r\x1b[2C";

/// Types keys; what is sent stays in a buffer until it is flushed.
fn press(session: &mut PtySession, keys: &str) {
    session.send(keys).unwrap();
    session.flush().unwrap();
}

fn say(session: &mut PtySession, keys: &str) {
    press(session, keys);
    press(session, "\r");
    session.exp_string(EMPTY).unwrap();
}

#[test]
fn lines_are_edited_and_arrows_never_reach_the_model() {
    let home = tempfile::tempdir().unwrap();
    let mut session = chat(home.path(), &[]);
    // Left twice, a letter, then the end of the line and one more.
    say(&mut session, "Helo\x1b[D\x1b[Dl\x1b[F!");
    // What was typed is cleared by Ctrl-C and not said.
    press(&mut session, "nonsense\x03");
    session.exp_string(EMPTY).unwrap();
    say(&mut session, "Who are you?");
    // A paste of several lines is one message.
    say(&mut session, "\x1b[200~one\rtwo\x1b[201~");
    // Up goes through the lines of the paste, then to the message before it.
    say(&mut session, "\x1b[A\x1b[A\x1b[A");
    save_and_quit(session);
    assert_eq!(saved(home.path()), ["Hello!", "Who are you?", "one\ntwo", "Who are you?"]);
}

#[test]
fn a_byte_that_is_no_text_ends_its_line_and_not_the_chat() {
    let home = tempfile::tempdir().unwrap();
    let mut session = chat(home.path(), &[]);
    let mut keys = session.process().get_file_handle().unwrap();
    std::io::Write::write_all(&mut keys, b"caf\xe9!").unwrap();
    session.exp_string("this line is not UTF-8 text").unwrap();
    session.exp_string(EMPTY).unwrap();
    say(&mut session, "hello");
    save_and_quit(session);
    assert_eq!(saved(home.path()).last().unwrap(), "hello");
}

#[test]
fn what_was_typed_is_recalled_in_the_next_chat_unless_that_is_not_wanted() {
    let home = tempfile::tempdir().unwrap();
    let mut session = chat(home.path(), &["--no-history"]);
    say(&mut session, "secret");
    save_and_quit(session);
    assert!(!home.path().join(".local").exists());
    let mut session = chat(home.path(), &[]);
    say(&mut session, "hello");
    press(&mut session, "\x03");
    session.exp_string("again to end").unwrap();
    session.exp_string(EMPTY).unwrap();
    press(&mut session, "\x03");
    session.exp_eof().unwrap();
    let history = std::fs::read_to_string(home.path().join(".local/state/llada/history")).unwrap();
    assert!(history.contains("hello") && !history.contains("secret"), "{history}");
    let mut session = chat(home.path(), &[]);
    say(&mut session, "\x1b[A");
    save_and_quit(session);
    assert_eq!(saved(home.path()), ["hello"]);
}

#[test]
fn a_watched_answer_is_printed_once() {
    let home = tempfile::tempdir().unwrap();
    let args = [
        "run",
        "-m",
        storyteller(),
        "-n",
        "8",
        "--seed",
        "1",
        "--watch",
        "--delay",
        "1",
        "Once upon",
    ];
    let mut session = spawn(home.path(), &args);
    let shown = session.exp_eof().unwrap();
    let (canvas, answer) = shown.rsplit_once("\x1b[J").unwrap();
    assert!(canvas.contains("\x1b[?25l") && answer.contains("NFE"), "{shown:?}");
    assert!(!answer.contains("\x1b[2m") && !answer.contains('░'), "{answer:?}");
}

#[test]
#[cfg(all(feature = "hub", feature = "serve"))]
fn the_answer_of_a_server_is_drawn_and_printed_once() {
    let home = tempfile::tempdir().unwrap();
    let server = crate::chat_url::ours::Served::start(&[]);
    let args = ["chat", "--url", &server.url, "-n", "16", "--delay", "1", "--no-history"];
    let mut session = spawn(home.path(), &args);
    session.exp_string("storyteller-chat at 127.0.0.1:").unwrap();
    session.exp_string(EMPTY).unwrap();
    press(&mut session, "Who are you?\r");
    let shown = session.exp_string(EMPTY).unwrap();
    let (canvas, answer) = shown.rsplit_once("\x1b[J").unwrap();
    assert!(canvas.contains("step 0 ") && canvas.contains("\x1b[2A"), "{shown:?}");
    assert!(answer.contains("I am a teller") && !answer.contains("NFE"), "{shown:?}");
    save_and_quit(session);
    assert_eq!(saved(home.path()), ["Who are you?"]);
}
