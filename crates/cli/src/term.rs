//! The only module that writes to the terminal: answers and data to stdout, the rest to stderr.

use std::{
    borrow::Cow,
    env,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    sync::LazyLock,
};

use anyhow::{Result, anyhow};
use indicatif::{MultiProgress, ProgressBar};

use crate::failure::StdoutClosed;

/// How many colours the terminal behind stderr shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colors {
    /// None: a file, a pipe, a `dumb` terminal, or `NO_COLOR` is set.
    None,
    /// The sixteen that every terminal has.
    Basic,
    /// Any.
    True,
}

impl Colors {
    /// Decides from the environment: `NO_COLOR` (any value but the empty one), `TERM`, `COLORTERM`.
    fn from_env(terminal: bool, var: impl Fn(&str) -> Option<String>) -> Self {
        let is_set = |key: &str| var(key).is_some_and(|v| !v.is_empty());
        if !terminal || is_set("NO_COLOR") {
            return Self::None;
        }
        match var("COLORTERM").as_deref() {
            Some("truecolor" | "24bit") => Self::True,
            _ => Self::Basic,
        }
    }
}

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors only.
    Quiet,
    /// Summaries and warnings.
    Normal,
    /// Also what was chosen and why.
    Verbose,
}

/// What is known about stderr, and how much to write there.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    /// Whether stderr is a terminal that can move its cursor.
    pub interactive: bool,
    /// The colours of stderr.
    pub colors: Colors,
    /// How much to say.
    pub level: Level,
}

impl Term {
    /// Looks at stderr and the environment.
    pub fn new(level: Level) -> Self {
        let var = |key: &str| variable(key).and_then(|value| value.into_string().ok());
        let dumb = var("TERM").is_some_and(|t| t == "dumb");
        let interactive = io::stderr().is_terminal() && !dumb;
        Self { interactive, colors: Colors::from_env(interactive, var), level }
    }

    /// Columns and rows of the terminal, asked anew each time because windows change size.
    pub fn size(&self) -> (usize, usize) {
        match terminal_size::terminal_size_of(io::stderr()) {
            Some((columns, rows)) if columns.0 > 0 && rows.0 > 0 => {
                (usize::from(columns.0), usize::from(rows.0))
            }
            _ => (80, 24),
        }
    }

    /// Whether answers are read where this is drawn: both streams are this terminal.
    pub fn shows_answers(&self) -> bool {
        self.interactive && io::stdout().is_terminal()
    }

    /// A line of the summary, unless `--quiet`.
    pub fn note(&self, line: &str) {
        if self.level >= Level::Normal {
            error_line(&visible_line(line));
        }
    }

    /// A line that only `--verbose` shows.
    pub fn detail(&self, line: &str) {
        if self.level >= Level::Verbose {
            error_line(&visible_line(line));
        }
    }

    /// A warning, unless `--quiet`.
    pub fn warn(&self, message: &str) {
        self.note(&format!("warning: {message}"));
    }

    /// Drawing codes of our own, and text that is visible already, for the terminal behind stderr:
    /// the only way past [`visible_controls`].
    pub fn draw(&self, codes: &str) {
        let mut stderr = io::stderr().lock();
        let _ = stderr.write_all(codes.as_bytes()).and_then(|()| stderr.flush());
    }
}

/// The lines of progress that are written over. Whatever else is printed takes them away first and
/// brings them back below it, so that it never is glued to one.
static PROGRESS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Draws `bar` from now on.
pub fn draw_progress(bar: ProgressBar) -> ProgressBar {
    PROGRESS.add(bar)
}

/// What the environment says; an empty variable counts as none.
pub fn variable(key: &str) -> Option<OsString> {
    env::var_os(key).filter(|value| !value.is_empty())
}

/// Lines on stderr, where what a file or a model holds is shown and not obeyed, terminal or not: logs
/// are read on terminals too. A closed stderr is no reason to fail.
pub fn error_line(lines: &str) {
    let lines: Vec<_> = lines.split('\n').map(|line| shortened(line, MOST_OF_A_LINE)).collect();
    PROGRESS.suspend(|| {
        let _ = writeln!(io::stderr().lock(), "{}", visible_controls(&lines.join("\n")));
    });
}

/// Bytes of a line on stderr: a value of a file that is named in it may have any length.
const MOST_OF_A_LINE: usize = 2000;

/// A text without its middle where it has more than `most` bytes.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let boundary = |from: usize| (from..text.len()).find(|&at| text.is_char_boundary(at));
    let [head, tail] =
        [most / 3 * 2, text.len() - most / 3].map(|from| boundary(from).unwrap_or(text.len()));
    format!("{} […{} bytes…] {}", &text[..head], tail - head, &text[tail..]).into()
}

/// Text on stdout, followed by a newline. On a terminal, control characters that a model may have
/// produced are shown instead of obeyed.
pub fn answer(text: &str) -> Result<()> {
    Pieces::default().push(&format!("{text}\n"))
}

/// A text on stdout that comes piece by piece, as [`answer`] prints one.
#[derive(Debug, Default)]
pub struct Pieces(Visible);

impl Pieces {
    /// Prints what comes next.
    pub fn push(&mut self, text: &str) -> Result<()> {
        match io::stdout().is_terminal() {
            true => print(&self.0.show(text)),
            false => print(text),
        }
    }
}

fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    let mut write = || stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    PROGRESS.suspend(&mut write).map_err(|e| match e.kind() {
        io::ErrorKind::BrokenPipe => anyhow!(StdoutClosed),
        _ => anyhow!(e).context("cannot write to stdout"),
    })
}

/// Text whose characters all show: control characters, other than newline and tab, become their
/// pictures, so that text from a model or a file cannot command the terminal or hide in it.
pub fn visible_controls(text: &str) -> String {
    Visible::default().show(text)
}

/// [`visible_controls`] of a text that comes piece by piece.
#[derive(Debug, Default)]
struct Visible {
    before: Option<char>,
}

impl Visible {
    fn show(&mut self, text: &str) -> String {
        let visible = text.chars().map(|c| {
            let is_hidden =
                is_joiner(c) && self.before.is_none_or(|before: char| before.is_ascii());
            self.before = Some(c);
            match c {
                '\n' | '\t' => c,
                _ if is_hidden => '\u{fffd}',
                _ => picture(c),
            }
        });
        visible.collect()
    }
}

/// [`visible_controls`] of what has to stay on one line: a name must not begin another.
pub fn visible_line(text: &str) -> String {
    visible_controls(text).chars().map(|c| if c == '\n' { picture(c) } else { c }).collect()
}

/// Characters that scripts and emoji need between their own; among ASCII they only hide.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{e0100}'..='\u{e01ef}')
}

/// The picture of a control character or of one that does not show, and any other as it is.
pub fn picture(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\x7f' => '\u{2421}',
        _ if c.is_control() => '\u{fffd}',
        // Marks, overrides and isolates of direction reorder what is around them.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' => '\u{fffd}',
        '\u{2066}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' => '\u{fffd}',
        // Separators of lines and paragraphs are line ends to some terminals and viewers.
        '\u{2028}' | '\u{2029}' => '\u{fffd}',
        // What takes no room, and tags.
        '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}' => '\u{fffd}',
        '\u{feff}' | '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => '\u{fffd}',
        '\u{e0000}'..='\u{e00ff}' => '\u{fffd}',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_environment() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |key: &str| pairs.iter().find(|p| p.0 == key).map(|p| p.1.to_owned())
        };
        assert_eq!(Colors::from_env(true, env(&[("COLORTERM", "truecolor")])), Colors::True);
        assert_eq!(Colors::from_env(true, env(&[])), Colors::Basic);
        assert_eq!(Colors::from_env(false, env(&[("COLORTERM", "truecolor")])), Colors::None);
        assert_eq!(Colors::from_env(true, env(&[("NO_COLOR", "1")])), Colors::None);
        assert_eq!(Colors::from_env(true, env(&[("NO_COLOR", "")])), Colors::Basic);
    }

    #[test]
    fn escape_sequences_become_visible() {
        assert_eq!(visible_controls("a\x1b[2Jb\n\tc\x7f\u{9b}"), "a␛[2Jb\n\tc␡\u{fffd}");
        assert_eq!(visible_controls("\u{202e}abc"), "\u{fffd}abc");
        assert_eq!(visible_controls("naïve 日本"), "naïve 日本");
        assert_eq!(visible_line("a\nb\t\x1b"), "a␊b\t␛");
    }

    #[test]
    fn pieces_show_what_the_whole_shows() {
        for text in ["a\x1b[2Jb\u{200d}", "👩\u{200d}👧", "می\u{200c}خواهم\u{202e}"] {
            let mut visible = Visible::default();
            let pieces = text.chars().map(|c| visible.show(&c.to_string()));
            assert_eq!(pieces.collect::<String>(), visible_controls(text));
        }
    }

    #[test]
    fn what_reorders_or_does_not_show_is_shown() {
        for hidden in [
            "\u{85}",
            "\u{9b}",
            "\u{ad}",
            "\u{61c}",
            "\u{180e}",
            "\u{200b}",
            "\u{200d}",
            "\u{200f}",
            "\u{2028}",
            "\u{2029}",
            "\u{202e}",
            "\u{2060}",
            "\u{2067}",
            "\u{feff}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{e0101}",
        ] {
            assert_eq!(visible_controls(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        // Persian, a family, a keycap: what joins or varies other characters belongs to them.
        for text in ["می\u{200c}خواهم", "👩\u{200d}👧", "1\u{fe0f}\u{20e3}", "e\u{301}"]
        {
            assert_eq!(visible_controls(text), text);
        }
    }
}
