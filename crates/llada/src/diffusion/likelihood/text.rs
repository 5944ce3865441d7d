//! Pairs of texts as pairs of tokens.

use super::Pair;
use crate::{Result, tokenizer::Tokenizer};

/// The tokens of `context` and of `continuation` after it (`_encode_pair` of the reference).
///
/// White space at the end of the context belongs to the continuation, because most tokenizers join
/// it with the next word. Both are encoded together, and what follows as many tokens as the context
/// has alone is the continuation. Where nothing follows, because the tokenizer joined the last
/// token of the one with the whole of the other, the continuation is encoded by itself.
///
/// # Errors
/// If the tokenizer refuses the text.
pub fn encode_pair(tokenizer: &Tokenizer, context: &str, continuation: &str) -> Result<Pair> {
    let whole = format!("{context}{continuation}");
    let context = context.trim_end_matches(is_space);
    let prompt = tokenizer.encode(context)?;
    let mut answer = tokenizer.encode(&whole)?;
    answer.drain(..prompt.len().min(answer.len()));
    if answer.is_empty() {
        answer = tokenizer.encode(&whole[context.len()..])?;
    }
    Ok(Pair { prompt, answer })
}

/// What Python's `str.rstrip` strips.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}
