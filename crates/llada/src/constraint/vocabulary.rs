//! The tokens of a model by their bytes.

use super::{ConstraintError, dfa};
use crate::{config::SpecialTokens, tokenizer::Tokenizer};

/// The tokens that texts are made of, and those that end them.
#[derive(Debug)]
pub struct Vocabulary {
    /// By id; without bytes where a token has no part in texts.
    bytes: Vec<Box<[u8]>>,
    /// Ids of tokens with bytes, in the order of these.
    sorted: Vec<u32>,
    ends: Vec<u32>,
    trie: Trie,
}

impl Vocabulary {
    /// That of a tokenizer. Special tokens have no part in texts; EOS and EoT end them.
    ///
    /// # Errors
    /// If a text is not what its tokens are, put together.
    pub fn new(tokenizer: &Tokenizer, special: &SpecialTokens) -> Result<Self, ConstraintError> {
        let own = [special.mask, special.eos, special.eot, special.bos, special.pad];
        let has_text = |id: u32| !own.contains(&Some(id)) && tokenizer.plain(id).is_some();
        let bytes: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32)
            .map(|id| match has_text(id) {
                true => tokenizer.token_bytes(id).unwrap_or_default(),
                false => Vec::new(),
            })
            .collect();
        // Pieces of characters would be joined with their neighbours.
        let is_whole = |&id: &u32| {
            let bytes = &bytes[id as usize];
            !bytes.is_empty() && str::from_utf8(bytes).is_ok()
        };
        let whole: Vec<u32> = (0..bytes.len() as u32).filter(is_whole).collect();
        let joined: Vec<u8> = whole.iter().flat_map(|&id| bytes[id as usize].clone()).collect();
        let text = tokenizer.decode(&whole, true).map_err(|_| ConstraintError::Tokenizer)?;
        if text.as_bytes() != joined {
            return Err(ConstraintError::Tokenizer);
        }
        let mut ends: Vec<u32> = special.eos.into_iter().chain(special.eot).collect();
        ends.dedup();
        Ok(Self::of(bytes, ends))
    }

    /// That of tokens with these `bytes`, by id, of which `ends` end a text. A token without bytes has no part
    /// in texts.
    pub fn of(bytes: Vec<Vec<u8>>, ends: Vec<u32>) -> Self {
        let bytes: Vec<Box<[u8]>> = bytes.into_iter().map(Vec::into_boxed_slice).collect();
        let is_text = |&id: &u32| !bytes[id as usize].is_empty() && !ends.contains(&id);
        let mut sorted: Vec<u32> = (0..bytes.len() as u32).filter(is_text).collect();
        sorted.sort_by(|&a, &b| bytes[a as usize].cmp(&bytes[b as usize]).then(a.cmp(&b)));
        let trie = Trie::of(sorted.iter().map(|&id| &*bytes[id as usize]));
        Self { bytes, sorted, ends, trie }
    }

    /// The bytes of a token; none where it has no part in texts.
    pub(super) fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], |bytes| bytes)
    }

    /// Number of ids.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The ids of tokens with bytes, in the order of these.
    pub(super) fn sorted(&self) -> &[u32] {
        &self.sorted
    }

    /// The tokens that end a text.
    pub(super) fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The tokens of [`sorted`](Self::sorted) by their bytes.
    pub(super) fn trie(&self) -> &Trie {
        &self.trie
    }
}

/// Words by their bytes, as one array in which every node is followed by those below it.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<TrieNode>,
    deepest: usize,
}

#[derive(Debug, Clone, Copy)]
struct TrieNode {
    byte: u8,
    /// Bytes up to here.
    depth: u32,
    /// The first node that is not below.
    after: u32,
    /// Words before those that end here.
    words: u32,
}

impl Trie {
    /// Of words in ascending order, none of them empty.
    pub(super) fn of<'w>(words: impl Iterator<Item = &'w [u8]>) -> Self {
        let mut nodes: Vec<TrieNode> = Vec::new();
        let mut path: Vec<usize> = Vec::new();
        let (mut last, mut count, mut deepest): (&[u8], u32, usize) = (&[], 0, 0);
        for word in words {
            let shared = word.iter().zip(last).take_while(|(a, b)| a == b).count();
            let after = nodes.len() as u32;
            path.drain(shared..).for_each(|node| nodes[node].after = after);
            for (depth, &byte) in word.iter().enumerate().skip(shared) {
                path.push(nodes.len());
                nodes.push(TrieNode { byte, depth: depth as u32 + 1, after: 0, words: count });
            }
            deepest = deepest.max(word.len());
            (last, count) = (word, count + 1);
        }
        let after = nodes.len() as u32;
        path.drain(..).for_each(|node| nodes[node].after = after);
        // Words of a node are those before the next one's.
        nodes.push(TrieNode { byte: 0, depth: 0, after, words: count });
        Self { nodes, deepest }
    }

    /// Calls `visit` with the number of each word that leads on from `state`, and the state that it leads to;
    /// gives how many nodes were looked at.
    pub(super) fn walk(
        &self,
        dfa: &dfa::Dfa,
        state: u32,
        mut visit: impl FnMut(u32, u32),
    ) -> usize {
        let mut states = vec![state; self.deepest + 1];
        let (mut at, mut looked_at, end) = (0, 0, self.nodes.len() - 1);
        while at < end {
            let node = self.nodes[at];
            looked_at += 1;
            let to = dfa.step(states[node.depth as usize - 1], node.byte);
            if to == dfa::DEAD {
                at = node.after as usize;
                continue;
            }
            states[node.depth as usize] = to;
            at += 1;
            (node.words..self.nodes[at].words).for_each(|word| visit(word, to));
        }
        looked_at
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{nfa::Nfa, pattern},
        *,
    };

    #[test]
    fn the_words_that_lead_on_are_found() {
        let words = ["a", "ab", "ab", "abc", "b", "ba", "日"];
        let trie = Trie::of(words.iter().map(|word| word.as_bytes()));
        let dfa = dfa::Dfa::of(&Nfa::of(&pattern::whole("ab*(日c)?").unwrap()).unwrap()).unwrap();
        let mut found = Vec::new();
        trie.walk(&dfa, dfa.start(), |word, _| found.push(words[word as usize]));
        assert_eq!(found, ["a", "ab", "ab"]);
        let after = dfa.walk(dfa.start(), b"a");
        found.clear();
        trie.walk(&dfa, after, |word, to| {
            assert!(dfa.accepts(to) == (word == 4), "{word}");
            found.push(words[word as usize]);
        });
        assert_eq!(found, ["b", "日"]);
        assert_eq!(Trie::of(std::iter::empty()).walk(&dfa, dfa.start(), |_, _| ()), 0);
    }
}
