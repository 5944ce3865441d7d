//! The canvas in the terminal, redrawn after every step: masks `░`, tokens coloured by confidence,
//! the newly committed ones bold, the prompt dim.

use std::fmt::Write;

use super::{
    layout::{self, Line},
    palette,
    scene::{Cell, Scene},
};
use crate::term::{Colors, Term, visible_line};

/// Gives the cursor and whole lines back; also what an interrupted program has to write.
pub const SHOW_CURSOR: &str = "\x1b[?7h\x1b[?25h\x1b[0m\n";

/// Hides the cursor, and lets lines that are too long for the window end at its edge: it may have
/// become narrower a moment ago.
const BEGIN: &str = "\x1b[?25l\x1b[?7l";
/// Lets lines go on in the next one again.
const END: &str = "\x1b[?7h";

/// Draws a canvas over its previous drawing.
#[derive(Debug)]
pub struct Painter {
    term: Term,
    /// Columns of each line of the last drawing.
    drawn: Vec<usize>,
}

impl Painter {
    /// Nothing is written before the first drawing.
    pub fn new(term: Term) -> Self {
        Self { term, drawn: Vec::new() }
    }

    /// Draws `scene`, whose cells read `texts`, above a line that says `status`.
    pub fn paint(&mut self, scene: &Scene, texts: &[String], status: &str) {
        let (columns, rows) = self.term.size();
        let lines = layout::lines(texts, columns.saturating_sub(2));
        let shown = window(&lines, scene, rows.saturating_sub(2));
        let mut codes = String::from(BEGIN);
        codes.push_str(&back(&self.drawn, columns));
        self.drawn.clear();
        for line in shown {
            codes.push_str(&styled(line, scene, self.term.colors));
            codes.push_str("\x1b[K\n");
            self.drawn.push(line.last().map_or(0, |r| r.column + r.width));
        }
        let status = layout::cut(&visible_line(status), columns.saturating_sub(1));
        let _ = writeln!(codes, "\x1b[2m{status}\x1b[0m\x1b[K\x1b[J{END}");
        self.drawn.push(layout::width(&status));
        self.term.draw(&codes);
    }

    /// Takes the drawing away, so that what it showed can be printed.
    pub fn erase(&mut self) {
        let (columns, _) = self.term.size();
        self.term.draw(&format!("{}\x1b[J", back(&self.drawn, columns)));
        self.drawn.clear();
        self.term.draw("\x1b[?25h");
    }
}

impl Drop for Painter {
    fn drop(&mut self) {
        if !self.drawn.is_empty() {
            self.term.draw("\x1b[?25h");
        }
    }
}

/// Moves the cursor to the start of the last drawing. A terminal that became narrower since has
/// wrapped its lines, so they are counted at the present width.
fn back(drawn: &[usize], columns: usize) -> String {
    let rows: usize = drawn.iter().map(|w| w.div_ceil(columns).max(1)).sum();
    if rows == 0 { String::new() } else { format!("\x1b[{rows}A\r") }
}

/// The lines to show when not all fit: those around the first mask.
fn window<'a>(lines: &'a [Line], scene: &Scene, height: usize) -> &'a [Line] {
    let first_mask = lines
        .iter()
        .position(|l| l.iter().any(|r| scene.cells[r.cell] == Cell::Mask))
        .unwrap_or(lines.len());
    let last_start = lines.len().saturating_sub(height);
    let start = first_mask.saturating_sub(height / 2).min(last_start);
    &lines[start..(start + height).min(lines.len())]
}

/// One line with its escape sequences.
fn styled(line: &Line, scene: &Scene, colors: Colors) -> String {
    let mut out = String::new();
    for run in line {
        let style = match scene.cells[run.cell] {
            Cell::Given(_) | Cell::Mask => "2".to_owned(),
            Cell::Token { confidence, step, .. } => {
                let bold = if step == scene.step { "1;" } else { "" };
                format!("{bold}{}", palette::sgr(confidence, colors))
            }
        };
        let style = style.trim_end_matches(';');
        if style.is_empty() {
            out.push_str(&run.text);
        } else {
            let _ = write!(out, "\x1b[{style}m{}\x1b[0m", run.text);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::scene::tests::step;

    fn scene() -> (Scene, Vec<String>) {
        let mut scene = Scene::new(&[1], 4, Some(0));
        scene.apply(&step(&[(1, 2, 0.1)], &[]));
        scene.apply(&step(&[(3, 3, 0.9)], &[]));
        let texts = scene.texts(&|t| format!(" w{}", t[0]));
        (scene, texts)
    }

    #[test]
    fn new_tokens_are_bold_and_coloured() {
        let (scene, texts) = scene();
        let lines = layout::lines(&texts, 40);
        assert_eq!(
            styled(&lines[0], &scene, Colors::Basic),
            "\x1b[2m w1\x1b[0m\x1b[31m w2\x1b[0m\x1b[2m░\x1b[0m\x1b[1;32m w3\x1b[0m"
        );
    }

    #[test]
    fn without_colours_only_bold_and_dim_remain() {
        let (scene, texts) = scene();
        let lines = layout::lines(&texts, 40);
        assert_eq!(
            styled(&lines[0], &scene, Colors::None),
            "\x1b[2m w1\x1b[0m w2\x1b[2m░\x1b[0m\x1b[1m w3\x1b[0m"
        );
    }

    #[test]
    fn a_narrower_terminal_has_wrapped_the_last_drawing() {
        assert_eq!(back(&[], 80), "");
        assert_eq!(back(&[10, 0, 79], 80), "\x1b[3A\r");
        assert_eq!(back(&[10, 0, 79], 40), "\x1b[4A\r");
    }

    #[test]
    fn a_window_of_any_size_is_drawn_into() {
        let (scene, texts) = scene();
        for (columns, rows) in [(1, 1), (2, 2), (3, 3), (5, 1), (80, 2)] {
            let lines = layout::lines(&texts, usize::saturating_sub(columns, 2));
            assert!(window(&lines, &scene, usize::saturating_sub(rows, 2)).len() < rows);
        }
    }

    #[test]
    fn the_window_follows_the_first_mask() {
        let mut scene = Scene::new(&[], 10, Some(0));
        let texts: Vec<String> = (0..10).map(|_| "ab".into()).collect();
        let lines = layout::lines(&texts, 2);
        let first = |s: &Scene| window(&lines, s, 4)[0][0].cell;
        assert_eq!(first(&scene), 0);
        scene.apply(&step(&[0, 1, 2, 3, 4].map(|i| (i, 1, 1.0)), &[]));
        assert_eq!(first(&scene), 3);
        scene.apply(&step(&[5, 6, 7, 8, 9].map(|i| (i, 1, 1.0)), &[]));
        assert_eq!(first(&scene), 6);
        assert_eq!(window(&lines[..2], &scene, 4).len(), 2);
    }
}
