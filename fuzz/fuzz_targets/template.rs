//! A chat template: compiled and rendered with two turns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llada::chat::{Message, Template};

fuzz_target!(|source: &str| {
    let Ok(dir) = tempfile::tempdir() else { return };
    if std::fs::write(dir.path().join("chat_template.jinja"), source).is_err() {
        return;
    }
    if let Ok(template) = Template::from_dir(dir.path()) {
        let messages = [Message::new("user", "Hello"), Message::new("assistant", "Hi.\n")];
        let _ = template.render(&messages, true);
        let _ = template.render(&messages[..1], false);
    }
});
