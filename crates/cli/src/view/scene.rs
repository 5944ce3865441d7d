//! One canvas as viewers see it: which cells are masks, which token stands where, since when.

use llada::diffusion::Step;

/// One cell of the canvas.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell {
    /// Part of the prompt.
    Given(u32),
    /// Not known yet.
    Mask,
    /// Committed with a confidence, by the step with this number (counted from 1).
    Token {
        /// The token.
        token: u32,
        /// How sure the model was.
        confidence: f32,
        /// When.
        step: usize,
    },
}

/// Text of tokens; one call for tokens that are to be read together.
pub type Decode<'a> = dyn Fn(&[u32]) -> String + 'a;

/// A canvas between two steps.
#[derive(Debug, Clone)]
pub struct Scene {
    /// All cells, the prompt's first.
    pub cells: Vec<Cell>,
    /// Position of the first cell in the sequence.
    first: usize,
    /// Steps applied so far.
    pub step: usize,
}

impl Scene {
    /// A canvas of `length` cells before the first step: the prompt, then masks. Masks inside the
    /// prompt are open as well.
    pub fn new(prompt: &[u32], length: usize, mask: Option<u32>) -> Self {
        let cell = |&token| if Some(token) == mask { Cell::Mask } else { Cell::Given(token) };
        let mut cells: Vec<Cell> = prompt.iter().map(cell).collect();
        cells.resize(length.max(prompt.len()), Cell::Mask);
        Self { cells, first: 0, step: 0 }
    }

    /// The response alone: a sequence of `length` positions without its first `prompt`.
    pub fn response(prompt: usize, length: usize) -> Self {
        Self { cells: vec![Cell::Mask; length.saturating_sub(prompt)], first: prompt, step: 0 }
    }

    /// Goes one step on. Positions outside the canvas are ignored.
    pub fn apply(&mut self, step: &Step) {
        self.step += 1;
        for &position in &step.remasked {
            if let Some(cell) = self.cell(position) {
                *cell = Cell::Mask;
            }
        }
        for commit in &step.committed {
            let (token, confidence, step) = (commit.token, commit.confidence, self.step);
            if let Some(cell) = self.cell(commit.position) {
                *cell = Cell::Token { token, confidence, step };
            }
        }
        insert(&mut self.cells, self.first, &step.inserted, || Cell::Mask);
    }

    fn cell(&mut self, position: usize) -> Option<&mut Cell> {
        self.cells.get_mut(position.checked_sub(self.first)?)
    }

    /// Adds masks up to `length` cells, where a response goes on with another canvas.
    #[cfg(feature = "hub")]
    pub fn grow(&mut self, length: usize) {
        self.cells.resize(length.max(self.cells.len()), Cell::Mask);
    }

    /// Cuts off the cells after `length`: those that a layout which stopped early never opened.
    pub fn truncate(&mut self, length: usize) {
        self.cells.truncate(length);
    }

    /// The text of each cell; `░` for a mask. A character whose bytes are spread over several
    /// tokens is shown in the first of them, once all are there. A special token of the response
    /// (`<|endoftext|>`, of which there may be many) shows as `∎`.
    pub fn texts(&self, decode: &Decode<'_>) -> Vec<String> {
        let tokens: Vec<Option<u32>> = self.cells.iter().map(Cell::token).collect();
        let mut texts = Vec::with_capacity(tokens.len());
        while texts.len() < tokens.len() {
            let at = texts.len();
            let Some(token) = tokens[at] else {
                texts.push("░".to_owned());
                continue;
            };
            let (text, taken) = joined(&tokens[at..], decode(&[token]), decode);
            let given = matches!(self.cells[at], Cell::Given(_));
            texts.push(if is_special(&text) && !given { "∎".to_owned() } else { text });
            texts.resize(at + taken, String::new());
        }
        texts
    }
}

impl Cell {
    fn token(&self) -> Option<u32> {
        match *self {
            Self::Given(token) | Self::Token { token, .. } => Some(token),
            Self::Mask => None,
        }
    }
}

/// Puts a new cell at each of `positions`, which ascend and are those of a sequence whose position
/// `first` is that of the first cell: all in one pass. Positions outside are passed over.
pub(super) fn insert<T>(
    cells: &mut Vec<T>,
    first: usize,
    positions: &[usize],
    mut new: impl FnMut() -> T,
) {
    if positions.is_empty() {
        return;
    }
    let mut old = std::mem::take(cells).into_iter();
    for at in positions.iter().filter_map(|position| position.checked_sub(first)) {
        cells.extend(old.by_ref().take(at.saturating_sub(cells.len())));
        if at <= cells.len() {
            cells.push(new());
        }
    }
    cells.extend(old);
}

/// Whether a token's text is a name in the form that this family gives to special tokens.
fn is_special(text: &str) -> bool {
    text.len() > 4 && text.starts_with("<|") && text.ends_with("|>")
}

/// One character has at most four bytes, and so four tokens; a token may also end one character and
/// begin the next, so that more of them hang together.
const LONGEST_GROUP: usize = 16;

/// The text of the first token (`alone`), or, where that is an incomplete character, of as many as
/// complete it; and how many tokens that took.
fn joined(tokens: &[Option<u32>], alone: String, decode: &Decode<'_>) -> (String, usize) {
    if alone.contains('\u{fffd}') {
        for taken in 2..=LONGEST_GROUP.min(tokens.len()) {
            let Some(group) = tokens[..taken].iter().copied().collect::<Option<Vec<u32>>>() else {
                break;
            };
            let text = decode(&group);
            if !text.contains('\u{fffd}') {
                return (text, taken);
            }
        }
    }
    (alone, 1)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use llada::diffusion::Commit;

    /// The step that commits `(position, token, confidence)` and masks `remasked` again.
    pub(in crate::view) fn step(committed: &[(usize, u32, f32)], remasked: &[usize]) -> Step {
        let commit = |&(position, token, confidence): &(usize, u32, f32)| Commit {
            position,
            token,
            confidence,
            text: None,
        };
        let committed = committed.iter().map(commit).collect();
        let (remasked, inserted) = (remasked.to_vec(), Vec::new());
        Step { nfe: 1, step: 0, block: 0, committed, remasked, inserted, stable: 0 }
    }

    const MASK: Option<u32> = Some(99);

    /// Tokens 1, 2, 3 are the three bytes of `日`, 4 ends the text, others are letters.
    fn decode(tokens: &[u32]) -> String {
        if tokens == [4] {
            return "<|endoftext|>".into();
        }
        let byte = |t: &u32| match t {
            1 => 0xe6,
            2 => 0x97,
            3 => 0xa5,
            other => b'a' + (*other as u8 - 10),
        };
        String::from_utf8_lossy(&tokens.iter().map(byte).collect::<Vec<u8>>()).into_owned()
    }

    #[test]
    fn commits_and_remasks() {
        let mut scene = Scene::new(&[10], 3, MASK);
        scene.apply(&step(&[(2, 12, 0.5), (77, 1, 0.1)], &[]));
        assert_eq!(scene.cells[2], Cell::Token { token: 12, confidence: 0.5, step: 1 });
        assert_eq!(scene.texts(&decode), ["a", "░", "c"]);
        scene.apply(&step(&[(1, 11, 0.5)], &[2]));
        assert_eq!(scene.texts(&decode), ["a", "b", "░"]);
        scene.truncate(2);
        assert_eq!(scene.texts(&decode), ["a", "b"]);
    }

    #[test]
    fn masks_that_are_put_in_move_what_follows() {
        let mut scene = Scene::new(&[10], 3, MASK);
        let inserted = vec![2, 3, 77];
        scene.apply(&Step { inserted, ..step(&[(2, 12, 0.5)], &[]) });
        assert_eq!(scene.texts(&decode), ["a", "░", "░", "░", "c"]);
    }

    #[test]
    fn cells_are_put_in_as_one_after_the_other() {
        for positions in
            [&[][..], &[0], &[0, 0], &[2, 3, 77], &[5], &[6], &[1, 1, 6, 7, 7], &[4, 9]]
        {
            for first in 0..3 {
                let (mut found, mut expected) = (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5]);
                insert(&mut found, first, positions, || 0);
                for position in positions {
                    match position.checked_sub(first) {
                        Some(at) if at <= expected.len() => expected.insert(at, 0),
                        _ => {}
                    }
                }
                assert_eq!(found, expected, "{positions:?} {first}");
            }
        }
    }

    #[test]
    fn a_response_is_shown_without_its_prompt() {
        let mut scene = Scene::response(5, 7);
        scene.apply(&step(&[(2, 10, 1.0), (6, 11, 1.0), (7, 10, 1.0)], &[]));
        assert_eq!(scene.texts(&decode), ["░", "b"]);
    }

    #[test]
    fn characters_of_several_tokens_appear_once_complete() {
        let mut scene = Scene::new(&[99, 99, 99, 10], 4, MASK);
        scene.apply(&step(&[(0, 1, 1.0), (2, 3, 1.0)], &[]));
        assert_eq!(scene.texts(&decode), ["\u{fffd}", "░", "\u{fffd}", "a"]);
        scene.apply(&step(&[(1, 2, 1.0)], &[]));
        assert_eq!(scene.texts(&decode), ["日", "", "", "a"]);
    }

    #[test]
    fn tokens_that_share_characters_are_drawn_together() {
        // ` Gr`, `ö` in two halves of which the second goes on, then `王` over three tokens.
        let bytes = |token: u32| -> &[u8] {
            match token {
                1 => b" Gr\xc3",
                2 => b"\xb6\xc3",
                3 => b"\x9fe \xe7",
                4 => b"\x8e",
                5 => b"\x8b\xe7",
                6 => b"\x8e\x8b",
                _ => b".",
            }
        };
        let decode = |tokens: &[u32]| {
            let all: Vec<u8> = tokens.iter().flat_map(|&t| bytes(t).iter().copied()).collect();
            String::from_utf8_lossy(&all).into_owned()
        };
        let scene = Scene::new(&[1, 2, 3, 4, 5, 6, 7], 7, MASK);
        assert_eq!(scene.texts(&decode).concat(), " Größe 王王.");
        assert_eq!(scene.texts(&decode)[1..], ["", "", "", "", "", "."]);
    }

    #[test]
    fn special_tokens_of_the_response_are_short() {
        let mut scene = Scene::new(&[4], 2, MASK);
        scene.apply(&step(&[(1, 4, 1.0)], &[]));
        assert_eq!(scene.texts(&decode), ["<|endoftext|>", "∎"]);
    }
}
