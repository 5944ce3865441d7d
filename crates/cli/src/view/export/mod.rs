//! A recorded canvas as a picture that moves: a self-contained HTML page, or an animated SVG.

mod html;
mod svg;

pub use html::html;
pub use svg::svg;

use llada::diffusion::Step;

use super::scene::{Cell, Decode, Scene, insert};

/// The whole recording: for each cell, what it shows when.
#[derive(Debug, Clone)]
pub struct Film {
    /// Title of the page.
    pub title: String,
    /// Number of steps; frame 0 is the canvas before the first.
    pub steps: usize,
    /// The cells in reading order.
    pub cells: Vec<FilmCell>,
}

/// What one cell shows over time. Where no span covers a frame, the cell is a mask.
#[derive(Debug, Clone, Default)]
pub struct FilmCell {
    /// Spans in order, without overlap.
    pub spans: Vec<Span>,
}

/// A text that a cell shows from frame `from` up to and not including frame `until`.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// First frame.
    pub from: usize,
    /// First frame after; `None` to the end.
    pub until: Option<usize>,
    /// The text.
    pub text: String,
    /// Confidence of the commit; `None` for the prompt.
    pub confidence: Option<f32>,
}

impl Film {
    /// Plays `steps` on `start` and notes when each cell shows what.
    pub fn record(title: String, start: Scene, steps: &[Step], decode: &Decode<'_>) -> Self {
        let mut scene = start;
        let mut cells: Vec<FilmCell> =
            scene.texts(decode).into_iter().map(FilmCell::given).collect();
        for (cell, state) in cells.iter_mut().zip(&scene.cells) {
            if *state == Cell::Mask {
                cell.spans.clear();
            }
        }
        for step in steps {
            scene.apply(step);
            let frame = scene.step;
            for &position in &step.remasked {
                if let Some(cell) = cells.get_mut(position) {
                    cell.end(frame);
                }
            }
            for commit in &step.committed {
                if let Some(cell) = cells.get_mut(commit.position) {
                    cell.end(frame);
                    let (text, confidence) = (decode(&[commit.token]), Some(commit.confidence));
                    cell.spans.push(Span { from: frame, until: None, text, confidence });
                }
            }
            // A cell that is put in later is a mask until then.
            insert(&mut cells, 0, &step.inserted, FilmCell::default);
        }
        // Characters spread over several tokens are only readable at the end.
        for (cell, text) in cells.iter_mut().zip(scene.texts(decode)) {
            if let Some(span) = cell.spans.last_mut().filter(|s| s.until.is_none()) {
                span.text = text;
            }
        }
        Self { title, steps: scene.step, cells }
    }
}

impl FilmCell {
    fn given(text: String) -> Self {
        Self { spans: vec![Span { from: 0, until: None, text, confidence: None }] }
    }

    /// Ends what the cell shows at `frame`.
    fn end(&mut self, frame: usize) {
        if let Some(span) = self.spans.last_mut().filter(|s| s.until.is_none()) {
            span.until = Some(frame);
        }
        // What ended as soon as it began was never seen.
        self.spans.pop_if(|s| s.until.is_some_and(|until| until <= s.from));
    }

    /// Whether it is never anything but a mask.
    fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// The frames between the spans of a cell, in which it is a mask.
fn masks(spans: &[Span]) -> Vec<(usize, Option<usize>)> {
    let mut masks = Vec::new();
    let mut from = Some(0);
    for span in spans {
        if let Some(start) = from
            && start < span.from
        {
            masks.push((start, Some(span.from)));
        }
        from = span.until;
    }
    if let Some(start) = from {
        masks.push((start, None));
    }
    masks
}

/// Text for the inside of an XML or HTML element or a quoted attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Neither characters of XML 1.0.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            '\n' | '\t' => out.push(c),
            _ => out.push(crate::term::picture(c)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::scene::tests::step;

    fn film() -> Film {
        let steps =
            [step(&[(1, 5, 0.25)], &[]), step(&[(2, 6, 1.0)], &[1]), step(&[(1, 7, 0.75)], &[])];
        let decode = |tokens: &[u32]| format!("<{}>", tokens[0]);
        Film::record("a & b".into(), Scene::new(&[3], 4, Some(0)), &steps, &decode)
    }

    #[test]
    fn spans_follow_commits_and_remasks() {
        let film = film();
        assert_eq!(film.steps, 3);
        assert_eq!(film.cells[0].spans[0].text, "<3>");
        let cell = &film.cells[1];
        let times: Vec<_> = cell.spans.iter().map(|s| (s.from, s.until)).collect();
        assert_eq!(times, [(1, Some(2)), (3, None)]);
        assert_eq!(masks(&cell.spans), [(0, Some(1)), (2, Some(3))]);
        assert_eq!(masks(&film.cells[0].spans), []);
        assert_eq!(masks(&film.cells[3].spans), [(0, None)]);
    }

    #[test]
    fn the_svg_grows_with_the_trace_and_no_faster() {
        let decode = |tokens: &[u32]| "long words ".repeat(tokens[0] as usize);
        let svg = |length, steps: &[_], width| {
            let scene = Scene::new(&[1], length, Some(0));
            svg(&Film::record("t".into(), scene, steps, &decode), 200, width).len()
        };
        let small = svg(10, &[step(&[(1, 1, 0.5)], &[])], 60);
        // Masks that are never anything else take no room of their own.
        assert!(svg(100_000, &[step(&[(1, 1, 0.5)], &[])], 60) < small + 400_000);
        // Nor does each line of a long text take all that stood there before.
        let changing: Vec<_> = (0..100).map(|_| step(&[(1, 80, 0.5)], &[])).collect();
        assert!(svg(10, &changing, 20) < 600_000);
    }

    #[test]
    fn in_the_svg_no_rule_outweighs_the_animations_of_the_lives() {
        let svg = svg(&film(), 200, 60);
        assert!(svg.contains("\ng{animation:") && svg.contains(".t1-2{animation-name:t1-2}"));
        assert!(!svg.contains("g[") && !svg.contains("#g"), "{svg}");
    }

    #[test]
    fn texts_are_escaped_in_both_exports() {
        let film = film();
        for export in [html(&film, 200), svg(&film, 200, 60)] {
            assert!(!export.contains("<7>"), "{export}");
            assert!(export.contains("a &amp; b"));
        }
        assert!(svg(&film, 200, 60).contains("&lt;7&gt;"));
        assert!(html(&film, 200).contains("\\u003c7"));
    }

    #[test]
    fn escape_leaves_no_markup_and_no_control_characters() {
        assert_eq!(
            escape("<a b='c'>&\"\x1b\u{ffff}"),
            "&lt;a b=&#39;c&#39;&gt;&amp;&quot;␛\u{fffd}"
        );
    }
}
