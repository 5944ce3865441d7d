//! Breaks the texts of a canvas's cells into lines of a width, in terminal columns.

use unicode_width::UnicodeWidthChar;

use crate::term::picture;

/// The part of one cell's text that stands on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Index of the cell.
    pub cell: usize,
    /// First column.
    pub column: usize,
    /// Columns taken.
    pub width: usize,
    /// The text, without control characters. A newline shows as `↵` at the end of its line.
    pub text: String,
}

/// One line of runs, from left to right.
pub type Line = Vec<Run>;

/// A character, the cell it belongs to and the columns it takes.
#[derive(Clone, Copy)]
struct Glyph {
    char: char,
    cell: usize,
    width: usize,
    ends_line: bool,
}

/// Columns that a character takes: 2 for wide ones, 0 for combining ones.
fn columns(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().map(columns).sum()
}

/// As much of a text as fits into `most` columns, without control characters.
pub fn cut(text: &str, most: usize) -> String {
    let mut used = 0;
    let fits = |c: &char| {
        used += columns(*c);
        used <= most
    };
    text.chars().map(picture).take_while(fits).collect()
}

/// Lays the cells' texts one after the other in lines of at most `width` columns, broken after a
/// space where there is one, else anywhere between two characters.
pub fn lines<S: AsRef<str>>(texts: &[S], width: usize) -> Vec<Line> {
    let glyphs: Vec<Glyph> = texts
        .iter()
        .enumerate()
        .flat_map(|(cell, text)| text.as_ref().chars().map(move |c| glyph(cell, c)))
        .collect();
    let mut lines = Vec::new();
    let mut rest = glyphs.as_slice();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(line_length(rest, width.max(2)));
        lines.push(runs(line));
        rest = tail;
    }
    lines
}

fn glyph(cell: usize, c: char) -> Glyph {
    match c {
        '\n' => Glyph { char: '↵', cell, width: 1, ends_line: true },
        '\t' => Glyph { char: ' ', cell, width: 1, ends_line: false },
        _ => {
            let char = picture(c);
            Glyph { char, cell, width: columns(char), ends_line: false }
        }
    }
}

/// How many glyphs go on the first line; at least one.
fn line_length(glyphs: &[Glyph], width: usize) -> usize {
    let mut used = 0;
    let mut after_space = None;
    for (i, glyph) in glyphs.iter().enumerate() {
        used += glyph.width;
        // A newline's mark or a trailing space may hang in the margin that callers leave.
        if glyph.ends_line {
            return i + 1;
        }
        if used > width && i > 0 {
            return match after_space {
                Some(at) => at,
                None => i,
            };
        }
        if glyph.char == ' ' {
            after_space = Some(i + 1);
        }
    }
    glyphs.len()
}

/// Joins neighbouring glyphs of the same cell.
fn runs(glyphs: &[Glyph]) -> Line {
    let mut line = Line::new();
    let mut column = 0;
    for glyph in glyphs {
        match line.last_mut() {
            Some(run) if run.cell == glyph.cell => {
                run.text.push(glyph.char);
                run.width += glyph.width;
            }
            _ => line.push(Run {
                cell: glyph.cell,
                column,
                width: glyph.width,
                text: glyph.char.into(),
            }),
        }
        column += glyph.width;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|l| l.iter().map(|r| r.text.as_str()).collect()).collect()
    }

    #[test]
    fn breaks_after_spaces_across_cells() {
        let lines = lines(&["The", " qui", "ck", " brown", " fox"], 10);
        assert_eq!(text(&lines), ["The quick ", "brown fox"]);
        assert_eq!(lines[1][0], Run { cell: 3, column: 0, width: 5, text: "brown".into() });
        assert_eq!(lines[1][1].column, 5);
    }

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(width("日本 a"), 6);
        assert_eq!(width("e\u{301}"), 1);
        let lines = lines(&["日本", "語で"], 5);
        assert_eq!(text(&lines), ["日本", "語で"]);
        assert_eq!(lines[0][0].width, 4);
    }

    #[test]
    fn what_is_cut_fits() {
        assert_eq!(cut("日本語", 5), "日本");
        assert_eq!(cut("step 1/8 · eta 4s", 8), "step 1/8");
        assert_eq!(cut("a\x1b[2J", 3), "a␛[");
        assert_eq!(cut("abc", 0), "");
    }

    #[test]
    fn long_words_break_anywhere_and_newlines_end_a_line() {
        assert_eq!(text(&lines(&["abcdefgh"], 3)), ["abc", "def", "gh"]);
        assert_eq!(text(&lines(&["a\n\nb"], 9)), ["a↵", "↵", "b"]);
    }

    #[test]
    fn nothing_is_lost_whatever_the_width() {
        let texts = ["one two", "", "日本語", "\x1b[2J", "e\u{301}\u{301}", "\t.", "\n"];
        let whole: String = text(&lines(&texts, 1000)).concat();
        for width in 1..30 {
            let lines = lines(&texts, width);
            assert_eq!(text(&lines).concat(), whole, "{width}");
            assert!(lines.iter().all(|l| !l.is_empty()));
        }
        assert!(lines(&[""; 3], 10).is_empty());
        assert!(!whole.contains('\x1b'));
    }
}
