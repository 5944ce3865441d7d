//! Pairs of texts as pairs of tokens.

use super::Pair;
use crate::{Result, text::is_space, tokenizer::Tokenizer};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{Kind, train};

    #[test]
    fn spaces_move_to_the_continuation() {
        let text = "the cat sat\non the mat";
        let tokenizer = train(Kind::Character { min_count: 0 }, [Ok(text)]).unwrap();
        let split = |context: &str, continuation: &str| {
            let pair = encode_pair(&tokenizer, context, continuation).unwrap();
            [pair.prompt, pair.answer].map(|ids| tokenizer.decode(&ids, false).unwrap())
        };
        assert_eq!(split("the cat", " sat"), ["the cat", " sat"]);
        assert_eq!(split("the cat ", "sat"), ["the cat", " sat"]);
        assert_eq!(split("the \n ", "mat"), ["the", " \n mat"]);
        assert_eq!(split("", "mat"), ["", "mat"]);
        assert_eq!(split("  ", "mat"), ["", "  mat"]);
        assert_eq!(split("the", ""), ["the", ""]);
    }

    #[test]
    fn the_joint_encoding_is_sliced() {
        let text = "a sat cat sat; a sat mat sat ".repeat(20);
        let tokenizer = train(Kind::Bpe { vocab_size: 290 }, [Ok(text)]).unwrap();
        let ids = |text: &str| tokenizer.encode(text).unwrap();
        assert_eq!(ids(" sat").len(), 1);
        let pair = encode_pair(&tokenizer, "a cat ", "sat").unwrap();
        assert_eq!((pair.prompt, pair.answer), (ids("a cat"), ids(" sat")));
        // One token for both leaves nothing to slice.
        let pair = encode_pair(&tokenizer, " s", "at").unwrap();
        assert_eq!((pair.prompt, pair.answer), (ids(" s"), ids("at")));
    }
}
