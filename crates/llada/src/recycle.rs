//! Memory of vectors that is reused from one pass to the next.

/// An empty vector with the memory of `used`: what it will hold may live shorter than what it held, as
/// where it holds references to what one pass works on.
pub(crate) fn recycled<A, B>(mut used: Vec<A>) -> Vec<B> {
    used.clear();
    // A map of a vector in place, as types of one size allow.
    used.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_stays() {
        let words = vec!["a"; 9];
        let place = words.as_ptr();
        let mut again: Vec<&str> = recycled(words);
        assert!(again.is_empty() && again.capacity() >= 9);
        again.push("b");
        assert_eq!(again.as_ptr(), place);
    }
}
