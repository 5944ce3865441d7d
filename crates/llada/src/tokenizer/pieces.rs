//! The bytes behind the names of tokens that hold parts of characters.

/// The bytes of a piece of byte-level BPE, where every byte is spelt as one character: printable ones
/// of Latin-1 as themselves, the others, in their order, as the characters from U+0100 on (GPT-2).
pub(super) fn byte_level(piece: &str) -> Option<Vec<u8>> {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = || (0..=u8::MAX).filter(|&byte| !is_itself(byte));
    let byte = |c: char| match u8::try_from(c) {
        Ok(byte) => is_itself(byte).then_some(byte),
        Err(_) => others().nth((c as usize).checked_sub(0x100)?),
    };
    piece.chars().map(byte).collect()
}

/// The byte of a piece such as `<0xE7>`, which stands for characters that have no piece (Llama 2).
pub(super) fn byte_fallback(piece: &str) -> Option<Vec<u8>> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    Some(vec![u8::from_str_radix(digits, 16).ok().filter(|_| is_byte)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_character() {
        let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        let mut found: Vec<u8> =
            alphabet.iter().map(|c| byte_level(&c.to_string()).unwrap()[0]).collect();
        found.sort_unstable();
        assert!(found.into_iter().eq(0..=u8::MAX));
        assert_eq!(byte_level("ĠGrÃ¶ÃŁe").unwrap(), " Größe".as_bytes());
        assert_eq!(byte_level("çİĭ").unwrap(), "王".as_bytes());
        assert_eq!((byte_level("王"), byte_level(" ")), (None, None));
    }

    #[test]
    fn single_bytes_have_names() {
        assert_eq!(byte_fallback("<0xE7>"), Some(vec![0xe7]));
        for piece in ["<0xE>", "<0xE77>", "<0x+7>", "0xE7", "<0xG0>"] {
            assert_eq!(byte_fallback(piece), None, "{piece}");
        }
    }
}
