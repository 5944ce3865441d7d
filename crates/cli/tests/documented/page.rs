//! What a page of Markdown asks its reader to run, and where it sends them.

/// A fenced block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The line of its fence, from 1.
    pub line: usize,
    /// The lines in it; those that end in a backslash joined with the next.
    pub lines: Vec<String>,
    /// Whether `<!-- slow -->` stands above it.
    pub is_slow: bool,
    /// Whether `<!-- not run: … -->` stands above it, with the reason.
    pub is_left_out: bool,
    /// What it prints, if a block under `<!-- printed -->` follows that says so.
    pub printed: Option<String>,
}

/// The `sh` blocks of a page.
pub fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut is_printed = false;
    let mut last = "";
    for (i, line) in text.lines().enumerate() {
        match (&mut open, line.trim()) {
            (Some(_), "```") => blocks.extend(open.take()),
            (None, "```") => is_printed = false,
            (None, "```text") if last == "<!-- printed -->" => {
                is_printed = true;
                blocks.last_mut().expect("a block prints it").printed = Some(String::new());
            }
            (None, _) if is_printed => {
                let printed = blocks.last_mut().and_then(|block| block.printed.as_mut());
                printed.into_iter().for_each(|printed| *printed += &format!("{line}\n"));
            }
            (Some(block), _) => match block.lines.last_mut() {
                Some(previous) if previous.ends_with('\\') => {
                    previous.push('\n');
                    previous.push_str(line);
                }
                _ => block.lines.push(line.to_owned()),
            },
            (None, "```sh") => {
                let is_slow = last == "<!-- slow -->";
                let is_left_out = last.starts_with("<!-- not run: ");
                let (line, lines, printed) = (i + 1, Vec::new(), None);
                open = Some(Block { line, lines, is_slow, is_left_out, printed });
            }
            _ => {}
        }
        if !line.trim().is_empty() {
            last = line.trim();
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// The files that a page links to, without anchors.
pub fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut in_code = false;
    for line in text.lines() {
        in_code ^= line.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

#[test]
fn blocks_are_found_and_joined() {
    let text = "a\n```sh\nx \\\n  y\nz\n```\n<!-- slow -->\n```sh\nw\n```\n```json\n{}\n```\n\
        <!-- printed -->\n```text\n u\nv\n```\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0].printed, found[1].printed.as_deref()), (&None, Some(" u\nv\n")));
    assert_eq!((found[0].line, found[0].is_slow), (2, false));
    assert_eq!(found[0].lines, ["x \\\n  y", "z"]);
    assert_eq!((found[1].line, found[1].is_slow), (8, true));
}

#[test]
fn links_are_found() {
    let text = "[a](b.md) and [c](d/e.md#f), [g](https://h.org) [i](#j)\n```\n[k](l)\n```\n";
    assert_eq!(links(text), ["b.md", "d/e.md"]);
}
