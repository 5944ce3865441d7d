//! The reference of the commands: every verb with all of its flags, as the program prints them.

use std::fmt::Write;

use assert_cmd::Command;

/// What `llada VERB --help-all` prints.
fn help(verb: &[String]) -> String {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("llada"));
    command.args(verb).arg("--help-all").env_remove("COLUMNS").env_remove("LLADA_MODEL");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{verb:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs that a help lists.
fn verbs(help: &str) -> Vec<String> {
    let listed = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| !line.trim().is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn describe(verb: &[String], page: &mut String) {
    let help = help(verb);
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    let level = "#".repeat(verb.len() + 1);
    let name = [&["llada".to_owned()], verb].concat().join(" ");
    writeln!(page, "\n{level} {name}\n\n```text\n{}\n```", lines.join("\n")).unwrap();
    for sub in verbs(&help).into_iter().filter(|sub| sub != "help") {
        describe(&[verb, &[sub]].concat(), page);
    }
}

/// The page.
pub fn reference() -> String {
    let mut page = String::from(
        "# Commands\n\n<!-- Generated from the program; `UPDATE_DOCS=1 cargo test --workspace` writes it \
         anew. -->\n\n`--help` has what is needed often, `--help-all` what is here.\n",
    );
    describe(&[], &mut page);
    page
}
