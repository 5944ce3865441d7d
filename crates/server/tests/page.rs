//! The page in a browser, on a server of the shipped model: what `browser/` checks on a mock too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{path::Path, process::Command};

use common::Server;
use llada_server::Options;

#[test]
#[ignore = "drives Chromium by Node"]
fn the_page_does_in_a_browser_what_it_should() {
    let server = Server::start(Options::default());
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let files =
        ["page", "access", "faults", "modules"].map(|name| tests.join(format!("{name}.test.mjs")));
    let status =
        Command::new("node").arg("--test").args(files).env("LLADA_URL", &server.place).status();
    assert!(status.expect("Node is there").success());
}
